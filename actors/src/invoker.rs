//! The warm path: reads three snapshots, takes a slot, calls the instance or a peer. Never a mailbox.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::PeerClient;
use limits::{Exceeded, Standing};
use protocol::invocation::{Body, Call, StartKind, TraceContext};
use protocol::{
    Component, Deadline, Effect, ErrorCode, Failure, FunctionId, Hop, Invocation, InvocationId,
    NodeId, Phases, Reply, Space, Version,
};
use tokio::time::Instant;

mod attempt;
mod choose;
mod explain;
mod forward;
mod run;
mod serve;

use self::attempt::Attempt;
use crate::executor::{Budget, Checkout, Launchers, PoolKind, Pools};
use crate::quotas::{Admitted, Quotas};
use crate::registry_cache::{Registered, Registry, Unresolved};
use crate::remotes::Remotes;
use crate::router::RouteTable;
use crate::router::pick::Choice;
use crate::secrets::Opener;
use crate::snapshot::Reader;

/// How often a slot that was seen free and is taken meanwhile is looked for anew before the invocation queues.
const LOOKS_MAX: usize = 3;

/// How long a function may have no open pool, as the executor opens it a moment after the registry has it.
const POOL_PATIENCE: Duration = Duration::from_secs(1);

/// A client's request to run a function.
#[derive(Debug, Clone)]
pub struct Request {
    /// The id that names it in headers, logs and traces.
    pub id: InvocationId,
    /// The function's space.
    pub space: Space,
    /// The function.
    pub function_id: FunctionId,
    /// The version that is to run; nothing for the record that can still be changed.
    pub version: Option<Version>,
    /// The payload, whole.
    pub payload: Bytes,
    /// The payload's media type.
    pub content_type: String,
    /// How the function is called, if not as `POST /invoke` calls.
    pub call: Option<Arc<Call>>,
    /// W3C trace context of the request's span.
    pub trace: TraceContext,
    /// When the client's request began, if others were asked about it before: its deadline counts from then.
    pub begun: Option<Instant>,
}

/// An invocation that the function answered, or has begun to answer where its body streams.
#[derive(Debug)]
pub struct Completed {
    /// What the function answered.
    pub reply: Reply,
    /// The name of the node where it ran.
    pub node: Arc<str>,
    /// Whether it found an instance that was up.
    pub start: StartKind,
    /// Whether it ran on a peer.
    pub is_forwarded: bool,
    /// How long each phase took.
    pub phases: Phases,
    /// How the tightest rate stands that it counted for.
    pub standing: Option<Standing>,
}

/// An invocation that the function did not answer.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Why, where, and whether it may have run.
    pub failure: Failure,
    /// Whether a peer was asked.
    pub is_forwarded: bool,
    /// How long each phase took, as far as it got; no `route` when it went nowhere.
    pub phases: Phases,
    /// How the tightest rate stands that it counted for, or was refused by.
    pub standing: Option<Standing>,
}

/// Ties spans to W3C trace context; absent while no traces are exported, so that the warm path makes no spans.
pub trait Propagate: Send + Sync + fmt::Debug + 'static {
    /// Makes the context the parent of the span.
    fn set_parent(&self, span: &tracing::Span, trace: &TraceContext);
    /// The context that what the span calls should get.
    fn context(&self, span: &tracing::Span) -> TraceContext;
}

/// Counts invocations running or waiting on this node; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<AtomicU32>);

/// One invocation in flight, for as long as it lives.
#[derive(Debug)]
struct Counted(Arc<AtomicU32>);

/// All that the invoker is made from.
#[derive(Debug)]
pub struct Parts {
    /// This node's id.
    pub node_id: NodeId,
    /// This node's name.
    pub node_name: Arc<str>,
    /// The functions.
    pub registry: Reader<Registry>,
    /// This node's instances.
    pub pools: Reader<Pools>,
    /// The peers.
    pub routes: Reader<RouteTable>,
    /// This node's pooled providers.
    pub launchers: Launchers,
    /// Opens the secrets of functions.
    pub(crate) secrets: Opener,
    /// This node's memory and instance limits.
    pub budget: Budget,
    /// This node's remote providers.
    pub remotes: Remotes,
    /// Calls peers.
    pub client: Arc<dyn PeerClient>,
    /// How long an instance may take until it is ready.
    pub start_timeout: Duration,
    /// Peers tried after a refusal, besides the first.
    pub refusals_max: u32,
    /// The load up to which cold starts are packed.
    pub pack_until: f64,
    /// What may be asked for; everything without.
    pub quotas: Option<Quotas>,
    /// Invocations in flight on this node.
    pub in_flight: InFlight,
    /// Whether the node drains.
    pub is_draining: Arc<AtomicBool>,
    /// Until when peers may still be unheard of because this node has just started; none where no seeds are set.
    pub joined_by: Option<Instant>,
    /// Ties spans to trace context.
    pub propagate: Option<Arc<dyn Propagate>>,
}

/// Runs functions, here or on a peer; cheap to clone.
#[derive(Debug, Clone)]
pub struct Invoker {
    parts: Arc<Parts>,
}

/// How one attempt ended.
enum Step {
    Done(Completed),
    Failed(Failure),
    /// Nothing ran, or it may run twice: another attempt is made, or this failure told when there may be none.
    Again(Failure),
}

impl Invoker {
    /// Makes the invoker of a node.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
        }
    }

    /// Runs a function once and waits for its answer, at most its `timeoutMs` plus `node.start_timeout`. A body that streams goes on
    /// after the future is done, until the same deadline; what the invocation holds, it holds until then.
    ///
    /// # Errors
    /// [`Failed`], with the code to answer with.
    ///
    /// # Cancel safety
    /// Dropping the future, or a body that streams, cancels the invocation; an instance that had its payload is recycled.
    pub async fn invoke(&self, request: Request) -> Result<Completed, Box<Failed>> {
        let counted = self.parts.in_flight.count_one();
        let mut attempt = Attempt::new();
        // One whose function is not known counts for nobody.
        let registered =
            match self.registered(&request.space, &request.function_id, request.version) {
                Ok(registered) => registered,
                Err(failure) => return Err(self.failed(failure, attempt, None)),
            };
        let admitted = match self.admit_call(&registered).await {
            Ok(admitted) => admitted,
            Err(exceeded) => {
                let failure = Failure::from(&exceeded);
                return Err(self.failed(failure, attempt, exceeded.standing));
            }
        };
        let standing = admitted.standing;
        match self.attempts(&request, registered, &mut attempt).await {
            Ok(mut completed) => {
                completed.standing = standing;
                if let Body::Stream(stream) = completed.reply.body {
                    let node = Arc::clone(&completed.node);
                    completed.reply.body = Body::Stream(stream.on_end(move |ended| {
                        drop((counted, admitted));
                        if let Err(failure) = ended {
                            failure.node.get_or_insert_with(|| node.as_ref().to_owned());
                        }
                    }));
                }
                Ok(completed)
            }
            Err(failure) => Err(self.failed(failure, attempt, standing)),
        }
    }

    fn failed(
        &self,
        failure: Failure,
        attempt: Attempt,
        standing: Option<Standing>,
    ) -> Box<Failed> {
        Box::new(Failed {
            failure: failure.at_node(&self.parts.node_name),
            is_forwarded: attempt.is_forwarded,
            phases: attempt.phases,
            standing,
        })
    }

    /// Counts an invocation for its function and its space, where it enters the cluster. All versions of a function count together, for the
    /// limits that it has now.
    async fn admit_call(&self, registered: &Registered) -> Result<Admitted, Exceeded> {
        let Some(quotas) = &self.parts.quotas else {
            return Ok(Admitted::default());
        };
        let terms = match registered.function.version {
            None => quotas.terms_of_call(&registered.function),
            Some(_) => {
                let function = &registered.function;
                let registry = self.parts.registry.load();
                let newest = registry.function(&function.space, &function.function_id);
                quotas.terms_of_call(newest.map_or(function, |newest| &newest.function))
            }
        };
        match terms.is_empty() {
            true => Ok(Admitted::default()),
            false => quotas.admit(terms).await,
        }
    }

    async fn attempts(
        &self,
        request: &Request,
        mut registered: Arc<Registered>,
        attempt: &mut Attempt,
    ) -> Result<Completed, Failure> {
        loop {
            let begun = request.begun.unwrap_or(attempt.begun);
            let deadline = self.admit(&registered, request, begun)?;
            match self.attempt(request, &registered, deadline, attempt).await {
                Step::Done(completed) => return Ok(completed),
                Step::Failed(failure) => return Err(attempt.told(failure)),
                Step::Again(failure) => {
                    attempt.may_have_run |= failure.effect != Effect::Refused;
                    let is_late = deadline.remaining(Instant::now().into_std()).is_zero();
                    if is_late || attempt.local_failures > self.parts.refusals_max {
                        return Err(attempt.told(failure));
                    }
                    attempt.last_failure = Some(failure);
                }
            }
            // It may be another one by now.
            registered = self.registered(&request.space, &request.function_id, request.version)?;
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        registered: &Arc<Registered>,
        deadline: Deadline,
        attempt: &mut Attempt,
    ) -> Step {
        let invocation = || request.invocation(deadline, Hop::Direct);
        if registered.function.contract().is_none() {
            return self.call_remote(registered, invocation(), attempt).await;
        }
        if let Some(checkout) = self.free_slot(registered) {
            attempt.routed();
            return self.run(checkout, registered, invocation(), attempt).await;
        }
        let pool = match self.open_pool(registered, deadline, attempt).await {
            Ok(pool) => pool,
            Err(step) => return step,
        };
        let mut choice = self.choose_among_all(registered, &pool, attempt).await;
        for _ in 0..LOOKS_MAX {
            if choice != Choice::Local {
                break;
            }
            if let Some(checkout) = self.free_slot(registered) {
                attempt.routed();
                return self.run(checkout, registered, invocation(), attempt).await;
            }
            // Somebody else was quicker; the next look sees it.
            choice = self.choose(registered, &pool, attempt);
        }
        attempt.routed();
        match choice {
            Choice::Local | Choice::Wait | Choice::Cold => {
                self.wait_and_run(&pool, registered, invocation(), attempt)
                    .await
            }
            Choice::Peer(id) => {
                self.forward(&id, false, registered, invocation(), attempt)
                    .await
            }
            Choice::ColdAt(id) => {
                self.forward(&id, true, registered, invocation(), attempt)
                    .await
            }
            // What a node said that was asked says more than that there is none left to ask.
            Choice::Shed(why) => {
                attempt.phases.route = None;
                let last = attempt.last_failure.take();
                Step::Failed(last.unwrap_or_else(|| choose::shed(why, registered)))
            }
        }
    }

    fn registered(
        &self,
        space: &Space,
        id: &FunctionId,
        version: Option<Version>,
    ) -> Result<Arc<Registered>, Failure> {
        let registry = self.parts.registry.load();
        match registry.at(space, id, version) {
            Some(registered) => Ok(Arc::clone(registered)),
            None if registry.is_loaded => {
                let (space, id) = (space.clone(), id.clone());
                Err(match version {
                    Some(version) if registry.function(&space, &id).is_some() => {
                        Unresolved::Version { space, id, version }
                    }
                    _ => Unresolved::Function { space, id },
                }
                .into())
            }
            None => {
                let message = "this node has not loaded the functions yet: neither the store nor a snapshot was read";
                Err(
                    refusal(ErrorCode::StoreUnavailable, Component::Store, message)
                        .retry_after_ms(1000),
                )
            }
        }
    }

    /// Checks the payload against the function's limit and says when the caller stops waiting.
    fn admit(
        &self,
        registered: &Registered,
        request: &Request,
        begun: Instant,
    ) -> Result<Deadline, Failure> {
        let limits = registered.function.limits();
        let (bytes, bytes_max) = (request.payload.len(), limits.body_bytes);
        if let Some(bytes_max) = bytes_max.filter(|bytes_max| bytes > *bytes_max as usize) {
            let message = format!(
                "the payload has {bytes} bytes, limits.bodyBytes of the function is {bytes_max}"
            );
            return Err(refusal(
                ErrorCode::PayloadTooLarge,
                Component::Gateway,
                message,
            ));
        }
        Ok(Deadline::at(
            (begun + limits.timeout + self.parts.start_timeout).into_std(),
        ))
    }

    /// A free slot of this node.
    fn free_slot(&self, registered: &Registered) -> Option<Checkout> {
        let pools = self.parts.pools.load();
        pools.get(registered.key)?.pool()?.try_checkout()
    }

    /// The pool of a function, once it is open: one that was registered just now has none yet, and one that is closed belongs
    /// to a version that is no longer the function's.
    async fn open_pool(
        &self,
        registered: &Registered,
        deadline: Deadline,
        attempt: &mut Attempt,
    ) -> Result<PoolKind, Step> {
        let open = || {
            let pools = self.parts.pools.load();
            pools
                .get(registered.key)
                .filter(|pool| !pool.is_closed())
                .cloned()
        };
        if let Some(pool) = open() {
            return Ok(pool);
        }
        let until = Instant::from_std(deadline.moment()).min(Instant::now() + POOL_PATIENCE);
        let (mut pools, mut registry) = (self.parts.pools.changes(), self.parts.registry.changes());
        loop {
            if let Some(pool) = open() {
                return Ok(pool);
            }
            if !self.is_current(registered) {
                // Looked up anew at once, however often: each time it is another version.
                return Err(Step::Again(passing(
                    "the function changed while it was looked up",
                )));
            }
            let changed = async {
                tokio::select! {
                    changed = pools.changed() => changed,
                    changed = registry.changed() => changed,
                }
            };
            if !matches!(tokio::time::timeout_at(until, changed).await, Ok(Ok(()))) {
                break;
            }
        }
        if self.parts.is_draining.load(Ordering::Acquire) {
            return Err(Step::Failed(refusal(
                ErrorCode::Draining,
                Component::Gateway,
                "the node drains",
            )));
        }
        attempt.local_failures += 1;
        Err(Step::Again(passing(
            "the function has no instances on this node yet",
        )))
    }

    fn is_current(&self, registered: &Registered) -> bool {
        let function = &registered.function;
        let registry = self.parts.registry.load();
        let newest = registry.at(&function.space, &function.function_id, function.version);
        newest.is_some_and(|newest| newest.key == registered.key)
    }

    async fn call_remote(
        &self,
        registered: &Registered,
        mut invocation: Invocation,
        attempt: &mut Attempt,
    ) -> Step {
        let Some(remote) = self.parts.remotes.of(&registered.function.provider) else {
            let type_name = registered.function.type_name();
            let message = format!("this node can not call functions of type {type_name}");
            return Step::Failed(refusal(ErrorCode::Internal, Component::Provider, message));
        };
        attempt.routed();
        let (span, trace) = self.span(
            || tracing::info_span!("call", otel.kind = "client"),
            &invocation.trace,
        );
        invocation.trace = trace;
        let begun = Instant::now();
        let call = remote.invoke(&registered.function, &invocation);
        let result = tracing::Instrument::instrument(call, span).await;
        attempt.phases.run = Some(micros(begun.elapsed()));
        match result {
            Ok(reply) => Step::Done(self.completed(reply, StartKind::Warm, attempt)),
            Err(error) => Step::Failed(Failure::from(&error)),
        }
    }

    fn completed(&self, reply: Reply, start: StartKind, attempt: &Attempt) -> Completed {
        Completed {
            reply,
            node: Arc::clone(&self.parts.node_name),
            start,
            is_forwarded: false,
            phases: attempt.phases,
            standing: None,
        }
    }

    /// Makes a span only where traces are exported; without, the caller's context is handed on as it is.
    fn span(
        &self,
        make: impl FnOnce() -> tracing::Span,
        trace: &TraceContext,
    ) -> (tracing::Span, TraceContext) {
        match &self.parts.propagate {
            Some(propagate) => {
                let span = make();
                propagate.set_parent(&span, trace);
                let context = propagate.context(&span);
                (span, context)
            }
            None => (tracing::Span::none(), trace.clone()),
        }
    }
}

impl Request {
    fn invocation(&self, deadline: Deadline, hop: Hop) -> Invocation {
        Invocation {
            id: self.id.clone(),
            space: self.space.clone(),
            function_id: self.function_id.clone(),
            payload: self.payload.clone(),
            content_type: self.content_type.clone(),
            call: self.call.clone(),
            deadline,
            hop,
            trace: self.trace.clone(),
        }
    }
}

impl InFlight {
    /// How many there are now.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    fn count_one(&self) -> Counted {
        self.0.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(&self.0))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Nothing ran, and the next moment may be better.
fn passing(why: &str) -> Failure {
    refusal(ErrorCode::Overloaded, Component::Gateway, why).retry_after_ms(100)
}

fn refusal(code: ErrorCode, component: Component, message: impl Into<String>) -> Failure {
    Failure::new(code, component, Effect::Refused, message)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
