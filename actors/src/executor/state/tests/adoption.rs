//! What an earlier generation left: adopted, removed, or waited for.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_still_stands_is_adopted_and_all_else_removed() {
    let (of, deleted) = (function(json!({})), registered("deleted", &json!({})));
    let mut bench = Bench::new(&[&of]);
    let unfit = Found {
        is_adoptable: false,
        ..found("unfit", &of, Generation(4))
    };
    let mut actions = bench.list(vec![
        found("warm", &of, Generation(4)),
        unfit,
        found("foreign", &deleted, Generation(4)),
    ]);
    assert_eq!(stopped(&actions), ["unfit", "foreign"]);
    assert!(
        bench
            .list(vec![
                found("warm", &of, Generation(4)),
                found("foreign", &deleted, Generation(4))
            ])
            .is_empty()
    );
    assert!(bench.adopt(actions.remove(0), true).is_empty());
    assert_eq!(
        bench
            .pool(&of)
            .try_checkout()
            .unwrap()
            .instance_id()
            .as_str(),
        "warm"
    );
    assert_eq!(bench.budget.used().instances, 1);
    assert!(
        bench
            .list(vec![found("warm", &of, Generation(4))])
            .is_empty(),
        "it has its seat"
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_are_adopted_than_max() {
    let of = function(json!({"scaling": {"max": 2}}));
    let mut bench = Bench::new(&[&of]);
    let actions = bench.list(
        ["a", "b", "c"]
            .map(|id| found(id, &of, Generation(4)))
            .into(),
    );
    assert_eq!(stopped(&actions), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_can_not_be_adopted_is_replaced_for_those_who_wait() {
    let of = function(json!({}));
    let mut bench = Bench::new(&[&of]);
    let adopt = only(bench.list(vec![found("gone", &of, Generation(4))]));
    bench.wait(&of, 1).await;
    assert!(
        bench.attend(&of, &NOT_HOME).is_empty(),
        "it may be theirs in a moment"
    );
    let actions = bench.adopt(adopt, false);
    assert_eq!(
        (stopped(&actions), starts(&actions)),
        (vec!["gone".to_owned()], 1)
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_before_it_is_known_what_can_be_adopted() {
    let of = function(json!({}));
    let mut bench = Bench::new(&[&of]);
    let before = bench.state.on_listing(Kind::Process);
    bench.wait(&of, 1).await;
    assert!(bench.attend(&of, &NOT_HOME).is_empty());
    bench.state.on_listing_ended(Kind::Process);
    let found = vec![found("warm", &of, Generation(4))];
    let adopt = only(
        bench
            .state
            .on_listed(Kind::Process, found, &before, bench.now, &NOT_HOME),
    );
    assert!(bench.state.on_room(bench.now, &NOT_HOME).is_empty());
    bench.adopt(adopt, true);
    assert_eq!(
        bench
            .waits
            .pop()
            .unwrap()
            .await
            .unwrap()
            .unwrap()
            .instance_id()
            .as_str(),
        "warm"
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_may_be_a_start_under_way_is_left_alone() {
    let of = function(json!({}));
    let mut bench = Bench::new(&[&of]);
    bench.wait(&of, 1).await;
    let start = only(bench.attend(&of, &NOT_HOME));
    assert!(bench.list(vec![found("new", &of, OWN)]).is_empty());
    let adopt = only(bench.list(vec![
        found("new", &of, OWN),
        found("old", &of, Generation(4)),
    ]));
    assert!(matches!(&adopt, Action::Adopt { found, .. } if found.id.as_str() == "old"));
    bench.started(start, Ok(()));
    assert_eq!(
        only(bench.list(vec![found("new", &of, OWN), found("started-1", &of, OWN)])).id(),
        "new",
        "now it is nobody's"
    );
}

impl Action {
    fn id(&self) -> &str {
        match self {
            Self::Stop { id, .. } => id.as_str(),
            Self::Adopt { found, .. } => found.id.as_str(),
            Self::Start { .. } | Self::Forget { .. } | Self::Publish => "",
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_started_while_the_list_was_made_is_not_taken_for_lost() {
    let of = function(json!({}));
    let mut bench = Bench::new(&[&of]);
    bench.wait(&of, 1).await;
    let start = only(bench.attend(&of, &NOT_HOME));
    let before = bench.state.on_listing(Kind::Process);
    bench.started(start, Ok(()));
    assert!(
        bench
            .state
            .on_listed(Kind::Process, Vec::new(), &before, bench.now, &NOT_HOME)
            .is_empty()
    );
    assert_eq!(bench.pool(&of).status().up, 1);
    assert_eq!(
        stopped(&bench.list(Vec::new())),
        ["started-1"],
        "the next list would have it"
    );
}

#[tokio::test(start_paused = true)]
async fn slots_that_an_earlier_generation_left_busy_come_free_after_the_timeout() {
    let of = function(json!({"limits": {"timeoutMs": 5000}}));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("busy");
    Journal::open_file(&path)
        .unwrap()
        .open(&instance_id("warm"))
        .begin();
    let mut bench = Bench::new(&[&of]);
    bench.state.means.journal = Journal::open_file(&path).unwrap();
    let adopt = only(bench.list(vec![found("warm", &of, Generation(4))]));
    bench.adopt(adopt, true);
    bench.wait(&of, 1).await;
    bench.state.on_sweep(Instant::now(), &NOT_HOME);
    assert_eq!(
        bench.pool(&of).status().waiters,
        1,
        "a call of the last generation may still run"
    );
    tokio::time::advance(Duration::from_secs(5)).await;
    bench.state.on_sweep(Instant::now(), &NOT_HOME);
    assert_eq!(
        bench
            .waits
            .pop()
            .unwrap()
            .await
            .unwrap()
            .unwrap()
            .instance_id()
            .as_str(),
        "warm"
    );
}
