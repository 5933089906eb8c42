//! One connection of a peer.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::answer::answer;
use crate::peer::Fingerprint;
use crate::peer::frame::Refusal;

/// How long the handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stranger may take to be told that it is one.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let admitted = tokio::select! {
        () = shared.quiet.cancelled() => return,
        admitted = admit(stream, &shared) => admitted,
    };
    match admitted {
        Some((stream, Some(gone))) => serve_member(stream, shared, gone).await,
        Some((stream, None)) => {
            metrics::counter!("hearth_peer_strangers_total").increment(1);
            let _ = timeout(STRANGER_TIMEOUT, refuse_stranger(stream)).await;
        }
        None => {}
    }
}

/// Shakes hands, and finds out whether the caller is a member.
async fn admit(
    stream: TcpStream,
    shared: &Shared,
) -> Option<(TlsStream<TcpStream>, Option<CancellationToken>)> {
    let handshake = async {
        stream.set_nodelay(true)?;
        shared.acceptor.accept(stream).await
    };
    let stream = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a peer's handshake failed");
            return None;
        }
        Err(_) => return None,
    };
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let fingerprint = Fingerprint::of(certificate);
    let gone = shared.callers.admit(fingerprint).await;
    Some((stream, gone))
}

async fn serve_member(stream: TlsStream<TcpStream>, shared: Arc<Shared>, gone: CancellationToken) {
    let quiet = shared.quiet.clone();
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.auto_date_header(false);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        ended = connection.as_mut() => return log_end(ended),
        () = gone.cancelled() => return,
        () = quiet.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        biased;
        ended = connection => log_end(ended),
        () = gone.cancelled() => {}
    }
}

/// Tells the caller that it is no member. It may be one that gossip has yet to bring, so it should know that nothing ran.
async fn refuse_stranger(stream: TlsStream<TcpStream>) {
    let service = service_fn(|_: http::Request<Incoming>| async {
        Ok::<_, Infallible>(Refusal::Stranger.response())
    });
    log_end(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a peer's connection ended");
    }
}
