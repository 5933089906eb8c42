//! Plugins of the events API: who is asked at which stage, what may be changed, and what a client is told of a refusal.

use std::sync::Arc;

use bytes::Bytes;
use plugins::{Hooks, Mode, Refusal, Stage, Subject};
use protocol::{Component, Effect, ErrorCode, Failure};
use tokio::time::timeout;

mod event;
mod request;

pub(super) use event::EventSubject;
pub(super) use request::{ask_invoking, ask_received};

/// The plugins of this node, if it has any.
#[derive(Debug, Default)]
pub(super) struct Plugins(Option<Arc<dyn Hooks>>);

impl Plugins {
    pub(super) fn new(hooks: Arc<dyn Hooks>) -> Self {
        Self(Some(hooks))
    }

    /// Whether any plugin hooks into a stage in that way.
    pub(super) fn any(&self, stage: Stage, mode: Mode) -> bool {
        self.0.as_ref().is_some_and(|hooks| hooks.any(stage, mode))
    }

    /// Asks the sync plugins of a stage, which may change the subject.
    ///
    /// # Errors
    /// When one does not let it pass.
    pub(super) async fn ask(&self, stage: Stage, subject: &mut dyn Subject) -> Result<(), Failure> {
        match &self.0 {
            Some(hooks) if hooks.any(stage, Mode::Sync) => {
                let asked = hooks.ask(stage, subject).await;
                asked.map_err(|refusal| failure(&refusal))
            }
            _ => Ok(()),
        }
    }

    /// Bounds all that is asked about one request.
    ///
    /// # Errors
    /// Those of `asking`, or that it took too long.
    pub(super) async fn bounded(
        &self,
        asking: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        match &self.0 {
            Some(hooks) => {
                let asked = timeout(hooks.request_timeout(), asking).await;
                asked.unwrap_or_else(|_| Err(failure(&Refusal::TooSlow)))
            }
            None => asking.await,
        }
    }

    /// Tells the async plugins of a stage.
    pub(super) fn tell(&self, stage: Stage, about: Bytes) {
        if let Some(hooks) = &self.0 {
            hooks.tell(stage, about);
        }
    }
}

/// A refusal as the rest of the gateway knows it: no function has run.
fn failure(refusal: &Refusal) -> Failure {
    let code = match refusal {
        Refusal::Vetoed { .. } => ErrorCode::Vetoed,
        Refusal::Failed { .. } => ErrorCode::PluginFailed,
        Refusal::Busy { .. } | Refusal::TooSlow => ErrorCode::Overloaded,
    };
    Failure::new(
        code,
        Component::Plugin,
        Effect::Refused,
        refusal.to_string(),
    )
}
