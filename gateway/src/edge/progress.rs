//! A client's connection on which writing must get on: a client that asks and never reads would hold its answer, and a connection,
//! for ever. While an answer streams, its run has a deadline, which a client that reads too slowly does not lengthen.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::AnswerBody;

/// What a connection has to know of an answer that streams; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Streaming(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Until when the run may go on.
    until: Option<Instant>,
    /// Whether to close the connection now would look like the end of the answer.
    is_open: bool,
}

/// A run that goes on, until it is dropped.
struct Run(Streaming);

impl Streaming {
    /// Holds the connection to the deadline of an answer's run, and to a close that can be told from its end. A client of HTTP/1.0
    /// knows no chunks: where the answer has no length either, only a reset tells that it was cut.
    pub(super) fn watch(&self, body: AnswerBody, version: Version) -> AnswerBody {
        let AnswerBody::Stream(stream) = body else {
            return body;
        };
        *self.state() = State {
            until: Some(Instant::from_std(stream.deadline().moment())),
            is_open: version == Version::HTTP_10 && stream.length().is_none(),
        };
        let run = Run(self.clone());
        AnswerBody::Stream(stream.on_end(move |ended| {
            if ended.is_ok() {
                run.0.state().is_open = false;
            }
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.state().until = None;
    }
}

/// A connection that breaks when the client takes no byte of an answer for too long.
#[derive(Debug)]
pub(super) struct Progress {
    stream: TcpStream,
    timeout: Duration,
    streaming: Streaming,
    /// Made when the client first lets an answer wait; most never do.
    patience: Option<Pin<Box<Sleep>>>,
    /// Since when the client takes nothing.
    stalled_at: Option<Instant>,
}

impl Progress {
    pub(super) fn new(stream: TcpStream, timeout: Duration, streaming: Streaming) -> Self {
        Self {
            stream,
            timeout,
            streaming,
            patience: None,
            stalled_at: None,
        }
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.stalled_at = None;
            return outcome;
        }
        let patient_until = *self.stalled_at.get_or_insert_with(Instant::now) + self.timeout;
        let run_until = self.streaming.state().until;
        let until = run_until.map_or(patient_until, |run_until| run_until.min(patient_until));
        let patience = (self.patience).get_or_insert_with(|| Box::pin(sleep_until(until)));
        if patience.deadline() != until {
            patience.as_mut().reset(until);
        }
        ready!(patience.as_mut().poll(context));
        // The kernel would go on offering what it holds; nobody wants it. A socket that refuses is gone already.
        let _ = self.stream.set_zero_linger();
        let why = match until == patient_until {
            true => format!(
                "the client took nothing of its answer for {:?} (limits.write_timeout)",
                self.timeout
            ),
            false => "the function's time limit was over before the client had taken its answer"
                .to_owned(),
        };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.streaming.state().is_open {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Progress {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Progress {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
