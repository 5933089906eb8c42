//! Who calls and what they may: users, sessions, tokens, API keys and the settings of spaces, in the config store.

mod accounts;
mod caller;
mod clock;
mod error;
pub mod records;

pub use accounts::{Accounts, Args, Tokens, Verdict};
pub use caller::{Caller, Scope};
pub use error::{Denied, Error};
pub use records::key::{Key, NewKey};
pub use records::space::{Events, SpaceSettings};
pub use records::user::{InvalidUserId, Role, User, UserId, UserState};
