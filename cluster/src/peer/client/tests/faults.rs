//! Peers that are gone, silent, strange or wrong.

use super::*;

#[tokio::test]
async fn nobody_there_is_a_refusal() {
    let pair = Pair::new();
    let vacant = std::net::TcpListener::bind(any_port())
        .unwrap()
        .local_addr()
        .unwrap();
    let outcome = invoke(
        &pair.client,
        &peer(&pair.callee, vacant),
        Bytes::new(),
        BOUND,
    )
    .await;
    check_refused(outcome, "connecting to");
    let error = pair
        .client
        .probe(&peer(&pair.callee, vacant), BOUND)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn another_certificate_than_the_gossiped_one_is_refused() {
    let pair = Pair::new();
    let (impostor, _data_dir) = identity();
    let expected = Peer {
        fingerprint: impostor.fingerprint(),
        ..pair.peer.clone()
    };
    check_refused(
        invoke(&pair.client, &expected, Bytes::new(), BOUND).await,
        "connecting to",
    );
    assert_eq!(pair.scenario.started.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_caller_with_a_strangers_certificate_is_refused() {
    let pair = Pair::new();
    let (stranger, _data_dir) = identity();
    let (_sees, members) = watch::channel(member(&pair.peer, true));
    let client = HttpPeerClient::new(Args {
        identity: &stranger,
        settings: &settings(),
        members,
        body_bytes_max: BODY_BYTES_MAX,
    });
    check_refused(
        invoke(&client, &pair.peer, Bytes::from_static(b"hello"), BOUND).await,
        "403",
    );
    assert_eq!(pair.scenario.started.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_caller_that_gossip_brings_a_moment_later_is_let_in() {
    let pair = Pair::new();
    pair.server_sees.send(Arc::default()).unwrap();
    let late = async {
        sleep(Duration::from_millis(100)).await;
        pair.server_sees
            .send(member(&peer(&pair.caller, any_port()), true))
            .unwrap();
    };
    let (outcome, ()) = tokio::join!(pair.invoke(b"hello"), late);
    outcome.unwrap();
}

#[tokio::test]
async fn a_caller_that_is_forgotten_loses_its_connections() {
    let pair = Pair::new();
    let call = pair.in_flight(b"hang").await;
    pair.server_sees.send(Arc::default()).unwrap();
    check_interrupted(call.await);
    assert_eq!(pair.scenario.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_peer_that_dies_during_a_call_interrupts_it() {
    let pair = Pair::new();
    let call = pair.in_flight(b"hang").await;
    pair.kill.cancel();
    check_interrupted(call.await);
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_no_call() {
    let pair = Pair::new();
    pair.invoke(b"hello").await.unwrap();
    let line = pair.client.lines.to(&pair.peer).unwrap();
    let mut idle = line.take().expect("the connection of the call is kept");
    pair.server_sees.send(Arc::default()).unwrap(); // closes it
    let from = Instant::now();
    while idle.is_reusable().await {
        assert!(
            from.elapsed() < BOUND,
            "the peer did not close the idle connection"
        );
        sleep(Duration::from_millis(2)).await;
    }
    line.put(idle);
    pair.server_sees
        .send(member(&peer(&pair.caller, any_port()), true))
        .unwrap();
    pair.invoke(b"hello").await.unwrap();
    assert_eq!(pair.scenario.finished.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_peer_that_gossip_forgets_or_that_restarted_interrupts_calls_at_once() {
    let pair = Pair::new();
    let call = pair.in_flight(b"hang").await;
    pair.client_sees.send(Arc::default()).unwrap();
    check_interrupted(call.await);
    pair.client_sees.send(member(&pair.peer, true)).unwrap();
    let call = pair.in_flight(b"hang").await;
    let (successor, _data_dir) = identity();
    let restarted = Peer {
        fingerprint: successor.fingerprint(),
        ..pair.peer.clone()
    };
    pair.client_sees.send(member(&restarted, true)).unwrap();
    check_interrupted(call.await);
    until("both handlers are dropped", || {
        pair.scenario.dropped.load(Ordering::SeqCst) == 2
    })
    .await;
}

/// Stands between caller and peer, and falls silent when told.
struct Middle {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    tasks: TaskTracker,
}

async fn middle(to: SocketAddr) -> Middle {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let (address, is_cut, tasks) = (
        listener.local_addr().unwrap(),
        Arc::new(AtomicBool::new(false)),
        TaskTracker::new(),
    );
    let (cut, spawner) = (Arc::clone(&is_cut), tasks.clone());
    tasks.spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            spawner.spawn(carry(near_in, far_out, Arc::clone(&cut)));
            spawner.spawn(carry(far_in, near_out, Arc::clone(&cut)));
        }
    });
    Middle {
        address,
        is_cut,
        tasks,
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    is_cut: Arc<AtomicBool>,
) {
    use tokio::io::AsyncReadExt;
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if is_cut.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        to.write_all(&buffer[..bytes]).await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_neither_gossip_nor_a_probe_finds_interrupts_calls() {
    let pair = Pair::new();
    let middle = middle(pair.peer.address).await;
    let far = Peer {
        address: middle.address,
        ..pair.peer.clone()
    };
    pair.client_sees.send(member(&far, true)).unwrap();
    let mut call = pin!(invoke(
        &pair.client,
        &far,
        Bytes::from_static(b"hang"),
        BOUND
    ));
    tokio::select! {
        outcome = &mut call => panic!("the call ended early: {outcome:?}"),
        () = until("the call arrives", || pair.scenario.started.load(Ordering::SeqCst) == 1) => {}
    }
    // Gossip loses a peer that still answers probes: its calls go on.
    pair.client_sees.send(member(&far, false)).unwrap();
    assert!(
        timeout(settings().probe_interval * 3, &mut call)
            .await
            .is_err()
    );
    // Now it answers no probe either, as when it is stopped or cut off.
    middle.is_cut.store(true, Ordering::SeqCst);
    check_interrupted(timeout(Duration::from_secs(3), call).await.unwrap());
    assert!(!middle.tasks.is_empty());
}

#[tokio::test]
async fn a_silent_peer_fails_a_probe_within_its_time() {
    let pair = Pair::new();
    let middle = middle(pair.peer.address).await;
    let far = Peer {
        address: middle.address,
        ..pair.peer.clone()
    };
    pair.client.probe(&far, BOUND).await.unwrap();
    middle.is_cut.store(true, Ordering::SeqCst);
    let from = Instant::now();
    let error = pair
        .client
        .probe(&far, Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert!(from.elapsed() < Duration::from_secs(2));
    // Connecting to one that does not shake hands takes no longer than it may, and nothing ran.
    check_refused(
        invoke(&pair.client, &far, Bytes::new(), Duration::from_millis(100)).await,
        "while connecting",
    );
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused() {
    let pair = Pair::new();
    let payload = Bytes::from(vec![0; BODY_BYTES_MAX + 1]);
    check_refused(
        invoke(&pair.client, &pair.peer, payload, BOUND).await,
        "413",
    );
    let payload = Bytes::from(vec![0; BODY_BYTES_MAX + 2 * FRAME_BYTES_MAX]);
    check_refused(
        invoke(&pair.client, &pair.peer, payload, BOUND).await,
        "413",
    );
    assert_eq!(pair.scenario.started.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_no_answer() {
    let pair = Pair::new();
    let error = pair.invoke(b"flood").await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Interrupted);
}

#[tokio::test]
async fn other_versions_paths_and_heads_are_refused() {
    let pair = Pair::new();
    let check =
        async |uri: &'static str, method: http::Method, body: &'static [u8], status: u16| {
            let line = pair.client.lines.to(&pair.peer).unwrap();
            let mut connection = open(&line, Instant::now() + BOUND).await.unwrap();
            let mut request = frame::raw_request(uri, Bytes::from_static(body));
            *request.method_mut() = method;
            let answer = exchange(&mut connection, request, SMALL_BYTES_MAX, false)
                .await
                .unwrap();
            assert_eq!(answer.status.as_u16(), status, "{uri}");
            assert!(
                matches!(answer.into_message(&pair.peer), Err(Error::Refused { .. })),
                "{uri}"
            );
        };
    let post = http::Method::POST;
    check("/peer/v2/invoke", post.clone(), b"", 426).await;
    check("/peer/v1/sing", post.clone(), b"", 404).await;
    check("/peer/v1/invoke", http::Method::GET, b"", 404).await;
    check("/elsewhere", post.clone(), b"", 404).await;
    check("/peer/v1/invoke", post.clone(), b"", 400).await;
    check(
        "/peer/v1/invoke",
        post.clone(),
        b"\x00\x00\x00\x04abcd",
        400,
    )
    .await;
    check(
        "/peer/v1/invoke",
        post.clone(),
        b"\xff\xff\xff\xffabcd",
        400,
    )
    .await;
    check("/peer/v1/logs", post.clone(), b"\xc1", 400).await;
    check("/peer/v1/resolve-image", post, b"", 400).await;
    assert_eq!(pair.scenario.started.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn noise_and_plain_http_do_no_harm() {
    let pair = Pair::new();
    for noise in [
        b"POST /peer/v1/invoke HTTP/1.1\r\n\r\n".as_slice(),
        &[0; 4096],
        &[22, 3, 1, 255, 255],
        b"",
    ] {
        let mut stream = TcpStream::connect(pair.peer.address).await.unwrap();
        stream.write_all(noise).await.unwrap();
    }
    pair.invoke(b"hello").await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let pair = Pair::with(&ClusterSettings {
        peer_connections_max: 1,
        ..settings()
    });
    let call = pair.in_flight(b"wait").await;
    check_refused(pair.invoke(b"hello").await, "connecting to");
    pair.scenario.release.cancel();
    call.await.unwrap();
    pair.invoke(b"hello").await.unwrap();
}
