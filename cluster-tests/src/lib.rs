//! Starts real clusters, `hearth` processes on a real etcd with real functions, and hurts them.
//!
//! [`Sandbox`] is the entry: it owns a directory, the ports, the cluster secret, etcd and the nodes, and takes all of it away
//! when it is dropped. Everything here panics with what it saw when a test can not go on, because a test is what it is for.

pub mod account;
pub mod api;
pub mod bench;
pub mod chaos;
pub mod clouds;
pub mod disk;
pub mod engine;
pub mod etcd;
pub mod history;
pub mod link;
pub mod load;
pub mod many;
pub mod namespace;
pub mod nats;
pub mod node;
pub mod ports;
pub mod process;
pub mod program;
pub mod record;
pub mod sandbox;
pub mod scene;
pub mod tap;
pub mod wait;
pub mod webhook;

pub use api::{Answer, Lost, client};
pub use clouds::{Moto, Platforms};
pub use engine::{Container, Engine};
pub use etcd::Etcd;
pub use link::Link;
pub use load::{Call, Load, Targets};
pub use nats::Nats;
pub use node::{Node, NodeOptions};
pub use record::{Record, example};
pub use sandbox::{Builder, Sandbox, full_length};
pub use tap::Tap;
pub use wait::{eventually, outage, until};
pub use webhook::{Does, Webhook};
