//! A function of the record: a webhook of the test's own that notes each call in the file before it answers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{Did, Ledger, Line, now_ms};
use crate::chaos::Rng;

/// How long nodes wait for a moody function.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// The largest event of a run, with room.
const BODY_BYTES_MAX: usize = 64 << 10;

/// How a function takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It takes each.
    Steady,
    /// It refuses one of ten for good.
    Picky,
    /// It fails three calls of ten, and of a hundred it lets two hang and answers two after its deadline.
    Moody,
}

/// A webhook that serves until it is dropped.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

/// What all connections share.
#[derive(Debug)]
struct Served {
    mood: Mood,
    seed: u64,
    ledger: Arc<Ledger>,
    /// How often each event came.
    calls: Mutex<HashMap<String, u64>>,
}

impl Mood {
    /// The function's id.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Picky => "picky",
            Self::Moody => "moody",
        }
    }

    /// What it does with an event that came so often before, by the seed.
    fn does(self, seed: u64, id: &str, calls: u64) -> Did {
        let draw = |of: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            of(&mut hasher);
            Rng::new(seed ^ hasher.finish()).below(100)
        };
        match self {
            Self::Steady => Did::Took,
            // The same each time, lest it be delivered and dead after a kill.
            Self::Picky => match draw(&|hasher| id.hash(hasher)) {
                0..10 => Did::Refused,
                _ => Did::Took,
            },
            Self::Moody => match draw(&|hasher| (id, calls).hash(hasher)) {
                0..30 => Did::Failed,
                30..32 => Did::Hung,
                32..34 => Did::Late,
                _ => Did::Took,
            },
        }
    }
}

impl Subscriber {
    /// Starts to serve on a free port of an address.
    ///
    /// # Panics
    /// When there is none.
    pub(super) async fn start(host: IpAddr, mood: Mood, seed: u64, ledger: Arc<Ledger>) -> Self {
        let listener = TcpListener::bind(SocketAddr::new(host, 0)).await;
        let listener = listener.expect("the test's own address has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        ledger.note(&Line::Subscriber(mood.name().into()));
        let served = Arc::new(Served {
            mood,
            seed,
            ledger,
            calls: Mutex::default(),
        });
        let serving = TaskTracker::new().spawn(serve(listener, served));
        Self {
            address,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

async fn serve(listener: TcpListener, served: Arc<Served>) {
    let tasks = TaskTracker::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let served = Arc::clone(&served);
        let service = service_fn(move |request| {
            let served = Arc::clone(&served);
            async move { Ok::<_, Infallible>(served.answer(request).await) }
        });
        // A node that hangs up is how every connection ends.
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tasks.spawn(async move { drop(connection.await) });
    }
}

impl Served {
    async fn answer(&self, request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX);
        // A node that was killed while it sent has called nobody.
        #[expect(clippy::disallowed_methods, reason = "it is under a limit")]
        let Ok(body) = body.collect().await else {
            return answered(StatusCode::BAD_REQUEST);
        };
        let envelope: Value =
            serde_json::from_slice(&body.to_bytes()).expect("an envelope is JSON");
        let id = envelope["id"].as_str().expect("an envelope has an id");
        let did = self.mood.does(self.seed, id, self.count(id));
        // Before the answer: what a node was told is in the record, also when the node is killed by then.
        self.ledger.note(&Line::Call {
            subscriber: self.mood.name().into(),
            id: id.into(),
            did,
            at_ms: now_ms(),
        });
        match did {
            Did::Took => answered(StatusCode::OK),
            Did::Failed => answered(StatusCode::INTERNAL_SERVER_ERROR),
            Did::Refused => answered(StatusCode::NOT_FOUND),
            Did::Hung => std::future::pending().await,
            Did::Late => {
                tokio::time::sleep(DEADLINE + Duration::from_millis(500)).await;
                answered(StatusCode::OK)
            }
        }
    }

    /// How often the event came before.
    fn count(&self, id: &str) -> u64 {
        let mut calls = self.calls.lock().expect("no holder panics");
        let count = calls.entry(id.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

fn answered(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_what_functions_do() {
        let drawn = |mood: Mood, seed| -> Vec<_> {
            let ids = (0..1000).map(|n| format!("e-{n}"));
            ids.map(|id| mood.does(seed, &id, 0)).collect()
        };
        assert_eq!(drawn(Mood::Moody, 7), drawn(Mood::Moody, 7));
        assert_ne!(drawn(Mood::Moody, 7), drawn(Mood::Moody, 8));
        let share = |mood, did| drawn(mood, 7).iter().filter(|one| **one == did).count();
        assert!((250..350).contains(&share(Mood::Moody, Did::Failed)));
        assert!((5..40).contains(&share(Mood::Moody, Did::Hung)));
        assert!((5..40).contains(&share(Mood::Moody, Did::Late)));
        assert!((60..140).contains(&share(Mood::Picky, Did::Refused)));
        assert_eq!(share(Mood::Steady, Did::Took), 1000);
        assert_eq!(
            Mood::Picky.does(7, "e-1", 0),
            Mood::Picky.does(7, "e-1", 5),
            "what it refuses it refuses for good"
        );
    }
}
