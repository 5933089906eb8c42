//! An answer that is passed on as it comes: it owns its connection until its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use protocol::invocation::BodyStream;
use protocol::{Deadline, Failure};
use tokio::time::Instant;

use super::{Bounds, Shared};
use crate::Error;
use crate::contract::headers::timed_out;
use crate::http1::{Connection, Rest};
use crate::output::OwnedRun;

/// An answer that is read as it comes. Dropped before its end, it closes its connection.
pub(super) struct Streaming {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) rest: Rest,
    /// Whether the connection takes another request after the end, and for how long.
    pub(super) is_reusable: bool,
    pub(super) kept_for: Option<Duration>,
    pub(super) bounds: Bounds,
    pub(super) run: OwnedRun,
}

impl Streaming {
    pub(super) fn into_body(self) -> BodyStream {
        let (length, until) = (self.rest.length(), self.bounds.until);
        let pieces = stream::try_unfold(self, |mut streaming| async move {
            match streaming.next().await {
                Ok(Some(piece)) => Ok(Some((piece, streaming))),
                Ok(None) => {
                    streaming.finish();
                    Ok(None)
                }
                Err(error) => Err(Failure::from(&error)),
            }
        });
        BodyStream::new(length, Deadline::at(until.into_std()), pieces)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Bounds { until, limit } = self.bounds;
        let idle_timeout = self.shared.limits.stream_idle_timeout;
        let silent_at = Instant::now() + idle_timeout;
        let piece = self.connection.next(&mut self.rest);
        match tokio::time::timeout_at(until.min(silent_at), piece).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(self.shared.failure(error).await),
            Err(_) if silent_at < until => Err(Error::Silent { idle_timeout }),
            Err(_) => Err(timed_out(limit)),
        }
    }

    fn finish(mut self) {
        drop(self.run);
        if self.connection.is_reusable(self.kept_for) && self.is_reusable {
            self.shared.pool.put(self.connection);
        }
    }
}

#[cfg(test)]
mod tests;
