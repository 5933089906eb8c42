//! What is asked of JetStream: records that are put, read and deleted by their place in a stream.
//!
//! These are the requests themselves, as NATS documents them: what is refused, and why, decides about what was accepted, so nothing
//! may stand between that and an answer.

use std::fmt;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

/// The header that names the session which holds a record.
pub(super) const OWNER: &str = "Hearth-Owner";
/// The header that names the deliveries of a record that has several.
pub(super) const DELIVERIES: &str = "Hearth-Deliveries";
/// The last record of the subject must be this one, 0 for none.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// "wrong last sequence", and the same while another put for the subject has not been decided.
const WRONG_SEQUENCE: [u64; 2] = [10_071, 10_164];
/// "incomplete results", "temporarily unavailable", "can not handle request". Each server hears a request, so one that knows no leader
/// may say so while another one, which leads the stream, does what was asked.
const NO_LEADER: [u64; 3] = [10_004, 10_008, 10_009];
/// "message not found", of a read.
const NOT_FOUND: u64 = 10_037;
/// "message delete failed", also for one that is not there, and "sequence not found".
const DELETE_FAILED: [u64; 2] = [10_057, 10_043];
/// Heads that are asked for at once.
const HEADS: usize = 500;

/// Why a request did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// Nothing was done: nobody took the request.
    Away(String),
    /// Nobody knows whether it was done: no answer came in time.
    Unknown(String),
    /// JetStream refused it; nothing was done.
    Refused { code: u64, why: String },
}

/// What became of a record that was to be put or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fenced<T> {
    /// It is done.
    Done(T),
    /// The record that was expected is not there.
    Moved,
}

/// A record of a stream.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) subject: String,
    pub(super) owner: String,
    pub(super) body: Bytes,
}

/// What a record says of itself, without its body.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) sequence: u64,
    pub(super) subject: String,
    pub(super) owner: String,
    pub(super) deliveries: Option<String>,
}

/// The way to JetStream.
#[derive(Debug, Clone)]
pub(super) struct Api {
    client: Client,
    /// How long one request may take.
    timeout: Duration,
    /// What errors call it.
    servers: String,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    err_code: u64,
    description: String,
}

#[derive(Debug, Deserialize)]
struct Answer<T> {
    error: Option<Refusal>,
    #[serde(flatten)]
    answer: Option<T>,
}

#[derive(Debug, Deserialize)]
struct Ack {
    seq: u64,
}

#[derive(Debug, Deserialize)]
struct Deleted {
    success: bool,
}

#[derive(Debug, Deserialize)]
struct Got {
    message: Message,
}

#[derive(Debug, Deserialize)]
struct Message {
    seq: u64,
    subject: String,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

#[derive(Debug, Deserialize)]
struct Consumer {
    name: String,
}

impl Api {
    pub(super) fn new(client: Client, timeout: Duration, servers: &[String]) -> Self {
        let servers = format!("NATS ({})", servers.join(", "));
        Self {
            client,
            timeout,
            servers,
        }
    }

    /// The client, for what is not JetStream's.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What errors call it.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// The version of the server that it is connected to, as `2.11.4`.
    pub(super) fn version(&self) -> String {
        self.client.server_info().version
    }

    /// When a request that is made now has to be answered.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Waits until there is a connection, and the server has said what it is.
    pub(super) async fn connected(&self, deadline: Instant) -> Result<(), Failed> {
        const PAUSE: Duration = Duration::from_millis(10);
        let is_there = || {
            let has_said = self.client.try_server_info().is_some();
            has_said && self.client.connection_state() == State::Connected
        };
        while !is_there() {
            if Instant::now() + PAUSE > deadline {
                return Err(Failed::Away(format!(
                    "{} can not be reached within {:?} (queue.jetstream.servers)",
                    self.servers, self.timeout
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Puts a record in the place of the one that is expected, 0 for none; without it, in place of whatever is there.
    pub(super) async fn put(
        &self,
        subject: &str,
        expected: Option<u64>,
        mut headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Fenced<u64>, Failed> {
        if let Some(expected) = expected {
            headers.insert(EXPECTED, expected.to_string());
        }
        let request = Request::new().headers(headers).payload(body);
        match self.ask::<Ack>(subject, request, deadline).await {
            Ok(ack) => Ok(Fenced::Done(ack.seq)),
            Err(Failed::Refused { code, .. }) if WRONG_SEQUENCE.contains(&code) => {
                Ok(Fenced::Moved)
            }
            Err(failed) => Err(failed),
        }
    }

    /// Deletes a record, unless it is gone or another one is in its place.
    pub(super) async fn delete(&self, stream: &str, sequence: u64) -> Result<Fenced<()>, Failed> {
        let subject = format!("STREAM.MSG.DELETE.{stream}");
        let what = json!({ "seq": sequence, "no_erase": true });
        match self.api::<Deleted>(&subject, &what).await {
            Ok(Deleted { success: true }) => Ok(Fenced::Done(())),
            Ok(_) => Ok(Fenced::Moved),
            Err(Failed::Refused { code, .. }) if DELETE_FAILED.contains(&code) => Ok(Fenced::Moved),
            Err(failed) => Err(failed),
        }
    }

    /// The record of that place.
    pub(super) async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, Failed> {
        self.read(stream, &json!({ "seq": sequence })).await
    }

    /// The record of that subject.
    pub(super) async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, Failed> {
        self.read(stream, &json!({ "last_by_subj": subject })).await
    }

    /// The record of that subject, by a server that has all up to the record which is known to have been at that place: one that has
    /// just been chosen, or was and does not know yet, may be behind.
    pub(super) async fn last_since(
        &self,
        stream: &str,
        subject: &str,
        known: u64,
    ) -> Result<Option<Stored>, Failed> {
        let found = self.last(stream, subject).await?;
        if found.as_ref().is_some_and(|found| found.sequence >= known) {
            return Ok(found);
        }
        let info = self.stream(stream).await?.unwrap_or_default();
        // One server alone is behind nobody.
        let replicas = info["cluster"]["replicas"].as_array();
        let is_alone = replicas.is_none_or(Vec::is_empty);
        if is_alone || info["state"]["last_seq"].as_u64() >= Some(known) {
            return self.last(stream, subject).await;
        }
        Err(Failed::Away(format!(
            "{}: the server that answers for {stream} has not caught up",
            self.servers
        )))
    }

    /// The first record from that place on.
    pub(super) async fn next(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<Option<Stored>, Failed> {
        let what = json!({ "next_by_subj": subject, "seq": from });
        self.read(stream, &what).await
    }

    /// The settings and the state of a stream; nothing when there is none.
    pub(super) async fn stream(&self, stream: &str) -> Result<Option<Value>, Failed> {
        const NO_STREAM: u64 = 10_059;
        match self
            .api(&format!("STREAM.INFO.{stream}"), &Value::Null)
            .await
        {
            Ok(info) => Ok(Some(info)),
            Err(Failed::Refused {
                code: NO_STREAM, ..
            }) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Makes a stream with these settings, or gives it these.
    pub(super) async fn configure(
        &self,
        stream: &str,
        exists: bool,
        config: &Value,
    ) -> Result<(), Failed> {
        let how = if exists { "UPDATE" } else { "CREATE" };
        let subject = format!("STREAM.{how}.{stream}");
        self.api::<Value>(&subject, config).await.map(|_| ())
    }

    /// Tells the heads of all records of a stream that have such a subject, oldest first.
    pub(super) async fn heads(
        &self,
        stream: &str,
        subject: &str,
        each: impl FnMut(Head) + Send,
    ) -> Result<(), Failed> {
        // It is forgotten by the server, in case we do not get to delete it.
        const IDLE_NANOS: u64 = 30_000_000_000;
        let config = json!({
            "stream_name": stream,
            "config": {
                "deliver_policy": "all", "ack_policy": "none", "headers_only": true, "filter_subject": subject,
                "inactive_threshold": IDLE_NANOS, "mem_storage": true, "num_replicas": 1,
            },
        });
        let create = format!("CONSUMER.CREATE.{stream}");
        let Consumer { name } = self.api(&create, &config).await?;
        let told = self.pull(stream, &name, each).await;
        let delete = format!("CONSUMER.DELETE.{stream}.{name}");
        if let Err(failed) = self.api::<Value>(&delete, &Value::Null).await {
            tracing::debug!(error = %failed, "the server will forget a consumer by itself");
        }
        told
    }

    async fn pull(
        &self,
        stream: &str,
        consumer: &str,
        mut each: impl FnMut(Head) + Send,
    ) -> Result<(), Failed> {
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut messages = subscribed.map_err(|error| Failed::Away(error.to_string()))?;
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let more = json!({ "batch": HEADS, "no_wait": true }).to_string();
        let mut due = 0;
        loop {
            if due == 0 {
                let (next, inbox, more) = (next.clone(), inbox.clone(), more.clone());
                let asked = self.client.publish_with_reply(next, inbox, more.into());
                asked
                    .await
                    .map_err(|error| Failed::Away(error.to_string()))?;
                due = HEADS;
            }
            let message = timeout_at(self.deadline(), messages.next()).await;
            let Ok(Some(message)) = message else {
                return Err(self.silent());
            };
            match message.status.map(|status| status.as_u16()) {
                None => {}
                // There are none, or no more than came.
                Some(404 | 408) => return Ok(()),
                Some(status) => {
                    let why = message.description.unwrap_or_default();
                    return Err(Failed::Unknown(format!(
                        "{stream} ended early: {status} {why}"
                    )));
                }
            }
            due -= 1;
            let place = message.reply.as_deref().and_then(stream_sequence);
            let header = |name| {
                let headers = message.headers.as_ref()?;
                Some(headers.get(name)?.as_str().to_owned())
            };
            if let Some(sequence) = place {
                each(Head {
                    sequence,
                    subject: message.subject.to_string(),
                    owner: header(OWNER).unwrap_or_default(),
                    deliveries: header(DELIVERIES),
                });
            }
        }
    }

    async fn read(&self, stream: &str, what: &Value) -> Result<Option<Stored>, Failed> {
        let subject = format!("STREAM.MSG.GET.{stream}");
        match self.api::<Got>(&subject, what).await {
            Ok(Got { message }) => message.stored().map(Some),
            Err(Failed::Refused {
                code: NOT_FOUND, ..
            }) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    async fn api<T: DeserializeOwned>(&self, subject: &str, what: &Value) -> Result<T, Failed> {
        let body = match what {
            Value::Null => Bytes::new(),
            what => Bytes::from(what.to_string()),
        };
        let request = Request::new().payload(body);
        let subject = format!("$JS.API.{subject}");
        self.ask(&subject, request, self.deadline()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        subject: &str,
        request: Request,
        deadline: Instant,
    ) -> Result<T, Failed> {
        // The deadline is ours, so that it holds as well while the client can not take a request.
        let request = request.timeout(None);
        let asked = self.client.send_request(subject.to_owned(), request);
        let message = match timeout_at(deadline, asked).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    RequestErrorKind::NoResponders => Failed::Away(format!(
                        "nothing answers for {subject} at {}: is JetStream on, and may this user use it?",
                        self.servers
                    )),
                    RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                        Failed::Refused {
                            code: 0,
                            why: error.to_string(),
                        }
                    }
                    _ => Failed::Unknown(format!("{}: {error}", self.servers)),
                });
            }
            Err(_) => return Err(self.silent()),
        };
        let answer: Answer<T> = serde_json::from_slice(&message.payload).map_err(|error| {
            Failed::Unknown(format!(
                "{} answered what is no answer: {error}",
                self.servers
            ))
        })?;
        match (answer.error, answer.answer) {
            (Some(refusal), _) => Err(refusal.failed(&self.servers)),
            (None, Some(answer)) => Ok(answer),
            (None, None) => Err(Failed::Unknown(format!(
                "{} answered {subject} without saying what became of it",
                self.servers
            ))),
        }
    }

    fn silent(&self) -> Failed {
        Failed::Unknown(format!(
            "{} did not answer within {:?} (queue.jetstream.operation_timeout)",
            self.servers, self.timeout
        ))
    }
}

impl Refusal {
    fn failed(self, servers: &str) -> Failed {
        match NO_LEADER.contains(&self.err_code) {
            true => Failed::Unknown(format!("{servers}: {}", self.description)),
            false => Failed::Refused {
                code: self.err_code,
                why: self.description,
            },
        }
    }
}

impl Message {
    fn stored(self) -> Result<Stored, Failed> {
        let decode = |text: &str| {
            BASE64_STANDARD.decode(text).map_err(|error| {
                Failed::Unknown(format!("record {} is damaged: {error}", self.seq))
            })
        };
        let headers = decode(&self.hdrs)?;
        let headers = String::from_utf8_lossy(&headers);
        let owner = headers
            .lines()
            .find_map(|line| line.strip_prefix(OWNER)?.strip_prefix(':'));
        Ok(Stored {
            sequence: self.seq,
            owner: owner.unwrap_or_default().trim().to_owned(),
            body: Bytes::from(decode(&self.data)?),
            subject: self.subject,
        })
    }
}

impl Failed {
    /// Whether there is no room for what was to be put.
    pub(super) fn is_full(&self) -> bool {
        let words = ["exceeded", "insufficient"];
        matches!(self, Self::Refused { why, .. } if words.iter().any(|word| why.contains(word)))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) | Self::Unknown(why) => f.write_str(why),
            Self::Refused { code, why } => write!(f, "JetStream refused it: {why} ({code})"),
        }
    }
}

/// The place in its stream of a message that a consumer delivers, which its reply subject tells:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.…`, with two more tokens before the stream from 2.11 on in some set-ups.
fn stream_sequence(reply: &str) -> Option<u64> {
    let tokens: Vec<&str> = reply.split('.').collect();
    let index = match tokens.len() {
        9 => 5,
        11.. => 7,
        _ => return None,
    };
    tokens[index].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_leader_does_not_know_what_was_done() {
        let check = |err_code, is_open| {
            let description = "no".to_owned();
            let failed = Refusal {
                err_code,
                description,
            };
            let failed = failed.failed("NATS");
            assert_eq!(matches!(failed, Failed::Unknown(_)), is_open, "{failed:?}");
        };
        check(10_008, true);
        check(10_009, true);
        check(10_057, false);
        check(10_077, false);
    }

    #[test]
    fn the_place_of_a_message_is_in_its_reply_subject() {
        let check = |reply, place| assert_eq!(stream_sequence(reply), place, "{reply}");
        check("$JS.ACK.Q.abc.1.17.1.1795819908188036571.1999", Some(17));
        check(
            "$JS.ACK.domain.hash.Q.abc.1.17.1.1795819908188036571.1999",
            Some(17),
        );
        check(
            "$JS.ACK.domain.hash.Q.abc.1.17.1.1795819908188036571.1999.x",
            Some(17),
        );
        check("$JS.ACK.Q.abc", None);
        check("_INBOX.abc", None);
    }

    #[test]
    fn the_owner_is_read_from_the_headers_of_a_record() {
        let headers =
            "NATS/1.0\r\nHearth-Owner: n1-abc\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n";
        let message = Message {
            seq: 7,
            subject: "a".into(),
            hdrs: BASE64_STANDARD.encode(headers),
            data: BASE64_STANDARD.encode("body"),
        };
        let stored = message.stored().unwrap();
        assert_eq!((stored.sequence, stored.owner.as_str()), (7, "n1-abc"));
        assert_eq!(stored.body, "body");
    }
}
