//! Who calls and what they may: users, sessions, tokens, API keys and the settings of spaces, in the config store.

mod accounts;
mod cache;
mod caller;
mod clock;
mod disk;
mod error;
mod first_admin;
mod follow;
mod jwt;
mod keys;
mod known;
mod login;
mod password;
pub mod records;
mod secrets;
mod signing;
mod spaces;
mod sweep;
mod users;
mod verify;

pub use accounts::{Accounts, Args, Tokens, Verdict};
pub use caller::{Caller, Scope};
pub use error::{Denied, Error};
pub use records::key::{Key, NewKey};
pub use records::space::{Events, SpaceSettings};
pub use records::user::{InvalidUserId, Role, User, UserId, UserState};
