//! What a node is told: its boot settings, the cluster's secrets, and the config store of the cluster's records; how etcd is asked; and how often it tells of what
//! goes wrong.

pub mod etcd;
pub mod keyring;
pub mod recurring;
pub mod settings;
pub mod store;

pub use keyring::{ClusterSecret, Keyring};
pub use settings::Settings;
pub use store::{Revision, Store};
