//! A webhook's answer that is passed on as it comes.

use bytes::Bytes;
use futures_util::stream;
use protocol::invocation::BodyStream;
use protocol::{Deadline, Failure};
use tokio::time::Instant;

use super::{Attempt, classify};
use crate::contract::headers::timed_out;
use crate::{AnswerLimits, Error};

/// An answer that is read as it comes; its call is in flight until its end.
pub(super) struct Streaming {
    pub(super) response: reqwest::Response,
    /// Held, so that the call counts as in flight.
    pub(super) _attempt: Attempt,
    pub(super) limits: AnswerLimits,
    pub(super) began: Instant,
    pub(super) until: Instant,
}

impl Streaming {
    /// # Errors
    /// When it says itself that it is too large.
    pub(super) fn into_body(self) -> Result<BodyStream, Error> {
        let bytes_max = self.limits.stream as u64;
        let length = self.response.content_length();
        if length.is_some_and(|length| length > bytes_max) {
            return Err(Error::AnswerTooLarge { bytes_max });
        }
        let deadline = Deadline::at(self.until.into_std());
        let pieces = stream::try_unfold((self, bytes_max), |(mut streaming, left)| async move {
            let piece = streaming.next(left).await;
            let piece = piece.map_err(|error| Failure::from(&error))?;
            Ok(piece.map(|piece| {
                let left = left - piece.len() as u64;
                (piece, (streaming, left))
            }))
        });
        Ok(BodyStream::new(length, deadline, pieces))
    }

    /// The next piece, of which so many bytes are `left`.
    async fn next(&mut self, left: u64) -> Result<Option<Bytes>, Error> {
        let idle_timeout = self.limits.stream_idle_timeout;
        let silent_at = Instant::now() + idle_timeout;
        match tokio::time::timeout_at(self.until.min(silent_at), self.response.chunk()).await {
            Ok(Ok(Some(piece))) if piece.len() as u64 > left => Err(Error::AnswerTooLarge {
                bytes_max: self.limits.stream as u64,
            }),
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) if silent_at < self.until => Err(Error::Silent { idle_timeout }),
            Err(_) => Err(timed_out(self.until - self.began)),
        }
    }
}

#[cfg(test)]
mod tests;
