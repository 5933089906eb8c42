//! How much of a rate is left, decided in the config store for all nodes.
//!
//! Invariants: what all nodes give is at most the burst, what the rate has added since, and what is owed, which is paid back before more
//! is given. No two nodes' clocks are ever compared. A call is decided without a lock, an await or the store. It knows no HTTP and no
//! accounts.

mod bucket;
mod hand;
mod limit;

pub use bucket::Rate;
pub use hand::Verdict;
pub use limit::{Error, Limit};
