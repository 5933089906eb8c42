//! `[auth]`: who may call.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{above_zero, require};
use super::field::{Kind, Setting, section};
use super::{Error, Secret, secret};

section! {
    /// Who may call.
    pub struct AuthSettings {
        /// `off` (only while every client listener is loopback) or `required`.
        pub mode: AuthMode = AuthMode::default(),
        /// The file with the administrator's bearer token, at least 16 bytes. It may do all and has no account; without it the first admin is made with a one-time token of the log.
        pub admin_token_file: Option<PathBuf> = None,
        /// Origins of web pages that may call the functions and config APIs, besides the node's own.
        pub origins: Vec<String> = Vec::new(),
        /// Who may make accounts: `open` (everybody) or `admin`.
        pub sign_up: SignUp = SignUp::default(),
        /// How long a token is good; after that a client refreshes it.
        #[serde(with = "humantime_serde")]
        pub token_ttl: Duration = Duration::from_secs(15 * 60),
        /// How long a session lasts without a refresh.
        #[serde(with = "humantime_serde")]
        pub refresh_ttl: Duration = Duration::from_secs(30 * 24 * 3600),
        /// How old the key that signs tokens gets before the cluster makes the next one.
        #[serde(with = "humantime_serde")]
        pub signing_key_age: Duration = Duration::from_secs(30 * 24 * 3600),
        /// Tokens whose check this node remembers.
        pub tokens_cached_max: usize = 10_000,
        /// Credentials so new that this node asks the config store about them, at a time; beyond it callers get 503.
        pub asks_max: usize = 16,
        /// Sessions of one user; the next login ends the oldest. At most 50.
        pub sessions_per_user_max: usize = 20,
        /// API keys of one user. At most 50.
        pub keys_per_user_max: usize = 50,
        /// Passwords that this node hashes at a time; each takes a processor and 19 MiB for some 20 ms.
        pub hashes_max: usize = 2,
        /// Logins and sign-ups that may wait for that; beyond it they get 503.
        pub hashes_waiting_max: usize = 32,
        /// Failed logins of one account or address before the next ones are slowed.
        pub login_failures_max: u32 = 5,
        /// How long the first slowed login has to wait; each further failure doubles it.
        #[serde(with = "humantime_serde")]
        pub login_delay: Duration = Duration::from_secs(1),
        /// The longest that a login has to wait.
        #[serde(with = "humantime_serde")]
        pub login_delay_max: Duration = Duration::from_secs(60),
        /// How long after the last one failed logins are forgotten.
        #[serde(with = "humantime_serde")]
        pub login_memory: Duration = Duration::from_secs(15 * 60),
        /// Accounts and addresses whose failed logins are remembered; beyond it only those of addresses are, the oldest forgotten first.
        pub login_subjects_max: usize = 20_000,
        /// How often a node looks for what has ended: sessions, signing keys, failed logins.
        #[serde(with = "humantime_serde")]
        pub sweep_interval: Duration = Duration::from_secs(60),
        /// How often a node looks for what deleted users left: a deletion that another node began, or what a call made that was let in before.
        #[serde(with = "humantime_serde")]
        pub deletion_interval: Duration = Duration::from_secs(5),
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

/// Who may make accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignUp {
    /// Everybody.
    #[default]
    Open,
    /// Admins only.
    Admin,
}

impl Setting for SignUp {
    const KIND: Kind = Kind::Choice(&["open", "admin"]);
}

/// Sessions or keys of a user: all of them go in one transaction, and etcd takes 128 writes in one.
const OWNED_MAX: usize = 50;

impl AuthSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("auth", self: token_ttl, refresh_ttl, signing_key_age, tokens_cached_max, asks_max);
        above_zero!("auth", self: sessions_per_user_max, keys_per_user_max, hashes_max, hashes_waiting_max);
        above_zero!("auth", self: login_failures_max, login_delay, login_delay_max, login_memory, login_subjects_max);
        above_zero!("auth", self: sweep_interval, deletion_interval);
        for (key, value) in [
            ("auth.sessions_per_user_max", self.sessions_per_user_max),
            ("auth.keys_per_user_max", self.keys_per_user_max),
        ] {
            require(value <= OWNED_MAX, key, value, "at most 50")?;
        }
        require(
            self.signing_key_age >= self.token_ttl * 2,
            "auth.signing_key_age",
            humantime::format_duration(self.signing_key_age),
            "at least twice auth.token_ttl",
        )?;
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
