//! The HTTP/1.1 that a function needs and no more: keep-alive connections, a thread for each.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Bytes of a request's head and of its body; more ends the connection.
const HEAD_BYTES_MAX: u64 = 64 << 10;
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Listens on `$HOST:$PORT` (0.0.0.0:8080) and hands every request's body to `handle`, which writes the answer.
pub fn serve<H>(handle: H) -> io::Result<()>
where
    H: Fn(&[u8], &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    let host = env::var("HOST").unwrap_or_else(|_| "0.0.0.0".into());
    let port = env::var("PORT").unwrap_or_else(|_| "8080".into());
    let listener = TcpListener::bind(format!("{host}:{port}"))?;
    let handle = Arc::new(handle);
    loop {
        // A failed accept or thread costs one caller; the function goes on for the others.
        let spawned = listener.accept().and_then(|(stream, _)| {
            let handle = Arc::clone(&handle);
            thread::Builder::new().spawn(move || connection(stream, handle.as_ref()))
        });
        if let Err(error) = spawned {
            eprintln!("cannot take a connection: {error}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Writes the head of an answer whose end is not known yet; its chunks follow.
pub fn begin(stream: &mut TcpStream, content_type: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes())
}

/// Writes one chunk, which must not be empty. It fails when the caller has hung up, which ends the answer.
pub fn chunk(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(chunk.as_bytes())
}

/// Ends the answer; the connection takes another request.
pub fn end(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"0\r\n\r\n")
}

fn connection<H>(mut stream: TcpStream, handle: &H) -> io::Result<()>
where
    H: Fn(&[u8], &mut TcpStream) -> io::Result<()>,
{
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(head) = read_head(&mut reader)? {
        if head.expects_continue {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = match head.body {
            Body::Sized(length) => read_exactly(&mut reader, length)?,
            Body::Chunked => read_chunks(&mut reader)?,
        };
        handle(&body, &mut stream)?;
        if head.closes {
            break;
        }
    }
    Ok(())
}

struct Head {
    body: Body,
    closes: bool,
    expects_continue: bool,
}

enum Body {
    Sized(u64),
    Chunked,
}

/// Reads a head; none when the caller closed the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut head = Head {
        body: Body::Sized(0),
        closes: false,
        expects_continue: false,
    };
    let mut reader = reader.take(HEAD_BYTES_MAX);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(head));
        };
        let value = value.trim().to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.body = Body::Sized(value.parse().map_err(io::Error::other)?),
            "transfer-encoding" => head.body = Body::Chunked,
            "connection" => head.closes = value == "close",
            "expect" => head.expects_continue = value == "100-continue",
            _ => {}
        }
    }
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.by_ref().take(HEAD_BYTES_MAX).read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
        if body.len() as u64 + size > BODY_BYTES_MAX {
            return Err(io::Error::other("the body is too large"));
        }
        body.extend(read_exactly(reader, size)?);
        reader.by_ref().take(HEAD_BYTES_MAX).read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn read_exactly(reader: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(io::Error::other("the body is too large"));
    }
    let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    reader.read_exact(&mut body)?;
    Ok(body)
}
