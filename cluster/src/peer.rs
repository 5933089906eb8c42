//! Calls between nodes: HTTP/1.1 over mutual TLS, certificates pinned by the gossiped fingerprint.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use protocol::invocation::Body;
use protocol::peer::{InvokeHead, ReplyHead};
use protocol::{Component, Deadline, Effect, ErrorCode, Failure, FunctionId, NodeId, Space};

pub mod client;
mod frame;
#[cfg(any(test, feature = "test-util"))]
pub mod scripted;
pub mod server;
mod tls;

/// The name in every node's certificate. Nobody looks at it: certificates are told apart by their fingerprints.
pub(crate) const TLS_NAME: &str = "hearth-peer";

/// How to reach a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its lasting id.
    pub id: NodeId,
    /// Its name, for messages.
    pub name: String,
    /// Its peer listener.
    pub address: SocketAddr,
    /// The SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
}

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Calls peers. Dropping a call's future cancels it at the peer.
#[async_trait]
pub trait PeerClient: Send + Sync + fmt::Debug + 'static {
    /// Forwards an invocation. A body that streams goes on after the future is done; dropping it cancels the run at the peer.
    ///
    /// # Errors
    /// [`Error`] when no answer came; an answer that says "failed" is `Ok`.
    async fn invoke(
        &self,
        peer: &Peer,
        head: InvokeHead,
        payload: Bytes,
        deadline: Deadline,
    ) -> Result<(ReplyHead, Body), Error>;

    /// Asks for a sign of life, on a connection of its own.
    ///
    /// # Errors
    /// When none came within `timeout`.
    async fn probe(&self, peer: &Peer, timeout: Duration) -> Result<(), Error>;

    /// Asks which digest the peer's engine has for an image reference; `None` when it has none.
    ///
    /// # Errors
    /// When no answer came.
    async fn resolve_image(
        &self,
        peer: &Peer,
        image: &str,
        deadline: Deadline,
    ) -> Result<Option<String>, Error>;

    /// Reads the peer's share of a function's output, one JSON object a line; with `follow` it goes on until dropped.
    ///
    /// # Errors
    /// When no answer came.
    async fn logs(
        &self,
        peer: &Peer,
        space: &Space,
        function_id: &FunctionId,
        follow: bool,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Error>;
}

/// Answers peers. A future that is dropped was cancelled by the caller.
#[async_trait]
pub trait PeerHandler: Send + Sync + fmt::Debug + 'static {
    /// Runs a forwarded invocation, or refuses it. A body that streams is dropped when the caller hangs up.
    async fn invoke(&self, head: InvokeHead, payload: Bytes) -> (ReplyHead, Body);

    /// Says which digest this node's engine has for an image reference.
    async fn resolve_image(&self, image: &str) -> Option<String>;

    /// This node's share of a function's output.
    async fn logs(
        &self,
        space: &Space,
        function_id: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<Bytes>>;
}

/// Why a call to a peer brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer could not be reached, or said no before anything ran.
    #[error("peer {peer} could not be reached: {why}")]
    Refused {
        /// The peer's name.
        peer: String,
        /// What was tried, and what came back.
        why: String,
        /// Whether the peer itself said no: it can be reached, and only this call is not for it.
        is_answer: bool,
    },
    /// The connection was lost after the request may have arrived.
    #[error("peer {peer} was lost during the call: {why}")]
    Interrupted {
        /// The peer's name.
        peer: String,
        /// What happened.
        why: String,
    },
    /// The deadline passed.
    #[error("peer {peer} did not answer before the deadline")]
    Deadline {
        /// The peer's name.
        peer: String,
    },
    /// The peer's answer can not be understood.
    #[error("peer {peer} answered something else: {why}")]
    Protocol {
        /// The peer's name.
        peer: String,
        /// What was found.
        why: String,
    },
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused { .. } => ErrorCode::Unreachable,
            Self::Interrupted { .. } => ErrorCode::Interrupted,
            Self::Deadline { .. } => ErrorCode::DeadlineExceeded,
            Self::Protocol { .. } => ErrorCode::PeerProtocol,
        }
    }

    /// Whether the function may have run.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Refused { .. } => Effect::Refused,
            Self::Interrupted { .. } | Self::Deadline { .. } | Self::Protocol { .. } => {
                Effect::Interrupted
            }
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(
            error.code(),
            Component::Peer,
            error.effect(),
            error.to_string(),
        )
    }
}
