//! What the server of one instance's Runtime API shares with the invocations on that instance.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use protocol::{Function, InvocationId};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{SetOnce, oneshot};
use tokio_util::sync::CancellationToken;

use super::Lambda;
use super::function_error::FunctionError;
use super::state::{Asked, Refused, State};
use super::stream::Streaming;
use crate::AnswerLimits;

/// What the server of one instance's Runtime API shares with the invocations on that instance.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State<InvocationId, Arc<Link>, oneshot::Sender<Turn>, Running>>,
    /// Space and id of the function, for the log.
    function: String,
    /// Set when the runtime asks for the first time, or says why it can not.
    pub(super) ready: SetOnce<Result<(), String>>,
    /// Whose requests are answered.
    pub(super) caller: SetOnce<IpAddr>,
    /// Whether it was told that somebody else asked.
    has_warned: AtomicBool,
    /// Cancelled when the runtime broke the protocol.
    pub(super) broken: CancellationToken,
    /// Cancelled when nothing is served any more.
    pub(super) closed: CancellationToken,
    pub(super) lambda: Lambda,
    pub(super) limits: AnswerLimits,
    connections: AtomicU64,
}

/// The way back on one connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) writer: OwnedWriteHalf,
    /// Whether it has a request for `next` that was not answered yet: until then nothing else may come by it.
    pub(super) is_asking: AtomicBool,
}

/// A request for `next` that one invocation has; given back where it is dropped unused.
#[derive(Debug)]
pub(super) struct Turn {
    link: Option<Arc<Link>>,
    shared: Arc<Shared>,
}

/// Where the answer of an invocation goes.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) answer: oneshot::Sender<Answer>,
    /// Whether it may come piece by piece.
    pub(super) may_stream: bool,
}

/// What a runtime answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// `response`, whole.
    Whole {
        content_type: Option<String>,
        body: Bytes,
    },
    /// `response`, as it comes.
    Stream(Box<Streaming>),
    /// `error`, or an error behind a `response`.
    Failed(FunctionError),
    /// It is larger than an answer may be.
    TooLarge,
    /// It is none, for this reason.
    Malformed(String),
}

/// Why a request for `next` is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotKept {
    TooMany,
    Over,
}

impl Shared {
    pub(super) fn new(
        function: &Function,
        lambda: Lambda,
        limits: AnswerLimits,
        closed: CancellationToken,
    ) -> Self {
        let slots = usize::try_from(function.limits().concurrency).unwrap_or(usize::MAX);
        Self {
            state: Mutex::new(State::new(slots)),
            function: format!("{}/{}", function.space, function.function_id),
            ready: SetOnce::new(),
            caller: SetOnce::new(),
            has_warned: AtomicBool::new(false),
            broken: CancellationToken::new(),
            closed,
            lambda,
            limits,
            connections: AtomicU64::new(0),
        }
    }

    /// A new connection.
    pub(super) fn link(&self, writer: OwnedWriteHalf) -> Arc<Link> {
        Arc::new(Link {
            number: self.connections.fetch_add(1, Ordering::Relaxed),
            writer,
            is_asking: AtomicBool::new(false),
        })
    }

    /// The runtime asks for an invocation.
    pub(super) fn ask(self: &Arc<Self>, link: &Arc<Link>) -> Result<(), NotKept> {
        link.is_asking.store(true, Ordering::Release);
        let mut state = self.lock();
        let is_first = state.is_starting();
        let asked = state.ask(link.number, Arc::clone(link));
        drop(state);
        if is_first {
            let _ = self.ready.set(Ok(()));
        }
        self.settle(asked)
    }

    fn settle(
        self: &Arc<Self>,
        asked: Asked<Arc<Link>, oneshot::Sender<Turn>>,
    ) -> Result<(), NotKept> {
        match asked {
            Asked::Kept | Asked::Replaced(_) => Ok(()),
            Asked::Wanted(waiting, link) => {
                // One that waits no more drops the turn, which asks again.
                let _ = waiting.send(Turn::new(self, link));
                Ok(())
            }
            Asked::TooMany(_) => Err(NotKept::TooMany),
            Asked::Over(_) => Err(NotKept::Over),
        }
    }

    /// A connection is closed.
    pub(super) fn leave(&self, link: &Link) {
        self.lock().leave(link.number);
    }

    /// A request for `next`, or where one will come.
    pub(super) fn take(self: &Arc<Self>) -> Result<Turn, Option<oneshot::Receiver<Turn>>> {
        let mut state = self.lock();
        state.retain_waiting(|waiting| !waiting.is_closed());
        if let Some(link) = state.take() {
            return Ok(Turn::new(self, link));
        }
        if !state.is_open() {
            return Err(None);
        }
        let (sender, receiver) = oneshot::channel();
        state.wait(sender);
        Err(Some(receiver))
    }

    /// Notes that an invocation runs, and under which name: where one runs that has its own, under a new one.
    pub(super) fn begin(&self, id: &InvocationId, running: Running) -> InvocationId {
        let mut state = self.lock();
        let (mut id, mut running) = (id.clone(), running);
        while let Err((_, refused)) = state.begin(id.clone(), running) {
            (id, running) = (InvocationId::random(), refused);
        }
        id
    }

    /// Whether an answer to an invocation would be taken, and may come piece by piece.
    pub(super) fn look(&self, id: &InvocationId) -> Result<bool, Refused> {
        self.lock().look(id).map(|running| running.may_stream)
    }

    /// The runtime answers an invocation.
    pub(super) fn answer(&self, id: &InvocationId, answer: Answer) -> Result<(), Refused> {
        let running = self.lock().answer(id)?;
        // One who gave up this very moment gets nothing, and drops what would be a stream.
        let _ = running.answer.send(answer);
        Ok(())
    }

    pub(super) fn abandon(&self, id: &InvocationId) {
        self.lock().abandon(id);
    }

    /// The runtime broke the protocol: its instance is replaced.
    pub(super) fn break_off(&self, why: &str) {
        let function = self.function.as_str();
        tracing::warn!(
            function,
            why,
            "a runtime broke the protocol of the Runtime API: its instance is replaced"
        );
        self.lock().break_off(why);
        let _ = self
            .ready
            .set(Err(format!("its runtime broke the protocol: {why}")));
        self.broken.cancel();
    }

    /// The runtime says that it can not begin; false when it has begun.
    pub(super) fn fail_init(&self, why: String) -> bool {
        let is_starting = self.lock().is_starting();
        is_starting && self.ready.set(Err(why)).is_ok()
    }

    /// A request came from where this instance is not.
    pub(super) fn note_stranger(&self, from: IpAddr) {
        let function = self.function.as_str();
        match self.has_warned.swap(true, Ordering::Relaxed) {
            false => tracing::warn!(
                function, %from,
                "somebody else asked the Runtime API of an instance, and was refused"
            ),
            true => tracing::debug!(function, %from, "somebody else asked the Runtime API again"),
        }
    }

    /// A connection came when there were as many as there may be.
    pub(super) fn note_crowd(&self, connections_max: usize) {
        let function = self.function.as_str();
        tracing::debug!(
            function,
            connections_max,
            "a runtime has too many connections to its Runtime API (lambda.spare_connections): a new one is closed"
        );
    }

    /// The instance is gone.
    pub(super) fn end(&self) {
        self.lock().end();
        self.closed.cancel();
    }

    /// How its runtime broke the protocol, if it did.
    pub(super) fn why_broken(&self) -> Option<String> {
        self.lock().broken().map(str::to_owned)
    }

    fn lock(
        &self,
    ) -> MutexGuard<'_, State<InvocationId, Arc<Link>, oneshot::Sender<Turn>, Running>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn new(shared: &Arc<Shared>, link: Arc<Link>) -> Self {
        Self {
            link: Some(link),
            shared: Arc::clone(shared),
        }
    }

    /// Takes it, to be answered.
    pub(super) fn take(mut self) -> Option<Arc<Link>> {
        self.link.take()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            let asked = self.shared.lock().ask_again(link.number, link);
            // One that is over has nobody to tell.
            let _ = self.shared.settle(asked);
        }
    }
}
