//! A provider for the tests of other crates: it starts nothing, and does what it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use protocol::invocation::{Body, BodyStream};
use protocol::{Failure, Function, Generation, InstanceId, Invocation, Phases, Reply};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{Error, Found, Invoke, Launch, LaunchSpec, Launched, Life, Update};

/// A scripted provider. Clones share the script and what happened.
#[derive(Debug, Clone)]
pub struct FakeProvider {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    generation: Generation,
    script: Mutex<Script>,
    /// Whether invocations wait before they answer.
    held: watch::Sender<bool>,
}

#[derive(Debug)]
struct Script {
    is_available: bool,
    start_delay: Duration,
    run_delay: Duration,
    start_failures: VecDeque<Error>,
    run_failures: VecDeque<Error>,
    streams: VecDeque<mpsc::UnboundedReceiver<Result<Bytes, Failure>>>,
    stop_failures: VecDeque<Error>,
    images: Arc<Vec<String>>,
    up: BTreeMap<InstanceId, Up>,
    watcher: Option<mpsc::Sender<Update>>,
    counts: Counts,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Starts that were asked for, failed ones included.
    pub starts: u32,
    /// Starts under way now.
    pub starting: u32,
    /// The most starts that were under way at once.
    pub starting_max: u32,
    /// Stops that were asked for.
    pub stops: u32,
    /// Invocations that were handed over, runs of the `stdio` contract included.
    pub invocations: u32,
    /// Invocations in flight now.
    pub in_flight: u32,
    /// The most invocations that were in flight on one instance at once.
    pub in_flight_max: u32,
}

#[derive(Debug, Clone)]
struct Up {
    found: Found,
    in_flight: u32,
    death: CancellationToken,
}

impl FakeProvider {
    /// Makes a provider that answers everything at once: an invocation's payload is its reply.
    pub fn new(generation: Generation) -> Self {
        let script = Script {
            is_available: true,
            start_delay: Duration::ZERO,
            run_delay: Duration::ZERO,
            start_failures: VecDeque::new(),
            run_failures: VecDeque::new(),
            streams: VecDeque::new(),
            stop_failures: VecDeque::new(),
            images: Arc::default(),
            up: BTreeMap::new(),
            watcher: None,
            counts: Counts::default(),
        };
        Self {
            shared: Arc::new(Shared {
                generation,
                script: Mutex::new(script),
                held: watch::Sender::new(false),
            }),
        }
    }

    /// Makes every later start take so long.
    pub fn delay_starts(&self, delay: Duration) {
        self.script().start_delay = delay;
    }

    /// Makes every later invocation take so long.
    pub fn delay_runs(&self, delay: Duration) {
        self.script().run_delay = delay;
    }

    /// Makes the next start fail, after its delay; several calls fail several starts.
    pub fn fail_next_start(&self, error: Error) {
        self.script().start_failures.push_back(error);
    }

    /// Makes the next invocation fail, after its delay.
    pub fn fail_next_run(&self, error: Error) {
        self.script().run_failures.push_back(error);
    }

    /// Answers the next invocation piece by piece with what is sent; the sender hears when the stream is dropped.
    pub fn stream_next_run(&self) -> mpsc::UnboundedSender<Result<Bytes, Failure>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.script().streams.push_back(receiver);
        sender
    }

    /// Makes the next stop fail and leaves the instance up.
    pub fn fail_next_stop(&self, error: Error) {
        self.script().stop_failures.push_back(error);
    }

    /// Keeps invocations from answering, those in flight included.
    pub fn hold_runs(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets invocations answer again.
    pub fn release_runs(&self) {
        self.shared.held.send_replace(false);
    }

    /// Says which image digests are present.
    pub fn set_images(&self, images: Vec<String>) {
        self.script().images = Arc::new(images);
    }

    /// Puts an instance there that an earlier generation left behind.
    pub fn leave_behind(&self, found: Found) {
        self.script().up.insert(
            found.id.clone(),
            Up {
                found,
                in_flight: 0,
                death: CancellationToken::new(),
            },
        );
    }

    /// Lets an instance die behind its owner's back: its invocations are interrupted, and the watcher is told.
    pub fn kill(&self, id: &InstanceId) {
        // In a statement of its own: telling takes the lock again.
        let removed = self.script().up.remove(id);
        if let Some(up) = removed {
            up.death.cancel();
            self.tell(Life::Gone(id.clone()));
        }
    }

    /// Makes the provider unavailable. Instances that are up go on.
    pub fn go_away(&self) {
        self.script().is_available = false;
        self.tell(Life::Lost);
    }

    /// Makes the provider available again.
    pub fn come_back(&self) {
        self.script().is_available = true;
        self.tell(Life::Restored);
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.script().counts
    }

    /// The instances that are up.
    pub fn up(&self) -> Vec<InstanceId> {
        self.script().up.keys().cloned().collect()
    }

    fn tell(&self, update: Update) {
        let watcher = self.script().watcher.clone();
        if let Some(watcher) = watcher {
            watcher
                .try_send(update)
                .expect("a test's watcher reads, or there are few updates");
        }
    }

    fn check_available(&self) -> Result<(), Error> {
        match self.script().is_available {
            true => Ok(()),
            false => Err(Error::EngineUnavailable {
                why: "the fake is away".into(),
            }),
        }
    }

    fn instance(&self, id: &InstanceId, death: CancellationToken) -> Arc<dyn Invoke> {
        Arc::new(FakeInstance {
            provider: self.clone(),
            id: id.clone(),
            death,
        })
    }

    /// Waits as the script says, and answers with the payload.
    async fn answer(&self, invocation: &Invocation) -> Result<Reply, Error> {
        let (delay, failure, stream) = {
            let mut script = self.script();
            let failure = script.run_failures.pop_front();
            (script.run_delay, failure, script.streams.pop_front())
        };
        tokio::time::sleep(delay).await;
        let mut held = self.shared.held.subscribe();
        // The sender lives in `self`.
        let _ = held.wait_for(|is_held| !*is_held).await;
        match (failure, stream) {
            (Some(error), _) => Err(error),
            (None, None) => Ok(reply(invocation.payload.clone().into())),
            (None, Some(pieces)) => {
                let pieces = stream::unfold(pieces, |mut pieces| async move {
                    let piece = pieces.recv().await?;
                    Some((piece, pieces))
                });
                let stream = BodyStream::new(None, invocation.deadline, pieces);
                Ok(reply(Body::Stream(stream)))
            }
        }
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.shared
            .script
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn reply(body: Body) -> Reply {
    Reply {
        status: 200,
        content_type: Some("application/json".into()),
        body,
        ..Reply::default()
    }
}

/// Counts a start for as long as it goes on, also when its future is dropped.
struct Starting(FakeProvider);

impl Starting {
    fn begin(provider: &FakeProvider) -> Self {
        let mut script = provider.script();
        script.counts.starts += 1;
        script.counts.starting += 1;
        script.counts.starting_max = script.counts.starting_max.max(script.counts.starting);
        drop(script);
        Self(provider.clone())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.script().counts.starting -= 1;
    }
}

#[async_trait]
impl Launch for FakeProvider {
    async fn start(&self, spec: LaunchSpec) -> Result<Launched, Error> {
        let starting = Starting::begin(self);
        self.check_available()?;
        let delay = self.script().start_delay;
        tokio::time::sleep(delay).await;
        if let Some(error) = self.script().start_failures.pop_front() {
            return Err(error);
        }
        let mut script = self.script();
        let id: InstanceId = format!("fake-{}-{}", self.shared.generation, script.counts.starts)
            .parse()
            .expect("an instance id of letters, digits and '-'");
        let id = unique(&script.up, id);
        let found = Found {
            id: id.clone(),
            space: spec.function.space.clone(),
            function_id: spec.function.function_id.clone(),
            key: spec.key,
            generation: self.shared.generation,
            is_adoptable: true,
            created_at: SystemTime::now(),
        };
        let death = CancellationToken::new();
        script.up.insert(
            id.clone(),
            Up {
                found,
                in_flight: 0,
                death: death.clone(),
            },
        );
        drop(script);
        drop(starting);
        let phases = Phases {
            start: Some(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
            ..Phases::default()
        };
        Ok(Launched {
            invoke: self.instance(&id, death),
            id,
            phases,
        })
    }

    async fn run(
        &self,
        _spec: LaunchSpec,
        invocation: &Invocation,
    ) -> (Phases, Result<Reply, Error>) {
        let starting = Starting::begin(self);
        if let Err(error) = self.check_available() {
            return (Phases::default(), Err(error));
        }
        let delay = self.script().start_delay;
        tokio::time::sleep(delay).await;
        drop(starting);
        if let Some(error) = self.script().start_failures.pop_front() {
            return (Phases::default(), Err(error));
        }
        self.script().counts.invocations += 1;
        (Phases::default(), self.answer(invocation).await)
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), Error> {
        self.script().counts.stops += 1;
        self.check_available()?;
        if let Some(error) = self.script().stop_failures.pop_front() {
            return Err(error);
        }
        if let Some(up) = self.script().up.remove(id) {
            up.death.cancel();
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        self.check_available()?;
        Ok(self
            .script()
            .up
            .values()
            .map(|up| up.found.clone())
            .collect())
    }

    async fn adopt(
        &self,
        found: &Found,
        _function: Arc<Function>,
    ) -> Result<Arc<dyn Invoke>, Error> {
        self.check_available()?;
        let death = self
            .script()
            .up
            .get(&found.id)
            .filter(|up| up.found.is_adoptable)
            .map(|up| up.death.clone());
        match death {
            Some(death) => Ok(self.instance(&found.id, death)),
            None => Err(Error::StartFailed {
                why: format!("{} is not there to be adopted", found.id),
            }),
        }
    }

    fn watch(&self) -> mpsc::Receiver<Update> {
        let (sender, receiver) = mpsc::channel(256);
        self.script().watcher = Some(sender);
        receiver
    }

    fn images(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.script().images)
    }

    fn is_available(&self) -> bool {
        self.script().is_available
    }

    async fn resolve_present(&self, image: &str) -> Result<Option<String>, Error> {
        self.check_available()?;
        Ok(self
            .script()
            .images
            .iter()
            .find(|digest| *digest == image)
            .cloned())
    }

    async fn resolve_remote(&self, image: &str) -> Result<String, Error> {
        Err(Error::ImageNotFound {
            image: image.to_owned(),
            why: "the fake has no registry".into(),
        })
    }
}

fn unique(up: &BTreeMap<InstanceId, Up>, id: InstanceId) -> InstanceId {
    let mut candidate = id.clone();
    let mut number = 1;
    while up.contains_key(&candidate) {
        number += 1;
        candidate = format!("{id}-{number}")
            .parse()
            .expect("an instance id of letters, digits and '-'");
    }
    candidate
}

/// An instance of the fake.
#[derive(Debug)]
struct FakeInstance {
    provider: FakeProvider,
    id: InstanceId,
    death: CancellationToken,
}

/// Counts an invocation for as long as it is in flight, also when its future is dropped.
struct InFlight<'a>(&'a FakeInstance);

impl<'a> InFlight<'a> {
    fn begin(instance: &'a FakeInstance) -> Self {
        let mut script = instance.provider.script();
        let on_instance = script.up.get_mut(&instance.id).map_or(1, |up| {
            up.in_flight += 1;
            up.in_flight
        });
        script.counts.invocations += 1;
        script.counts.in_flight += 1;
        script.counts.in_flight_max = script.counts.in_flight_max.max(on_instance);
        Self(instance)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut script = self.0.provider.script();
        script.counts.in_flight -= 1;
        if let Some(up) = script.up.get_mut(&self.0.id) {
            up.in_flight -= 1;
        }
    }
}

#[async_trait]
impl Invoke for FakeInstance {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        if self.death.is_cancelled() {
            return Err(Error::Unreachable {
                why: format!("{} is gone", self.id),
                retry_after_ms: None,
            });
        }
        let _in_flight = InFlight::begin(self);
        let timeout = function.limits().timeout;
        tokio::select! {
            biased;
            () = self.death.cancelled() => Err(Error::Interrupted { why: format!("{} died", self.id) }),
            outcome = tokio::time::timeout(timeout, self.provider.answer(invocation)) => match outcome {
                Ok(outcome) => outcome,
                Err(_) => Err(crate::contract::headers::timed_out(timeout)),
            },
        }
    }
}
