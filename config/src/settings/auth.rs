//! `[auth]`: who may call.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{NOT_SET, require};
use super::field::{Kind, Setting, section};
use super::{Error, Secret, secret};

section! {
    /// Who may call.
    pub struct AuthSettings {
        /// `off` (only while every client listener is loopback) or `required`.
        pub mode: AuthMode = AuthMode::default(),
        /// The file with the administrator's bearer token, at least 16 bytes. Needed with `required`.
        pub admin_token_file: Option<PathBuf> = None,
        /// Origins of web pages that may call the functions and config APIs, besides the node's own.
        pub origins: Vec<String> = Vec::new(),
    }
}

/// Whether callers need a credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Nobody does; client listeners must be loopback.
    #[default]
    Off,
    /// Everybody does, except for status and ready.
    Required,
}

impl Setting for AuthMode {
    const KIND: Kind = Kind::Choice(&["off", "required"]);
}

impl AuthSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.mode == AuthMode::Required && self.admin_token_file.is_none() {
            return Err(Error::new(
                "auth.admin_token_file",
                NOT_SET,
                "a file with the administrator's token while auth.mode is required: start with --admin-token-file FILE",
            ));
        }
        for origin in &self.origins {
            let host = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            let right = host.is_some_and(|host| {
                !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*'])
            });
            require(
                right,
                "auth.origins",
                format!("{origin:?}"),
                "an origin such as https://console.example.com, without a path",
            )?;
        }
        Ok(())
    }

    /// Reads the administrator's token from its file; none when no file is set.
    ///
    /// # Errors
    /// When the file can not be read, is no UTF-8 text, or holds fewer than 16 bytes besides surrounding white space.
    pub fn read_admin_token(&self) -> Result<Option<Secret>, Error> {
        secret::read(
            self.admin_token_file.as_deref(),
            "auth.admin_token_file",
            16,
        )
    }
}
