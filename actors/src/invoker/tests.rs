use std::time::Duration;

use cluster::membership::{LocalState, Member};
use cluster::peer::scripted::Step as PeerStep;
use protocol::{Generation, InstanceKey};
use providers::Error as ProviderError;
use providers::fake::FakeProvider;
use serde_json::json;

use super::*;
use crate::fixtures::{TestNode, member, node_id, until};

mod joining;
mod serving;
mod streams;

type Outcome = Result<Completed, Box<Failed>>;

fn peers_asked(node: &TestNode) -> Vec<String> {
    node.peers
        .calls()
        .iter()
        .map(|call| call.peer.to_string())
        .collect()
}

fn failure(outcome: Outcome) -> Failure {
    outcome.expect_err("it should have failed").failure
}

/// A peer that has no room for a start, so that it is asked only for what it has.
fn full(name: &str, hints: &[(InstanceKey, u32, u32)]) -> Member {
    let member = member(name, hints);
    let load = cluster::membership::Load {
        instances: 100,
        ..member.state.load
    };
    Member {
        state: LocalState {
            load,
            ..member.state.clone()
        },
        ..member
    }
}

fn busy() -> PeerStep {
    PeerStep::fail(refusal(
        ErrorCode::FunctionBusy,
        Component::Function,
        "busy",
    ))
}

/// A node that can not run anything itself.
async fn node_without_provider() -> TestNode {
    let provider = FakeProvider::new(Generation(2));
    provider.go_away();
    TestNode::start_on(provider, |_| {}).await
}

#[tokio::test(start_paused = true)]
async fn a_cold_call_starts_an_instance_and_the_next_finds_it_warm() {
    let node = TestNode::start().await;
    node.provider.delay_starts(Duration::from_millis(200));
    node.register("echo", json!({})).await;
    let invoker = &node.running.control.invoker;
    let cold = invoker.invoke(node.request("echo", "one")).await.unwrap();
    assert_eq!(
        (cold.start, &cold.reply.body.whole()[..], &*cold.node),
        (StartKind::Cold, &b"one"[..], "n1")
    );
    assert_eq!(cold.phases.start, Some(200_000));
    let warm = invoker.invoke(node.request("echo", "two")).await.unwrap();
    assert_eq!((warm.start, warm.is_forwarded), (StartKind::Warm, false));
    assert_eq!(node.provider.counts().starts, 1);
}

#[tokio::test(start_paused = true)]
async fn fifty_first_calls_share_one_start() {
    let node = TestNode::start().await;
    node.provider.delay_starts(Duration::from_millis(200));
    node.register("echo", json!({"limits": {"concurrency": 50}}))
        .await;
    let invoker = &node.running.control.invoker;
    let calls = (0..50).map(|_| invoker.invoke(node.request("echo", "one")));
    let outcomes = futures_util::future::join_all(calls).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(node.provider.counts().starts, 1);
    assert_eq!(invoker.parts.in_flight.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_here_beats_one_of_a_peer() {
    let node = TestNode::start().await;
    let key = node.register("echo", json!({})).await;
    let invoker = &node.running.control.invoker;
    invoker.invoke(node.request("echo", "one")).await.unwrap();
    node.hear([member("n2", &[(key, 9, 9)])]).await;
    let warm = invoker.invoke(node.request("echo", "two")).await.unwrap();
    assert!(!warm.is_forwarded);
    assert!(peers_asked(&node).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_of_a_peer_beats_a_start_here() {
    let node = TestNode::start().await;
    let key = node.register("echo", json!({})).await;
    node.hear([member("n2", &[(key, 1, 1)])]).await;
    node.peers
        .script(&node_id("n2"), [PeerStep::reply("from n2")]);
    let outcome = node
        .running
        .control
        .invoker
        .invoke(node.request("echo", "one"))
        .await
        .unwrap();
    assert_eq!(
        (
            &outcome.reply.body.whole()[..],
            outcome.is_forwarded,
            &*outcome.node
        ),
        (&b"from n2"[..], true, "n2")
    );
    assert_eq!(node.provider.counts().starts, 0);
    let call = node.peers.calls().remove(0);
    assert!(!call.head.may_start, "it may only take the free slot");
    // The reply says that no slot is left there.
    node.running
        .control
        .invoker
        .invoke(node.request("echo", "two"))
        .await
        .unwrap();
    assert_eq!(
        node.provider.counts().starts + u32::from(node.peers.calls().len() > 1),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_two_others_are_asked_and_then_this_node_serves() {
    let node = TestNode::start().await;
    let key = node.register("echo", json!({})).await;
    let names = ["n2", "n3", "n4", "n5", "n6"];
    node.hear(names.map(|name| full(name, &[(key, 1, 1)])))
        .await;
    for name in names {
        node.peers.script(&node_id(name), [busy()]);
    }
    let outcome = node
        .running
        .control
        .invoker
        .invoke(node.request("echo", "one"))
        .await
        .unwrap();
    assert!(!outcome.is_forwarded);
    let mut asked = peers_asked(&node);
    assert_eq!(asked.len(), 3, "the first and two others");
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 3, "nobody is asked twice");
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_free_slot_was_gone_is_asked_for_its_queue_when_nobody_else_is_left() {
    let node = node_without_provider().await;
    let key = node.register("echo", json!({})).await;
    node.hear([member("n2", &[(key, 1, 1)])]).await;
    node.peers
        .script(&node_id("n2"), [busy(), PeerStep::reply("from n2")]);
    let invoker = &node.running.control.invoker;
    let outcome = invoker.invoke(node.request("echo", "one")).await.unwrap();
    assert_eq!(&outcome.reply.body.whole()[..], b"from n2");
    let asked: Vec<_> = (node.peers.calls().iter())
        .map(|call| call.head.may_start)
        .collect();
    assert_eq!(asked, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn what_the_last_peer_said_is_told_when_nobody_is_left() {
    let node = node_without_provider().await;
    let key = node.register("echo", json!({})).await;
    node.hear([full("n2", &[(key, 1, 1)])]).await;
    node.peers.script(&node_id("n2"), [busy(), busy()]);
    let told = failure(
        node.running
            .control
            .invoker
            .invoke(node.request("echo", "one"))
            .await,
    );
    assert_eq!(
        (told.code, told.effect, told.node.as_deref()),
        (ErrorCode::FunctionBusy, Effect::Refused, Some("n2"))
    );
}

#[tokio::test(start_paused = true)]
async fn only_a_peer_that_can_not_be_reached_is_left_alone() {
    let check = async |step: PeerStep, is_usable: bool| {
        let node = TestNode::start().await;
        let key = node.register("echo", json!({})).await;
        node.hear([full("n2", &[(key, 1, 1)])]).await;
        node.peers.script(&node_id("n2"), [step]);
        node.running
            .control
            .invoker
            .invoke(node.request("echo", "one"))
            .await
            .unwrap();
        let routes = node.running.control.invoker.parts.routes.load();
        assert_eq!(routes.peers[&node_id("n2")].is_usable(), is_usable);
        assert_eq!(routes.peers[&node_id("n2")].health.in_flight(), 0);
    };
    check(PeerStep::Refuse, false).await;
    check(PeerStep::Decline, true).await;
    check(busy(), true).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_call_is_made_again_only_when_the_function_is_idempotent() {
    let node = TestNode::start().await;
    let once = node.register("once", json!({})).await;
    let again = node
        .register("again", json!({"delivery": {"idempotent": true}}))
        .await;
    node.hear([full("n2", &[(once, 1, 1), (again, 1, 1)])])
        .await;
    node.peers.script(&node_id("n2"), [PeerStep::Interrupt]);
    let invoker = &node.running.control.invoker;
    let told = failure(invoker.invoke(node.request("once", "")).await);
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::Interrupted, Effect::Interrupted)
    );
    assert_eq!(node.provider.counts().starts, 0);
    assert!(invoker.invoke(node.request("again", "")).await.is_ok());
    assert_eq!(peers_asked(&node).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_interruption_does_not_hide_it() {
    let node = TestNode::start().await;
    let key = node
        .register("echo", json!({"delivery": {"idempotent": true}}))
        .await;
    node.hear([full("n2", &[(key, 1, 1)])]).await;
    node.peers.script(&node_id("n2"), [PeerStep::Interrupt]);
    node.provider.fail_next_start(ProviderError::StartFailed {
        why: "exit code 1".into(),
    });
    let told = failure(
        node.running
            .control
            .invoker
            .invoke(node.request("echo", ""))
            .await,
    );
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::StartFailed, Effect::Interrupted)
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_died_is_replaced_for_a_call_that_had_not_reached_it() {
    let node = TestNode::start().await;
    node.register("echo", json!({"scaling": {"max": 10}})).await;
    let invoker = &node.running.control.invoker;
    node.provider.delay_runs(Duration::from_millis(50));
    let calls = (0..8).map(|_| invoker.invoke(node.request("echo", "")));
    futures_util::future::join_all(calls).await;
    let starts = node.provider.counts().starts;
    for _ in 0..starts {
        node.provider.fail_next_run(ProviderError::Unreachable {
            why: "gone".into(),
            retry_after_ms: None,
        });
    }
    assert!(starts > 3 && invoker.invoke(node.request("echo", "")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_function_that_died_of_a_call_is_not_run_again_and_its_instance_is_recycled() {
    let node = TestNode::start().await;
    node.register("echo", json!({"delivery": {"idempotent": true}}))
        .await;
    let invoker = &node.running.control.invoker;
    invoker.invoke(node.request("echo", "")).await.unwrap();
    let first = node.provider.up();
    node.provider.fail_next_run(ProviderError::Died {
        why: "exit code 1".into(),
    });
    let told = failure(invoker.invoke(node.request("echo", "")).await);
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::FunctionFailed, Effect::Finished)
    );
    assert_eq!(node.provider.counts().invocations, 2);
    invoker.invoke(node.request("echo", "")).await.unwrap();
    assert_ne!(node.provider.up(), first);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_run_here_recycles_its_instance() {
    let node = TestNode::start().await;
    node.register("echo", json!({})).await;
    let invoker = &node.running.control.invoker;
    invoker.invoke(node.request("echo", "")).await.unwrap();
    let first = node.provider.up();
    node.provider.fail_next_run(ProviderError::Interrupted {
        why: "reset".into(),
    });
    let told = failure(invoker.invoke(node.request("echo", "")).await);
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::Interrupted, Effect::Interrupted)
    );
    until("the instance is gone", || node.provider.up().is_empty()).await;
    invoker.invoke(node.request("echo", "")).await.unwrap();
    assert_ne!(node.provider.up(), first);
    node.provider.fail_next_run(ProviderError::Failed {
        answered: None,
        why: "status 500".into(),
    });
    let told = failure(invoker.invoke(node.request("echo", "")).await);
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::FunctionFailed, Effect::Finished)
    );
    assert_eq!(
        invoker
            .invoke(node.request("echo", ""))
            .await
            .unwrap()
            .start,
        StartKind::Warm
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_costs_an_instance_only_once_it_had_the_payload() {
    let node = TestNode::start().await;
    node.provider.delay_starts(Duration::from_secs(1));
    node.register("echo", json!({})).await;
    let invoker = &node.running.control.invoker;
    let call = invoker.invoke(node.request("echo", ""));
    assert!(
        tokio::time::timeout(Duration::from_millis(500), call)
            .await
            .is_err()
    );
    until("the instance is up all the same", || {
        !node.provider.up().is_empty()
    })
    .await;
    assert_eq!(
        invoker
            .invoke(node.request("echo", ""))
            .await
            .unwrap()
            .start,
        StartKind::Warm
    );
    let first = node.provider.up();
    node.provider.hold_runs();
    let call = invoker.invoke(node.request("echo", ""));
    assert!(
        tokio::time::timeout(Duration::from_millis(500), call)
            .await
            .is_err()
    );
    until("the instance is recycled", || node.provider.up() != first).await;
    node.provider.release_runs();
    assert!(invoker.invoke(node.request("echo", "")).await.is_ok());
    assert_eq!(invoker.parts.in_flight.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_leaves_the_function_its_whole_time_limit() {
    let node =
        TestNode::start_with(|settings| settings.node.start_timeout = Duration::from_secs(3)).await;
    node.register(
        "echo",
        json!({"limits": {"timeoutMs": 60_000}, "scaling": {"max": 1}}),
    )
    .await;
    let invoker = &node.running.control.invoker;
    node.provider.delay_runs(Duration::from_secs(30));
    let begun = Instant::now();
    let (first, second) = tokio::join!(
        invoker.invoke(node.request("echo", "")),
        invoker.invoke(node.request("echo", ""))
    );
    assert_ne!(first.is_ok(), second.is_ok(), "one ran for half a minute");
    let told = failure(if first.is_err() { first } else { second });
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::FunctionBusy, Effect::Refused)
    );
    assert!(begun.elapsed() < Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_costs_no_more_than_the_deadline() {
    let node =
        TestNode::start_with(|settings| settings.node.start_timeout = Duration::from_secs(2)).await;
    let key = node
        .register("echo", json!({"limits": {"timeoutMs": 1000}}))
        .await;
    node.hear([full("n2", &[(key, 1, 1)])]).await;
    node.peers.script(&node_id("n2"), [PeerStep::Hang]);
    let begun = Instant::now();
    let told = failure(
        node.running
            .control
            .invoker
            .invoke(node.request("echo", ""))
            .await,
    );
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::DeadlineExceeded, Effect::Interrupted)
    );
    assert_eq!(begun.elapsed().as_millis() / 10, 300);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_told_at_once() {
    let node = TestNode::start().await;
    node.register("echo", json!({})).await;
    node.provider.fail_next_start(ProviderError::StartFailed {
        why: "exit code 1".into(),
    });
    let begun = Instant::now();
    let told = failure(
        node.running
            .control
            .invoker
            .invoke(node.request("echo", ""))
            .await,
    );
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::StartFailed, Effect::Refused)
    );
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_function_is_unknown_only_once_the_functions_are_known() {
    let node = TestNode::start().await;
    node.register("echo", json!({})).await;
    let invoker = &node.running.control.invoker;
    assert_eq!(
        failure(invoker.invoke(node.request("other", "")).await).code,
        ErrorCode::FunctionNotFound
    );
    let empty = crate::snapshot::Publisher::new(Registry::default());
    let loading = Invoker::new(parts_with(invoker, empty.reader()));
    let told = failure(loading.invoke(node.request("echo", "")).await);
    assert_eq!(
        (told.code, told.effect),
        (ErrorCode::StoreUnavailable, Effect::Refused)
    );
}

fn parts_with(invoker: &Invoker, registry: Reader<Registry>) -> Parts {
    let parts = &invoker.parts;
    Parts {
        node_id: parts.node_id.clone(),
        node_name: Arc::clone(&parts.node_name),
        registry,
        pools: parts.pools.clone(),
        routes: parts.routes.clone(),
        launchers: parts.launchers.clone(),
        secrets: parts.secrets.clone(),
        budget: parts.budget.clone(),
        remotes: Remotes::default(),
        client: Arc::clone(&parts.client),
        start_timeout: parts.start_timeout,
        refusals_max: parts.refusals_max,
        pack_until: parts.pack_until,
        quotas: None,
        in_flight: InFlight::default(),
        is_draining: Arc::default(),
        joined_by: None,
        propagate: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_over_the_functions_limit_runs_nowhere() {
    let node = TestNode::start().await;
    node.register("echo", json!({"limits": {"bodyBytes": 4}}))
        .await;
    let invoker = &node.running.control.invoker;
    assert!(invoker.invoke(node.request("echo", "1234")).await.is_ok());
    let told = failure(invoker.invoke(node.request("echo", "12345")).await);
    assert_eq!(told.code, ErrorCode::PayloadTooLarge);
    assert_eq!(node.provider.counts().invocations, 1);
}

#[tokio::test(start_paused = true)]
async fn an_update_while_calls_wait_sends_them_to_the_new_version() {
    let node = TestNode::start().await;
    node.provider.delay_starts(Duration::from_secs(2));
    node.register("echo", json!({})).await;
    let invoker = &node.running.control.invoker;
    let update = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        node.register("echo", json!({"limits": {"memoryMb": 64}}))
            .await
    };
    let (outcome, key) = tokio::join!(invoker.invoke(node.request("echo", "")), update);
    assert!(outcome.is_ok());
    until("the old version is gone", || node.provider.up().len() == 1).await;
    let pools = invoker.parts.pools.get();
    assert_eq!(pools.get(key).unwrap().instances(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_forward_that_is_dropped_is_no_longer_counted() {
    let node = TestNode::start().await;
    let key = node.register("echo", json!({})).await;
    node.hear([full("n2", &[(key, 1, 1)])]).await;
    node.peers.script(&node_id("n2"), [PeerStep::Hang]);
    let invoker = &node.running.control.invoker;
    let call = invoker.invoke(node.request("echo", ""));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), call)
            .await
            .is_err()
    );
    let peer = Arc::clone(&invoker.parts.routes.load().peers[&node_id("n2")]);
    assert_eq!((peer.health.in_flight(), node.peers.dropped()), (0, 1));
    assert_eq!(peer.slots(key).unwrap().free(), 0, "it may still run there");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(peer.slots(key).unwrap().free(), 1);
}
