//! Bodies: requests are read whole under a limit and a timeout, answers are frames or a stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actors::quotas::Admitted;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use protocol::invocation::{Body as ReplyBody, BodyStream};
use tokio::time;

use crate::edge::{EdgeLimits, NoRoom, Room};
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
    /// One that counts for its user until it has ended.
    Counted(
        Box<AnswerBody>,
        #[expect(dead_code, reason = "it is dropped with the body")] Admitted,
    ),
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
            Self::Counted(body, _) => Pin::new(&mut **body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pieces(pieces) => pieces.iter().all(Bytes::is_empty),
            Self::Stream(_) => false,
            Self::Routed(body) => body.is_end_stream(),
            Self::Counted(body, _) => body.is_end_stream(),
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
            Self::Counted(body, _) => body.size_hint(),
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

/// Why a body was not read to its end.
enum Broken {
    TooLarge,
    NoRoom,
    Read(Box<dyn std::error::Error + Send + Sync>),
}

/// Reads a request's body whole. One that came in one piece is not copied.
///
/// # Errors
/// When it is larger than `limits.body_max`, takes longer than `limits.body_timeout`, ends early, or bodies take all of
/// `limits.bodies_max`.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: &mut B,
    limits: &EdgeLimits,
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
    let bytes_max_here = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let collected = collect(body, bytes_max_here, limits.room());
    match time::timeout(limits.body_timeout, collected).await {
        Ok(Ok(collected)) => Ok(collected),
        Ok(Err(Broken::TooLarge)) => {
            discard(headers, body).await;
            Err(Error::body_too_large(bytes_max))
        }
        Ok(Err(Broken::NoRoom)) => {
            discard(headers, body).await;
            Err(Error::no_room_for_bodies(limits.bodies_max.as_u64()))
        }
        Ok(Err(Broken::Read(error))) => Err(Error::body_broken(error.as_ref())),
        Err(_) => Err(Error::body_slow(limits.body_timeout)),
    }
}

/// Takes room for what has come, so that a client which announces much and sends little takes little.
async fn collect<B>(body: &mut B, bytes_max: usize, mut room: Room) -> Result<Bytes, Broken>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Broken::Read(error.into()))?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        let bytes = first.len() + whole.len() + piece.len();
        if bytes > bytes_max {
            return Err(Broken::TooLarge);
        }
        room.grow_to(bytes).map_err(|NoRoom| Broken::NoRoom)?;
        if bytes == piece.len() {
            first = piece;
            continue;
        }
        if whole.is_empty() {
            // What is announced is reserved at most up to what came already: the rest may never come.
            whole.reserve(bytes.saturating_mul(2).min(bytes_max));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&piece);
    }
    let body = match whole.is_empty() {
        true => first,
        false => whole.freeze(),
    };
    Ok(room.hold(body))
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
