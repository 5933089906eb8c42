//! How nodes know and reach each other: gossip for soft state, HTTP over mutual TLS for everything else.

pub mod hint;
pub mod identity;
pub mod membership;
pub mod peer;

pub use hint::Hint;
pub use membership::{LocalState, Member, Members, Membership};
pub use peer::{Peer, PeerClient, PeerHandler};
