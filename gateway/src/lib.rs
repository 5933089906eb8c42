//! The HTTP edge of a node: the functions, events and config APIs.
//!
//! Invariants: only `error.rs` knows which status an error has; `POST /invoke` passes no router and no layer; every body is
//! read under a limit and a timeout; nothing here names a provider, a store or a peer: a node is what [`Node`] says. Every
//! answer has the `x-hearth-*` headers, but for what the HTTP library answers by itself: 400 and 431 to a broken or too large
//! head.

mod admin;
mod auth;
mod aws;
mod body;
mod content;
mod cors;
mod deletion;
mod destinations;
mod edge;
mod error;
mod events;
mod executions;
mod functions;
mod headers;
mod health;
mod inner;
mod invoke;
mod meters;
mod node;
mod openapi;
mod qualified;
mod surface;

pub use auth::Access;
pub use destinations::{Destinations, LeftUntold, Letter, Post};
pub use edge::{Addresses, BindError, CertificateError, Edge, ListenError, Listeners, Serving};
pub use events::{Emitter, Invocations, Scheduled};
pub use inner::{Callers, InnerListener, Stranger};
pub use invoke::Propagate;
pub use node::Node;
pub use surface::RenderMetrics;
