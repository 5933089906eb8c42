//! Nothing accepted is lost, nothing ends twice, and nothing is delivered that was not accepted, whatever is done to the nodes.
//! A short run of the scenarios of `make chaos`.

#![expect(
    clippy::print_stdout,
    reason = "whoever looks into a failure needs the seed"
)]

use std::time::{SystemTime, UNIX_EPOCH};

use cluster_tests::history::{Report, Size, run, scenario};
use futures_util::future::join_all;

/// Runs scenarios side by side: they need no quiet machine, and a busy one finds more.
async fn check<const N: usize>(names: [&str; N]) {
    let seed = seed();
    println!("{names:?}: HEARTH_TEST_SEED={seed} decides the same again");
    let outcomes = names.map(|name| async move {
        let scenario = scenario::named(name).expect("the table has it");
        run(&scenario, Size::SHORT, seed).await
    });
    let mut report = Report::default();
    for outcome in join_all(outcomes).await {
        report.add(outcome.name, seed, Ok(outcome));
    }
    println!("{report}");
    assert!(report.is_kept(), "a promise was broken:\n{report}");
}

/// What decides the run, another one each time unless it is asked for.
fn seed() -> u64 {
    let asked = std::env::var("HEARTH_TEST_SEED");
    asked.map_or_else(
        |_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("the clock is later than 1970").as_secs()
        },
        |seed| seed.parse().expect("HEARTH_TEST_SEED is a number"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_keep_on_disk_is_delivered() {
    check([
        "embedded-kill-one",
        "embedded-kill-all",
        "embedded-full-disk",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_etcd_is_delivered() {
    check(["etcd-kill-one", "etcd-stop", "etcd-kill-store"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_nats_is_delivered() {
    check(["jetstream-kill-one", "jetstream-kill-store"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_three_nats_servers_is_delivered() {
    check(["jetstream-replicas"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_loses_nothing() {
    check(["embedded-cut", "etcd-cut"]).await;
}
