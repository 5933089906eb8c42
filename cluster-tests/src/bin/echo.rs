//! A function for tests of requests that pass whole: it answers with what it got, 200 to POST and 418 to other methods.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("PORT is no number"))?;
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let stream = stream?;
        // Each connection has a thread: a node keeps some open while it uses others.
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (mut host, mut mine, mut length) = (String::new(), String::new(), 0);
        loop {
            let mut field = String::new();
            reader.read_line(&mut field)?;
            let Some((name, value)) = field.trim_end().split_once(": ") else {
                break;
            };
            match name {
                "host" => host = value.to_owned(),
                "x-mine" => mine = value.to_owned(),
                "content-length" => length = value.parse().map_err(io::Error::other)?,
                _ => {}
            }
        }
        let mut body = String::new();
        reader.by_ref().take(length).read_to_string(&mut body)?;
        let told = format!("{method} {target} {mine} {host} {body}");
        let status = if method == "POST" { 200 } else { 418 };
        let sent = if method == "HEAD" { "" } else { &told };
        let length = told.len();
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n{sent}"
        )?;
    }
}
