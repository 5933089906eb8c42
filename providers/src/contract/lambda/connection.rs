//! One connection of a runtime to its Runtime API: reads requests, and writes what is answered to all but `next`.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::request::{HeadReader, Path, Request};
use super::shared::{Link, NotKept, Shared};
use crate::http1::answer::{self, Framing};

mod answers;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    reader: OwnedReadHalf,
    pub(super) link: Arc<Link>,
    pub(super) read: BytesMut,
    /// The head of an answer, kept for its memory.
    written: Vec<u8>,
    shared: Arc<Shared>,
}

/// What is answered to a request.
#[derive(Debug)]
enum Said {
    /// `202`: it was taken.
    Accepted,
    /// An error, in AWS's form.
    Refused {
        status: &'static str,
        error_type: &'static str,
        message: String,
    },
}

/// Why a body is not had.
#[derive(Debug)]
enum NoBody {
    TooLarge,
    /// It ended before it was whole, is no HTTP, or took too long.
    Broken,
}

/// Free space in the buffer before each read.
const READ_BYTES: usize = 4096;
/// How long a request waits until it is known where the instance is, which the engine tells right after the start.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a connection until it is closed.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, from: IpAddr) {
    // An answer is one write; waiting for more of it would only delay it. A socket without the option still works.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let link = shared.link(writer);
    let mut connection = Connection {
        reader,
        link,
        read: BytesMut::new(),
        written: Vec::new(),
        shared,
    };
    let caller = tokio::time::timeout(CALLER_TIMEOUT, connection.shared.caller.wait()).await;
    if caller.is_ok_and(|caller| *caller == from) {
        let _left = Left {
            shared: Arc::clone(&connection.shared),
            link: Arc::clone(&connection.link),
        };
        while let Some(kept) = connection.request().await {
            connection = kept;
        }
    } else {
        connection.shared.note_stranger(from);
        let said = Said::refused(
            "403 Forbidden",
            "Forbidden",
            "this Runtime API is another instance's",
        );
        // Its request is not read, so all that can be done is to answer and close.
        let _ = connection.say(&said, false).await;
    }
}

/// Takes back what a connection asked for when it ends.
struct Left {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.shared.leave(&self.link);
    }
}

impl Connection {
    /// Serves one request; gives the connection back where it takes another.
    async fn request(mut self) -> Option<Self> {
        let request = match self.head().await {
            Ok(Some(request)) => request,
            Ok(None) => return None,
            Err(error) => {
                self.refuse_malformed(&error).await;
                return None;
            }
        };
        if self.link.is_asking.load(Ordering::Acquire) {
            self.shared
                .break_off("it sent another request before `next` was answered");
            return None;
        }
        let is_kept = request.is_kept;
        let connection = match request.path.clone() {
            Path::Next => self.next(request).await?,
            Path::Response(id) => self.response(request, &id).await?,
            Path::Error(id) => self.error(request, &id).await?,
            Path::InitError => self.init_error(request).await?,
            Path::Restore => {
                let message = "instances are not restored from snapshots";
                let said = Said::refused("404 Not Found", "NotFound", message);
                self.refuse(request.body, &said).await?
            }
            Path::OtherMethod(what) => {
                let said = Said::refused("405 Method Not Allowed", "MethodNotAllowed", what);
                self.refuse(request.body, &said).await?
            }
            Path::Unknown(path) => {
                let message = format!("the Runtime API has no {path}");
                let said = Said::refused("404 Not Found", "NotFound", message);
                self.refuse(request.body, &said).await?
            }
        };
        is_kept.then_some(connection)
    }

    /// Keeps a request for `next` until an invocation takes it, and answers it.
    async fn next(mut self, request: Request) -> Option<Self> {
        if request.body != Framing::Length(0) {
            let message = "a request for `next` has no body";
            let said = Said::refused("400 Bad Request", "InvalidRequest", message);
            return self.refuse(request.body, &said).await;
        }
        match self.shared.ask(&self.link) {
            // Who answers it is not this task, so the connection is open until the other side closes it.
            Ok(()) if request.is_kept => return Some(self),
            Ok(()) => {
                while !matches!(self.fill().await, Ok(0) | Err(_)) {}
                return None;
            }
            Err(refused) => {
                self.link.is_asking.store(false, Ordering::Release);
                let message = "all that it may run at once (limits.concurrency) runs: `next` is asked for when one is answered";
                if refused == NotKept::TooMany {
                    self.shared
                        .break_off("it asked for more invocations than limits.concurrency");
                }
                let said = Said::refused("403 Forbidden", "InvalidStateTransition", message);
                let _ = self.say(&said, false).await;
            }
        }
        None
    }

    /// The head of the next request; none when the connection is closed.
    async fn head(&mut self) -> Result<Option<Request>, answer::Error> {
        let mut reader = HeadReader::default();
        loop {
            if let Some(request) = reader.take(&mut self.read)? {
                return Ok(Some(request));
            }
            let filled = if self.read.is_empty() {
                self.fill().await
            } else {
                // Once it has begun it is to end.
                let within = self.shared.lambda.request_timeout;
                let filled = tokio::time::timeout(within, self.fill()).await;
                filled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            match filled {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => return Ok(None),
            }
        }
    }

    /// Reads a body whole.
    async fn body(
        &mut self,
        framing: &mut Framing,
        expects_continue: bool,
    ) -> Result<Bytes, NoBody> {
        let bytes_max = self.shared.limits.whole;
        let within = self.shared.lambda.request_timeout;
        let read = async {
            if expects_continue && self.read.is_empty() {
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                    .await
                    .map_err(|_| NoBody::Broken)?;
            }
            loop {
                match framing.take_whole(&mut self.read, bytes_max) {
                    Ok(Some(body)) => return Ok(body),
                    Ok(None) => framing.reserve(&mut self.read),
                    Err(answer::Error::TooLarge) => return Err(NoBody::TooLarge),
                    Err(answer::Error::Malformed(_) | answer::Error::Cut) => {
                        return Err(NoBody::Broken);
                    }
                }
                match self.fill().await {
                    Ok(count) if count > 0 => {}
                    Ok(_) | Err(_) => return Err(NoBody::Broken),
                }
            }
        };
        tokio::time::timeout(within, read)
            .await
            .unwrap_or(Err(NoBody::Broken))
    }

    /// Reads what has come; 0 when the other side has closed.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        if self.read.capacity() - self.read.len() < READ_BYTES / 4 {
            self.read.reserve(READ_BYTES);
        }
        self.reader.read_buf(&mut self.read).await
    }

    /// Refuses a request, and reads what follows of it, so that the connection is still of use.
    async fn refuse(mut self, mut body: Framing, said: &Said) -> Option<Self> {
        // One that waits before it sends its body is answered with the refusal.
        let is_read = self.body(&mut body, false).await.is_ok();
        let is_said = self.say(said, is_read).await;
        (is_read && is_said).then_some(self)
    }

    async fn refuse_malformed(&mut self, error: &answer::Error) {
        let message = match error {
            answer::Error::Malformed(why) => why.clone(),
            answer::Error::TooLarge | answer::Error::Cut => String::from("it is too large"),
        };
        self.shared
            .break_off(&format!("it sent what is no HTTP request: {message}"));
        let said = Said::refused("400 Bad Request", "InvalidRequest", message);
        let _ = self.say(&said, false).await;
    }

    /// Writes an answer; false where the connection is broken.
    async fn say(&mut self, said: &Said, is_kept: bool) -> bool {
        let (status, body) = match said {
            Said::Accepted => ("202 Accepted", String::from("{\"status\":\"OK\"}\n")),
            Said::Refused {
                status,
                error_type,
                message,
            } => {
                let body = serde_json::json!({"errorMessage": message, "errorType": error_type});
                (*status, format!("{body}\n"))
            }
        };
        let connection = if is_kept { "" } else { "Connection: close\r\n" };
        let mut head = std::mem::take(&mut self.written);
        head.clear();
        write!(
            head,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{connection}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("a Vec takes all that is written");
        let is_sent = self.send(&head).await.is_ok();
        self.written = head;
        is_sent
    }

    async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.link.send(bytes, &[]).await
    }
}

impl Link {
    /// Writes both one after the other.
    pub(super) async fn send(&self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let length = head.len() + body.len();
        let mut sent = 0;
        while sent < length {
            match self.try_send(head, body, sent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writer.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what the socket takes now of what is left behind the first `sent` bytes.
    pub(super) fn try_send(&self, head: &[u8], body: &[u8], sent: usize) -> io::Result<usize> {
        let left = head.get(sent..).unwrap_or_default();
        let body = &body[sent.saturating_sub(head.len())..];
        match (left, body) {
            (left, []) => self.writer.try_write(left),
            ([], body) => self.writer.try_write(body),
            (left, body) => {
                let pieces = [io::IoSlice::new(left), io::IoSlice::new(body)];
                self.writer.try_write_vectored(&pieces)
            }
        }
    }
}

impl Said {
    fn refused(status: &'static str, error_type: &'static str, message: impl Into<String>) -> Self {
        Self::Refused {
            status,
            error_type,
            message: message.into(),
        }
    }
}
