//! How much may be asked for, decided in the config store for all nodes: calls a second, and what goes on at once.
//!
//! Invariants: what all nodes give of a rate is at most the burst, what the rate has added since, and what is owed, which is paid back
//! before more is given. What all nodes let in at once is at most the limit, as long as each hears the store. No two nodes' clocks are ever
//! compared. A call that a node has room for is decided without an await or the store; one that it has not waits for a settlement, with a
//! bound. It knows no HTTP and no accounts.

mod at_once;
mod bucket;
mod error;
mod hand;
mod rate;
mod shares;
mod subject;
mod table;

pub use at_once::{Besides, Permit};
pub use bucket::Rate;
pub use rate::Standing;
pub use subject::{Exceeded, Subject, What};
pub use table::{Args, Limits};
