//! For tests: a server that gives canned answers and keeps what it was asked, and a run of the command against it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::Duration;

use clap::Parser;

use crate::command::{Command, execute};
use crate::console::Console;
use crate::options::Options;

/// The command line as the binary parses it, without the node's own subcommands.
#[derive(Debug, Parser)]
#[command(name = "hearth")]
pub(crate) struct Hearth {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Parses a command line; words are split at spaces, and a word may hold `␣` for a space of its own.
pub(crate) fn parse(line: &str) -> Result<Hearth, clap::Error> {
    let words = line.split_whitespace().map(|word| word.replace('␣', " "));
    Hearth::try_parse_from(std::iter::once("hearth".to_owned()).chain(words))
}

/// What a run of the command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Installs the crypto provider that the binary installs in `main`.
pub(crate) fn install_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .expect("only this installs one");
    });
}

/// Asserts that the command succeeded and printed exactly this.
#[track_caller]
pub(crate) fn check_ok(outcome: &Outcome, out: &str) {
    assert_eq!(
        (outcome.code, outcome.out.as_str()),
        (0, out),
        "{}",
        outcome.err
    );
}

/// Runs a command line against the given base URL of both APIs.
pub(crate) fn run_against(url: &str, line: &str, input: &str, is_terminal: bool) -> Outcome {
    install_provider();
    let Hearth {
        mut options,
        command,
    } = parse(&format!("--api {url} --functions-api {url} {line}"))
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    // Who runs the tests may be logged in.
    let nowhere = || std::env::temp_dir().join("hearth-cli-test-without-credentials.json");
    options.credentials_file.get_or_insert_with(nowhere);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut input = input.as_bytes();
    let mut console = Console {
        out: &mut out,
        err: &mut err,
        input: &mut input,
        is_terminal,
        is_watched: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let code = runtime.block_on(execute(&options, &command, &mut console));
    Outcome {
        code,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

/// A request as the server got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Method and target, such as `GET /v1/cluster`.
    pub(crate) line: String,
    /// Header lines, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A server on a port of its own that gives each connection the next of its answers, the last one for ever.
pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers with a status line such as `200 OK`, header lines and a body.
    pub(crate) fn new(answers: &[(&str, &[&str], &str)]) -> Self {
        Self::raw(
            answers
                .iter()
                .map(|(status, headers, body)| {
                    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
                    let length = body.len();
                    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
                })
                .collect(),
        )
    }

    /// Answers with these bytes and closes the connection; an empty answer keeps it open and says nothing.
    pub(crate) fn raw(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        thread::spawn(move || {
            let mut silent = Vec::new();
            for (at, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                // A client that connects and sends nothing would hold the test up for ever.
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                let Some(request) = read_request(&stream) else {
                    continue;
                };
                kept.lock().unwrap().push(request);
                match answers[at.min(answers.len() - 1)].as_str() {
                    "" => silent.push(stream),
                    answer => stream.write_all(answer.as_bytes()).unwrap(),
                }
            }
        });
        Self { url, requests }
    }

    /// Runs a command line against this server.
    pub(crate) fn run(&self, line: &str) -> Outcome {
        run_against(&self.url, line, "", false)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The only request.
    pub(crate) fn request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut request = Request {
        line,
        headers,
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}
