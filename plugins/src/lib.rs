//! Plugins: WebAssembly modules of the operator's that see, change or refuse events on their way.
//!
//! Invariants: a plugin costs a request no more than its time limit, and a request that no plugin hooks into nothing; each call has an
//! instance of its own, so that no call leaves anything behind; no call runs on the runtime's threads; what goes wrong in a plugin stays
//! in that call and is told. Nothing here knows what an event is: it has stages, JSON, and a [`Subject`] that may change.

pub mod hooks;
mod stage;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
#[cfg(feature = "wasm")]
pub mod wasm;

pub use hooks::{Hooks, Refusal, Subject};
pub use stage::{Mode, Stage};
