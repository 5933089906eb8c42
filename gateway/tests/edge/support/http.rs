//! Requests as they go over a socket, byte by byte, and their answers.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// A request as it goes over the wire. Unless it has them, a `host` of 127.0.0.1 and `connection: close` are added.
#[derive(Clone)]
pub(crate) struct Call {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            line: format!("{method} {target} HTTP/1.1"),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("POST", target).body(body)
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Adds a header; an empty value for `host` leaves it out.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(known, _)| known == name);
        let mut text = format!("{}\r\n", self.line);
        if !has("host") {
            text += "host: 127.0.0.1\r\n";
        }
        if !has("connection") {
            text += "connection: close\r\n";
        }
        if !has("content-length") && !has("transfer-encoding") {
            text += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in self
            .headers
            .iter()
            .filter(|(name, value)| name != "host" || !value.is_empty())
        {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        [text.as_bytes(), &self.body].concat()
    }

    pub(crate) async fn send(&self, address: SocketAddr) -> Answer {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A refusal may come before all is written.
        let _ = stream.write_all(&self.bytes()).await;
        Answer::read_to_end(&mut stream).await
    }
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads until the connection ends.
    pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut bytes))
            .await
            .expect("the answer ends")
            .expect("an answer");
        Self::parse(&bytes)
            .unwrap_or_else(|| panic!("no answer but {:?}", String::from_utf8_lossy(&bytes)))
    }

    /// Reads one answer that has a `content-length`, and leaves the connection open.
    pub(crate) async fn read_one(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let reading = async {
            loop {
                if let Some(answer) = Self::parse(&bytes)
                    && answer
                        .header("content-length")
                        .is_some_and(|length| length == answer.body.len().to_string())
                {
                    return answer;
                }
                assert_ne!(
                    stream.read_buf(&mut bytes).await.expect("an answer"),
                    0,
                    "the connection ended"
                );
            }
        };
        timeout(PATIENCE, reading).await.expect("the answer ends")
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Self {
            status,
            headers,
            body: bytes[end + 4..].to_vec(),
        };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunk(&answer.body);
        }
        Some(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What every answer on every port has.
    pub(crate) fn has_common_headers(&self) {
        assert_eq!(
            self.header("x-hearth-invocation").map(str::len),
            Some(36),
            "{self:?}"
        );
        assert!(self.header("x-hearth-node").is_some(), "{self:?}");
        assert_eq!(
            self.header("x-hearth-error").is_some(),
            self.status >= 400,
            "{self:?}"
        );
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&bytes[..end]).expect("a chunk's length");
        let length = usize::from_str_radix(length, 16).expect("a chunk's length");
        let chunk = &bytes[end + 2..];
        if length == 0 || chunk.len() < length + 2 {
            break;
        }
        body.extend_from_slice(&chunk[..length]);
        bytes = &chunk[length + 2..];
    }
    body
}
