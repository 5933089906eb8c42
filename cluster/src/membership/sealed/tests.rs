use chitchat::{ChitchatMessage, ProtocolVersion};
use tokio::time::sleep;

use super::*;
use crate::test_counters;

const BOUND: Duration = Duration::from_secs(10);

async fn sealed() -> SealedSocket {
    let outside = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let keyring = Keyring::with(&["a secret of these tests"]);
    SealedTransport::new(outside, watch::channel(keyring).1, "hearth")
        .open_sealed()
        .await
        .unwrap()
}

/// The one message that can be made from outside chitchat.
fn message() -> ChitchatEnvelope {
    ChitchatEnvelope {
        version: ProtocolVersion::V1,
        message: ChitchatMessage::BadCluster,
    }
}

/// Sends a message and receives it, the hello at first contact included.
async fn pass(from: &mut SealedSocket, to: &mut SealedSocket) -> RecvOutcome {
    from.send(to.local_addr().unwrap(), message())
        .await
        .unwrap();
    let sender = async {
        let unexpected = from.recv().await;
        panic!("the sender received {unexpected:?}");
    };
    tokio::select! {
        () = sender => unreachable!("the sender waits for ever"),
        outcome = timeout(BOUND, to.recv()) => outcome.expect("the message arrives").unwrap(),
    }
}

#[tokio::test]
async fn a_message_arrives_with_the_address_of_its_sender() {
    let (mut one, mut other) = (sealed().await, sealed().await);
    for _ in 0..3 {
        let outcome = pass(&mut one, &mut other).await;
        assert_eq!(outcome.from_addr, one.local_addr().unwrap());
        assert_eq!(outcome.envelope, message());
        let outcome = pass(&mut other, &mut one).await;
        assert_eq!(outcome.from_addr, other.local_addr().unwrap());
    }
}

#[tokio::test]
async fn plain_gossip_on_the_private_sockets_is_dropped() {
    test_counters::install();
    let (mut one, mut other) = (sealed().await, sealed().await);
    pass(&mut one, &mut other).await;
    let mut intruder = UdpTransport
        .open((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    intruder
        .send(other.inner.local_addr().unwrap(), message())
        .await
        .unwrap();
    intruder
        .send(other.shim.local_addr().unwrap(), message())
        .await
        .unwrap();
    intruder
        .send(one.shim.local_addr().unwrap(), message())
        .await
        .unwrap();
    let outcome = pass(&mut one, &mut other).await;
    assert_eq!(outcome.from_addr, one.local_addr().unwrap());
    assert_eq!(
        test_counters::value("hearth_gossip_dropped_total{reason=stray}"),
        1
    );
    assert!(
        timeout(Duration::from_millis(50), other.recv())
            .await
            .is_err(),
        "nothing else comes"
    );
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing() {
    let (mut one, mut other) = (sealed().await, sealed().await);
    pass(&mut one, &mut other).await;
    let to = other.local_addr().unwrap();
    for _ in 0..50 {
        one.send(to, message()).await.unwrap();
    }
    let (from, mut received) = (Instant::now(), 0);
    while received < 50 {
        assert!(from.elapsed() < BOUND, "{received} of 50 messages arrived");
        // Dropped at whatever await it is at: the socket is given just one poll at a time.
        tokio::select! {
            biased;
            outcome = other.recv() => {
                assert_eq!(outcome.unwrap().from_addr, one.local_addr().unwrap());
                received += 1;
            }
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test]
async fn a_message_that_chitchat_can_not_read_is_counted_and_holds_up_nobody_for_long() {
    test_counters::install();
    let (mut one, mut other) = (sealed().await, sealed().await);
    pass(&mut one, &mut other).await;
    let to = other.local_addr().unwrap();
    let junk = one.sessions.outgoing(to, b"junk");
    one.send_out(to, &junk);
    let outcome = pass(&mut one, &mut other).await;
    assert_eq!(outcome.envelope, message());
    assert_eq!(
        test_counters::value("hearth_gossip_dropped_total{reason=malformed}"),
        1
    );
}

#[tokio::test]
async fn a_message_recorded_on_the_network_is_taken_once() {
    test_counters::install();
    let (mut one, mut other) = (sealed().await, sealed().await);
    pass(&mut one, &mut other).await;
    let to = other.local_addr().unwrap();
    // A whole message that chitchat reads, sealed once and sent three times.
    one.inner
        .send(one.shim.local_addr().unwrap(), message())
        .await
        .unwrap();
    let bytes = one.shim.recv(&mut one.buffer).await.unwrap();
    let plain = one.buffer[..bytes].to_vec();
    let datagram = one.sessions.outgoing(to, &plain);
    for _ in 0..3 {
        one.send_out(to, &datagram);
    }
    timeout(BOUND, other.recv()).await.unwrap().unwrap();
    let replayed = async {
        while test_counters::value("hearth_gossip_dropped_total{reason=replay}") < 2 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        outcome = other.recv() => panic!("a replayed message was taken: {outcome:?}"),
        counted = timeout(BOUND, replayed) => counted.expect("both replays are counted"),
    }
}
