//! Answers that come piece by piece.

use protocol::Component;

use super::*;

type Pieces = mpsc::UnboundedSender<Result<Bytes, Failure>>;

/// A call that may stream, and how its answer begins.
async fn call(
    pair: &Pair,
    pieces: Option<mpsc::UnboundedReceiver<Result<Bytes, Failure>>>,
) -> Body {
    *pair.scenario.pieces.lock().unwrap() = pieces;
    let call = Call {
        may_stream: true,
        ..Call::default()
    };
    let head = InvokeHead {
        call: Some(Arc::new(call)),
        ..head()
    };
    let deadline = Deadline::at((Instant::now() + BOUND).into_std());
    let payload = Bytes::from_static(b"hello");
    let outcome = pair
        .client
        .invoke(&pair.peer, head, payload, deadline)
        .await;
    let (head, body) = outcome.unwrap();
    assert_eq!((head.free_slots, head.instances), (3, 2));
    body
}

/// A call that is answered with what the sender is given.
async fn streaming(pair: &Pair) -> (Pieces, BodyStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    match call(pair, Some(receiver)).await {
        Body::Stream(stream) => (sender, stream),
        Body::Whole(body) => panic!("it came whole: {body:?}"),
    }
}

fn send(pieces: &Pieces, piece: &'static str) {
    pieces
        .send(Ok(Bytes::from_static(piece.as_bytes())))
        .unwrap();
}

async fn next(body: &mut BodyStream) -> Option<Result<Bytes, Failure>> {
    timeout(BOUND, body.next()).await.expect("a piece in time")
}

fn idle(pair: &Pair) -> bool {
    let line = pair.client.lines.to(&pair.peer).unwrap();
    line.take().map(|connection| line.put(connection)).is_some()
}

#[tokio::test]
async fn head_and_pieces_arrive_before_the_end_and_the_connection_is_kept() {
    let pair = Pair::with(&ClusterSettings {
        peer_connections_max: 1,
        ..settings()
    });
    for _ in 0..3 {
        let (pieces, mut body) = streaming(&pair).await;
        let remaining = body.deadline().remaining(Instant::now().into_std());
        assert!(remaining <= Duration::from_secs(5), "as the peer said");
        assert_eq!(body.length(), None);
        for piece in ["one", "two"] {
            send(&pieces, piece);
            assert_eq!(next(&mut body).await.unwrap().unwrap(), piece);
        }
        assert!(!idle(&pair), "the call holds its connection");
        drop(pieces);
        assert!(next(&mut body).await.is_none());
        assert!(idle(&pair));
    }
    pair.invoke(b"hello").await.unwrap();
}

#[tokio::test]
async fn a_failure_on_the_way_is_told_as_it_was() {
    let pair = Pair::new();
    let (pieces, mut body) = streaming(&pair).await;
    send(&pieces, "one");
    assert!(next(&mut body).await.unwrap().is_ok());
    let failure = Failure::new(
        ErrorCode::FunctionFailed,
        Component::Function,
        Effect::Finished,
        "é".repeat(10_000),
    );
    pieces.send(Err(failure)).unwrap();
    let failure = next(&mut body).await.unwrap().unwrap_err();
    assert_eq!(
        (failure.code, failure.effect),
        (ErrorCode::FunctionFailed, Effect::Finished)
    );
    assert_eq!(failure.node.as_deref(), Some("n2"));
    assert!(
        failure.message.starts_with("éé"),
        "as much as a trailer takes"
    );
    assert!(next(&mut body).await.is_none());
}

#[tokio::test]
async fn a_caller_that_hangs_up_drops_the_stream_at_the_peer() {
    let pair = Pair::new();
    let (pieces, mut body) = streaming(&pair).await;
    send(&pieces, "one");
    assert!(next(&mut body).await.unwrap().is_ok());
    drop(body);
    timeout(BOUND, pieces.closed())
        .await
        .expect("the stream is dropped");
}

#[tokio::test]
async fn a_peer_that_is_lost_on_the_way_interrupts_and_never_ends() {
    let check = async |pair: Pair, lose: &dyn Fn(&Pair)| {
        let (pieces, mut body) = streaming(&pair).await;
        send(&pieces, "one");
        assert!(next(&mut body).await.unwrap().is_ok());
        lose(&pair);
        let failure = next(&mut body).await.unwrap().unwrap_err();
        let told = (failure.code, failure.effect, failure.node.as_deref());
        let expected = (ErrorCode::Interrupted, Effect::Interrupted, Some("n2"));
        assert_eq!(told, expected, "{failure}");
        assert!(next(&mut body).await.is_none());
    };
    check(Pair::new(), &|pair| pair.kill.cancel()).await;
    // Gossip forgets it, and its connections stay open.
    check(Pair::new(), &|pair| {
        pair.client_sees.send(Arc::default()).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_drain_lets_a_stream_finish() {
    let pair = Pair::new();
    let (pieces, mut body) = streaming(&pair).await;
    let drain = pair.server.drain(Instant::now() + BOUND);
    let meanwhile = async {
        until("new calls are refused", || pair.server.is_draining()).await;
        send(&pieces, "one");
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
        drop(pieces);
        assert!(next(&mut body).await.is_none());
    };
    tokio::join!(drain, meanwhile);
}

/// So answers a peer of a version that knows no streams, and so does any with what it has whole.
#[tokio::test]
async fn an_answer_that_is_whole_comes_whole() {
    let pair = Pair::new();
    let body = call(&pair, None).await;
    assert_eq!(body.whole(), "hello");
}
