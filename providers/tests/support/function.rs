//! A function for the tests, compiled by `rustc` alone and linked statically, so that an image holds nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("http") => serve(),
        Some("stdio") => run_once(),
        Some("silent") => std::thread::sleep(Duration::from_secs(600)),
        Some("fail") => {
            eprintln!("this function does not come up");
            std::process::exit(3);
        }
        Some("write") => match std::fs::write("/file", "x") {
            Ok(()) => serve(),
            Err(error) => {
                eprintln!("writing /file: {error}");
                std::process::exit(4);
            }
        },
        other => panic!("unknown mode {other:?}"),
    }
}

fn serve() {
    let port = std::env::var("PORT").expect("PORT is set").parse::<u16>().expect("PORT is a number");
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    println!("listening");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || converse(stream));
    }
}

fn converse(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
    loop {
        let mut head = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, answer) = answer(&head, &String::from_utf8_lossy(&body));
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", answer.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes())).is_err() {
            return;
        }
    }
}

fn answer(head: &str, body: &str) -> (&'static str, String) {
    let (command, rest) = body.split_once(' ').unwrap_or((body, ""));
    match command {
        "headers" => ("200 OK", head.to_owned()),
        "env" => ("200 OK", std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect()),
        "pid" => ("200 OK", std::process::id().to_string()),
        "fail" => ("500 Internal Server Error", rest.to_owned()),
        "print" => {
            println!("{rest}");
            eprintln!("{rest}");
            ("200 OK", String::new())
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(rest.parse().expect("milliseconds")));
            ("200 OK", String::new())
        }
        "exit" => std::process::exit(rest.parse().expect("a code")),
        "eat" => {
            let mebibytes: usize = rest.parse().expect("a number");
            ("200 OK", std::hint::black_box(vec![1_u8; mebibytes << 20]).len().to_string())
        }
        "connect" => {
            let address = rest.to_socket_addrs().expect("an address").next().expect("an address");
            match TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
                Ok(_) => ("200 OK", "connected".to_owned()),
                Err(error) => ("200 OK", format!("refused: {error}")),
            }
        }
        "spawn" => {
            // A grandchild in a session of its own, which outlives this process unless someone looks for it.
            let child = std::process::Command::new("setsid").arg("sleep").arg(rest).spawn().expect("setsid runs");
            ("200 OK", child.id().to_string())
        }
        _ => ("200 OK", body.to_owned()),
    }
}

fn run_once() {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).expect("the payload is text");
    let (command, rest) = input.split_once(' ').unwrap_or((&input, ""));
    match command {
        "exit" => {
            eprintln!("boom");
            std::process::exit(rest.parse().expect("a code"));
        }
        "sleep" => std::thread::sleep(Duration::from_millis(rest.parse().expect("milliseconds"))),
        // What is written at once to both may come in any order.
        "talk" => {
            println!("one");
            std::thread::sleep(Duration::from_millis(200));
            eprintln!("two");
            std::thread::sleep(Duration::from_millis(200));
            println!("three");
            match rest {
                "and fail" => std::process::exit(7),
                "and stay" => std::thread::sleep(Duration::from_secs(600)),
                _ => {}
            }
        }
        "flood" => loop {
            println!("{}", "x".repeat(1000));
        },
        "eat" => {
            let mebibytes: usize = rest.parse().expect("a number");
            let eaten = std::hint::black_box(vec![1_u8; mebibytes << 20]);
            std::thread::sleep(Duration::from_secs(30));
            println!("{}", eaten.len());
        }
        _ => {
            eprintln!("noted");
            print!("{}", input.to_uppercase());
        }
    }
}
