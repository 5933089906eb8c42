//! Waits for the signals that end the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, which are kept for whoever waits from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals, which end the process no more by themselves.
    ///
    /// # Errors
    /// When the handlers can not be installed.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the next of them, or at one that came since the last.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Resolves at SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers can not be installed.
pub async fn requested() -> io::Result<()> {
    Signals::take()?.next().await;
    Ok(())
}
