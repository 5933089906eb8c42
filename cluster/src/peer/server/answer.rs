//! From a request of a peer to the handler, and back.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use protocol::invocation::{Body as ReplyBody, BodyStream};
use protocol::peer::InvokeHead;

use super::Shared;
use crate::peer::frame::{
    self, BodyError, FRAME_BYTES_MAX, Logs, Message, Operation, Refusal, ResolveImage,
    ResolvedImage, SMALL_BYTES_MAX, discard_body, read_body, read_small,
};

/// Answers one request. Dropped when the caller hangs up, and the handler's future with it.
pub(super) async fn answer(
    shared: &Shared,
    mut request: Request<Incoming>,
) -> Response<AnswerBody> {
    match perform(shared, &mut request).await {
        Ok(response) => response,
        Err(refusal) => {
            discard_body(
                request.body_mut(),
                shared.body_bytes_max.saturating_add(FRAME_BYTES_MAX),
            )
            .await;
            refusal.response().map(AnswerBody::Message)
        }
    }
}

async fn perform(
    shared: &Shared,
    request: &mut Request<Incoming>,
) -> Result<Response<AnswerBody>, Refusal> {
    match Operation::of(request)? {
        Operation::Invoke => invoke(shared, request).await,
        Operation::Probe => Ok(frame::probe_response().map(AnswerBody::Message)),
        Operation::ResolveImage => resolve_image(shared, request).await,
        Operation::Logs => logs(shared, request).await,
    }
}

async fn invoke(
    shared: &Shared,
    request: &mut Request<Incoming>,
) -> Result<Response<AnswerBody>, Refusal> {
    if shared.is_draining.load(Ordering::Acquire) {
        return Err(Refusal::Draining);
    }
    let message = read(
        request,
        shared.body_bytes_max.saturating_add(FRAME_BYTES_MAX),
    )
    .await?;
    let (head, payload): (InvokeHead, Bytes) =
        protocol::peer::decode(message).map_err(|error| Refusal::Malformed(error.to_string()))?;
    if payload.len() > shared.body_bytes_max {
        return Err(Refusal::TooLarge(shared.body_bytes_max));
    }
    let (head, body) = shared.handler.invoke(head, payload).await;
    Ok(match body {
        ReplyBody::Whole(body) => frame::invoke_response(&head, body).map(AnswerBody::Message),
        ReplyBody::Stream(pieces) => frame::stream_response(&head, |head| {
            AnswerBody::Stream(Streaming::Head(head, pieces))
        }),
    })
}

async fn resolve_image(
    shared: &Shared,
    request: &mut Request<Incoming>,
) -> Result<Response<AnswerBody>, Refusal> {
    let ResolveImage { image } = read_small(&read(request, SMALL_BYTES_MAX).await?)?;
    let digest = shared.handler.resolve_image(&image).await;
    Ok(frame::small_response(&ResolvedImage { digest }).map(AnswerBody::Message))
}

async fn logs(
    shared: &Shared,
    request: &mut Request<Incoming>,
) -> Result<Response<AnswerBody>, Refusal> {
    let Logs {
        space,
        function_id,
        follow,
    } = read_small(&read(request, SMALL_BYTES_MAX).await?)?;
    let output = shared.handler.logs(&space, &function_id, follow).await;
    // Output that is followed has no end, and a drain should not wait for it.
    let output = output
        .take_until(shared.quiet.clone().cancelled_owned())
        .boxed();
    Ok(Response::new(AnswerBody::Pieces(output)))
}

async fn read(request: &mut Request<Incoming>, bytes_max: usize) -> Result<Bytes, Refusal> {
    read_body(request.body_mut(), bytes_max)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge => Refusal::TooLarge(bytes_max),
            BodyError::Lost(error) => Refusal::Malformed(error.to_string()),
        })
}

/// The body of an answer: a message of known length, or pieces as they come.
pub(super) enum AnswerBody {
    Message(Message),
    Pieces(BoxStream<'static, io::Result<Bytes>>),
    Stream(Streaming),
}

/// The answer to an invocation whose body comes piece by piece.
pub(super) enum Streaming {
    /// The head is to be sent.
    Head(Bytes, BodyStream),
    Pieces(BodyStream),
    /// The trailer was sent.
    Ended,
}

impl Streaming {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        match std::mem::replace(self, Self::Ended) {
            Self::Head(head, pieces) => {
                *self = Self::Pieces(pieces);
                Poll::Ready(Some(Frame::data(head)))
            }
            Self::Pieces(mut pieces) => {
                let ended = match pieces.poll_next_unpin(context) {
                    Poll::Ready(None) => Ok(()),
                    Poll::Ready(Some(Err(failure))) => Err(failure),
                    going_on => {
                        *self = Self::Pieces(pieces);
                        return going_on.map(|piece| piece.and_then(Result::ok).map(Frame::data));
                    }
                };
                Poll::Ready(Some(Frame::trailers(frame::end_trailer(ended))))
            }
            Self::Ended => Poll::Ready(None),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Message(message) => Pin::new(message)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Pieces(pieces) => pieces
                .as_mut()
                .poll_next(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Self::Stream(streaming) => streaming.poll_frame(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(message) => message.is_end_stream(),
            Self::Pieces(_) | Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Message(message) => message.size_hint(),
            Self::Pieces(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}
