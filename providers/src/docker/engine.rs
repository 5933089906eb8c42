//! The way to the engine: a bounded number of calls at once, each bounded in time, and whether it answers at all.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use config::settings::DockerSettings;
use tokio::sync::{Notify, Semaphore, watch};

use crate::Error;

/// One engine.
#[derive(Debug)]
pub(super) struct Engine {
    host: String,
    client: OnceLock<bollard::Docker>,
    calls: Semaphore,
    call_timeout: Duration,
    state: watch::Sender<State>,
    /// Wakes the monitor: a call found that nobody is there.
    doubt: Notify,
    /// Processors of the engine's machine; more than these it refuses to promise.
    cpus: OnceLock<f64>,
}

/// Whether the engine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It was not asked yet.
    Unknown,
    /// It answers.
    Up,
    /// It is missing, down or hung.
    Down,
}

/// Why a look found no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// Nobody is there, or it is no engine.
    #[error("{0}")]
    Failed(String),
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// Why a call has no result.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// The engine answered with an error.
    Answered {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The engine did not answer.
    Unavailable(String),
}

/// bollard's own bound on an answer's head; ours are shorter, except that a wait for a container's end may be as long as its limit.
const CLIENT_TIMEOUT_SECONDS: u64 = 24 * 3600;
/// How long a call waits for the first look at the engine, right after the node started.
const FIRST_LOOK: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) fn new(settings: &DockerSettings) -> Self {
        Self {
            host: settings.host.clone(),
            client: OnceLock::new(),
            calls: Semaphore::new(settings.calls_max.clamp(1, Semaphore::MAX_PERMITS)),
            call_timeout: settings.call_timeout,
            state: watch::Sender::new(State::Unknown),
            doubt: Notify::new(),
            cpus: OnceLock::new(),
        }
    }

    pub(super) fn is_available(&self) -> bool {
        *self.state.borrow() == State::Up
    }

    /// Whether it was asked and did not answer; a call made before the first look waits for it.
    pub(super) fn is_down(&self) -> bool {
        *self.state.borrow() == State::Down
    }

    pub(super) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Processors that a container may be promised, at most `wanted`.
    pub(super) fn cpus(&self, wanted: f64) -> f64 {
        self.cpus.get().map_or(wanted, |cpus| wanted.min(*cpus))
    }

    /// Waits until the engine answers.
    pub(super) async fn until_up(&self) {
        // The sender lives in `self`, so the wait can not fail.
        let _ = self
            .state
            .subscribe()
            .wait_for(|state| *state == State::Up)
            .await;
    }

    /// Waits until a call found that the engine does not answer.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Looks whether the engine answers, and returns whether it did before. An answer counts at once; a failure is judged by the
    /// monitor, since an engine that is busy may be late.
    pub(super) async fn look(&self, within: Duration) -> (State, Result<(), NoAnswer>) {
        let before = *self.state.borrow();
        let outcome = match tokio::time::timeout(within, self.ask(before)).await {
            Ok(outcome) => outcome.map_err(NoAnswer::Failed),
            Err(_) => Err(NoAnswer::Silent(within)),
        };
        if outcome.is_ok() && before != State::Up {
            self.state.send_replace(State::Up);
        }
        (before, outcome)
    }

    /// Counts the engine as away, until a look finds it again.
    pub(super) fn give_up(&self) {
        self.state.send_replace(State::Down);
    }

    async fn ask(&self, before: State) -> Result<(), String> {
        let client = self.client()?;
        if before == State::Up {
            return client
                .ping()
                .await
                .map(|_| ())
                .map_err(|error| error.to_string());
        }
        // Clones share the negotiated version.
        client
            .clone()
            .negotiate_version()
            .await
            .map_err(|error| error.to_string())?;
        if self.cpus.get().is_none() {
            let info = client.info().await.map_err(|error| error.to_string())?;
            if let Some(cpus) = info
                .ncpu
                .filter(|cpus| *cpus > 0)
                .and_then(|cpus| i32::try_from(cpus).ok())
            {
                let _ = self.cpus.set(f64::from(cpus));
            }
        }
        Ok(())
    }

    /// Makes a call within the usual time.
    pub(super) async fn call<'a, T, F>(
        &'a self,
        what: &'static str,
        make: impl FnOnce(&'a bollard::Docker) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>>,
    {
        self.call_within(self.call_timeout, what, make).await
    }

    /// Makes a call within `timeout`, the wait for its turn included.
    pub(super) async fn call_within<'a, T, F>(
        &'a self,
        timeout: Duration,
        what: &'static str,
        make: impl FnOnce(&'a bollard::Docker) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>>,
    {
        let outcome = tokio::time::timeout(timeout, async {
            self.check().await?;
            let client = self.client().map_err(CallError::Unavailable)?;
            let _permit = self
                .calls
                .acquire()
                .await
                .expect("the semaphore is never closed");
            make(client)
                .await
                .map_err(|error| self.classify(what, error))
        })
        .await;
        match outcome {
            Ok(outcome) => outcome,
            Err(_) => {
                self.doubt.notify_one();
                metrics::counter!("hearth_engine_timeouts_total").increment(1);
                Err(CallError::Unavailable(format!(
                    "{what} took longer than {timeout:?}"
                )))
            }
        }
    }

    /// The client, for streams that go on for as long as a container does.
    ///
    /// # Errors
    /// When the engine does not answer now.
    pub(super) async fn stream_client(&self) -> Result<&bollard::Docker, CallError> {
        self.check().await?;
        self.client().map_err(CallError::Unavailable)
    }

    async fn check(&self) -> Result<(), CallError> {
        if *self.state.borrow() == State::Unknown {
            let mut state = self.state.subscribe();
            let _ =
                tokio::time::timeout(FIRST_LOOK, state.wait_for(|state| *state != State::Unknown))
                    .await;
        }
        match *self.state.borrow() {
            State::Up => Ok(()),
            State::Unknown | State::Down => Err(CallError::Unavailable(format!(
                "no engine answers at {}",
                self.host
            ))),
        }
    }

    fn client(&self) -> Result<&bollard::Docker, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let host = &self.host;
        let version = bollard::API_DEFAULT_VERSION;
        let client = if host.starts_with("tcp://") || host.starts_with("http://") {
            bollard::Docker::connect_with_http(host, CLIENT_TIMEOUT_SECONDS, version)
        } else {
            bollard::Docker::connect_with_unix(host, CLIENT_TIMEOUT_SECONDS, version)
        };
        let client = client.map_err(|error| error.to_string())?;
        Ok(self.client.get_or_init(|| client))
    }

    pub(super) fn classify(&self, what: &'static str, error: bollard::errors::Error) -> CallError {
        match error {
            bollard::errors::Error::DockerResponseServerError {
                status_code,
                message,
            } => CallError::Answered {
                status: status_code,
                message: message.trim().to_owned(),
            },
            error => {
                self.doubt.notify_one();
                CallError::Unavailable(format!("{what} failed: {error}"))
            }
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Answered { status, message } => Self::EngineUnavailable {
                why: format!("it answered with status {status}: {message}"),
            },
            CallError::Unavailable(why) => Self::EngineUnavailable { why },
        }
    }
}
