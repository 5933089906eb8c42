//! One plugin: its module as it is now, its turns, and what became of its calls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use config::recurring::Recurring;
use config::settings::{OnFailure, PluginSettings, PluginsSettings};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::call::{Compiler, Failure};
use super::lane::Lane;
use super::module::{self, Loaded};
use crate::hooks::{Refusal, Subject};
use crate::stage::{Mode, Stage};

/// A plugin of this node.
pub(super) struct Plugin {
    pub(super) name: Arc<str>,
    pub(super) path: PathBuf,
    /// What waits to be told to it.
    pub(super) lane: Lane,
    compiler: Compiler,
    file_bytes_max: u64,
    timeout: Duration,
    on_failure: OnFailure,
    /// Its settings, a JSON object.
    options: String,
    loaded: ArcSwap<Loaded>,
    /// Calls that it may answer at the same time.
    pub(super) turns: Semaphore,
    /// By outcome, so that one does not hide another.
    failures: Mutex<BTreeMap<&'static str, Recurring>>,
}

/// How a call ended, as it is counted.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Passed,
    Changed,
    Vetoed,
    Failed,
    TimedOut,
    Busy,
    Dropped,
}

/// What a plugin's answer came to.
enum Followed {
    Passed,
    Changed,
    Vetoed(String),
}

impl Plugin {
    /// Loads the plugin of these settings.
    pub(super) async fn load(
        compiler: &Compiler,
        settings: &PluginsSettings,
        of_one: &PluginSettings,
    ) -> Result<Self, module::Error> {
        let name: Arc<str> = of_one.name.as_str().into();
        let (file_bytes_max, timeout) = (settings.file_max.0, settings.timeout);
        let loaded = Loaded::load(compiler, &of_one.path, file_bytes_max, &name, timeout).await?;
        let observe_bytes_max = usize::try_from(settings.observe_bytes_max.0);
        tracing::info!(plugin = &*name, path = %of_one.path.display(), "plugin loaded");
        Ok(Self {
            name,
            path: of_one.path.clone(),
            lane: Lane::new(
                settings.observe_len_max,
                observe_bytes_max.unwrap_or(usize::MAX),
            ),
            compiler: compiler.clone(),
            file_bytes_max,
            timeout,
            on_failure: of_one.on_failure,
            options: of_one.settings.to_json(),
            loaded: ArcSwap::from_pointee(loaded),
            turns: Semaphore::new(settings.concurrency.min(Semaphore::MAX_PERMITS)),
            failures: Mutex::default(),
        })
    }

    /// Loads its file anew, and goes on with the module it has when that fails.
    pub(super) async fn reload(&self) -> Result<(), module::Error> {
        let loading = Loaded::load(
            &self.compiler,
            &self.path,
            self.file_bytes_max,
            &self.name,
            self.timeout,
        );
        self.loaded.store(Arc::new(loading.await?));
        Ok(())
    }

    /// How it takes part in a stage, if it does.
    pub(super) fn mode(&self, stage: Stage) -> Option<Mode> {
        self.loaded.load().mode(stage)
    }

    /// Asks it about something that waits for the answer.
    ///
    /// # Errors
    /// When it does not let it pass.
    pub(super) async fn ask(&self, stage: Stage, subject: &mut dyn Subject) -> Result<(), Refusal> {
        let deadline = Instant::now() + self.timeout;
        let turn = timeout_at(deadline, self.turns.acquire()).await;
        // A turn that came free because the time of another one was up comes too late for those who waited as long.
        let Some(turn) = turn.ok().filter(|_| Instant::now() < deadline) else {
            let why =
                "it had no turn within plugins.timeout; plugins.concurrency bounds how many it has";
            self.note(stage, Outcome::Busy, why);
            return self.unless_passed_over(Refusal::Busy {
                plugin: self.name.to_string(),
                stage,
            });
        };
        let answer = self.call(stage, subject.about(), deadline).await;
        drop(turn);
        let plugin = self.name.to_string();
        match answer.and_then(|answer| follow(&answer, subject)) {
            Ok(Followed::Passed) => self.count(stage, Outcome::Passed),
            Ok(Followed::Changed) => self.count(stage, Outcome::Changed),
            Ok(Followed::Vetoed(text)) => {
                self.count(stage, Outcome::Vetoed);
                return Err(Refusal::Vetoed { plugin, text });
            }
            Err(failure) => {
                self.note_failure(stage, &failure);
                return self.unless_passed_over(Refusal::Failed { plugin, stage });
            }
        }
        Ok(())
    }

    /// Puts something in its lane, if there is room.
    pub(super) fn tell(&self, stage: Stage, about: Bytes) {
        if !self.lane.push(stage, about) {
            let why =
                "its lane is full; plugins.observe_len_max and plugins.observe_bytes_max bound it";
            self.note(stage, Outcome::Dropped, why);
        }
    }

    /// Tells it what waits in its lane, one after the other, until that is closed.
    pub(super) async fn observe(self: Arc<Self>) {
        while let Some((stage, about)) = self.lane.pop().await {
            // The file may have changed since.
            if self.mode(stage).is_none() {
                continue;
            }
            match self.call(stage, about, Instant::now() + self.timeout).await {
                Ok(_) => self.count(stage, Outcome::Passed),
                Err(failure) => self.note_failure(stage, &failure),
            }
        }
    }

    async fn call(
        &self,
        stage: Stage,
        about: Bytes,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failure> {
        let (name, options) = (stage.name(), &self.options);
        let head = format!(r#"{{"stage":"{name}","settings":{options},"about":"#);
        let message = [head.into(), about, Bytes::from_static(b"}")];
        let call = self.loaded.load().call(&self.name, stage, message);
        let begun = Instant::now();
        let outcome = call.run(deadline).await;
        let plugin = self.name.to_string();
        metrics::histogram!("hearth_plugin_call_duration_seconds", "plugin" => plugin)
            .record(begun.elapsed());
        outcome
    }

    fn unless_passed_over(&self, refusal: Refusal) -> Result<(), Refusal> {
        match self.on_failure {
            OnFailure::Refuse => Err(refusal),
            OnFailure::Continue => Ok(()),
        }
    }

    fn note_failure(&self, stage: Stage, failure: &Failure) {
        let outcome = match failure {
            Failure::TimedOut => Outcome::TimedOut,
            _ => Outcome::Failed,
        };
        self.note(stage, outcome, failure);
    }

    /// Counts what went wrong, and logs it: at once, and then once a minute while it goes on.
    fn note(&self, stage: Stage, outcome: Outcome, why: impl std::fmt::Display) {
        self.count(stage, outcome);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let recurring = failures.entry(outcome.label()).or_default();
        let due = recurring.note(Instant::now());
        drop(failures);
        if let Some(due) = due {
            let then = match self.on_failure {
                _ if self.mode(stage) != Some(Mode::Sync) => "the event went on without it",
                OnFailure::Refuse => "the event was refused (on_failure is refuse)",
                OnFailure::Continue => "the event went on without it (on_failure is continue)",
            };
            tracing::warn!(
                plugin = &*self.name, %stage, outcome = outcome.label(), %why, then, times = due.times,
                "a plugin failed"
            );
        }
    }

    fn count(&self, stage: Stage, outcome: Outcome) {
        let (plugin, outcome) = (self.name.to_string(), outcome.label());
        metrics::counter!("hearth_plugin_calls_total", "plugin" => plugin, "stage" => stage.name(), "outcome" => outcome)
            .increment(1);
    }
}

/// Does as a plugin answered.
fn follow(answer: &[u8], subject: &mut dyn Subject) -> Result<Followed, Failure> {
    match Answer::parse(answer).map_err(Failure::Malformed)? {
        Answer::Pass => Ok(Followed::Passed),
        Answer::Veto(text) => Ok(Followed::Vetoed(text)),
        Answer::Change(data) => match subject.change(data) {
            Ok(()) => Ok(Followed::Changed),
            Err(why) => Err(Failure::Malformed(format!(
                "its data can not be taken: {why}"
            ))),
        },
    }
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Changed => "changed",
            Self::Vetoed => "vetoed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Busy => "busy",
            Self::Dropped => "dropped",
        }
    }
}
