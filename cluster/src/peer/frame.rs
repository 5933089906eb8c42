//! Messages of peers on HTTP: the only place that knows their paths, statuses and bodies.
//!
//! `POST /peer/v1/invoke` carries `protocol::peer`'s frame both ways; the version in the path is `PROTOCOL_VERSION`. Status 200
//! means that the handler answered. Every other one means that it was not asked, so that the caller may go elsewhere.
//!
//! A body that comes piece by piece has no length; a trailer says at its end how the run ended. Without the trailer the peer was
//! lost. Only a caller that takes trailers gets such an answer, and one of an earlier version takes none.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST, TE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use protocol::peer::{HEAD_BYTES_MAX, InvokeHead, PROTOCOL_VERSION, ReplyHead};
use protocol::{Failure, FunctionId, Space};
use serde::{Deserialize, Serialize};

use super::{Error, Peer, TLS_NAME};

/// The most bytes of a message without a payload, and of the text that explains a refusal.
pub(super) const SMALL_BYTES_MAX: usize = 64 * 1024;

/// The most bytes a message has around its payload.
pub(super) const FRAME_BYTES_MAX: usize = HEAD_BYTES_MAX + 4;

/// The trailer that says how a run ended whose answer came piece by piece.
const END: HeaderName = HeaderName::from_static("hearth-end");
/// Its value when the run finished; else it is the failure, as msgpack in hex.
const FINISHED: &str = "finished";
/// The most characters of a failure's message in a trailer: in hex they are 8 KiB, and all trailers together may have 16 KiB.
const END_MESSAGE_CHARS_MAX: usize = 1024;

/// What a peer is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Invoke,
    Probe,
    ResolveImage,
    Logs,
}

/// Why a peer did not ask its handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It admits nothing new.
    Draining,
    /// The message is longer than this many bytes.
    TooLarge(usize),
    /// The message can not be read.
    Malformed(String),
    /// The caller's certificate is no member's.
    Stranger,
    /// The path names another version of the protocol.
    OtherVersion,
    /// The path or method is none of ours.
    Unknown,
}

/// The request for an image's digest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ResolveImage {
    pub(super) image: String,
}

/// The answer to it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ResolvedImage {
    #[serde(default)]
    pub(super) digest: Option<String>,
}

/// The request for a function's output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Logs {
    pub(super) space: Space,
    pub(super) function_id: FunctionId,
    #[serde(default)]
    pub(super) follow: bool,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Invoke, Self::Probe, Self::ResolveImage, Self::Logs];

    fn name(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::Probe => "probe",
            Self::ResolveImage => "resolve-image",
            Self::Logs => "logs",
        }
    }

    fn uri(self) -> Uri {
        static URIS: LazyLock<[Uri; 4]> = LazyLock::new(|| {
            Operation::ALL.map(|operation| {
                let path = format!("/peer/v{PROTOCOL_VERSION}/{}", operation.name());
                path.parse()
                    .expect("the path has only letters, digits, '-' and '/'")
            })
        });
        URIS[self as usize].clone()
    }

    /// Reads what a request asks for.
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let rest = request
            .uri()
            .path()
            .strip_prefix("/peer/v")
            .ok_or(Refusal::Unknown)?;
        let (version, name) = rest.split_once('/').ok_or(Refusal::Unknown)?;
        match version.parse::<u32>() {
            Ok(PROTOCOL_VERSION) => {}
            Ok(_) => return Err(Refusal::OtherVersion),
            Err(_) => return Err(Refusal::Unknown),
        }
        let operation = Self::ALL
            .into_iter()
            .find(|operation| operation.name() == name);
        operation
            .filter(|_| request.method() == Method::POST)
            .ok_or(Refusal::Unknown)
    }
}

/// Builds the request that forwards an invocation.
pub(super) fn invoke_request(head: &InvokeHead, payload: Bytes) -> Request<Message> {
    let message = Message::new(protocol::peer::encode(head, &[]), payload);
    let mut request = request(Operation::Invoke, message);
    if may_stream(head) {
        let trailers = HeaderValue::from_static("trailers");
        request.headers_mut().insert(TE, trailers);
    }
    request
}

/// Whether the answer to an invocation may come piece by piece.
pub(super) fn may_stream(head: &InvokeHead) -> bool {
    head.call.as_ref().is_some_and(|call| call.may_stream)
}

/// Builds a request without a payload.
pub(super) fn small_request<T: Serialize>(operation: Operation, body: &T) -> Request<Message> {
    request(operation, Message::small(body))
}

/// Builds the request for a sign of life.
pub(super) fn probe_request() -> Request<Message> {
    request(Operation::Probe, Message::empty())
}

/// Builds a request that no peer of this version sends.
#[cfg(test)]
pub(super) fn raw_request(uri: &'static str, body: Bytes) -> Request<Message> {
    let mut request = request(Operation::Invoke, Message::new(body, Bytes::new()));
    *request.uri_mut() = Uri::from_static(uri);
    request
}

fn request(operation: Operation, message: Message) -> Request<Message> {
    let mut request = Request::new(message);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = operation.uri();
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static(TLS_NAME));
    request
}

/// Builds the answer to a forwarded invocation.
pub(super) fn invoke_response(head: &ReplyHead, payload: Bytes) -> Response<Message> {
    Response::new(Message::new(protocol::peer::encode(head, &[]), payload))
}

/// Builds the answer to a forwarded invocation whose body comes piece by piece, out of what `body` makes of the head's bytes.
pub(super) fn stream_response<B>(head: &ReplyHead, body: impl FnOnce(Bytes) -> B) -> Response<B> {
    let mut response = Response::new(body(protocol::peer::encode(head, &[])));
    let trailers = response.headers_mut();
    trailers.insert(TRAILER, HeaderValue::from_name(END));
    response
}

/// The trailer of an answer that came piece by piece.
pub(super) fn end_trailer(ended: Result<(), Failure>) -> HeaderMap {
    let value = match ended {
        Ok(()) => HeaderValue::from_static(FINISHED),
        Err(mut failure) => {
            failure.message = failure
                .message
                .chars()
                .take(END_MESSAGE_CHARS_MAX)
                .collect();
            let failure = rmp_serde::to_vec_named(&failure).expect("a failure is a map of texts");
            HeaderValue::try_from(hex::encode(failure)).expect("hex digits are a header's value")
        }
    };
    HeaderMap::from_iter([(END, value)])
}

/// Reads how a run ended; `None` when the trailer does not say it.
pub(super) fn read_end(trailers: &HeaderMap) -> Option<Result<(), Failure>> {
    let value = trailers.get(END)?.as_bytes();
    if value == FINISHED.as_bytes() {
        return Some(Ok(()));
    }
    let failure = hex::decode(value).ok()?;
    rmp_serde::from_slice(&failure).ok().map(Err)
}

/// Builds an answer without a payload.
pub(super) fn small_response<T: Serialize>(body: &T) -> Response<Message> {
    Response::new(Message::small(body))
}

/// Builds the answer to a probe.
pub(super) fn probe_response() -> Response<Message> {
    Response::new(Message::empty())
}

impl Refusal {
    /// Builds the answer that refuses; the connection ends with it.
    pub(super) fn response(&self) -> Response<Message> {
        let (status, text) = match self {
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned()),
            Self::TooLarge(bytes) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("at most {bytes} bytes are taken"),
            ),
            Self::Malformed(why) => (StatusCode::BAD_REQUEST, why.clone()),
            Self::Stranger => (
                StatusCode::FORBIDDEN,
                "no member of the cluster has this certificate".to_owned(),
            ),
            Self::OtherVersion => (
                StatusCode::UPGRADE_REQUIRED,
                format!("peer protocol version {PROTOCOL_VERSION} is spoken here"),
            ),
            Self::Unknown => (StatusCode::NOT_FOUND, "no such peer operation".to_owned()),
        };
        let mut response = Response::new(Message::new(text.into(), Bytes::new()));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Says what a status other than 200 means to the caller; `text` is the answer's body.
pub(super) fn refusal_error(peer: &Peer, status: StatusCode, text: &[u8]) -> Error {
    let peer = peer.name.clone();
    let text: String = String::from_utf8_lossy(text).chars().take(256).collect();
    match status {
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::UPGRADE_REQUIRED
        | StatusCode::NOT_FOUND => Error::Refused {
            peer,
            why: format!("it refused with status {}: {text}", status.as_u16()),
            is_answer: true,
        },
        _ => Error::Protocol {
            peer,
            why: format!("status {}", status.as_u16()),
        },
    }
}

/// Reads the answer to a forwarded invocation.
pub(super) fn read_reply(peer: &Peer, message: Bytes) -> Result<(ReplyHead, Bytes), Error> {
    protocol::peer::decode(message).map_err(|error| Error::Protocol {
        peer: peer.name.clone(),
        why: error.to_string(),
    })
}

/// Reads the answer to the question for an image's digest.
pub(super) fn read_resolved_image(peer: &Peer, message: &[u8]) -> Result<Option<String>, Error> {
    match rmp_serde::from_slice::<ResolvedImage>(message) {
        Ok(resolved) => Ok(resolved.digest),
        Err(error) => Err(Error::Protocol {
            peer: peer.name.clone(),
            why: error.to_string(),
        }),
    }
}

/// Reads a request without a payload.
pub(super) fn read_small<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, Refusal> {
    rmp_serde::from_slice(message).map_err(|error| Refusal::Malformed(error.to_string()))
}

/// A message in one or two pieces, so that the payload is not copied behind its head.
#[derive(Debug)]
pub(super) struct Message {
    head: Bytes,
    payload: Bytes,
}

impl Message {
    fn new(head: Bytes, payload: Bytes) -> Self {
        Self { head, payload }
    }

    fn empty() -> Self {
        Self::new(Bytes::new(), Bytes::new())
    }

    fn small<T: Serialize>(body: &T) -> Self {
        let body =
            rmp_serde::to_vec_named(body).expect("the messages are structs of texts and flags");
        Self::new(body.into(), Bytes::new())
    }
}

impl Body for Message {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = &mut *self;
        let piece = if message.head.is_empty() {
            &mut message.payload
        } else {
            &mut message.head
        };
        let piece = std::mem::take(piece);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.payload.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.head.len() + self.payload.len()) as u64)
    }
}

/// Why a body was not read whole.
#[derive(Debug)]
pub(super) enum BodyError<E> {
    /// It is longer than the limit.
    TooLarge,
    /// The connection failed.
    Lost(E),
}

/// Reads a body of at most `bytes_max`; one that arrives in one piece is not copied.
pub(super) async fn read_body<B>(
    body: &mut B,
    bytes_max: usize,
) -> Result<Bytes, BodyError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(BodyError::TooLarge);
    }
    let Some(first) = next_piece(body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > bytes_max {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(announced.max(first.len()));
    whole.extend_from_slice(&first);
    while let Some(piece) = next_piece(body).await? {
        if piece.len() > bytes_max - whole.len() {
            return Err(BodyError::TooLarge);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Reads a body until the head of its message is there, and whatever comes with it.
pub(super) async fn read_start<B>(body: &mut B) -> Result<Bytes, BodyError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut start = BytesMut::new();
    loop {
        let announced = start.first_chunk::<4>();
        let length = announced.map(|length| u32::from_be_bytes(*length) as usize);
        match length {
            Some(length) if length > HEAD_BYTES_MAX => return Err(BodyError::TooLarge),
            Some(length) if start.len() >= 4 + length => return Ok(start.freeze()),
            _ => {}
        }
        match next_piece(body).await? {
            Some(piece) => start.extend_from_slice(&piece),
            // What is there is no message, and whoever takes it apart says so.
            None => return Ok(start.freeze()),
        }
    }
}

/// Reads and drops up to `bytes_max` of a body, so that a refusal is heard: a connection that is closed with unread bytes in it is
/// reset, and the answer may be lost with it.
pub(super) async fn discard_body<B>(body: &mut B, mut bytes_max: usize)
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Ok(Some(piece)) = next_piece(body).await {
        match bytes_max.checked_sub(piece.len()) {
            Some(left) => bytes_max = left,
            None => return,
        }
    }
}

async fn next_piece<B>(body: &mut B) -> Result<Option<Bytes>, BodyError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(BodyError::Lost(error)),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
