//! The function that the bench calls: a keep-alive HTTP server that costs as little as one can.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::ports::Ports;
use crate::process::Process;
use crate::wait::until;

pub(super) const ANSWER: &[u8] = br#"{"ok":true}"#;

/// This program, which is the function where it is told to serve.
pub(super) fn program() -> anyhow::Result<String> {
    let program = std::env::current_exe().context("find this program, which is the function")?;
    let program = program.into_os_string().into_string();
    program.map_err(|path| anyhow!("the path of this program is no UTF-8: {}", path.display()))
}

/// The function as a process of its own; it ends with this value.
#[derive(Debug)]
pub(super) struct Upstream {
    _process: Process,
    address: SocketAddr,
}

impl Upstream {
    /// Starts it, and waits until it takes connections.
    pub(super) async fn start(dir: &Path, ports: &Ports) -> anyhow::Result<Self> {
        let port = ports.take();
        let mut command = Command::new(program()?);
        command.args(["serve", "--port", &port.to_string()]);
        let process = Process::spawn("the function", command, &dir.join("function.log"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        until("the function listens", Duration::from_secs(10), || async {
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        Ok(Self {
            _process: process,
            address,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves on a port of loopback until the process ends. Reads each request whole and answers with a few bytes of JSON.
///
/// # Errors
/// When the port can not be had.
pub async fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("listen on port {port}"))?;
    let tasks = TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await.context("accept a connection")?;
        tasks.spawn(connection(stream));
    }
}

async fn connection(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    let mut builder = http1::Builder::new();
    builder.auto_date_header(false);
    // A client that hangs up is how every connection ends.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
    }
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
