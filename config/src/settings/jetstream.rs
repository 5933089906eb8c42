//! `[queue.jetstream]`: NATS, where deliveries wait in streams.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::error::{NOT_SET, above_zero, is_host_and_port, require};
use super::field::{section, size};
use super::{Error, Secret};

/// How many servers may keep a stream.
const REPLICAS: std::ops::RangeInclusive<u32> = 1..=5;

section! {
    /// NATS, for the backend `jetstream`.
    pub struct JetStreamSettings {
        /// Its servers, as `nats://HOST:PORT`, or `tls://HOST:PORT` where it talks TLS only. JetStream must be on.
        pub servers: Vec<String> = Vec::new(),
        /// The user, where NATS asks for one.
        pub user: Option<String> = None,
        /// The user's password.
        pub password: Option<Secret> = None,
        /// The token, where NATS asks for one.
        pub token: Option<Secret> = None,
        /// The seed of the nkey (`SU…`), where NATS asks for one.
        pub nkey: Option<Secret> = None,
        /// The file with a user's JWT and seed, as `nsc` writes it.
        pub creds_file: Option<PathBuf> = None,
        /// The certificate authority of the servers, PEM; without it those of the system count.
        pub ca_file: Option<PathBuf> = None,
        /// The client certificate, PEM; goes with `key_file`.
        pub cert_file: Option<PathBuf> = None,
        /// The key of the client certificate, PEM.
        pub key_file: Option<PathBuf> = None,
        /// What the names of the streams begin with, before the cluster's id.
        pub stream: String = "hearth".into(),
        /// How many servers keep each stream, 1 to 5; use 3 where NATS is a cluster. More than 1 needs NATS 2.11.
        pub replicas: u32 = 1,
        /// Events that wait in NATS, of all nodes; beyond it events are answered with 503.
        pub len_max: usize = 1_000_000,
        /// Bytes of what waits in NATS, of all nodes; beyond it events are answered with 503.
        #[serde(with = "size")]
        pub bytes_max: ByteSize = ByteSize::gib(1),
        /// How long NATS may take to answer, reconnecting included; then events are answered with 503.
        #[serde(with = "humantime_serde")]
        pub operation_timeout: Duration = Duration::from_secs(3),
        /// Events on their way to NATS at once; whoever comes then waits, for `operation_timeout` at most.
        pub in_flight_max: usize = 1_024,
        /// After how long without a sign of life from a node the others take its deliveries over. It gives one every fifth of it.
        #[serde(with = "humantime_serde")]
        pub session_timeout: Duration = Duration::from_secs(5),
        /// How often a node looks through all that waits for deliveries that no living node has.
        #[serde(with = "humantime_serde")]
        pub sweep_interval: Duration = Duration::from_secs(60),
    }
}

impl JetStreamSettings {
    pub(super) fn check(&self, is_used: bool) -> Result<(), Error> {
        above_zero!("queue.jetstream", self: len_max, bytes_max, operation_timeout, in_flight_max, session_timeout, sweep_interval);
        require(
            REPLICAS.contains(&self.replicas),
            "queue.jetstream.replicas",
            self.replicas,
            "a whole number from 1 to 5",
        )?;
        let name = "a name of letters, digits, '-' and '_', 32 at most";
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        require(
            (1..=32).contains(&self.stream.len()) && self.stream.bytes().all(is_bare),
            "queue.jetstream.stream",
            format!("{:?}", self.stream),
            name,
        )?;
        for server in &self.servers {
            require(
                is_server(server),
                "queue.jetstream.servers",
                format!("{server:?}"),
                "a URL such as nats://10.0.0.1:4222, without user and password",
            )?;
        }
        if is_used && self.servers.is_empty() {
            let expected = "at least one server, as queue.backend is jetstream";
            return Err(Error::new("queue.jetstream.servers", NOT_SET, expected));
        }
        self.check_identity()
    }

    /// One way to say who we are, and whole.
    fn check_identity(&self) -> Result<(), Error> {
        let pairs = [
            (
                "user",
                self.user.is_some(),
                "password",
                self.password.is_some(),
            ),
            (
                "cert_file",
                self.cert_file.is_some(),
                "key_file",
                self.key_file.is_some(),
            ),
        ];
        for (one, has_one, other, has_other) in pairs {
            if has_one != has_other {
                let missing = if has_one { other } else { one };
                let (key, one, other) = (
                    format!("queue.jetstream.{missing}"),
                    format!("queue.jetstream.{one}"),
                    format!("queue.jetstream.{other}"),
                );
                let both = format!("both of {one} and {other}, or neither");
                return Err(Error::new(key, NOT_SET, both));
            }
        }
        let ways = [
            ("user", self.user.is_some()),
            ("token", self.token.is_some()),
            ("nkey", self.nkey.is_some()),
            ("creds_file", self.creds_file.is_some()),
        ];
        let mut set = ways
            .iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(name, _)| name);
        match (set.next(), set.next()) {
            (Some(first), Some(second)) => Err(Error::new(
                format!("queue.jetstream.{second}"),
                "set",
                format!(
                    "one of user, token, nkey and creds_file, and queue.jetstream.{first} is set"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether the text is `nats://HOST:PORT` or the same with `tls`, and no more.
fn is_server(text: &str) -> bool {
    let rest = text
        .strip_prefix("nats://")
        .or_else(|| text.strip_prefix("tls://"));
    rest.is_some_and(is_host_and_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_can_not_be_meant() {
        let check = |change: fn(&mut JetStreamSettings), expected: &str| {
            let mut settings = JetStreamSettings {
                servers: vec!["nats://10.0.0.1:4222".into()],
                ..JetStreamSettings::default()
            };
            change(&mut settings);
            let error = settings.check(true).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            |all| all.servers.clear(),
            "queue.jetstream.servers is not set",
        );
        check(|all| all.servers = vec!["http://a:1".into()], "http://a:1");
        check(
            |all| all.servers = vec!["nats://u:p@a:1".into()],
            "without user",
        );
        check(
            |all| all.stream = "a.b".into(),
            "queue.jetstream.stream is \"a.b\"",
        );
        check(|all| all.stream = String::new(), "queue.jetstream.stream");
        check(|all| all.replicas = 6, "queue.jetstream.replicas is 6");
        check(|all| all.len_max = 0, "queue.jetstream.len_max");
        check(
            |all| all.user = Some("a".into()),
            "queue.jetstream.password is not set",
        );
        check(
            |all| all.key_file = Some("a".into()),
            "queue.jetstream.cert_file is not set",
        );
        check(
            |all| {
                all.token = Some(Secret::new("a"));
                all.nkey = Some(Secret::new("b"));
            },
            "queue.jetstream.token is set",
        );
        JetStreamSettings::default().check(false).unwrap();
    }
}
