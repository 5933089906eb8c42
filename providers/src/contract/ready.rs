//! Waiting until an instance of the `http` contract takes connections.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

/// Why an instance was not found ready.
#[derive(Debug)]
pub(crate) enum NotReady<E> {
    /// It ended first.
    Ended(E),
    /// The time was over; what the last attempt said.
    TimedOut(String),
}

/// The first pause between attempts, which grows by half to the last one.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(25);
/// How long one attempt may take: an address whose interface is still coming up drops packets silently.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(250);

/// Connects until it works and returns the connection. `ended` resolves when the instance ends before that.
pub(crate) async fn wait_ready<E>(
    address: SocketAddr,
    until: Instant,
    ended: impl Future<Output = E>,
) -> Result<TcpStream, NotReady<E>> {
    let mut last = String::from("no attempt was made");
    let attempts = async {
        let mut pause = PAUSE_MIN;
        loop {
            match tokio::time::timeout(ATTEMPT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return stream,
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = format!("no answer within {ATTEMPT_TIMEOUT:?}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE_MAX);
        }
    };
    let outcome = tokio::time::timeout_at(until, async {
        tokio::select! {
            stream = attempts => Ok(stream),
            why = ended => Err(NotReady::Ended(why)),
        }
    })
    .await;
    match outcome {
        Ok(outcome) => outcome,
        Err(_) => Err(NotReady::TimedOut(last)),
    }
}
