//! The operator's command: registers, invokes and looks at functions and the cluster, over the HTTP APIs only.
//!
//! It knows no store, no gossip and no engine, so whatever it asks of a node, any HTTP client can ask as well; images are built by
//! the engine's own program. Everything it prints goes through a `console::Console`, and it ends with one of the codes of `EXIT_CODES`.

mod admin;
mod alias;
mod api;
mod backup;
mod build;
mod cluster;
mod command;
mod console;
mod credentials;
mod dead_letter;
mod engine;
mod event_type;
mod execution;
mod failure;
mod function;
mod help;
mod json;
mod key;
mod login;
mod manifest;
mod new;
mod options;
mod password;
mod program;
mod ready;
mod records;
mod schedule;
mod secret;
mod space;
mod subscription;
mod table;
mod template;
#[cfg(test)]
mod testing;
mod up;
mod user;
mod version;

pub use command::{Command, run};
pub use failure::{EXIT_CODES, usage_error};
pub use help::markdown_help;
pub use options::Options;
