//! Where a body ends, and the pieces of one that is read as it comes.

use bytes::{Buf, Bytes, BytesMut};

use super::{Error, HEAD_BYTES_MAX};
use crate::contract::WHOLE_BYTES_MAX;

/// Where a body ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked {
        part: Part,
        body: BytesMut,
        /// The lines after the body, each with a line feed behind it.
        trailers: Vec<u8>,
    },
    UntilClose,
}

/// What of a chunked body comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Size,
    Data(usize),
    DataEnd,
    /// Bytes of trailers read so far.
    Trailers(usize),
}

/// A body that is read as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    /// A length is what is left of it.
    framing: Framing,
    /// The most bytes that may follow.
    bytes_max: usize,
    is_ended: bool,
}

/// The longest line with the size of a chunk; extensions of ours nobody sends.
pub(super) const SIZE_LINE_BYTES_MAX: usize = 1024;
/// Up to this many bytes a body is copied, so that the connection keeps its buffer.
const COPY_BYTES_MAX: usize = 16 * 1024;

impl Framing {
    /// A chunked body from its beginning.
    pub(crate) fn chunked() -> Self {
        Self::Chunked {
            part: Part::Size,
            body: BytesMut::new(),
            trailers: Vec::new(),
        }
    }

    /// The value of a field that follows a body which has ended, by its name in any case.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        let Self::Chunked { trailers, .. } = self else {
            return None;
        };
        let lines = trailers.split(|byte| *byte == b'\n');
        let mut fields = lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(found.1.trim())
    }

    /// Takes the body once all of it is there.
    pub(crate) fn take_whole(
        &mut self,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Length(length) if *length > bytes_max => Err(Error::TooLarge),
            Self::Length(length) if buffer.len() < *length => Ok(None),
            Self::Length(length) => Ok(Some(take_body(buffer, *length))),
            Self::Chunked {
                part,
                body,
                trailers,
            } => {
                let is_whole = chunks(buffer, part, body, trailers, bytes_max)?;
                Ok(is_whole.then(|| body.split().freeze()))
            }
            Self::UntilClose if buffer.len() > bytes_max => Err(Error::TooLarge),
            Self::UntilClose => Ok(None),
        }
    }

    /// Whether it is worth to read the body as it comes.
    pub(super) fn may_stream(&self) -> bool {
        !matches!(self, Self::Length(length) if *length <= WHOLE_BYTES_MAX)
    }

    /// Makes room for a body whose length is known.
    pub(crate) fn reserve(&self, buffer: &mut BytesMut) {
        if let Self::Length(length) = self {
            buffer.reserve(length.saturating_sub(buffer.len()));
        }
    }
}

impl Rest {
    pub(crate) fn new(framing: Framing, bytes_max: usize) -> Self {
        Self {
            framing,
            bytes_max,
            is_ended: false,
        }
    }

    /// How much is still to come, where the function told.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left as u64),
            Framing::Chunked { .. } | Framing::UntilClose => None,
        }
    }

    /// The value of a field that follows it, once it has ended.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.framing.trailer(name)
    }

    /// Whether all of it was taken.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Takes what the buffer has of the body, which may be nothing.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut) -> Result<Bytes, Error> {
        let piece = match &mut self.framing {
            Framing::Length(left) => {
                let piece = take_body(buffer, (*left).min(buffer.len()));
                *left -= piece.len();
                self.is_ended = *left == 0;
                piece
            }
            Framing::Chunked {
                part,
                body,
                trailers,
            } => {
                self.is_ended = chunks(buffer, part, body, trailers, self.bytes_max)?;
                body.split().freeze()
            }
            Framing::UntilClose => take_body(buffer, buffer.len()),
        };
        let left = self.bytes_max.checked_sub(piece.len());
        self.bytes_max = left.ok_or(Error::TooLarge)?;
        Ok(piece)
    }

    /// Says what it comes to that no more bytes follow.
    pub(in crate::http1) fn end(&mut self) -> Result<(), Error> {
        self.is_ended |= self.framing == Framing::UntilClose;
        match self.is_ended {
            true => Ok(()),
            false => Err(Error::Cut),
        }
    }
}

/// Takes so many bytes from the buffer.
fn take_body(buffer: &mut BytesMut, length: usize) -> Bytes {
    if length > COPY_BYTES_MAX {
        return buffer.split_to(length).freeze();
    }
    let body = Bytes::copy_from_slice(&buffer[..length]);
    buffer.advance(length);
    body
}

/// Takes what is there of a chunked body; true when it has ended.
fn chunks(
    buffer: &mut BytesMut,
    part: &mut Part,
    body: &mut BytesMut,
    trailers: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<bool, Error> {
    loop {
        match part {
            Part::Size => {
                let Some(line) = line(buffer, SIZE_LINE_BYTES_MAX)? else {
                    return Ok(false);
                };
                let size = chunk_size(&line)?;
                if size > bytes_max.saturating_sub(body.len()) {
                    return Err(Error::TooLarge);
                }
                *part = match size {
                    0 => Part::Trailers(0),
                    size => Part::Data(size),
                };
            }
            Part::Data(left) => {
                let count = (*left).min(buffer.len());
                body.extend_from_slice(&buffer[..count]);
                buffer.advance(count);
                *left -= count;
                if *left > 0 {
                    return Ok(false);
                }
                *part = Part::DataEnd;
            }
            Part::DataEnd => match buffer.get(..2) {
                None => return Ok(false),
                Some(b"\r\n") => {
                    buffer.advance(2);
                    *part = Part::Size;
                }
                Some(_) => {
                    let why = "a chunk is longer than its size says";
                    return Err(Error::Malformed(why.to_owned()));
                }
            },
            Part::Trailers(read) => {
                let Some(line) = line(buffer, HEAD_BYTES_MAX - *read)? else {
                    return Ok(false);
                };
                if line.is_empty() {
                    return Ok(true);
                }
                *read += line.len() + 2;
                if *read >= HEAD_BYTES_MAX {
                    return Err(Error::Malformed("the trailers have no end".to_owned()));
                }
                trailers.extend_from_slice(&line);
                trailers.push(b'\n');
            }
        }
    }
}

/// Takes a line without its end, once that is there.
fn line(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, Error> {
    let found = buffer
        .iter()
        .take(bytes_max)
        .position(|byte| *byte == b'\n');
    let Some(end) = found else {
        if buffer.len() >= bytes_max {
            let why = "a line of the chunked body is too long";
            return Err(Error::Malformed(why.to_owned()));
        }
        return Ok(None);
    };
    let mut line = buffer.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        let why = "a line of the chunked body does not end as lines do";
        return Err(Error::Malformed(why.to_owned()));
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

fn chunk_size(line: &[u8]) -> Result<usize, Error> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    let text = std::str::from_utf8(digits).unwrap_or_default();
    // `from_str_radix` would take a sign too.
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let size = is_hex.then(|| usize::from_str_radix(text, 16).ok());
    size.flatten().ok_or_else(|| {
        let line = String::from_utf8_lossy(line);
        Error::Malformed(format!("a chunk has the size {line:?}"))
    })
}
