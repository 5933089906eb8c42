//! Connections to one address, kept from one request to the next.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{Answer, Connection, Error, Wanted};

/// Connections that are open and have no request.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The last used one last.
    idle: Mutex<Vec<Connection>>,
    len_max: usize,
    /// How long one is kept; nothing where the other side is this node's own.
    idle_timeout: Option<Duration>,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) answer: Answer,
    /// The connection that it came by.
    pub(crate) connection: Connection,
    /// Whether that takes another request, once the rest of the answer was read.
    pub(crate) is_reusable: bool,
}

impl Pool {
    /// Keeps so many, with those that are open already.
    pub(crate) fn new(
        len_max: usize,
        idle_timeout: Option<Duration>,
        open: Option<TcpStream>,
    ) -> Self {
        Self {
            idle: Mutex::new(open.into_iter().map(Connection::new).collect()),
            len_max,
            idle_timeout,
        }
    }

    /// Makes one request, its head written by `head`, on a connection that is kept or on a new one.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(crate) async fn request(
        &self,
        connect: impl AsyncFnOnce() -> io::Result<TcpStream>,
        head: impl Fn(&mut Vec<u8>),
        payload: &Bytes,
        wanted: Wanted,
    ) -> Result<Exchanged, Error> {
        while let Some(mut connection) = self.take() {
            if !connection.is_open() {
                continue;
            }
            match connection.exchange(&head, payload, wanted).await {
                // Closed between the look and the write: nothing ran.
                Err(Error::NotSent(_)) => {}
                Err(error) => return Err(error),
                Ok((answer, is_reusable)) => {
                    return Ok(Exchanged {
                        answer,
                        connection,
                        is_reusable,
                    });
                }
            }
        }
        let mut connection = Connection::new(connect().await.map_err(Error::NotSent)?);
        let (answer, is_reusable) = connection.exchange(head, payload, wanted).await?;
        Ok(Exchanged {
            answer,
            connection,
            is_reusable,
        })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn put(&self, mut connection: Connection) {
        if let Some(timeout) = self.idle_timeout {
            connection.idle_for(timeout);
        }
        let mut idle = self.idle();
        if idle.len() < self.len_max {
            idle.push(connection);
        }
    }

    /// Closes those that were idle for too long, or that the other side closed.
    pub(crate) fn sweep(&self) {
        self.idle().retain(Connection::is_open);
    }

    /// How many are kept now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.idle().len()
    }

    fn take(&self) -> Option<Connection> {
        self.idle().pop()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
