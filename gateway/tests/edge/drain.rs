//! Shutting down: nothing that was begun fails, and it ends in time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Answer, Call, PATIENCE, Sandbox, eventually, replied};

fn call() -> Call {
    Call::post("/invoke", r#"{"function_name":"hello"}"#).header("connection", "keep-alive")
}

#[tokio::test]
async fn what_is_in_flight_is_answered_and_idle_connections_end() {
    let mut sandbox = Sandbox::start();
    let address = sandbox.addresses.functions;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(&call().bytes()).await.unwrap();
    assert_eq!(Answer::read_one(&mut idle).await.status, 200);

    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    sandbox.node.on_invoke(move |_| {
        let waits = Arc::clone(&waits);
        async move {
            waits.notified().await;
            Ok(replied(None, "done"))
        }
    });
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(&call().bytes()).await.unwrap();
    eventually("the call", || sandbox.node.calls() == 2).await;

    sandbox.shutdown.cancel();
    let mut nothing = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut nothing))
        .await
        .expect("the idle connection ends")
        .unwrap();
    assert!(nothing.is_empty());
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused)
        .await
        .expect("no new connection is accepted");

    go.notify_one();
    let answer = Answer::read_to_end(&mut busy).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(
        sandbox.finish(PATIENCE).await,
        "all connections ended by themselves"
    );
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_deadline() {
    let mut sandbox = Sandbox::start();
    sandbox
        .node
        .on_invoke(async |_| std::future::pending().await);
    let mut stuck = TcpStream::connect(sandbox.addresses.functions)
        .await
        .unwrap();
    stuck.write_all(&call().bytes()).await.unwrap();
    eventually("the call", || sandbox.node.calls() == 1).await;
    assert!(
        !sandbox.finish(Duration::from_millis(50)).await,
        "one was cut"
    );
    assert_eq!(sandbox.node.cancelled.load(Ordering::SeqCst), 1);
    let mut nothing = Vec::new();
    timeout(PATIENCE, stuck.read_to_end(&mut nothing))
        .await
        .expect("the connection ends")
        .unwrap();
}

#[tokio::test]
async fn a_draining_node_answers_and_sends_its_clients_elsewhere() {
    let sandbox = Sandbox::start();
    sandbox.node.is_draining.store(true, Ordering::SeqCst);
    let mut stream = TcpStream::connect(sandbox.addresses.functions)
        .await
        .unwrap();
    stream.write_all(&call().bytes()).await.unwrap();
    let answer = Answer::read_to_end(&mut stream).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
}

#[tokio::test]
async fn a_request_that_arrived_before_shutdown_is_answered() {
    let mut sandbox = Sandbox::start();
    // All of this happens before the accept loop gets its turn: this test's runtime has one thread.
    let address = sandbox.addresses.functions;
    let mut streams: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            std::io::Write::write_all(&mut stream, &call().bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            TcpStream::from_std(stream).unwrap()
        })
        .collect();
    assert!(
        sandbox.finish(PATIENCE).await,
        "all connections ended by themselves"
    );
    for stream in &mut streams {
        assert_eq!(Answer::read_to_end(stream).await.status, 200);
    }
}

/// Section 1: an event that arrives once the end has begun is told to go elsewhere.
#[tokio::test]
async fn an_event_is_refused_once_the_end_has_begun() {
    let mut sandbox = Sandbox::start();
    // It arrives before, and is read after: this test's runtime has one thread.
    let mut stream = std::net::TcpStream::connect(sandbox.addresses.events).unwrap();
    let call = Call::post("/", "1").header("event", "a");
    std::io::Write::write_all(&mut stream, &call.bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    assert!(sandbox.finish(PATIENCE).await);
    let answer = Answer::read_to_end(&mut TcpStream::from_std(stream).unwrap()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("x-hearth-error"), Some("draining;gateway"));
    assert!(answer.json()["errors"][0]["message"].is_string());
}

/// Calls until the answer sends it elsewhere; returns the number of answers.
async fn call_until_sent_elsewhere(address: std::net::SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for answers in 1.. {
        stream.write_all(&call().bytes()).await.unwrap();
        let answer = Answer::read_one(&mut stream).await;
        assert_eq!(answer.status, 200);
        if answer.header("connection") == Some("close") {
            return answers;
        }
    }
    unreachable!("the node drains in the end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_clients_move_on_as_they_are_told() {
    let mut sandbox = Sandbox::start();
    let address = sandbox.addresses.functions;
    let clients = tokio_util::task::TaskTracker::new();
    let clients: Vec<_> = (0..8)
        .map(|_| clients.spawn(call_until_sent_elsewhere(address)))
        .collect();
    eventually("some calls", || sandbox.node.calls() > 100).await;
    sandbox.node.is_draining.store(true, Ordering::SeqCst);
    assert!(
        sandbox.finish(PATIENCE).await,
        "all connections ended by themselves"
    );
    let mut answers = 0;
    for client in clients {
        answers += client.await.expect("no call failed");
    }
    assert_eq!(
        answers,
        sandbox.node.calls(),
        "every call that ran was answered"
    );
}
