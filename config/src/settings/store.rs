//! `[store]`: the config store.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{NOT_SET, above_zero, is_host_and_port, require};
use super::field::section;
use super::{Error, Secret};

section! {
    /// The config store: etcd when it has endpoints, else embedded in this node.
    pub struct StoreSettings {
        /// etcd, shared by the nodes of a cluster.
        pub etcd: EtcdSettings = EtcdSettings::default(),
    }
}

section! {
    /// etcd, shared by the nodes of a cluster.
    pub struct EtcdSettings {
        /// Client URLs of its members; with none the node uses its embedded store.
        pub endpoints: Vec<String> = Vec::new(),
        /// What every key starts with, before the cluster's id.
        pub prefix: String = "hearth".into(),
        /// The user, where etcd asks for one.
        pub user: Option<String> = None,
        /// The user's password.
        pub password: Option<Secret> = None,
        /// The certificate authority of `https` endpoints, PEM.
        pub ca_file: Option<PathBuf> = None,
        /// The client certificate, PEM; goes with `key_file`.
        pub cert_file: Option<PathBuf> = None,
        /// The key of the client certificate, PEM.
        pub key_file: Option<PathBuf> = None,
        /// How long one operation may take, retries over endpoints included.
        #[serde(with = "humantime_serde")]
        pub operation_timeout: Duration = Duration::from_secs(3),
        /// How often the watch asks a quiet server for a sign of life.
        #[serde(with = "humantime_serde")]
        pub watch_progress_interval: Duration = Duration::from_secs(2),
        /// After how long without one the watch is set up anew.
        #[serde(with = "humantime_serde")]
        pub watch_silence_max: Duration = Duration::from_secs(6),
        /// The longest pause between attempts to set up the watch.
        #[serde(with = "humantime_serde")]
        pub backoff_max: Duration = Duration::from_secs(2),
    }
}

impl StoreSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        self.etcd.check()
    }
}

impl EtcdSettings {
    fn check(&self) -> Result<(), Error> {
        above_zero!("store.etcd", self: operation_timeout, watch_progress_interval, watch_silence_max, backoff_max);
        let show = humantime::format_duration(self.watch_silence_max);
        let longer = "longer than store.etcd.watch_progress_interval, best three times as long";
        require(
            self.watch_silence_max > self.watch_progress_interval,
            "store.etcd.watch_silence_max",
            show,
            longer,
        )?;
        let url = "a URL such as http://10.0.0.1:2379";
        for endpoint in &self.endpoints {
            require(
                is_endpoint(endpoint),
                "store.etcd.endpoints",
                format!("{endpoint:?}"),
                url,
            )?;
        }
        let prefix = "a text without white space and without '/' at either end";
        let bare =
            !self.prefix.is_empty() && !self.prefix.starts_with('/') && !self.prefix.ends_with('/');
        let right = bare
            && !self
                .prefix
                .contains(|letter: char| letter.is_whitespace() || letter.is_control());
        require(
            right,
            "store.etcd.prefix",
            format!("{:?}", self.prefix),
            prefix,
        )?;
        let both = "both of store.etcd.user and store.etcd.password, or neither";
        match (&self.user, &self.password) {
            (Some(_), None) => return Err(Error::new("store.etcd.password", NOT_SET, both)),
            (None, Some(_)) => return Err(Error::new("store.etcd.user", NOT_SET, both)),
            _ => {}
        }
        let both = "both of store.etcd.cert_file and store.etcd.key_file, or neither";
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => return Err(Error::new("store.etcd.key_file", NOT_SET, both)),
            (None, Some(_)) => return Err(Error::new("store.etcd.cert_file", NOT_SET, both)),
            _ => {}
        }
        let sealed = self.ca_file.is_some() || self.cert_file.is_some();
        if self.ca_file.is_none()
            && self
                .endpoints
                .iter()
                .any(|endpoint| endpoint.starts_with("https://"))
        {
            let expected =
                "the file of the authority that signed the certificates of the https endpoints";
            return Err(Error::new("store.etcd.ca_file", NOT_SET, expected));
        }
        if let Some(plain) = self
            .endpoints
            .iter()
            .find(|endpoint| sealed && !endpoint.starts_with("https://"))
        {
            let expected = "https endpoints only, since store.etcd.ca_file or cert_file is set";
            return Err(Error::new(
                "store.etcd.endpoints",
                format!("{plain:?}"),
                expected,
            ));
        }
        Ok(())
    }
}

/// Whether the text is `http://HOST:PORT` or the same with `https`, and no more.
fn is_endpoint(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(is_host_and_port)
}
