//! One keep-alive connection, driven by whoever uses it.

use std::io::{self, ErrorKind, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

use super::answer::{self, Answer, Parser, Rest, Wanted};

/// One connection. Nothing looks at it while it is idle; [`Connection::is_open`] finds out whether the other side closed it
/// meanwhile.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// What was read and belongs to no answer yet.
    read: BytesMut,
    /// The head of the request, and a small payload behind it; kept for its memory.
    request: Vec<u8>,
    /// What of the payload is to be sent yet, while an answer is read as it comes.
    unsent: Bytes,
    /// Until when the other side said that it keeps the connection.
    kept_until: Option<Instant>,
    /// Until when it may be idle.
    idle_until: Option<Instant>,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum Error {
    /// Not a byte of it was written.
    NotSent(io::Error),
    /// It may have arrived; what the connection said when it broke.
    Broken(String),
    /// What came back is no HTTP.
    Malformed(String),
    /// What came back is larger than allowed.
    TooLarge,
}

/// Free space in the buffer before each read.
const READ_BYTES_MIN: usize = 1024;
const READ_BYTES: usize = 4096;
/// Free space before each read of a body that is read as it comes; with what is copied out of it, all that such an answer holds.
const STREAM_READ_BYTES: usize = 32 * 1024;

/// Up to this many bytes a payload is copied behind its head: one short write costs less than one of two pieces.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// How long before the end of its `keep-alive` a connection is left: a request that crosses the close can not be told from
/// one that ran.
const KEPT_MARGIN: Duration = Duration::from_millis(500);

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // A request is one write; waiting for more of it would only delay it. A socket without the option still works.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            read: BytesMut::new(),
            request: Vec::new(),
            unsent: Bytes::new(),
            kept_until: None,
            idle_until: None,
        }
    }

    /// Bounds how long it may be idle from now on.
    pub(super) fn idle_for(&mut self, timeout: Duration) {
        self.idle_until = Some(Instant::now() + timeout);
    }

    /// Looks whether an idle connection can still take a request.
    pub(super) fn is_open(&self) -> bool {
        let bounds = [self.kept_until, self.idle_until];
        if bounds
            .into_iter()
            .flatten()
            .min()
            .is_some_and(|until| Instant::now() >= until)
        {
            return false;
        }
        // An end, an error and bytes that nobody asked for all mean that no answer can be had here.
        let looked = self.stream.try_read(&mut [0]);
        self.read.is_empty() && looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a request, its head written by `head`, and reads the answer. Gives back whether the connection takes another; where
    /// a rest of the answer is to be read, only once [`Connection::next`] has had it all.
    ///
    /// # Cancel safety
    /// A connection whose exchange was dropped must not be used again.
    pub(super) async fn exchange(
        &mut self,
        head: impl FnOnce(&mut Vec<u8>),
        payload: &Bytes,
        wanted: Wanted,
    ) -> Result<(Answer, bool), Error> {
        self.request.clear();
        head(&mut self.request);
        let whole_payload = payload;
        let mut payload: &[u8] = payload;
        if payload.len() <= COPY_BYTES_MAX {
            self.request.extend_from_slice(payload);
            payload = &[];
        }
        let mut parser = Parser::new(wanted);
        let mut sent = match self.write(payload, 0) {
            Ok(sent) => sent,
            Err(error) => return Err(Error::NotSent(error)),
        };
        let request_len = self.request.len() + payload.len();
        while sent < request_len {
            match self.send_rest(payload, sent, &mut parser).await? {
                Progress::Sent(count) => sent += count,
                // The other side answers while it still reads.
                Progress::Answered(answer) if answer.rest.is_some() => {
                    let sent = sent.checked_sub(self.request.len());
                    self.unsent = sent.map_or(Bytes::new(), |sent| whole_payload.slice(sent..));
                    let is_kept = answer.is_kept && sent.is_some();
                    return Ok((answer, is_kept));
                }
                // Before it had read the request; the other side takes no more of it.
                Progress::Answered(answer) => return Ok((answer, false)),
                Progress::Refused => break,
            }
        }
        let answer = self.receive(parser).await?;
        let is_kept = answer.is_kept && sent == request_len;
        let is_reusable = is_kept && (answer.rest.is_some() || self.is_reusable(answer.kept_for));
        Ok((answer, is_reusable))
    }

    /// Reads the next piece of a body; none at its end.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(crate) async fn next(&mut self, rest: &mut Rest) -> Result<Option<Bytes>, Error> {
        while !rest.is_ended() {
            let piece = rest.take(&mut self.read)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if rest.is_ended() {
                break;
            }
            self.read.reserve(STREAM_READ_BYTES);
            let count = match self.unsent.is_empty() {
                true => Some(self.stream.read_buf(&mut self.read).await.map_err(broken)?),
                false => self.read_or_send().await?,
            };
            if count == Some(0) {
                rest.end()?;
            }
        }
        Ok(None)
    }

    /// Waits until there is something to read, and sends meanwhile of the payload what the socket takes; how much was read, if the
    /// connection was.
    async fn read_or_send(&mut self) -> Result<Option<usize>, Error> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let ready = self.stream.ready(both).await.map_err(broken)?;
        if ready.is_writable() {
            match self.stream.try_write(&self.unsent) {
                Ok(count) => self.unsent.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It takes no more; what it answers is another matter.
                Err(_) => self.unsent.clear(),
            }
        }
        if !ready.is_readable() {
            return Ok(None);
        }
        match self.stream.try_read_buf(&mut self.read) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(broken(error)),
        }
    }

    /// Whether another request may follow an answer that was read to its end; `kept_for` is how long the other side said that it
    /// keeps the connection.
    pub(crate) fn is_reusable(&mut self, kept_for: Option<Duration>) -> bool {
        if let Some(kept_for) = kept_for {
            self.kept_until = Some(Instant::now() + kept_for.saturating_sub(KEPT_MARGIN));
        }
        self.read.is_empty() && self.unsent.is_empty()
    }

    /// Writes what the socket takes now.
    fn write(&self, payload: &[u8], sent: usize) -> io::Result<usize> {
        let head = self.request.get(sent..).unwrap_or_default();
        let rest = &payload[sent.saturating_sub(self.request.len())..];
        let written = match (head, rest) {
            (head, []) => self.stream.try_write(head),
            ([], rest) => self.stream.try_write(rest),
            (head, rest) => {
                let pieces = [IoSlice::new(head), IoSlice::new(rest)];
                self.stream.try_write_vectored(&pieces)
            }
        };
        match written {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Waits until the socket takes more, and reads meanwhile: a function may answer before it has read all, and one that
    /// waits for its answer to be read would never read on.
    async fn send_rest(
        &mut self,
        payload: &[u8],
        sent: usize,
        parser: &mut Parser,
    ) -> Result<Progress, Error> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let ready = self.stream.ready(both).await.map_err(broken)?;
        if ready.is_readable() {
            self.reserve();
            match self.stream.try_read_buf(&mut self.read) {
                Ok(0) => return self.cut(parser),
                Ok(_) => {
                    if let Some(answer) = parser.take(&mut self.read)? {
                        return Ok(Progress::Answered(answer));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(broken(error)),
            }
        }
        if !ready.is_writable() {
            return Ok(Progress::Sent(0));
        }
        match self.write(payload, sent) {
            Ok(count) => Ok(Progress::Sent(count)),
            Err(error) if sent == 0 => Err(Error::NotSent(error)),
            // An answer may have come before the other side closed.
            Err(_) => Ok(Progress::Refused),
        }
    }

    async fn receive(&mut self, mut parser: Parser) -> Result<Answer, Error> {
        loop {
            self.reserve();
            let count = self.stream.read_buf(&mut self.read).await;
            if count.map_err(broken)? == 0 {
                return Ok(parser.end(&mut self.read)?);
            }
            if let Some(answer) = parser.take(&mut self.read)? {
                return Ok(answer);
            }
        }
    }

    fn cut(&mut self, parser: &mut Parser) -> Result<Progress, Error> {
        let parser = std::mem::replace(parser, Parser::new(Wanted::default()));
        Ok(Progress::Answered(parser.end(&mut self.read)?))
    }

    /// The parser has made room for a body whose length it knows.
    fn reserve(&mut self) {
        if self.read.capacity() - self.read.len() < READ_BYTES_MIN {
            self.read.reserve(READ_BYTES.max(self.read.len()));
        }
    }
}

/// What came of waiting for a socket that was full.
enum Progress {
    /// It took so many bytes more.
    Sent(usize),
    /// The answer came before the whole request was sent.
    Answered(Answer),
    /// It takes no more.
    Refused,
}

impl From<answer::Error> for Error {
    fn from(error: answer::Error) -> Self {
        match error {
            answer::Error::Malformed(why) => Self::Malformed(why),
            answer::Error::TooLarge => Self::TooLarge,
            answer::Error::Cut => Self::Broken("it closed before the answer was whole".to_owned()),
        }
    }
}

fn broken(error: io::Error) -> Error {
    Error::Broken(error.to_string())
}
