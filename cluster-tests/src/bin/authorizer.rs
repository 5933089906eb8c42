//! An authorizer for tests: what it does, the header `X-Key` of the request that it is asked about says. It lets callers with the key
//! `good` through as `$NAME`, says nonsense to `nonsense`, ends at `die`, and at `hang` leaves its process id in the file `$SIGNS/asked` and never answers.
//! All others it refuses.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::{env, fs, process, thread};

use serde_json::{Value, json};

fn main() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("PORT is no number"))?;
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let stream = stream?;
        thread::spawn(move || serve(stream));
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
        let mut body = Vec::new();
        reader.by_ref().take(length).read_to_end(&mut body)?;
        let question: Value = serde_json::from_slice(&body)?;
        let answer = answer(&question)?;
        let length = answer.len();
        write!(
            stream,
            "HTTP/1.1 200 x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{answer}"
        )?;
    }
}

fn answer(question: &Value) -> io::Result<String> {
    let header = |name: &str| {
        let value = &question["request"]["headers"][name];
        value.as_str().unwrap_or_default()
    };
    let said = match header("X-Key") {
        "good" => {
            let name = env::var("NAME").map_err(io::Error::other)?;
            let context = json!({
                "authorization": header("Authorization"),
                "path": question["request"]["path"],
                "type": question["event"]["eventType"],
            });
            json!({"authorization": {"principalId": name, "context": context}})
        }
        "nonsense" => return Ok("{".to_owned()),
        "die" => process::exit(1),
        "hang" => {
            let signs = env::var("SIGNS").map_err(io::Error::other)?;
            // Whoever waits for the file reads it whole.
            let [written, asked] = ["written", "asked"].map(|name| Path::new(&signs).join(name));
            fs::write(&written, process::id().to_string())?;
            fs::rename(&written, &asked)?;
            loop {
                thread::park();
            }
        }
        key => json!({"error": {"message": format!("nobody has the key {key:?}")}}),
    };
    Ok(said.to_string())
}
