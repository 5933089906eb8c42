//! The function that the bench calls: a keep-alive HTTP server that costs as little as one can.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::Context;
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

const ANSWER: &[u8] = br#"{"ok":true}"#;

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
