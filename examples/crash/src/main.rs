//! Fails in the way that the payload asks for, `{"how":"exit"}`; see the README for the ways.
//!
//! With `CRASH_AT_START` set it ends before it listens.

mod http;

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;
use std::{env, process, thread};

/// What `flood` writes to each of stdout and stderr.
const FLOOD_BYTES: usize = 64 << 20;

fn main() -> io::Result<()> {
    if env::var_os("CRASH_AT_START").is_some() {
        eprintln!("crash: CRASH_AT_START is set, so this instance ends before it listens");
        process::exit(3);
    }
    http::serve(|payload, stream| fail(&how(&String::from_utf8_lossy(payload)), stream))
}

fn fail(how: &str, stream: &mut TcpStream) -> io::Result<()> {
    eprintln!("crash: asked to fail by {how:?}");
    match how {
        "exit" => process::exit(1),
        "panic" => panic!("asked to panic"),
        "abort" => process::abort(),
        "hang" => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        "garbage" => {
            stream.write_all(b"\x00\xff this is not HTTP \r\n\r\n\x00")?;
            stream.shutdown(Shutdown::Both)
        }
        "half" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"half\":")?;
            stream.shutdown(Shutdown::Both)
        }
        "flood" => {
            flood()?;
            http::answer(
                stream,
                200,
                &format!(r#"{{"flooded_bytes":{}}}"#, 2 * FLOOD_BYTES),
            )
        }
        "flood-body" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")?;
            // Ends when the caller hangs up.
            loop {
                stream.write_all(&[b'x'; 64 << 10])?;
            }
        }
        "status500" => http::answer(stream, 500, r#"{"error":"asked to answer 500"}"#),
        "oom" => {
            let mut held = Vec::new();
            loop {
                // Written to, or the kernel would not count it.
                held.push(vec![1_u8; 1 << 20]);
                std::hint::black_box(&held);
            }
        }
        _ => http::answer(stream, 200, r#"{"crashed":false}"#),
    }
}

fn flood() -> io::Result<()> {
    let line = [
        b"the same line, again and again, until it is enough ".repeat(20),
        b"\n".to_vec(),
    ]
    .concat();
    for _ in 0..FLOOD_BYTES / line.len() {
        io::stdout().write_all(&line)?;
        io::stderr().write_all(&line)?;
    }
    Ok(())
}

/// The JSON string after the key `how`, without escapes; empty when there is none.
fn how(payload: &str) -> String {
    let value = payload.split_once(r#""how""#).map_or("", |(_, rest)| rest);
    value.split('"').nth(1).unwrap_or_default().to_owned()
}
