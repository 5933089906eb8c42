//! A function for tests of answers that are passed on as they come. GET is answered with server-sent events: the first one at once,
//! the second one, and the end, when the file `go` is in the directory `$SIGNS`. A caller that hangs up before leaves the file `left`
//! there. POST is answered with `{}`.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

/// How often it looks for the file.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

fn main() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("PORT is no number"))?;
    let signs = env::var("SIGNS").map_err(io::Error::other)?;
    let signs = PathBuf::from(signs);
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let (stream, signs) = (stream?, signs.clone());
        thread::spawn(move || serve(stream, &signs));
    }
    Ok(())
}

fn serve(mut stream: TcpStream, signs: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut field = String::new();
            reader.read_line(&mut field)?;
            match field.trim_end().split_once(": ") {
                None => break,
                Some(("content-length", value)) => {
                    length = value.parse().map_err(io::Error::other)?;
                }
                Some(_) => {}
            }
        }
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        if line.starts_with("POST ") {
            write!(
                stream,
                "HTTP/1.1 200 x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
            )?;
            continue;
        }
        write!(
            stream,
            "HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        event(&mut stream, 1)?;
        if !waits(&stream, &signs.join("go"))? {
            fs::write(signs.join("left"), "")?;
            return Ok(());
        }
        event(&mut stream, 2)?;
        write!(stream, "0\r\n\r\n")?;
    }
}

fn event(stream: &mut TcpStream, number: u32) -> io::Result<()> {
    let event = format!("data: {number}\n\n");
    write!(stream, "{:x}\r\n{event}\r\n", event.len())
}

/// Waits for a file; false when the caller has hung up.
fn waits(stream: &TcpStream, file: &Path) -> io::Result<bool> {
    stream.set_read_timeout(Some(LOOK_INTERVAL))?;
    while !file.exists() {
        match stream.peek(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(count) if count > 0 => {}
            Ok(_) | Err(_) => return Ok(false),
        }
    }
    stream.set_read_timeout(None)?;
    Ok(true)
}
