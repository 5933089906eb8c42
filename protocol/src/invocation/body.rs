//! The body of a function's answer: whole, or as it comes.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;

use super::Deadline;
use crate::code::Failure;

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// All of it, within the limit of answers.
    Whole(Bytes),
    /// Its pieces as the function writes them; only a call that [may stream](super::Call::may_stream) is answered so.
    Stream(BodyStream),
}

/// A body that comes piece by piece. What the run holds, such as its slot, is held until the stream has ended or is dropped; to
/// drop it before its end cancels the run.
pub struct BodyStream {
    length: Option<u64>,
    deadline: Deadline,
    pieces: BoxStream<'static, Result<Bytes, Failure>>,
}

impl Body {
    /// The body of a call that may not stream.
    ///
    /// # Panics
    /// When it streams.
    pub fn whole(&self) -> &Bytes {
        match self {
            Self::Whole(body) => body,
            Self::Stream(_) => {
                panic!(
                    "only a call that may stream is answered with a stream, and this one may not"
                )
            }
        }
    }

    /// Calls `told` when a stream ends, as [`BodyStream::on_end`] does; a whole body has ended already, and drops it uncalled.
    #[must_use]
    pub fn on_end(self, told: impl FnOnce(Result<(), &mut Failure>) + Send + 'static) -> Self {
        match self {
            Self::Whole(body) => Self::Whole(body),
            Self::Stream(stream) => Self::Stream(stream.on_end(told)),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl From<Bytes> for Body {
    fn from(body: Bytes) -> Self {
        Self::Whole(body)
    }
}

impl BodyStream {
    /// Makes a body of its pieces. A failure is its last item. `length` is its length where the function told one; `deadline` is
    /// when the run ends at the latest, for those who hold pieces back.
    pub fn new(
        length: Option<u64>,
        deadline: Deadline,
        pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
    ) -> Self {
        Self {
            length,
            deadline,
            pieces: Box::pin(pieces),
        }
    }

    /// How long it will be, where the function told.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// When it ends at the latest.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Calls `told` when the stream ends, with how it did; drops it uncalled when the stream is dropped before.
    #[must_use]
    pub fn on_end(self, told: impl FnOnce(Result<(), &mut Failure>) + Send + 'static) -> Self {
        let told = OnEnd {
            pieces: self.pieces,
            told: Some(told),
        };
        Self {
            pieces: Box::pin(told),
            ..self
        }
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.as_mut().poll_next(context)
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyStream")
            .field("length", &self.length)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

struct OnEnd<F> {
    pieces: BoxStream<'static, Result<Bytes, Failure>>,
    /// Gone once the stream has ended.
    told: Option<F>,
}

// The pieces are in a box of their own, and `told` is never pinned.
impl<F> Unpin for OnEnd<F> {}

impl<F: FnOnce(Result<(), &mut Failure>)> Stream for OnEnd<F> {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.told.is_none() {
            return Poll::Ready(None);
        }
        let mut item = self.pieces.as_mut().poll_next(context);
        let ended = match &mut item {
            Poll::Pending | Poll::Ready(Some(Ok(_))) => return item,
            Poll::Ready(None) => Ok(()),
            Poll::Ready(Some(Err(failure))) => Err(failure),
        };
        if let Some(told) = self.told.take() {
            told(ended);
        }
        item
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "a deadline that nobody waits for")]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;
    use crate::code::{Component, Effect, ErrorCode};

    type Told = Arc<Mutex<Vec<Option<String>>>>;

    fn stream_of(pieces: Vec<Result<Bytes, Failure>>) -> (BodyStream, Told) {
        let deadline = Deadline::at(std::time::Instant::now());
        let heard = Told::default();
        let hears = Arc::clone(&heard);
        let body = BodyStream::new(None, deadline, stream::iter(pieces)).on_end(move |ended| {
            let node = ended.err().map(|failure| {
                failure.node = Some("n1".to_owned());
                failure.message.clone()
            });
            hears.lock().unwrap().push(node);
        });
        (body, heard)
    }

    fn failure() -> Failure {
        Failure::new(
            ErrorCode::Interrupted,
            Component::Function,
            Effect::Interrupted,
            "it broke",
        )
    }

    #[test]
    fn the_end_is_told_once_and_how_it_was() {
        let piece = || Ok(Bytes::from_static(b"a"));
        let (mut body, told) = stream_of(vec![piece()]);
        assert_eq!(body.next().now_or_never(), Some(Some(piece())));
        assert!(told.lock().unwrap().is_empty());
        assert_eq!(body.next().now_or_never(), Some(None));
        assert_eq!(body.next().now_or_never(), Some(None));
        assert_eq!(*told.lock().unwrap(), [None]);

        let (mut body, told) = stream_of(vec![piece(), Err(failure()), piece()]);
        assert!(matches!(body.next().now_or_never(), Some(Some(Ok(_)))));
        let last = body.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(
            last.node.as_deref(),
            Some("n1"),
            "who is told may add to it"
        );
        assert_eq!(
            body.next().now_or_never(),
            Some(None),
            "it is the last item"
        );
        assert_eq!(*told.lock().unwrap(), [Some("it broke".to_owned())]);
    }

    #[test]
    fn a_stream_that_is_dropped_tells_nothing() {
        let (mut body, told) = stream_of(vec![Ok(Bytes::new()), Ok(Bytes::new())]);
        assert!(body.next().now_or_never().is_some());
        drop(body);
        assert!(told.lock().unwrap().is_empty());
        assert_eq!(
            Arc::strong_count(&told),
            1,
            "what waited for the end is gone"
        );
    }
}
