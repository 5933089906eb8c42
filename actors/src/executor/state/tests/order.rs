//! Who is served first when starts are short.

use super::*;

fn started_key(actions: &[Action]) -> Vec<InstanceKey> {
    let keys = actions.iter().filter_map(|action| match action {
        Action::Start { key, .. } => Some(*key),
        _ => None,
    });
    keys.collect()
}

#[tokio::test(start_paused = true)]
async fn a_start_permit_goes_to_who_waits_longest() {
    let first = registered("first", &json!({}));
    let mut others = ["a", "b", "c", "d"].map(|id| registered(id, &json!({})));
    // Against the order of the keys, which says nothing of who came when.
    others.sort_by_key(|of| std::cmp::Reverse(of.key));
    let known: Vec<_> = others.iter().chain([&first]).collect();
    let mut bench = Bench::new(&known);
    bench.state.means.settings.starts_max = 1;
    bench.wait(&first, 1).await;
    let mut start = only(bench.attend(&first, &NOT_HOME));
    for of in &others {
        tokio::time::advance(Duration::from_millis(1)).await;
        bench.wait(of, 1).await;
        assert!(bench.attend(of, &NOT_HOME).is_empty(), "no permit is left");
    }
    for of in &others {
        let actions = bench.started(start, Ok(()));
        assert_eq!(started_key(&actions), [of.key]);
        start = only(actions);
    }
}

#[tokio::test(start_paused = true)]
async fn of_pools_that_ask_at_once_the_one_where_somebody_waits_longest_starts() {
    for first_waits in [true, false] {
        let of = ["a", "b"].map(|id| registered(id, &json!({})));
        let mut bench = Bench::new(&of.iter().collect::<Vec<_>>());
        bench.state.means.settings.starts_max = 1;
        let (early, late) = if first_waits { (0, 1) } else { (1, 0) };
        bench.wait(&of[early], 1).await;
        tokio::time::advance(Duration::from_millis(1)).await;
        bench.wait(&of[late], 1).await;
        let keys = of.iter().map(|of| of.key).collect();
        let actions = bench.state.on_attentions(keys, bench.now, &NOT_HOME);
        assert_eq!(started_key(&actions), [of[early].key]);
    }
}
