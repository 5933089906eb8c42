//! The supervisor starts the node's actors, restarts what breaks, and drains them in reverse order.
//!
//! It owns no state of its own: publishers, pools and the route table outlive the actors that write them, so readers keep the
//! last snapshot while an actor restarts. More than three restarts within a minute mean that a restart does not help: the
//! process ends, with an error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub mod board;
pub mod start;

pub use start::{Parts, Running, StartError, start};

use crate::executor::{self, Executor};
use crate::registry_cache::{self, RegistryCache};
use crate::router::{self, Router};
use board::{Board, Name};

/// Restarts within [`RESTART_WINDOW`] after which the process ends instead.
const RESTARTS_MAX: usize = 3;

/// The time within which restarts are counted.
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// How long a question to an actor may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// All that the supervisor is made from.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) registry_cache: registry_cache::Args,
    pub(crate) executor: executor::Args,
    pub(crate) router: router::Args,
    pub(crate) board: Board,
    /// Cancelled when restarts do not help.
    pub(crate) broken: CancellationToken,
}

#[derive(Debug)]
pub(crate) enum Message {}

pub(crate) struct Supervisor;

pub(crate) struct Incarnation {
    args: Args,
    restarts: VecDeque<Instant>,
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = Incarnation;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Args) -> Result<Incarnation, ActorProcessingErr> {
        let incarnation = Incarnation { args, restarts: VecDeque::new() };
        for name in Name::CHILDREN {
            incarnation.spawn(name, &myself).await?;
        }
        Ok(incarnation)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        incarnation: &mut Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, why) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_else(|| "it ended".into())),
            _ => return Ok(()),
        };
        let Some(name) = incarnation.args.board.name_of(&cell) else { return Ok(()) };
        if incarnation.args.board.is_draining() {
            return Ok(());
        }
        incarnation.restart(name, &why, &myself).await
    }
}

impl Incarnation {
    async fn restart(&mut self, name: Name, why: &str, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        self.restarts.retain(|at| now.duration_since(*at) < RESTART_WINDOW);
        self.restarts.push_back(now);
        if self.restarts.len() > RESTARTS_MAX {
            tracing::error!(actor = name.as_str(), why, "actor broke again: {RESTARTS_MAX} restarts within a minute did not help, so the node ends");
            self.args.broken.cancel();
            return Ok(());
        }
        tracing::error!(actor = name.as_str(), why, "actor broke and is restarted");
        metrics::counter!("hearth_actor_restarts_total", "actor" => name.as_str()).increment(1);
        if let Err(error) = self.spawn(name, myself).await {
            tracing::error!(actor = name.as_str(), %error, "actor can not be restarted, so the node ends");
            self.args.broken.cancel();
        }
        Ok(())
    }

    async fn spawn(&self, name: Name, myself: &ActorRef<Message>) -> Result<(), ractor::SpawnErr> {
        let supervisor = myself.get_cell();
        let args = &self.args;
        let cell = match name {
            Name::Supervisor => supervisor,
            Name::RegistryCache => {
                let args = args.registry_cache.clone();
                Actor::spawn_linked(None, RegistryCache, args, supervisor).await?.0.get_cell()
            }
            Name::Executor => {
                let (actor, _) = Actor::spawn_linked(None, Executor, args.executor.clone(), supervisor).await?;
                args.board.set_executor(actor.clone());
                actor.get_cell()
            }
            Name::Router => Actor::spawn_linked(None, Router, args.router.clone(), supervisor).await?.0.get_cell(),
        };
        args.board.set(name, cell);
        Ok(())
    }
}

/// Stops admitting: readiness goes off and peers are told.
pub(crate) fn begin_drain(board: &Board) {
    board.draining().store(true, Ordering::Release);
}

/// Stops the node's instances, then its actors, last started first. What is not gone by the deadline is left to the next
/// incarnation.
pub(crate) async fn stop(supervisor: &ActorRef<Message>, board: &Board, deadline: Instant) {
    board.stop();
    if let Some(executor) = board.executor() {
        let _ = executor.cast(executor::Message::Drain);
        let mut pause = Duration::from_millis(10);
        while Instant::now() < deadline {
            let timeout = u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
            match ractor::call_t!(executor, executor::Message::Remaining, timeout) {
                Ok(0) => break,
                Ok(remaining) => tracing::debug!(remaining, "waiting for instances to stop"),
                Err(error) => {
                    tracing::warn!(%error, "the executor does not answer; instances are left to the next start");
                    break;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
    for name in Name::CHILDREN.into_iter().rev() {
        if let Some(cell) = board.cell(name) {
            let _ = cell.stop_and_wait(None, Some(CALL_TIMEOUT)).await;
        }
    }
    let _ = supervisor.stop_and_wait(None, Some(CALL_TIMEOUT)).await;
}

/// What an actor does, in a word.
pub(crate) fn status_of(cell: &ActorCell) -> &'static str {
    match cell.get_status() {
        ActorStatus::Unstarted | ActorStatus::Starting => "starting",
        ActorStatus::Running | ActorStatus::Upgrading => "running",
        ActorStatus::Draining | ActorStatus::Stopping => "stopping",
        ActorStatus::Stopped => "stopped",
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Supervisor")
    }
}

/// A running supervisor, to drain it by; cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    supervisor: ActorRef<Message>,
    board: Board,
    broken: CancellationToken,
}

impl Handle {
    pub(crate) fn new(supervisor: ActorRef<Message>, board: Board, broken: CancellationToken) -> Self {
        Self { supervisor, board, broken }
    }

    /// Resolves when an actor broke for good; the process should end with an error.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Stops admitting forwards and reports as draining; what is in flight goes on.
    pub fn begin_drain(&self) {
        begin_drain(&self.board);
    }

    /// Stops the node's instances and actors, at most until the deadline.
    pub async fn stop(&self, deadline: Instant) {
        stop(&self.supervisor, &self.board, deadline).await;
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }
}

/// The board's readers want it behind one pointer.
pub(crate) type SharedFlag = Arc<std::sync::atomic::AtomicBool>;

#[cfg(test)]
mod tests;
