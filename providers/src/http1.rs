//! The client's side of HTTP/1.1, for instances and for webhooks without TLS; of the other side, how bodies are framed.
//!
//! This is the hottest code of a node. A connection is driven by the invocation that uses it, not by a task of its own,
//! so a warm call wakes no other task, and dropping the call closes the connection.

pub(crate) mod answer;
mod connection;
mod pool;

pub(crate) use self::answer::{Answer, Elsewhere, Rest, Wanted};
pub(crate) use self::connection::{Connection, Error};
pub(crate) use self::pool::{Exchanged, Pool};
