//! Bodies: requests are read whole under a limit and a timeout, answers are frames or a stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use config::settings::LimitsSettings;
use futures_util::StreamExt;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::invocation::{Body as ReplyBody, BodyStream};
use tokio::time;

use crate::error::Error;

/// The most that is read and thrown away of a body that nobody wants, so that its sender gets to read the answer. What is
/// beyond it costs the sender a broken connection.
const DISCARD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How long a body that nobody wants is read.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// Up to three pieces in memory, sent with one system call and without joining them.
    Pieces([Bytes; 3]),
    /// What a function answers, as it comes.
    Stream(BodyStream),
    /// What a router's handler answered.
    Routed(axum::body::Body),
}

impl AnswerBody {
    /// One piece.
    pub(crate) fn whole(piece: impl Into<Bytes>) -> Self {
        Self::Pieces([piece.into(), Bytes::new(), Bytes::new()])
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Pieces(pieces) => {
                let next = pieces.iter_mut().find(|piece| !piece.is_empty());
                Poll::Ready(next.map(|piece| Ok(Frame::data(std::mem::take(piece)))))
            }
            Self::Stream(stream) => stream.poll_next_unpin(context).map(|item| {
                // An error makes hyper end the connection without the end of the answer.
                item.map(|piece| piece.map(Frame::data).map_err(axum::Error::new))
            }),
            Self::Routed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pieces(pieces) => pieces.iter().all(Bytes::is_empty),
            Self::Stream(_) => false,
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pieces(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Self::Stream(stream) => stream
                .length()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Routed(body) => body.size_hint(),
        }
    }
}

impl From<ReplyBody> for AnswerBody {
    fn from(body: ReplyBody) -> Self {
        match body {
            ReplyBody::Whole(body) => Self::whole(body),
            ReplyBody::Stream(stream) => Self::Stream(stream),
        }
    }
}

/// Reads a request's body whole. One that came in one piece is not copied.
///
/// # Errors
/// When it is larger than `limits.body_max`, takes longer than `limits.body_timeout`, or ends early.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: &mut B,
    limits: &LimitsSettings,
) -> Result<Bytes, Error>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bytes_max = limits.body_max.as_u64();
    if body.size_hint().lower() > bytes_max {
        discard(headers, body).await;
        return Err(Error::body_too_large(bytes_max));
    }
    let limited = Limited::new(&mut *body, usize::try_from(bytes_max).unwrap_or(usize::MAX));
    #[expect(
        clippy::disallowed_methods,
        reason = "collected under a limit, the line above"
    )]
    let collected = time::timeout(limits.body_timeout, limited.collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(headers, body).await;
            Err(Error::body_too_large(bytes_max))
        }
        Ok(Err(error)) => Err(Error::body_broken(error.as_ref())),
        Err(_) => Err(Error::body_slow(limits.body_timeout)),
    }
}

/// Reads on for a while and throws away, before an answer that did not wait for the body: a connection that is closed with
/// bytes unread is reset, and its client would not see the answer. A client that waits for `100 Continue` has sent nothing.
pub(crate) async fn discard<B>(headers: &HeaderMap, body: &mut B)
where
    B: Body<Data = Bytes> + Unpin,
{
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let mut left = DISCARD_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // However it ends, the answer is sent next.
    let _ = time::timeout(DISCARD_TIMEOUT, reading).await;
}
