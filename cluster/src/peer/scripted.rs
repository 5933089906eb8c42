//! A peer client for tests that answers as it was told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use protocol::invocation::{Body, BodyStream};
use protocol::peer::{InvokeHead, ReplyHead, ReplyOutcome};
use protocol::{Deadline, Failure, FunctionId, NodeId, Phases, Space};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Error, Peer, PeerClient};

/// Makes an answer of head and payload.
pub type Compute = Arc<dyn Fn(&InvokeHead, &Bytes) -> (ReplyHead, Bytes) + Send + Sync>;

/// Makes an answer whose body comes piece by piece.
pub type Stream = Arc<dyn Fn(&InvokeHead) -> (ReplyHead, BodyStream) + Send + Sync>;

/// What a scripted peer does with one invocation.
#[derive(Clone)]
pub enum Step {
    /// It answers; see [`Step::answer`].
    Answer(Box<(ReplyHead, Bytes)>),
    /// It answers with what a function makes of head and payload.
    Compute(Compute),
    /// It answers with a body that comes piece by piece.
    Stream(Stream),
    /// It can not be reached.
    Refuse,
    /// It answers that it takes no call, as one that drains does.
    Decline,
    /// It is lost during the call.
    Interrupt,
    /// It says nothing until the deadline, or until the call is dropped.
    Hang,
    /// It waits, then does something else.
    After(Duration, Box<Step>),
}

impl Step {
    /// An answer.
    pub fn answer(head: ReplyHead, body: impl Into<Bytes>) -> Self {
        Self::Answer(Box::new((head, body.into())))
    }

    /// An answer of a function, with status 200.
    pub fn reply(body: impl Into<Bytes>) -> Self {
        let outcome = ReplyOutcome::Replied {
            status: 200,
            content_type: None,
            headers: Vec::new(),
            start: protocol::invocation::StartKind::Warm,
            ended: None,
        };
        Self::answer(
            ReplyHead {
                outcome,
                free_slots: 0,
                instances: 1,
                phases: Phases::default(),
                stream: None,
            },
            body,
        )
    }

    /// An answer that says the function was not run, or failed.
    pub fn fail(failure: Failure) -> Self {
        let outcome = ReplyOutcome::Failed(failure);
        Self::answer(
            ReplyHead {
                outcome,
                free_slots: 0,
                instances: 0,
                phases: Phases::default(),
                stream: None,
            },
            Bytes::new(),
        )
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(answer) => f.debug_tuple("Answer").field(&answer.0).finish(),
            Self::Compute(_) => f.write_str("Compute"),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Refuse => f.write_str("Refuse"),
            Self::Decline => f.write_str("Decline"),
            Self::Interrupt => f.write_str("Interrupt"),
            Self::Hang => f.write_str("Hang"),
            Self::After(delay, step) => f.debug_tuple("After").field(delay).field(step).finish(),
        }
    }
}

/// One invocation that was asked of a scripted peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The peer.
    pub peer: NodeId,
    /// What was sent ahead.
    pub head: InvokeHead,
    /// What was sent.
    pub payload: Bytes,
}

/// A [`PeerClient`] that does for each peer what it was told: step by step, the last step for ever. A peer that it was told
/// nothing about can not be reached. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct ScriptedPeer(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    steps: HashMap<NodeId, VecDeque<Step>>,
    silent: HashSet<NodeId>,
    digests: HashMap<(NodeId, String), String>,
    logs: HashMap<NodeId, Vec<Bytes>>,
    calls: Vec<Call>,
    probes: HashMap<NodeId, u64>,
    dropped: u64,
}

impl ScriptedPeer {
    /// Builds a client that reaches nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells what a peer does with its next invocations.
    pub fn script(&self, peer: &NodeId, steps: impl IntoIterator<Item = Step>) {
        self.lock()
            .steps
            .insert(peer.clone(), steps.into_iter().collect());
    }

    /// Tells whether a peer leaves probes unanswered.
    pub fn set_silent(&self, peer: &NodeId, is_silent: bool) {
        let mut script = self.lock();
        if is_silent {
            script.silent.insert(peer.clone());
        } else {
            script.silent.remove(peer);
        }
    }

    /// Tells which digest a peer's engine has for an image.
    pub fn set_digest(&self, peer: &NodeId, image: &str, digest: &str) {
        self.lock()
            .digests
            .insert((peer.clone(), image.to_owned()), digest.to_owned());
    }

    /// Tells which lines of output a peer has.
    pub fn set_logs(&self, peer: &NodeId, lines: impl IntoIterator<Item = Bytes>) {
        self.lock()
            .logs
            .insert(peer.clone(), lines.into_iter().collect());
    }

    /// The invocations asked so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How often a peer was probed so far.
    pub fn probes(&self, peer: &NodeId) -> u64 {
        self.lock().probes.get(peer).copied().unwrap_or(0)
    }

    /// How many invocations were dropped before their end.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, peer: &NodeId) -> Step {
        let mut script = self.lock();
        match script.steps.get_mut(peer) {
            Some(steps) if steps.len() > 1 => steps.pop_front(),
            Some(steps) => steps.front().cloned(),
            None => None,
        }
        .unwrap_or(Step::Refuse)
    }

    fn is_known(&self, peer: &NodeId) -> bool {
        self.lock().steps.contains_key(peer)
    }
}

/// Counts a call that is dropped before its end.
struct Unfinished<'a>(Option<&'a ScriptedPeer>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(scripted) = self.0 {
            scripted.lock().dropped += 1;
        }
    }
}

fn refused(peer: &Peer, is_answer: bool) -> Error {
    Error::Refused {
        peer: peer.name.clone(),
        why: "the script says so".into(),
        is_answer,
    }
}

#[async_trait]
impl PeerClient for ScriptedPeer {
    async fn invoke(
        &self,
        peer: &Peer,
        head: InvokeHead,
        payload: Bytes,
        deadline: Deadline,
    ) -> Result<(ReplyHead, Body), Error> {
        self.lock().calls.push(Call {
            peer: peer.id.clone(),
            head: head.clone(),
            payload: payload.clone(),
        });
        let mut unfinished = Unfinished(Some(self));
        let deadline = Instant::from_std(deadline.moment());
        let mut step = self.next(&peer.id);
        let outcome = loop {
            match step {
                Step::Answer(answer) => break Ok((answer.0, Body::Whole(answer.1))),
                Step::Compute(compute) => {
                    let (head, body) = compute(&head, &payload);
                    break Ok((head, Body::Whole(body)));
                }
                Step::Stream(stream) => {
                    let (head, body) = stream(&head);
                    break Ok((head, Body::Stream(body)));
                }
                Step::Refuse => break Err(refused(peer, false)),
                Step::Decline => break Err(refused(peer, true)),
                Step::Interrupt => {
                    break Err(Error::Interrupted {
                        peer: peer.name.clone(),
                        why: "the script says so".into(),
                    });
                }
                Step::Hang => {
                    sleep_until(deadline).await;
                    break Err(Error::Deadline {
                        peer: peer.name.clone(),
                    });
                }
                Step::After(delay, then) => {
                    if timeout_at(deadline, tokio::time::sleep(delay))
                        .await
                        .is_err()
                    {
                        break Err(Error::Deadline {
                            peer: peer.name.clone(),
                        });
                    }
                    step = *then;
                }
            }
        };
        unfinished.0 = None;
        outcome
    }

    async fn probe(&self, peer: &Peer, timeout: Duration) -> Result<(), Error> {
        *self.lock().probes.entry(peer.id.clone()).or_default() += 1;
        let is_silent = self.lock().silent.contains(&peer.id);
        if is_silent {
            tokio::time::sleep(timeout).await;
            return Err(Error::Deadline {
                peer: peer.name.clone(),
            });
        }
        if self.is_known(&peer.id) {
            Ok(())
        } else {
            Err(refused(peer, false))
        }
    }

    async fn resolve_image(
        &self,
        peer: &Peer,
        image: &str,
        _: Deadline,
    ) -> Result<Option<String>, Error> {
        if !self.is_known(&peer.id) {
            return Err(refused(peer, false));
        }
        Ok(self
            .lock()
            .digests
            .get(&(peer.id.clone(), image.to_owned()))
            .cloned())
    }

    async fn logs(
        &self,
        peer: &Peer,
        _: &Space,
        _: &FunctionId,
        follow: bool,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, Error> {
        if !self.is_known(&peer.id) {
            return Err(refused(peer, false));
        }
        let lines = self.lock().logs.get(&peer.id).cloned().unwrap_or_default();
        let lines = stream::iter(lines.into_iter().map(Ok));
        Ok(if follow {
            lines.chain(stream::pending()).boxed()
        } else {
            lines.boxed()
        })
    }
}
