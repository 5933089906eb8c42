use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream as streams;
use protocol::invocation::{BodyStream, Call, StartKind};
use protocol::peer::{ReplyOutcome, StreamHead};
use protocol::{Effect, ErrorCode, Failure, Generation, InstanceKey, InvocationId, NodeId, Phases};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::*;
use crate::membership::{LocalState, Member};
use crate::peer::PeerHandler;
use crate::peer::server::{self, PeerServer};

mod drain;
mod faults;
mod stream;

const BOUND: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A handler that does what the payload says.
#[derive(Debug, Default)]
struct Scenario {
    started: AtomicUsize,
    dropped: AtomicUsize,
    finished: AtomicUsize,
    release: CancellationToken,
    remaining_ms: AtomicUsize,
    /// What the next call is answered with piece by piece.
    pieces: Mutex<Option<mpsc::UnboundedReceiver<Result<Bytes, Failure>>>>,
}

struct Running<'a>(&'a Scenario);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl PeerHandler for Scenario {
    async fn invoke(&self, head: InvokeHead, payload: Bytes) -> (ReplyHead, Body) {
        let running = Running(self);
        self.started.fetch_add(1, Ordering::SeqCst);
        self.remaining_ms.store(
            usize::try_from(head.remaining_ms).unwrap(),
            Ordering::SeqCst,
        );
        let pieces = self.pieces.lock().unwrap().take();
        let body = match &payload[..] {
            b"hang" => std::future::pending().await,
            b"wait" => {
                self.release.cancelled().await;
                Bytes::from_static(b"released")
            }
            b"flood" => Bytes::from(vec![7; BODY_BYTES_MAX + FRAME_BYTES_MAX + 1]),
            _ => payload,
        };
        std::mem::forget(running);
        self.finished.fetch_add(1, Ordering::SeqCst);
        let outcome = ReplyOutcome::Replied {
            status: 200,
            content_type: None,
            headers: Vec::new(),
            start: StartKind::Warm,
            ended: None,
        };
        let reply = ReplyHead {
            outcome,
            free_slots: 3,
            instances: 2,
            phases: Phases::default(),
            stream: pieces.as_ref().map(|_| StreamHead {
                length: None,
                remaining_ms: 5_000,
            }),
        };
        let Some(pieces) = pieces else {
            return (reply, Body::Whole(body));
        };
        let pieces = streams::unfold(pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((piece, pieces))
        });
        let deadline = Deadline::at((Instant::now() + BOUND).into_std());
        (reply, Body::Stream(BodyStream::new(None, deadline, pieces)))
    }

    async fn resolve_image(&self, image: &str) -> Option<String> {
        (image == "hello").then(|| "sha256:5".to_owned())
    }

    async fn logs(
        &self,
        _: &Space,
        _: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let lines = streams::iter([
            Ok(Bytes::from_static(b"one\n")),
            Ok(Bytes::from_static(b"two\n")),
        ]);
        if follow {
            lines.chain(streams::pending()).boxed()
        } else {
            lines.boxed()
        }
    }
}

/// A caller and a peer that know each other, without gossip.
struct Pair {
    client: HttpPeerClient,
    server: PeerServer,
    scenario: Arc<Scenario>,
    peer: Peer,
    client_sees: watch::Sender<Arc<Members>>,
    server_sees: watch::Sender<Arc<Members>>,
    caller: Identity,
    callee: Identity,
    kill: CancellationToken,
    _data_dirs: [TempDir; 2],
}

fn settings() -> ClusterSettings {
    ClusterSettings::default()
}

fn identity() -> (Identity, TempDir) {
    let data_dir = tempfile::tempdir().unwrap();
    (Identity::load(data_dir.path()).unwrap(), data_dir)
}

fn peer(identity: &Identity, address: SocketAddr) -> Peer {
    Peer {
        id: identity.node_id().clone(),
        name: "n2".into(),
        address,
        fingerprint: identity.fingerprint(),
    }
}

fn member(peer: &Peer, is_alive: bool) -> Arc<Members> {
    let state = LocalState {
        name: peer.name.clone(),
        version: "0.1.0".into(),
        protocol_version: 1,
        functions_address: peer.address,
        config_address: peer.address,
        is_draining: false,
        has_engine: false,
        allows_processes: false,
        secrets: Vec::new(),
        load: crate::membership::Load::default(),
        hints: vec![],
        images: vec![],
    };
    let member = Member {
        id: peer.id.clone(),
        generation: Generation(1),
        is_alive,
        state,
        peer: peer.clone(),
    };
    Arc::new(Members::from([(peer.id.clone(), Arc::new(member))]))
}

fn serve(
    identity: &Identity,
    address: SocketAddr,
    members: watch::Receiver<Arc<Members>>,
    settings: &ClusterSettings,
    kill: &CancellationToken,
) -> (PeerServer, SocketAddr, Arc<Scenario>) {
    let listener = std::net::TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let scenario = Arc::new(Scenario::default());
    let server = PeerServer::start(server::Args {
        listener,
        identity,
        settings,
        members,
        handler: scenario.clone(),
        body_bytes_max: BODY_BYTES_MAX,
        shutdown: kill.clone(),
    });
    (server.unwrap(), address, scenario)
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

impl Pair {
    fn new() -> Self {
        Self::with(&settings())
    }

    fn with(settings: &ClusterSettings) -> Self {
        let ((caller, caller_dir), (callee, callee_dir)) = (identity(), identity());
        let kill = CancellationToken::new();
        let (server_sees, members) = watch::channel(member(&peer(&caller, any_port()), true));
        let (server, address, scenario) = serve(&callee, any_port(), members, settings, &kill);
        let peer = peer(&callee, address);
        let (client_sees, members) = watch::channel(member(&peer, true));
        let client = HttpPeerClient::new(Args {
            identity: &caller,
            settings,
            members,
            body_bytes_max: BODY_BYTES_MAX,
        });
        Self {
            client,
            server,
            scenario,
            peer,
            client_sees,
            server_sees,
            caller,
            callee,
            kill,
            _data_dirs: [caller_dir, callee_dir],
        }
    }

    async fn invoke(&self, payload: &'static [u8]) -> Result<(ReplyHead, Bytes), Error> {
        self.invoke_within(payload, BOUND).await
    }

    async fn invoke_within(
        &self,
        payload: &'static [u8],
        time: Duration,
    ) -> Result<(ReplyHead, Bytes), Error> {
        invoke(&self.client, &self.peer, Bytes::from_static(payload), time).await
    }

    /// Starts a call and waits until the handler has it.
    async fn in_flight(
        &self,
        payload: &'static [u8],
    ) -> impl Future<Output = Result<(ReplyHead, Bytes), Error>> {
        let before = self.scenario.started.load(Ordering::SeqCst);
        let mut call = Box::pin(self.invoke(payload));
        let started = until("the call arrives", || {
            self.scenario.started.load(Ordering::SeqCst) > before
        });
        tokio::select! {
            outcome = &mut call => panic!("the call ended early: {outcome:?}"),
            () = started => call,
        }
    }
}

async fn invoke(
    client: &HttpPeerClient,
    peer: &Peer,
    payload: Bytes,
    time: Duration,
) -> Result<(ReplyHead, Bytes), Error> {
    let deadline = Deadline::at((Instant::now() + time).into_std());
    let (head, body) = client.invoke(peer, head(), payload, deadline).await?;
    Ok((head, body.whole().clone()))
}

fn head() -> InvokeHead {
    InvokeHead {
        invocation: InvocationId::random(),
        space: Space::default_space(),
        function_id: "hello".parse().unwrap(),
        version: None,
        instance_key: InstanceKey::hash([b"hello".as_slice()]),
        from: NodeId::random(),
        remaining_ms: 0,
        content_type: "application/json".into(),
        call: None,
        may_start: true,
        trace: protocol::invocation::TraceContext::default(),
    }
}

async fn until(what: &str, mut test: impl FnMut() -> bool) {
    let from = Instant::now();
    while !test() {
        assert!(
            from.elapsed() < BOUND,
            "within {BOUND:?} it did not happen that {what}"
        );
        sleep(Duration::from_millis(2)).await;
    }
}

#[track_caller]
fn check_refused(outcome: Result<(ReplyHead, Bytes), Error>, why: &str) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Refused);
    assert!(error.to_string().contains(why), "{error}");
}

#[track_caller]
fn check_interrupted(outcome: Result<(ReplyHead, Bytes), Error>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::Interrupted);
}

#[tokio::test]
async fn payloads_of_any_size_go_there_and_back() {
    let pair = Pair::new();
    for bytes in [0, 1, 100, 16 * 1024, 100 * 1024, BODY_BYTES_MAX] {
        let payload: Bytes = (0..=250).cycle().take(bytes).collect();
        let (head, body) = invoke(&pair.client, &pair.peer, payload.clone(), BOUND)
            .await
            .unwrap();
        assert_eq!((head.free_slots, head.instances), (3, 2));
        assert!(body == payload, "{bytes} bytes came back as {}", body.len());
    }
    let remaining = pair.scenario.remaining_ms.load(Ordering::SeqCst);
    assert!(
        (1..=10_000).contains(&remaining),
        "{remaining} ms were said to remain"
    );
}

#[tokio::test]
async fn one_connection_serves_calls_that_follow_each_other() {
    let pair = Pair::with(&ClusterSettings {
        peer_connections_max: 1,
        ..settings()
    });
    for _ in 0..20 {
        pair.invoke(b"hello").await.unwrap();
    }
}

#[tokio::test]
async fn calls_at_once_do_not_wait_for_each_other_and_idle_connections_are_bounded() {
    let pair = Pair::with(&ClusterSettings {
        idle_connections_max: 2,
        ..settings()
    });
    let calls: Vec<_> = (0..8).map(|_| pair.invoke(b"wait")).collect();
    let all = futures_util::future::join_all(calls);
    let arrived = async {
        until("all calls arrive", || {
            pair.scenario.started.load(Ordering::SeqCst) == 8
        })
        .await;
        pair.scenario.release.cancel();
    };
    let (outcomes, ()) = tokio::join!(all, arrived);
    assert!(
        outcomes
            .into_iter()
            .all(|outcome| outcome.unwrap().1 == "released")
    );
    let line = pair.client.lines.to(&pair.peer).unwrap();
    assert!(line.take().is_some() && line.take().is_some() && line.take().is_none());
}

#[tokio::test]
async fn the_deadline_ends_a_call_at_both_ends() {
    let pair = Pair::new();
    let from = Instant::now();
    let error = pair
        .invoke_within(b"hang", Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert!(from.elapsed() >= Duration::from_millis(300));
    until("the handler is dropped", || {
        pair.scenario.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_drops_the_handler() {
    let pair = Pair::new();
    let call = pair.in_flight(b"hang").await;
    drop(call);
    until("the handler is dropped", || {
        pair.scenario.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    // What was on the pool before is not spoiled.
    pair.invoke(b"hello").await.unwrap();
}

#[tokio::test]
async fn images_are_resolved() {
    let pair = Pair::new();
    let deadline = Deadline::at((Instant::now() + BOUND).into_std());
    let digest = pair
        .client
        .resolve_image(&pair.peer, "hello", deadline)
        .await
        .unwrap();
    assert_eq!(digest.as_deref(), Some("sha256:5"));
    assert_eq!(
        pair.client
            .resolve_image(&pair.peer, "other", deadline)
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn output_comes_as_it_is_written() {
    let pair = Pair::new();
    let (space, id) = (Space::default_space(), "hello".parse().unwrap());
    let lines = pair
        .client
        .logs(&pair.peer, &space, &id, false)
        .await
        .unwrap();
    let text: Vec<Bytes> = lines.map(Result::unwrap).collect().await;
    assert_eq!(text.concat(), b"one\ntwo\n");
    let mut followed = pair
        .client
        .logs(&pair.peer, &space, &id, true)
        .await
        .unwrap();
    let mut text = Vec::new();
    while text.len() < 8 {
        text.extend_from_slice(
            &timeout(BOUND, followed.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap(),
        );
    }
    assert!(
        timeout(Duration::from_millis(50), followed.next())
            .await
            .is_err(),
        "it goes on until dropped"
    );
    // A peer that is gone does not look like one whose output has ended.
    pair.client_sees.send(Arc::default()).unwrap();
    let end = timeout(BOUND, followed.next()).await.unwrap();
    assert!(end.unwrap().is_err());
    assert!(followed.next().await.is_none());
}

#[tokio::test]
async fn probes_have_a_connection_of_their_own() {
    let pair = Pair::with(&ClusterSettings {
        peer_connections_max: 2,
        ..settings()
    });
    let call = pair.in_flight(b"wait").await;
    for _ in 0..10 {
        pair.client.probe(&pair.peer, BOUND).await.unwrap();
    }
    pair.scenario.release.cancel();
    call.await.unwrap();
}
