//! The traits a provider implements: [`Launch`] for the cold side, [`Invoke`] and [`Remote`] for the hot one.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use protocol::{
    Deadline, Function, FunctionId, Generation, InstanceId, InstanceKey, Invocation, Phases, Reply,
    Space,
};
use tokio::sync::mpsc;

use crate::{Error, Secrets};

/// What an instance is made from.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    /// The function's record.
    pub function: Arc<Function>,
    /// Its instance key.
    pub key: InstanceKey,
    /// The secrets that it gets.
    pub secrets: Arc<Secrets>,
    /// By when the instance must be ready.
    pub deadline: Deadline,
}

/// An instance that is ready.
#[derive(Debug, Clone)]
pub struct Launched {
    /// Its id.
    pub id: InstanceId,
    /// Takes invocations.
    pub invoke: Arc<dyn Invoke>,
    /// How long pull, create, start and ready took.
    pub phases: Phases,
}

/// An instance of this node's that the provider found, of this generation or an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: InstanceId,
    /// The space of its function.
    pub space: Space,
    /// Its function.
    pub function_id: FunctionId,
    /// Its instance key.
    pub key: InstanceKey,
    /// The generation of this node that started it.
    pub generation: Generation,
    /// Whether it runs and takes more than one invocation; others can only be removed.
    pub is_adoptable: bool,
    /// When it was created.
    pub created_at: SystemTime,
}

/// What a provider tells of instances that changed without being asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// The instance died or was removed behind our back.
    Gone(InstanceId),
    /// The provider was away and is back: what it holds must be listed again.
    Restored,
    /// The provider does not answer; instances that are up may go on running.
    Lost,
}

/// What [`Launch::watch`] yields.
pub type Update = Life;

/// Starts and stops instances of one pooled type: the cold side.
#[async_trait]
pub trait Launch: Send + Sync + fmt::Debug + 'static {
    /// Starts an instance of an `http` or `lambda` contract and waits until it takes invocations. What was begun is removed when it
    /// fails, and also when the future is dropped.
    ///
    /// # Errors
    /// Always with [`protocol::Effect::Refused`].
    async fn start(&self, spec: LaunchSpec) -> Result<Launched, Error>;

    /// Runs a `stdio` contract once: start, payload in, result out, gone. The phases are those of this run.
    /// What was begun is removed when the future is dropped.
    ///
    /// # Errors
    /// Of the start (refused) or of the run.
    async fn run(
        &self,
        spec: LaunchSpec,
        invocation: &Invocation,
    ) -> (Phases, Result<Reply, Error>);

    /// Stops an instance, by force after `executor.stop_grace`, and removes all that is left of it. One that is already gone is a success.
    ///
    /// # Errors
    /// When the provider does not answer; the caller tries again.
    async fn stop(&self, id: &InstanceId) -> Result<(), Error>;

    /// Lists all instances of this cluster and node, whatever their generation and state.
    ///
    /// # Errors
    /// When the provider does not answer.
    async fn list(&self) -> Result<Vec<Found>, Error>;

    /// Takes over an instance an earlier generation of this node started.
    ///
    /// # Errors
    /// When it can not be reached; the caller stops it.
    async fn adopt(&self, found: &Found, function: Arc<Function>)
    -> Result<Arc<dyn Invoke>, Error>;

    /// Tells of instances that die and of the provider's own outages. One watcher at a time.
    fn watch(&self) -> mpsc::Receiver<Update>;

    /// The digests of images that are present, most recently used first; empty for providers without images.
    fn images(&self) -> Arc<Vec<String>>;

    /// Whether it answers now.
    fn is_available(&self) -> bool;

    /// Resolves an image reference with what is present here.
    ///
    /// # Errors
    /// When the provider does not answer.
    async fn resolve_present(&self, image: &str) -> Result<Option<String>, Error>;

    /// Resolves an image reference by asking its registry.
    ///
    /// # Errors
    /// [`Error::ImageNotFound`] when it is not there or did not answer within `docker.resolve_timeout`.
    async fn resolve_remote(&self, image: &str) -> Result<String, Error>;
}

/// One instance that is up: the hot side.
#[async_trait]
pub trait Invoke: Send + Sync + fmt::Debug + 'static {
    /// Hands over one invocation and waits for the whole answer, at most the function's `timeoutMs` and the deadline. Where the call
    /// may stream, it may wait for the head only: the body then goes on, within the same time.
    ///
    /// # Errors
    /// Of the run.
    ///
    /// # Cancel safety
    /// Dropping the future, or a body that streams, closes the connection; the instance may go on running, so the caller treats it as suspect.
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error>;
}

/// A remote provider: nothing to start, only calls.
#[async_trait]
pub trait Remote: Send + Sync + fmt::Debug + 'static {
    /// Calls the function; its body may go on afterwards, where the call may stream.
    ///
    /// # Errors
    /// Of the call.
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error>;

    /// Forgets what is known of a function that was deleted, or is another one now.
    fn forget(&self, space: &Space, function_id: &FunctionId);
}
