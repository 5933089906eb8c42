//! The body of an answer that comes piece by piece.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hyper::body::Incoming;
use protocol::invocation::BodyStream;
use protocol::peer::ReplyHead;
use protocol::{Deadline, Failure};
use tokio::time::Instant;

use super::connection::Connection;
use super::pool::Line;
use super::{Error, until_lost, with_sources};
use crate::peer::frame;

/// An answer whose head was read. Dropped before its end, it closes its connection, which cancels the run at the peer.
pub(super) struct Streaming {
    pub(super) line: Arc<Line>,
    pub(super) connection: Connection,
    pub(super) body: Incoming,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
}

impl Streaming {
    /// The body, of which `first` came with the head.
    ///
    /// # Errors
    /// When the head does not say that a body follows piece by piece.
    pub(super) fn into_body(self, head: &ReplyHead, first: Bytes) -> Result<BodyStream, Error> {
        let Some(stream) = head.stream else {
            return Err(self.protocol("its answer has neither a length nor the head of a stream"));
        };
        // A peer's number is not trusted to fit the clock.
        let run = Duration::from_millis(stream.remaining_ms);
        let run_until = Instant::now().checked_add(run).unwrap_or(self.deadline);
        let deadline = Deadline::at(run_until.min(self.deadline).into_std());
        let pieces = stream::try_unfold((self, first), |(mut streaming, first)| async move {
            if !first.is_empty() {
                return Ok(Some((first, (streaming, Bytes::new()))));
            }
            match streaming.next().await? {
                Some(piece) => Ok(Some((piece, (streaming, Bytes::new())))),
                None => {
                    streaming.finish().await;
                    Ok(None)
                }
            }
        });
        Ok(BodyStream::new(stream.length, deadline, pieces))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let next = self.connection.next(&mut self.body);
            let frame = match until_lost(&self.line, self.deadline, next).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.lost(with_sources(&error))),
                Ok(None) => return Err(self.lost("its answer ended without its last word")),
                Err(error) => return Err(self.failure(&error)),
            };
            match frame.into_data() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Ok(Some(piece)),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return match frame::read_end(&trailers) {
                        Some(Ok(())) => Ok(None),
                        Some(Err(failure)) => Err(failure.at_node(&self.line.peer.name)),
                        None => Err(self.failure(&self.protocol("its last word is none"))),
                    };
                }
            }
        }
    }

    /// Puts the connection aside for the next call, once its answer has ended.
    async fn finish(mut self) {
        drop(self.body);
        if self.connection.is_reusable().await {
            self.line.put(self.connection);
        }
    }

    fn lost(&self, why: impl Into<String>) -> Failure {
        self.failure(&Error::Interrupted {
            peer: self.line.peer.name.clone(),
            why: why.into(),
        })
    }

    fn protocol(&self, why: &str) -> Error {
        Error::Protocol {
            peer: self.line.peer.name.clone(),
            why: why.to_owned(),
        }
    }

    fn failure(&self, error: &Error) -> Failure {
        Failure::from(error).at_node(&self.line.peer.name)
    }
}
