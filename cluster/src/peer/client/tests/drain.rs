//! Peers that leave tidily.

use super::*;

#[tokio::test]
async fn a_draining_peer_finishes_what_is_in_flight_and_refuses_the_rest() {
    let pair = Pair::new();
    pair.invoke(b"hello").await.unwrap(); // leaves an idle connection
    let call = pair.in_flight(b"wait").await;
    let drain = pair.server.drain(Instant::now() + BOUND);
    let meanwhile = async {
        until("new calls are refused", || pair.server.is_draining()).await;
        check_refused(pair.invoke(b"hello").await, "n2");
        check_refused(pair.invoke(b"hello").await, "n2");
        pair.scenario.release.cancel();
        assert_eq!(call.await.unwrap().1, "released");
    };
    tokio::join!(drain, meanwhile);
    check_refused(pair.invoke(b"hello").await, "connecting to");
    assert_eq!(pair.scenario.finished.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_drain_loses_no_call() {
    let pair = Pair::new();
    let is_done = AtomicBool::new(false);
    let caller = async {
        let mut answered = 0;
        while !is_done.load(Ordering::SeqCst) {
            match pair.invoke(b"hello").await {
                Ok(_) => answered += 1,
                Err(error) => assert_eq!(error.effect(), Effect::Refused, "{error}"),
            }
            tokio::task::yield_now().await;
        }
        answered
    };
    let drain = async {
        until("calls are under way", || {
            pair.scenario.finished.load(Ordering::SeqCst) > 50
        })
        .await;
        pair.server.drain(Instant::now() + BOUND).await;
        is_done.store(true, Ordering::SeqCst);
    };
    let (answered, ()) = tokio::join!(caller, drain);
    assert_eq!(answered, pair.scenario.finished.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let pair = Pair::new();
    let call = pair.in_flight(b"hang").await;
    let from = Instant::now();
    pair.server.drain(from + Duration::from_millis(400)).await;
    assert!(from.elapsed() >= Duration::from_millis(400));
    check_interrupted(call.await);
    assert_eq!(pair.scenario.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn followed_output_does_not_hold_up_a_drain() {
    let pair = Pair::new();
    let (space, id) = (Space::default_space(), "hello".parse().unwrap());
    let followed = pair
        .client
        .logs(&pair.peer, &space, &id, true)
        .await
        .unwrap();
    let read = followed.for_each(|_| async {});
    let drain = timeout(BOUND / 2, pair.server.drain(Instant::now() + BOUND));
    let (drained, ()) = tokio::join!(drain, read);
    drained.expect("the drain waited for output that never ends");
}

#[tokio::test]
async fn a_draining_peer_answers_probes() {
    let pair = Pair::new();
    pair.client.probe(&pair.peer, BOUND).await.unwrap();
    let call = pair.in_flight(b"wait").await;
    let drain = pair.server.drain(Instant::now() + BOUND);
    let meanwhile = async {
        until("it drains", || pair.server.is_draining()).await;
        pair.client.probe(&pair.peer, BOUND).await.unwrap();
        pair.scenario.release.cancel();
        call.await.unwrap();
    };
    tokio::join!(drain, meanwhile);
}
