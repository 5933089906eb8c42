//! Answers that come piece by piece: what is held until their end.

use std::sync::Mutex;

use futures_util::StreamExt;
use protocol::invocation::{Body, BodyStream};
use protocol::peer::{ReplyHead, ReplyOutcome, StreamHead};

use super::serving::head;
use super::*;

fn piece() -> Result<Bytes, Failure> {
    Ok(Bytes::from_static(b"piece"))
}

fn broke() -> Failure {
    Failure::new(
        ErrorCode::Interrupted,
        Component::Function,
        Effect::Interrupted,
        "it broke",
    )
}

fn stream(body: Body) -> BodyStream {
    match body {
        Body::Stream(stream) => stream,
        Body::Whole(body) => panic!("it came whole: {body:?}"),
    }
}

fn free_slots(node: &TestNode, key: InstanceKey) -> u32 {
    let pools = node.running.control.invoker.parts.pools.get();
    pools.get(key).unwrap().free_slots()
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_held_until_the_end_of_the_stream() {
    let node = TestNode::start().await;
    let key = node.register("echo", json!({"scaling": {"max": 1}})).await;
    let invoker = &node.running.control.invoker;
    let pieces = node.provider.stream_next_run();
    let first = invoker.invoke(node.request("echo", "")).await.unwrap();
    let mut body = stream(first.reply.body);
    pieces.send(piece()).unwrap();
    assert_eq!(body.next().await, Some(piece()));
    assert_eq!(
        (invoker.parts.in_flight.count(), free_slots(&node, key)),
        (1, 0)
    );

    let waiting = invoker.invoke(node.request("echo", "second"));
    let ending = async {
        until("the second call waits", || {
            invoker.parts.in_flight.count() == 2
        })
        .await;
        drop(pieces);
        assert_eq!(body.next().await, None);
    };
    let (second, ()) = tokio::join!(waiting, ending);
    assert_eq!(second.unwrap().reply.body.whole(), "second");
    assert_eq!(invoker.parts.in_flight.count(), 0);
    let counts = node.provider.counts();
    assert_eq!(
        (counts.starts, counts.stops),
        (1, 0),
        "on the same instance"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_or_breaks_costs_the_instance() {
    for is_dropped in [true, false] {
        let node = TestNode::start().await;
        let key = node
            .register("echo", json!({"delivery": {"idempotent": true}}))
            .await;
        let invoker = &node.running.control.invoker;
        let pieces = node.provider.stream_next_run();
        let completed = invoker.invoke(node.request("echo", "")).await.unwrap();
        let mut body = stream(completed.reply.body);
        if is_dropped {
            drop(body);
            assert!(pieces.is_closed(), "the run is cancelled");
        } else {
            pieces.send(Err(broke())).unwrap();
            let failure = body.next().await.unwrap().unwrap_err();
            assert_eq!(failure.node.as_deref(), Some("n1"), "where it broke");
            assert_eq!(body.next().await, None);
        }
        assert_eq!(invoker.parts.in_flight.count(), 0);
        until("the instance is stopped", || {
            node.provider.counts().stops == 1
        })
        .await;
        assert_eq!(free_slots(&node, key), 0);
        assert_eq!(
            node.provider.counts().invocations,
            1,
            "nothing is tried again"
        );
    }
}

/// A peer that answers with what is sent.
fn streaming_peer() -> (
    PeerStep,
    tokio::sync::mpsc::UnboundedSender<Result<Bytes, Failure>>,
) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let step = PeerStep::Stream(Arc::new(move |_| {
        let outcome = ReplyOutcome::Replied {
            status: 200,
            content_type: None,
            headers: Vec::new(),
            start: StartKind::Warm,
            ended: None,
        };
        let head = ReplyHead {
            outcome,
            free_slots: 0,
            instances: 1,
            phases: Phases::default(),
            stream: Some(StreamHead {
                length: None,
                remaining_ms: 1_000,
            }),
        };
        let pieces = receiver.lock().unwrap().take().expect("it is asked once");
        let pieces = futures_util::stream::unfold(pieces, |mut pieces| async move {
            let piece: Result<Bytes, Failure> = pieces.recv().await?;
            Some((piece, pieces))
        });
        let deadline = Deadline::at((Instant::now() + Duration::from_secs(1)).into_std());
        (head, BodyStream::new(None, deadline, pieces))
    }));
    (step, sender)
}

#[tokio::test(start_paused = true)]
async fn a_peer_has_a_call_in_flight_until_the_end_of_its_stream() {
    let node = TestNode::start().await;
    let key = node
        .register("echo", json!({"delivery": {"idempotent": true}}))
        .await;
    node.hear([full("n2", &[(key, 1, 1)])]).await;
    let (step, pieces) = streaming_peer();
    node.peers.script(&node_id("n2"), [step]);
    let invoker = &node.running.control.invoker;
    let completed = invoker.invoke(node.request("echo", "")).await.unwrap();
    assert!(completed.is_forwarded);
    let mut body = stream(completed.reply.body);
    let peer = Arc::clone(&invoker.parts.routes.load().peers[&node_id("n2")]);
    assert_eq!(
        (peer.health.in_flight(), invoker.parts.in_flight.count()),
        (1, 1)
    );
    pieces.send(piece()).unwrap();
    pieces.send(Err(broke().at_node("n2"))).unwrap();
    assert_eq!(body.next().await, Some(piece()));
    let failure = body.next().await.unwrap().unwrap_err();
    assert_eq!(failure.node.as_deref(), Some("n2"));
    assert_eq!(
        (peer.health.in_flight(), invoker.parts.in_flight.count()),
        (0, 0)
    );
    assert_eq!(node.peers.calls().len(), 1, "nothing is tried again");
}

#[tokio::test(start_paused = true)]
async fn the_other_end_of_the_hop_says_that_it_streams_and_for_how_long() {
    let node = TestNode::start().await;
    let key = node.register("echo", json!({})).await;
    let invoker = &node.running.control.invoker;
    let pieces = node.provider.stream_next_run();
    let forwarded = head(&node, key, true);
    let (reply, body) = invoker.serve(forwarded, Bytes::new()).await;
    let told = reply.stream.expect("it streams");
    assert_eq!(told.length, None);
    assert!((1..=60_000).contains(&told.remaining_ms), "{told:?}");
    assert_eq!(
        (reply.free_slots, reply.instances),
        (0, 1),
        "its slot is in use"
    );
    assert_eq!(invoker.parts.in_flight.count(), 1);
    drop((body, reply));
    assert!(pieces.is_closed());
    assert_eq!(invoker.parts.in_flight.count(), 0);
}
