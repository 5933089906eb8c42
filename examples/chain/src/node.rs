//! The node that runs this function, as its functions reach it. `HEARTH_URL` is the functions API and the events API in one;
//! `HEARTH_TOKEN` lets this instance in, and no other.

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long the node may be silent: a call waits for its function to start and to run.
const TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: u64 = 64 << 20;

pub struct Node {
    address: String,
    token: String,
}

impl Node {
    pub fn from_environment() -> Result<Self, String> {
        let variable = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
        let url = variable("HEARTH_URL")?;
        let address = url
            .strip_prefix("http://")
            .ok_or_else(|| format!("HEARTH_URL is {url}, expected http://HOST:PORT"))?;
        Ok(Self {
            address: address.trim_end_matches('/').to_owned(),
            token: variable("HEARTH_TOKEN")?,
        })
    }

    /// Sends JSON and returns the status and body of the answer. One connection a call keeps the example short; your own
    /// function would use an HTTP client, which keeps them.
    pub fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        json: &[u8],
    ) -> io::Result<(u16, String)> {
        let Self { address, token } = self;
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\nconnection: close\r\n\r\n", json.len());
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(&[head.as_bytes(), json].concat())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        parse(&answer).ok_or_else(|| io::Error::other("the answer is no HTTP"))
    }
}

/// The node's answers have a `content-length`, and the connection ends after the body.
fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = String::from_utf8_lossy(&answer[end + 4..]);
    Some((status, body.into_owned()))
}
