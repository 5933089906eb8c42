//! A node of Hearth: puts the crates together, starts them, and stops them in order.

pub mod args;
pub mod dev;
mod events;
pub mod node;
pub mod shutdown;
pub mod telemetry;
mod wire;

pub use node::{Node, NodeHandle, StartError};
