//! Reads an HTTP/1.1 answer out of bytes as they come. No I/O, so every way to cut the bytes can be tested.
//!
//! What comes is written by a function, so nothing is believed: heads, lines and bodies have bounds, and what is no HTTP is
//! said to be none.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use protocol::invocation::is_hop_by_hop;

mod body;

pub(crate) use self::body::{Framing, Rest};

/// An answer, whole or as far as its body was there with its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    /// The other headers, if they are wanted, without those of one connection.
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) body: Bytes,
    /// What follows of the body.
    pub(crate) rest: Option<Rest>,
    /// Whether the other side takes another request on the connection.
    pub(crate) is_kept: bool,
    /// For how long it said that it does.
    pub(crate) kept_for: Option<Duration>,
    /// Where or when to ask instead, which few answers say.
    pub(crate) elsewhere: Option<Box<Elsewhere>>,
}

/// Where or when to ask instead, as the fields say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// `location`, of a redirect.
    pub(crate) location: Option<String>,
    /// `retry-after`.
    pub(crate) retry_after: Option<String>,
}

/// Why there is no answer in the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    /// It is no HTTP, or none that a client of HTTP/1.1 can read.
    Malformed(String),
    /// Its body is longer than allowed.
    TooLarge,
    /// The bytes ended before the answer did.
    Cut,
}

/// What is wanted of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// The most bytes its body may have.
    pub(crate) body_bytes_max: usize,
    /// The most bytes its body may have where it may come piece by piece; none where it has to be whole.
    pub(crate) stream_bytes_max: Option<usize>,
    /// Whether its headers are.
    pub(crate) has_headers: bool,
    /// Whether it is the answer to `HEAD`, which has the head of a body and no body.
    pub(crate) is_of_head: bool,
}

impl Wanted {
    /// The most bytes the body may have, however it comes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.stream_bytes_max.unwrap_or(self.body_bytes_max)
    }
}

/// An answer that is being read.
#[derive(Debug)]
pub(super) struct Parser {
    wanted: Wanted,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Bytes of the head that were looked at and do not end it.
    Head {
        seen: usize,
    },
    Body(Head, Framing),
}

/// What of a head matters.
#[derive(Debug)]
struct Head {
    status: u16,
    content_type: Option<String>,
    headers: Vec<(String, Bytes)>,
    is_kept: bool,
    kept_for: Option<Duration>,
    elsewhere: Option<Box<Elsewhere>>,
}

/// The largest head, and the most bytes of trailers.
const HEAD_BYTES_MAX: usize = 64 * 1024;
pub(crate) const HEADERS_MAX: usize = 100;

impl Parser {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            state: State::Head { seen: 0 },
        }
    }

    /// Takes from the buffer what belongs to the answer; gives the answer once it is whole, or once its head is there and its
    /// body is to be read as it comes. What then is left in the buffer does not belong to it.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Answer>, Error> {
        while let State::Head { seen } = &mut self.state {
            match head(buffer, seen, self.wanted)? {
                None => return Ok(None),
                // Something like `100 Continue`, which the answer itself follows.
                Some((head, _)) if (100..200).contains(&head.status) => *seen = 0,
                Some((head, framing)) => self.state = State::Body(head, framing),
            }
        }
        let State::Body(head, framing) = &mut self.state else {
            return Ok(None);
        };
        let bytes_max = self.wanted.bytes_max();
        if let Some(body) = framing.take_whole(buffer, bytes_max)? {
            return Ok(Some(head.answer(body)));
        }
        if self.wanted.stream_bytes_max.is_none() || !framing.may_stream() {
            framing.reserve(buffer);
            return Ok(None);
        }
        let rest = std::mem::replace(framing, Framing::UntilClose);
        Ok(Some(Answer {
            rest: Some(Rest::new(rest, bytes_max)),
            ..head.answer(Bytes::new())
        }))
    }

    /// Says what the bytes come to when no more follow; to be called when `take` had them all and gave no answer.
    pub(super) fn end(mut self, buffer: &mut BytesMut) -> Result<Answer, Error> {
        match &mut self.state {
            State::Body(head, Framing::UntilClose) => {
                let body = buffer.split().freeze();
                Ok(head.answer(body))
            }
            State::Head { .. } | State::Body(..) => Err(Error::Cut),
        }
    }
}

impl Head {
    fn answer(&mut self, body: Bytes) -> Answer {
        Answer {
            status: self.status,
            content_type: self.content_type.take(),
            headers: std::mem::take(&mut self.headers),
            body,
            rest: None,
            is_kept: self.is_kept,
            kept_for: self.kept_for,
            elsewhere: self.elsewhere.take(),
        }
    }
}

impl Elsewhere {
    fn read(elsewhere: &mut Option<Box<Self>>, field: &httparse::Header<'_>) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let (is_location, is_pause) = (is("location"), is("retry-after"));
        if !is_location && !is_pause {
            return;
        }
        let elsewhere = elsewhere.get_or_insert_default();
        let told = match is_location {
            true => &mut elsewhere.location,
            false => &mut elsewhere.retry_after,
        };
        let text = std::str::from_utf8(field.value).ok();
        *told = told.take().or_else(|| text.map(str::to_owned));
    }
}

/// Takes a head from the buffer once it is whole there.
fn head(
    buffer: &mut BytesMut,
    seen: &mut usize,
    wanted: Wanted,
) -> Result<Option<(Head, Framing)>, Error> {
    // Parsed at first sight, because what is no HTTP is best known early, and then only once its end is there: a head that
    // comes byte by byte must not be parsed as often.
    let from = seen.saturating_sub(3);
    let is_worth_it = *seen == 0 || ends_head(&buffer[from..]);
    *seen = buffer.len();
    if buffer.is_empty() || !is_worth_it {
        return bounded(buffer).map(|()| None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buffer,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return bounded(buffer).map(|()| None),
        Err(error) => return Err(Error::Malformed(error.to_string())),
    };
    let read = read_head(&response, wanted)?;
    buffer.advance(length);
    Ok(Some(read))
}

pub(crate) fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n")
        || bytes.windows(4).any(|four| four == b"\r\n\r\n")
        || bytes.windows(3).any(|three| three == b"\n\r\n")
}

pub(crate) fn bounded(buffer: &BytesMut) -> Result<(), Error> {
    if buffer.len() > HEAD_BYTES_MAX {
        let why = format!("the head has more than {HEAD_BYTES_MAX} bytes");
        return Err(Error::Malformed(why));
    }
    Ok(())
}

fn read_head(
    response: &httparse::Response<'_, '_>,
    wanted: Wanted,
) -> Result<(Head, Framing), Error> {
    let is_http_11 = response.version == Some(1);
    let mut head = Head {
        status: response.code.unwrap_or(0),
        content_type: None,
        headers: Vec::new(),
        is_kept: is_http_11,
        kept_for: None,
        elsewhere: None,
    };
    let mut length = None;
    let mut is_chunked = false;
    for field in &*response.headers {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            length = Some(content_length(field.value, length)?);
        } else if is("content-type") {
            let text = std::str::from_utf8(field.value).ok();
            head.content_type = head.content_type.or_else(|| text.map(str::to_owned));
        } else if is("transfer-encoding") {
            if is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") || !is_http_11 {
                let why = "it has a transfer encoding other than chunked";
                return Err(Error::Malformed(why.to_owned()));
            }
            is_chunked = true;
        } else if is("connection") {
            for option in field.value.split(|byte| *byte == b',') {
                match option.trim_ascii() {
                    close if close.eq_ignore_ascii_case(b"close") => head.is_kept = false,
                    keep if keep.eq_ignore_ascii_case(b"keep-alive") => head.is_kept = true,
                    _ => {}
                }
            }
        } else if is("keep-alive") {
            head.kept_for = keep_alive(field.value);
        } else if head.status >= 300 {
            Elsewhere::read(&mut head.elsewhere, field);
        }
    }
    if wanted.has_headers {
        head.headers = passed_on(response.headers, wanted);
    }
    let framing = match (head.status, is_chunked, length) {
        _ if wanted.is_of_head && head.status >= 200 => Framing::Length(0),
        (101, ..) => {
            let why = "it switches to another protocol";
            return Err(Error::Malformed(why.to_owned()));
        }
        (100..200 | 204 | 304, ..) => Framing::Length(0),
        (_, true, length) => {
            // Two lengths are how one answer is smuggled behind another.
            head.is_kept &= length.is_none();
            Framing::chunked()
        }
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => {
            head.is_kept = false;
            Framing::UntilClose
        }
    };
    Ok((head, framing))
}

/// The fields that are not for this connection only, and not told otherwise.
fn passed_on(fields: &[httparse::Header<'_>], wanted: Wanted) -> Vec<(String, Bytes)> {
    let mut headers = Vec::with_capacity(fields.len());
    for field in fields {
        let name = field.name.to_ascii_lowercase();
        // Without a body nothing else tells the length it would have.
        let is_told = name == "content-type" || (name == "content-length" && !wanted.is_of_head);
        if !is_told && !is_hop_by_hop(&name) {
            headers.push((name, Bytes::copy_from_slice(field.value)));
        }
    }
    // What the other side declared to be for this connection only.
    for field in fields {
        if field.name.eq_ignore_ascii_case("connection") {
            let options = String::from_utf8_lossy(field.value).to_ascii_lowercase();
            let options: Vec<_> = options.split(',').map(str::trim).collect();
            headers.retain(|(name, _)| !options.contains(&name.as_str()));
        }
    }
    headers
}

/// The length that a field tells, which every such field has to repeat.
pub(crate) fn content_length(value: &[u8], known: Option<usize>) -> Result<usize, Error> {
    let malformed = || {
        let value = String::from_utf8_lossy(value);
        Error::Malformed(format!("content-length is {value:?}"))
    };
    let mut known = known;
    for part in value.split(|byte| *byte == b',') {
        let part = part.trim_ascii();
        if part.is_empty() || !part.iter().all(u8::is_ascii_digit) {
            return Err(malformed());
        }
        let text = std::str::from_utf8(part).map_err(|_| malformed())?;
        let length = text.parse().map_err(|_| malformed())?;
        if *known.get_or_insert(length) != length {
            return Err(malformed());
        }
    }
    known.ok_or_else(malformed)
}

/// The N of `timeout=N`.
fn keep_alive(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split(',').map(str::trim);
    let seconds = parts.find_map(|part| part.strip_prefix("timeout="))?;
    seconds
        .parse::<u32>()
        .ok()
        .map(|seconds| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests;
