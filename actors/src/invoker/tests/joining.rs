//! A node that runs nothing itself and has just started: gossip may not have told it of its peers yet.

use futures_util::FutureExt;

use super::*;

/// A node that can not run anything itself and knows where its cluster is to be found.
async fn joining_node() -> TestNode {
    let provider = FakeProvider::new(Generation(2));
    provider.go_away();
    let seeds = vec!["127.0.0.1:7400".to_owned()];
    let node = TestNode::start_on(provider, |settings| settings.cluster.seeds = seeds).await;
    node.register("echo", json!({})).await;
    node
}

async fn call(node: &TestNode) -> Outcome {
    let request = node.request("echo", "");
    node.running.control.invoker.invoke(request).await
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_served_as_soon_as_a_peer_is_heard() {
    let node = joining_node().await;
    node.peers
        .script(&node_id("n2"), [PeerStep::reply("from n2")]);
    let heard = async {
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        // One that can run nothing either changes nothing.
        let useless = member("n3", &[]);
        let useless = Member {
            state: LocalState {
                allows_processes: false,
                ..useless.state.clone()
            },
            ..useless
        };
        node.hear([useless.clone()]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        node.hear([useless, member("n2", &[])]).await;
    };
    let (outcome, ()) = tokio::join!(call(&node), heard);
    assert_eq!(&*outcome.unwrap().node, "n2");
    assert_eq!(peers_asked(&node), ["n2"]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_told_when_no_peer_comes_and_later_ones_at_once() {
    let node = joining_node().await;
    let begun = Instant::now();
    let failed = call(&node).await.expect_err("nobody can run it");
    assert_eq!(failed.phases.route, None, "it went nowhere");
    assert_eq!(
        (failed.failure.code, failed.failure.effect),
        (ErrorCode::EngineUnavailable, Effect::Refused)
    );
    assert!(begun.elapsed() <= Duration::from_secs(3));
    let told = call(&node).now_or_never().expect("nobody is waited for");
    assert_eq!(failure(told).code, ErrorCode::EngineUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_seeds_waits_for_nobody() {
    let node = node_without_provider().await;
    node.register("echo", json!({})).await;
    let told = call(&node).now_or_never().expect("nobody is waited for");
    assert_eq!(failure(told).code, ErrorCode::EngineUnavailable);
}
