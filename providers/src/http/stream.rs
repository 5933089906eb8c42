//! A webhook's answer that is passed on as it comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use protocol::invocation::BodyStream;
use protocol::{Deadline, Failure};
use tokio::time::Instant;

use super::endpoints::Attempt;
use super::plain::Host;
use super::{Way, client};
use crate::contract::headers::timed_out;
use crate::{AnswerLimits, Error, http1};

/// An answer that is read as it comes; its call is in flight until its end.
pub(super) struct Streaming {
    pub(super) rest: Box<Rest>,
    /// Held, so that the call counts as in flight.
    pub(super) _attempt: Attempt<Way>,
    pub(super) limits: AnswerLimits,
    pub(super) began: Instant,
    pub(super) until: Instant,
}

/// What of a body is still to come, and where from.
#[derive(Debug)]
pub(super) enum Rest {
    Plain {
        host: Arc<Host>,
        connection: http1::Connection,
        rest: http1::Rest,
        /// Whether the connection takes another request after the end, and for how long.
        is_reusable: bool,
        kept_for: Option<Duration>,
        bytes_max: usize,
    },
    Client {
        response: reqwest::Response,
        length: Option<u64>,
        bytes_left: u64,
        bytes_max: u64,
    },
}

impl Streaming {
    pub(super) fn into_body(self) -> BodyStream {
        let (length, deadline) = (self.rest.length(), Deadline::at(self.until.into_std()));
        let pieces = stream::try_unfold(self, |mut streaming| async move {
            match streaming.next().await {
                Ok(Some(piece)) => Ok(Some((piece, streaming))),
                Ok(None) => {
                    streaming.rest.finish();
                    Ok(None)
                }
                Err(error) => Err(Failure::from(&error)),
            }
        });
        BodyStream::new(length, deadline, pieces)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let idle_timeout = self.limits.stream_idle_timeout;
        let silent_at = Instant::now() + idle_timeout;
        match tokio::time::timeout_at(self.until.min(silent_at), self.rest.next()).await {
            Ok(outcome) => outcome,
            Err(_) if silent_at < self.until => Err(Error::Silent { idle_timeout }),
            Err(_) => Err(timed_out(self.until - self.began)),
        }
    }
}

impl Rest {
    /// The length of all of it, where the webhook told.
    fn length(&self) -> Option<u64> {
        match self {
            Self::Plain { rest, .. } => rest.length(),
            Self::Client { length, .. } => *length,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Plain {
                host,
                connection,
                rest,
                bytes_max,
                ..
            } => {
                let piece = connection.next(rest).await;
                piece.map_err(|error| host.failure(error, *bytes_max))
            }
            Self::Client {
                response,
                bytes_left,
                bytes_max,
                ..
            } => {
                let piece = client::next(response).await?;
                let length = piece.as_ref().map_or(0, |piece| piece.len() as u64);
                match bytes_left.checked_sub(length) {
                    Some(left) => *bytes_left = left,
                    None => {
                        return Err(Error::AnswerTooLarge {
                            bytes_max: *bytes_max,
                        });
                    }
                }
                Ok(piece)
            }
        }
    }

    /// Keeps the connection of what was read to its end.
    fn finish(self) {
        if let Self::Plain {
            host,
            mut connection,
            is_reusable,
            kept_for,
            ..
        } = self
            && connection.is_reusable(kept_for)
            && is_reusable
        {
            host.put(connection);
        }
    }
}

#[cfg(test)]
mod tests;
