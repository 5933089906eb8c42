//! The `lambda` contract: the instance asks the Runtime API of AWS Lambda, version 2018-06-01, for invocations, and answers there.
//!
//! Each instance has a server of its own ([`Server`]). An invocation takes a request for `next` that waits, and writes its answer to it
//! itself; the task that has the connection reads what the runtime answers, and hands that over.
//!
//! Source of the protocol: "Using the Lambda runtime API" and "Custom runtimes" of AWS's developer guide; for statuses and error types
//! that these leave open, AWS's own emulator of it (`aws/aws-lambda-runtime-interface-emulator`).

mod connection;
mod environment;
mod function_error;
mod next;
mod request;
mod server;
mod shared;
mod state;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::settings::LambdaSettings;
use protocol::invocation::{AnswerRule, Body};
use protocol::{Function, Invocation, InvocationId, Reply};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use self::next::NextHead;
pub(crate) use self::server::Server;
use self::shared::{Answer, Link, Shared, Turn};
use super::End;
use super::headers::timed_out;
use crate::output::Running;
use crate::{Error, Invoke};

/// What all functions of the contract have in common on a node.
#[derive(Debug, Clone)]
pub struct Lambda {
    /// The region in ARNs and in the environment.
    region: String,
    /// The account in ARNs, 12 digits.
    account_id: String,
    next_timeout: Duration,
    request_timeout: Duration,
    spare_connections: usize,
}

/// One instance that is up.
#[derive(Debug)]
pub(crate) struct LambdaInstance {
    instance: Arc<Instance>,
    /// Ends the server.
    _closes: DropGuard,
}

/// What an instance shares with its answers that go on after their call.
#[derive(Debug)]
struct Instance {
    shared: Arc<Shared>,
    head: NextHead,
    concurrency: u32,
    running: Arc<Running>,
    end: Arc<End>,
}

/// How long a run may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    until: Instant,
    /// That, as a duration from its beginning.
    limit: Duration,
}

/// An invocation that was given to the runtime; dropped, nobody waits for its answer any more.
struct Given<'a> {
    shared: &'a Shared,
    id: InvocationId,
}

/// The media types of answers that name none, as AWS takes them: a whole one is JSON.
const WHOLE_TYPE: &str = "application/json";
const STREAM_TYPE: &str = "application/octet-stream";
/// How long it may take until it is told how an instance ended.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// Up to this many bytes a payload is copied behind its head: one short write costs less than one of two pieces.
const COPY_BYTES_MAX: usize = 8 * 1024;

impl Lambda {
    /// That of a node.
    pub fn new(settings: &LambdaSettings) -> Self {
        Self {
            region: settings.region.clone(),
            account_id: settings.account_id.clone(),
            next_timeout: settings.next_timeout,
            request_timeout: settings.request_timeout,
            spare_connections: settings.spare_connections,
        }
    }
}

impl LambdaInstance {
    fn new(instance: Arc<Instance>, closes: DropGuard) -> Self {
        Self {
            instance,
            _closes: closes,
        }
    }
}

impl Instance {
    fn new(shared: Arc<Shared>, function: &Function, running: Arc<Running>, end: Arc<End>) -> Self {
        let version = function.version.map(|version| version.to_string());
        let arn = shared.lambda.arn(&function.function_id, version.as_deref());
        Self {
            head: NextHead::new(&arn),
            concurrency: function.limits().concurrency,
            shared,
            running,
            end,
        }
    }

    /// Waits until the runtime asks for an invocation. Nothing was given to it when it does not.
    async fn turn(&self, deadline: Instant) -> Result<Arc<Link>, Error> {
        let within = self.shared.lambda.next_timeout;
        let until = deadline.min(Instant::now() + within);
        loop {
            let turn = match self.shared.take() {
                Ok(turn) => turn,
                Err(Some(coming)) => match tokio::time::timeout_at(until, coming).await {
                    Ok(Ok(turn)) => turn,
                    Ok(Err(_)) => return Err(self.unreachable("its instance is gone")),
                    Err(_) => return Err(self.unreachable(&format!(
                        "its runtime did not ask for an invocation within {within:?} (lambda.next_timeout), though it runs fewer \
                         than limits.concurrency, {}", self.concurrency
                    ))),
                },
                Err(None) => return Err(self.unreachable("its instance is gone")),
            };
            if let Some(link) = Turn::take(turn) {
                return Ok(link);
            }
        }
    }

    fn unreachable(&self, why: &str) -> Error {
        let why = match self.shared.why_broken() {
            Some(broken) => format!("its runtime broke the protocol: {broken}"),
            None => why.to_owned(),
        };
        Error::Unreachable {
            why,
            retry_after_ms: None,
        }
    }

    /// Gives the invocation to the runtime.
    async fn give(
        &self,
        link: &Link,
        given: &Given<'_>,
        invocation: &Invocation,
        bounds: Bounds,
    ) -> Result<(), Error> {
        let payload = &invocation.payload;
        let mut head = Vec::with_capacity(1024);
        self.head
            .write(&given.id, invocation, bounds.until, &mut head);
        let mut payload: &[u8] = payload;
        if payload.len() <= COPY_BYTES_MAX {
            head.extend_from_slice(payload);
            payload = &[];
        }
        let length = head.len() + payload.len();
        // Once it has the whole answer the runtime may send its next request, before this task sees that all was written.
        link.is_asking
            .store(false, std::sync::atomic::Ordering::Release);
        match link.try_send(&head, payload, 0) {
            Ok(sent) if sent == length => Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                Err(self.unreachable(&format!("the connection broke: {error}")))
            }
            sent => {
                let sent = sent.unwrap_or(0);
                let (head, payload) = match sent.checked_sub(head.len()) {
                    None => (&head[sent..], payload),
                    Some(sent) => (&[][..], &payload[sent..]),
                };
                match link.send(head, payload).await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(self.lost(&error.to_string()).await),
                }
            }
        }
    }

    async fn run(
        self: &Arc<Self>,
        link: &Link,
        invocation: &Invocation,
        bounds: Bounds,
    ) -> Result<Reply, Error> {
        let run = self.running.enter(&invocation.id);
        let call = invocation.call.as_deref();
        let rule = call.map_or(AnswerRule::Success, |call| call.answer);
        let may_stream = rule == AnswerRule::Whole && call.is_some_and(|call| call.may_stream);
        let (answer, answered) = oneshot::channel();
        let running = shared::Running { answer, may_stream };
        let given = Given {
            shared: &self.shared,
            id: self.shared.begin(&invocation.id, running),
        };
        self.give(link, &given, invocation, bounds).await?;
        let Ok(answer) = answered.await else {
            return Err(self.lost("its instance went away").await);
        };
        match answer {
            Answer::Whole { content_type, body } => {
                let content_type = content_type.unwrap_or_else(|| WHOLE_TYPE.to_owned());
                Ok(reply(content_type, Body::Whole(body)))
            }
            Answer::Stream(mut streaming) => {
                let content_type = streaming.content_type.take();
                let content_type = content_type.unwrap_or_else(|| STREAM_TYPE.to_owned());
                let run = run.into_owned(&self.running);
                let body = streaming.into_body(self, bounds, run);
                Ok(reply(content_type, Body::Stream(body)))
            }
            Answer::Failed(error) => error.into_reply(rule),
            Answer::TooLarge => Err(Error::AnswerTooLarge {
                bytes_max: self.shared.limits.whole as u64,
            }),
            Answer::Malformed(why) => Err(Error::Malformed { why }),
        }
    }

    /// What a call comes to that was given to a runtime which answers no more.
    async fn lost(&self, broke: &str) -> Error {
        if let Some(why) = self.shared.why_broken() {
            let why = format!("its runtime broke the protocol: {why}");
            return Error::Malformed { why };
        }
        self.end.is_told(END_TIMEOUT).await;
        self.end.judge(self.concurrency, broke, false)
    }
}

#[async_trait]
impl Invoke for LambdaInstance {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        let deadline = Instant::from_std(invocation.deadline.moment());
        let link = self.instance.turn(deadline).await?;
        let began = Instant::now();
        let until = deadline.min(began + function.limits().timeout);
        let bounds = Bounds {
            until,
            limit: until.saturating_duration_since(began),
        };
        let run = self.instance.run(&link, invocation, bounds);
        match tokio::time::timeout_at(until, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(bounds.limit)),
        }
    }
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        self.shared.abandon(&self.id);
    }
}

fn reply(content_type: String, body: Body) -> Reply {
    Reply {
        status: 200,
        content_type: Some(content_type),
        body,
        ..Reply::default()
    }
}

#[cfg(test)]
mod tests;
