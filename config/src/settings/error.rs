//! Why the settings can not be used.

use std::fmt;
use std::path::PathBuf;

/// What stands for the value of a setting that nobody set.
pub(super) const NOT_SET: &str = "not set";

/// Why the settings can not be used; the process exits with 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The dotted key, such as `listen.functions`; empty when the settings file itself can not be read.
    pub key: String,
    /// The value as it was given, `<redacted>` for a secret; the file's path when that can not be read.
    pub value: String,
    /// What would have been right.
    pub expected: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// Where a setting's value came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// The settings file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// A flag on the command line.
    Flag,
}

impl Error {
    pub(crate) fn new(
        key: impl Into<String>,
        value: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
            expected: expected.into(),
            origin: Origin::Default,
        }
    }

    pub(super) fn file(path: &std::path::Path, expected: impl Into<String>) -> Self {
        Self::new("", path.display(), expected).given_by(Origin::File(path.to_owned()))
    }

    pub(super) fn given_by(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            value,
            expected,
            origin,
        } = self;
        if key.is_empty() && matches!(origin, Origin::File(_)) {
            return write!(
                f,
                "settings file {value} can not be used, expected {expected}"
            );
        }
        write!(f, "setting {key} is {value}")?;
        match origin {
            Origin::Default if value == NOT_SET => {}
            Origin::Default => write!(f, " (by default)")?,
            Origin::File(path) => write!(f, " (file {})", path.display())?,
            Origin::Environment(name) => write!(f, " (environment variable {name})")?,
            Origin::Flag => write!(f, " (flag)")?,
        }
        write!(f, ", expected {expected}")
    }
}

impl std::error::Error for Error {}

/// Refuses a value unless the condition holds.
pub(super) fn require(
    holds: bool,
    key: &str,
    value: impl fmt::Display,
    expected: &str,
) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::new(key, value, expected))
    }
}

/// Refuses the values of `section` that are zero, by the fields' names.
macro_rules! above_zero {
    ($section:literal, $settings:ident: $($field:ident),+) => {
        $($crate::settings::error::Zero::check(&$settings.$field, concat!($section, ".", stringify!($field)))?;)+
    };
}

pub(super) use above_zero;

/// A value that must not be zero: an empty pool, a queue of no length, an interval without a pause would stop all work or spin.
pub(super) trait Zero {
    fn check(&self, key: &str) -> Result<(), Error>;
}

macro_rules! whole {
    ($($type:ty),+) => {
        $(impl Zero for $type {
            fn check(&self, key: &str) -> Result<(), Error> {
                require(*self > 0, key, self, "a whole number above zero")
            }
        })+
    };
}

whole!(usize, u32, i64);

impl Zero for std::time::Duration {
    fn check(&self, key: &str) -> Result<(), Error> {
        require(
            !self.is_zero(),
            key,
            humantime::format_duration(*self),
            "a duration above zero, such as 250ms",
        )
    }
}

impl Zero for bytesize::ByteSize {
    fn check(&self, key: &str) -> Result<(), Error> {
        require(
            self.0 > 0,
            key,
            super::field::size::text(*self),
            "a size above zero, such as 6MiB",
        )
    }
}

impl<T: Zero> Zero for Option<T> {
    fn check(&self, key: &str) -> Result<(), Error> {
        self.as_ref().map_or(Ok(()), |value| value.check(key))
    }
}

/// Whether the text is a plain name: it stands in headers, logs, labels and store keys.
pub(super) fn is_name(text: &str, len_max: usize) -> bool {
    text.len() <= len_max
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// Whether the text is `HOST:PORT` with a port above zero.
pub(super) fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether the text can be a host: a name, an IPv4 address, or an IPv6 address with or without brackets.
pub(super) fn is_host(text: &str) -> bool {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<std::net::IpAddr>().is_ok()
        || (!text.is_empty()
            && text.len() <= 253
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')))
}
