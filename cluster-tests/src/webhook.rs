//! A webhook of the test's own: it keeps the envelopes that it was sent.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::wait::until;

/// How long events may take to a webhook, on a machine that is busy with other tests.
const DELIVERED: Duration = Duration::from_secs(20);

/// What a webhook does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Answers 200 with this text.
    Answer(&'static str),
    /// Answers with this status, as `404 Not Found`, and text.
    AnswerWith(&'static str, &'static str),
    /// Answers 500.
    Fail,
    /// Answers 500 to each event this often, and then 200.
    FailFirst(usize),
    /// Never answers.
    Hang,
}

/// A webhook that serves until it is dropped.
#[derive(Debug)]
pub struct Webhook {
    url: String,
    does: Arc<Mutex<Does>>,
    got: Arc<Mutex<Vec<Value>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Webhook {
    /// Starts to serve on a free port.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let got = Arc::new(Mutex::new(Vec::new()));
        let does = Arc::new(Mutex::new(does));
        let (tasks, kept, now) = (TaskTracker::new(), Arc::clone(&got), Arc::clone(&does));
        let serving = tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, does) = (Arc::clone(&kept), *now.lock().expect("no holder panics"));
                tasks.spawn(async move {
                    let _ = serve(stream, does, &kept).await;
                });
            }
        });
        Self {
            url: format!("http://{address}/"),
            does,
            got,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Does something else with the requests that come from now on.
    pub fn now(&self, does: Does) {
        *self.does.lock().expect("no holder panics") = does;
    }

    /// The envelopes that came, in their order.
    pub fn envelopes(&self) -> Vec<Value> {
        self.got.lock().expect("no holder panics").clone()
    }

    /// Whether an event came.
    pub fn has(&self, id: &str) -> bool {
        let got = self.got.lock().expect("no holder panics");
        got.iter().any(|envelope| envelope["id"] == id)
    }

    /// How often each event came, by id.
    pub fn ids(&self) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for envelope in self.envelopes() {
            let id = envelope["id"].as_str().expect("an envelope has an id");
            *ids.entry(id.to_owned()).or_default() += 1;
        }
        ids
    }

    /// Waits until so many events came.
    ///
    /// # Panics
    /// When they do not.
    pub async fn got(&self, count: usize) {
        let what = format!("{count} events came");
        until(&what, DELIVERED, || async { self.ids().len() >= count }).await;
    }
}

/// Keeps an envelope, and says how often its event came by now.
fn keep(kept: &Mutex<Vec<Value>>, envelope: Value) -> usize {
    let mut kept = kept.lock().expect("no holder panics");
    let before = kept.iter().filter(|one| one["id"] == envelope["id"]);
    let times = before.count() + 1;
    kept.push(envelope);
    times
}

/// Reads one request, keeps its body, and answers or does not.
async fn serve(mut stream: TcpStream, does: Does, kept: &Mutex<Vec<Value>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let length: usize = length.unwrap_or(0);
        let body = &bytes[end + 4..];
        if body.len() < length {
            continue;
        }
        let envelope = serde_json::from_slice(&body[..length]);
        let envelope = envelope.expect("a webhook is sent JSON");
        let times = keep(kept, envelope);
        let (status, body) = match does {
            Does::Answer(body) => ("200 OK", body),
            Does::AnswerWith(status, body) => (status, body),
            Does::FailFirst(failures) if times > failures => ("200 OK", ""),
            Does::Fail | Does::FailFirst(_) => ("500 Internal Server Error", ""),
            Does::Hang => return std::future::pending().await,
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        return stream.write_all(answer.as_bytes()).await;
    }
}
