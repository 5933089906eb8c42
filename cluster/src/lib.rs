//! How nodes know and reach each other: gossip for soft state, HTTP over mutual TLS for everything else.

pub mod hint;
pub mod identity;
pub mod listen;
pub mod membership;
pub mod peer;
#[cfg(test)]
mod test_counters;

pub use hint::Hint;
pub use identity::Identity;
pub use membership::{LocalState, Member, Members, Membership};
pub use peer::client::HttpPeerClient;
#[cfg(any(test, feature = "test-util"))]
pub use peer::scripted::ScriptedPeer;
pub use peer::server::PeerServer;
pub use peer::{Peer, PeerClient, PeerHandler};
