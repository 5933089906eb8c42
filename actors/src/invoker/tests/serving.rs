//! The other end of the hop.

use protocol::peer::{InvokeHead, ReplyHead, ReplyOutcome};

use super::*;

pub(super) fn head(node: &TestNode, key: InstanceKey, may_start: bool) -> InvokeHead {
    let request = node.request("echo", "");
    InvokeHead {
        invocation: request.id,
        space: request.space,
        function_id: request.function_id,
        version: None,
        instance_key: key,
        from: node_id("n2"),
        remaining_ms: 60_000,
        content_type: String::new(),
        call: None,
        may_start,
        trace: TraceContext::default(),
    }
}

fn refused(reply: &ReplyHead) -> Failure {
    match &reply.outcome {
        ReplyOutcome::Failed(failure) if failure.effect == Effect::Refused => failure.clone(),
        other => panic!("it should have been refused: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_call_is_served_or_refused_and_says_what_is_free() {
    let node = TestNode::start().await;
    let key = node.register("echo", json!({"scaling": {"max": 1}})).await;
    let invoker = &node.running.control.invoker;
    let (reply, _) = invoker.serve(head(&node, key, false), Bytes::new()).await;
    assert_eq!(
        refused(&reply).code,
        ErrorCode::FunctionBusy,
        "it may not start an instance"
    );
    assert_eq!(node.provider.counts().starts, 0);
    let (reply, body) = invoker
        .serve(head(&node, key, true), Bytes::from_static(b"payload"))
        .await;
    assert!(matches!(
        reply.outcome,
        ReplyOutcome::Replied {
            start: StartKind::Cold,
            ..
        }
    ));
    assert_eq!(
        (&body.whole()[..], reply.free_slots, reply.instances),
        (&b"payload"[..], 1, 1)
    );

    node.provider.hold_runs();
    let holding = invoker.serve(head(&node, key, false), Bytes::new());
    let meanwhile = async {
        until("the slot is taken", || {
            node.provider.counts().in_flight == 1
        })
        .await;
        let (reply, _) = invoker.serve(head(&node, key, false), Bytes::new()).await;
        assert_eq!(
            (refused(&reply).code, reply.free_slots),
            (ErrorCode::FunctionBusy, 0)
        );
        node.provider.release_runs();
    };
    tokio::join!(holding, meanwhile);
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_call_of_another_version_or_to_a_draining_node_is_refused() {
    let node = TestNode::start().await;
    let key = node.register("echo", json!({})).await;
    let invoker = &node.running.control.invoker;
    let other = InstanceKey::hash([b"another version".as_slice()]);
    let (reply, _) = invoker.serve(head(&node, other, true), Bytes::new()).await;
    assert_eq!(refused(&reply).code, ErrorCode::Conflict);
    node.running.handle.begin_drain();
    let (reply, _) = invoker.serve(head(&node, key, true), Bytes::new()).await;
    assert_eq!(
        (refused(&reply).code, refused(&reply).node.as_deref()),
        (ErrorCode::Draining, Some("n1"))
    );
    assert_eq!(node.provider.counts().starts, 0);
}

#[tokio::test(start_paused = true)]
async fn any_deadline_of_a_peer_is_taken() {
    let node = TestNode::start().await;
    let key = node
        .register("echo", json!({"limits": {"timeoutMs": 86_400_000}}))
        .await;
    let invoker = &node.running.control.invoker;
    for remaining_ms in [u64::MAX, 0, 1] {
        let head = InvokeHead {
            remaining_ms,
            ..head(&node, key, true)
        };
        let (reply, _) = invoker.serve(head, Bytes::new()).await;
        let is_served = matches!(reply.outcome, ReplyOutcome::Replied { .. });
        assert!(is_served || refused(&reply).code == ErrorCode::FunctionBusy);
    }
}
