//! Waits for the signals that end the process.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers can not be installed.
pub async fn requested() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
