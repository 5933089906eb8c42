//! An answer that is passed on as it comes. It has the connection that it comes by, and gives that back at its end.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use protocol::Failure;
use protocol::invocation::{BodyStream, Deadline};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::Connection;
use super::function_error::FunctionError;
use super::{Bounds, Instance};
use crate::Error;
use crate::contract::headers::timed_out;
use crate::http1::{Rest, answer};
use crate::output::OwnedRun;

/// A body on its connection.
#[derive(Debug)]
pub(super) struct Streaming {
    pub(super) connection: Connection,
    pub(super) rest: Rest,
    pub(super) content_type: Option<String>,
    /// Where the connection goes at the end.
    pub(super) given_back: oneshot::Sender<Connection>,
}

/// A body that is read by whoever polls it.
struct Reading {
    streaming: Streaming,
    instance: Arc<Instance>,
    bounds: Bounds,
    run: OwnedRun,
}

impl Streaming {
    pub(super) fn into_body(
        self,
        instance: &Arc<Instance>,
        bounds: Bounds,
        run: OwnedRun,
    ) -> BodyStream {
        let length = self.rest.length();
        let reading = Reading {
            streaming: self,
            instance: Arc::clone(instance),
            bounds,
            run,
        };
        let pieces = stream::try_unfold(reading, |mut reading| async move {
            match reading.next().await {
                Ok(Some(piece)) => Ok(Some((piece, reading))),
                Ok(None) => match reading.finish() {
                    None => Ok(None),
                    Some(error) => Err(Failure::from(&error.into_error())),
                },
                Err(error) => Err(Failure::from(&error)),
            }
        });
        BodyStream::new(length, Deadline::at(bounds.until.into_std()), pieces)
    }

    /// The next piece; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        while !self.rest.is_ended() {
            let piece = self.rest.take(&mut self.connection.read)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if self.rest.is_ended() {
                break;
            }
            match self.connection.fill().await {
                Ok(count) if count > 0 => {}
                Ok(_) => return Err(Broken::Cut("it closed before the answer was whole".into())),
                Err(error) => return Err(Broken::Cut(error.to_string())),
            }
        }
        Ok(None)
    }
}

/// Why there is no further piece.
enum Broken {
    Cut(String),
    Answer(answer::Error),
}

impl From<answer::Error> for Broken {
    fn from(error: answer::Error) -> Self {
        Self::Answer(error)
    }
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Bounds { until, limit } = self.bounds;
        let limits = self.instance.shared.limits;
        let idle_timeout = limits.stream_idle_timeout;
        let silent_at = Instant::now() + idle_timeout;
        let next = tokio::time::timeout_at(until.min(silent_at), self.streaming.next());
        match next.await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(Broken::Cut(why))) => Err(self.instance.lost(&why).await),
            Ok(Err(Broken::Answer(answer::Error::TooLarge))) => Err(Error::AnswerTooLarge {
                bytes_max: limits.stream as u64,
            }),
            Ok(Err(Broken::Answer(answer::Error::Malformed(why)))) => Err(Error::Malformed { why }),
            Ok(Err(Broken::Answer(answer::Error::Cut))) => {
                Err(self.instance.lost("its answer is cut").await)
            }
            Err(_) if silent_at < until => Err(Error::Silent { idle_timeout }),
            Err(_) => Err(timed_out(limit)),
        }
    }

    /// Gives the connection back; an error that follows the body is what the call comes to.
    fn finish(self) -> Option<FunctionError> {
        let Self { streaming, run, .. } = self;
        drop(run);
        let rest = streaming.rest;
        let error = FunctionError::behind(|name| rest.trailer(name));
        // A server that has ended has nobody for it.
        let _ = streaming.given_back.send(streaming.connection);
        error
    }
}
