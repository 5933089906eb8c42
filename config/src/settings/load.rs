//! Merges, reads and checks the settings, once, at start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::aws;
use super::error::NOT_SET;
use super::field::{Kind, Setting, names};
use super::{AuthMode, Error, Origin, Secret, Settings};

/// Flags that were given, by dotted key, such as `listen.peer`.
pub type Flags = BTreeMap<String, serde_json::Value>;

/// What the variables of all settings start with.
pub(super) const VARIABLE_PREFIX: &str = "HEARTH_";

/// Variables of ours that are no settings: where a function finds its node and the credential for it, the options of the
/// operator's commands, the settings file, and what the project's scripts hand to each other.
const NO_SETTINGS: [&str; 13] = [
    "HEARTH_URL",
    "HEARTH_TOKEN",
    "HEARTH_SECRETS",
    "HEARTH_API",
    "HEARTH_FUNCTIONS_API",
    "HEARTH_TOKEN_FILE",
    "HEARTH_CREDENTIALS_FILE",
    "HEARTH_CA_FILE",
    "HEARTH_SPACE",
    "HEARTH_ENGINE",
    "HEARTH_SETTINGS_FILE",
    "HEARTH_BIN",
    "HEARTH_WORK",
];

/// What the variables of the project's own tests start with.
const TEST_PREFIX: &str = "HEARTH_TEST_";

impl Settings {
    /// Merges defaults, the file, the environment and the flags, derives what was left open, and checks the result.
    ///
    /// # Errors
    /// The first key that is unknown, of the wrong type, out of range, or at odds with another one; and a file that can not be read.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, Error> {
        let variables = std::env::vars_os().map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        });
        Self::merge(file, variables, flags)
    }

    /// As [`Settings::load`], with the environment handed in.
    pub(super) fn merge(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, Error> {
        let mut layers = Layers::default();
        if let Some(file) = file {
            layers.push(Origin::File(file.to_owned()), read_file(file)?);
        }
        let mut variables: Vec<_> = variables.collect();
        variables.sort();
        let known = |name: &str| aws::VARIABLES.iter().find(|(known, _)| *known == name);
        for (name, value) in &variables {
            // Elsewhere an empty one counts as none.
            if let Some((_, field)) = known(name).filter(|_| !value.is_empty()) {
                let path = ["aws", field].map(str::to_owned);
                let value = from_variable(value, &path);
                layers.push(Origin::Environment(name.clone()), nest(&path, value));
            }
        }
        variables.retain(|(name, _)| is_setting(name));
        for (name, value) in variables {
            let path: Vec<String> = name[VARIABLE_PREFIX.len()..]
                .split("__")
                .map(str::to_ascii_lowercase)
                .collect();
            let value = from_variable(&value, &path);
            layers.push(Origin::Environment(name), nest(&path, value));
        }
        for (key, value) in flags {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            let value = match value.as_str() {
                Some(text) => from_variable(text, &path),
                None => Value::serialize(value)
                    .map_err(|error| Error::new(key, "not readable", error.to_string()))?,
            };
            layers.push(Origin::Flag, nest(&path, value));
        }
        layers.settings()
    }

    /// Fills in what follows from other settings.
    fn derive(&mut self) -> Result<(), Error> {
        if self.node.advertise.is_none() {
            let host = self.listen.peer.ip();
            if host.is_unspecified() {
                let expected = format!(
                    "the host that peers reach this node at, since listen.peer is {}: start with --advertise HOST",
                    self.listen.peer
                );
                return Err(Error::new("node.advertise", NOT_SET, expected));
            }
            self.node.advertise = Some(host.to_string());
        }
        self.queue.backend = Some(self.queue.backend_for(&self.store));
        self.plugins.derive();
        Ok(())
    }

    /// Checks every section, and what must hold between them.
    ///
    /// # Errors
    /// The first setting that is out of range or at odds with another one.
    pub fn validate(&self) -> Result<(), Error> {
        self.node.check()?;
        self.listen.check()?;
        self.tls.check()?;
        self.auth.check()?;
        self.store.check()?;
        self.cluster.check()?;
        self.limits.check()?;
        self.executor.check()?;
        self.docker.check()?;
        self.lambda.check()?;
        self.http.check()?;
        self.cloud.check()?;
        self.aws.check()?;
        self.queue.check(&self.store)?;
        self.executions.check()?;
        self.destinations.check()?;
        self.outbound.check()?;
        self.quotas.check()?;
        self.schedules.check()?;
        self.secrets.check()?;
        self.versions.check()?;
        self.plugins.check()?;
        self.logs.check()?;
        self.telemetry.check()?;
        self.check_exposure()
    }

    /// The listeners that others can reach and that have no certificate, so that credentials travel as readable as the rest.
    pub fn readable_listeners(&self) -> Vec<&'static str> {
        let listeners = self.listen.of_clients().into_iter();
        let listeners = listeners.zip(self.tls.schemes());
        let is_readable =
            |address: SocketAddr, scheme| scheme == "http" && !address.ip().is_loopback();
        listeners
            .filter(|((_, address), scheme)| is_readable(*address, *scheme))
            .map(|((key, _), _)| key)
            .collect()
    }

    /// Nothing that anybody could reach goes without a credential.
    fn check_exposure(&self) -> Result<(), Error> {
        let exposed = self
            .listen
            .of_clients()
            .into_iter()
            .find(|(_, address)| !address.ip().is_loopback());
        if let (AuthMode::Off, Some((key, address))) = (self.auth.mode, exposed) {
            let expected = format!(
                "required, because {key} is {address}, which others can reach: \
                 start with --auth required, or listen on 127.0.0.1"
            );
            return Err(Error::new("auth.mode", "off", expected));
        }
        if self.cluster.secret_file.is_some() {
            return Ok(());
        }
        let why = if !self.cluster.seeds.is_empty() {
            "there are seeds, and nodes find each other only with the same secret".to_owned()
        } else if !self.listen.peer.ip().is_loopback() {
            format!(
                "listen.peer is {}, which others can reach",
                self.listen.peer
            )
        } else {
            return Ok(());
        };
        let expected = format!(
            "a file with the cluster's secret, because {why}: start with --cluster-secret-file FILE"
        );
        Err(Error::new("cluster.secret_file", NOT_SET, expected))
    }

    /// The settings as TOML that can be loaded again, secrets aside, which are shown as `<redacted>`.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self)
            .expect("settings are tables with text keys, of texts, numbers and lists")
    }
}

/// Reads a settings file. Its errors name the line but do not repeat it: it may hold a password.
fn read_file(file: &Path) -> Result<Dict, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::file(file, format!("a settings file that can be read: {error}")))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        });
        Error::file(
            file,
            format!("TOML; line {line}: {}", error.message().replace('\n', " ")),
        )
    })?;
    let value = Value::serialize(&table).map_err(|error| Error::file(file, error.to_string()))?;
    Ok(value.into_dict().unwrap_or_default())
}

/// Puts a value at a path of nested tables.
fn nest(path: &[String], value: Value) -> Dict {
    let Some((first, rest)) = path.split_first() else {
        return Dict::new();
    };
    let value = if rest.is_empty() {
        value
    } else {
        Value::from(nest(rest, value))
    };
    Dict::from([(first.clone(), value)])
}

/// Reads the text of a variable or flag as what its setting holds. Text stays as it is, so that a password of digits is no number; what does
/// not fit is refused later, where the setting's other sources are.
fn from_variable(text: &str, path: &[String]) -> Value {
    let parsed = || text.parse::<Value>().unwrap_or_else(|never| match never {});
    let kind = path
        .iter()
        .try_fold(&Settings::KIND, |kind, name| kind.under(name));
    match kind {
        Some(Kind::Bool) => text
            .trim()
            .parse::<bool>()
            .map_or_else(|_| Value::from(text), Value::from),
        Some(Kind::Whole) => text
            .trim()
            .parse::<i64>()
            .map_or_else(|_| Value::from(text), Value::from),
        Some(Kind::Number) => text
            .trim()
            .parse::<f64>()
            .map_or_else(|_| Value::from(text), Value::from),
        Some(Kind::List) if text.trim_start().starts_with('[') => parsed(),
        Some(Kind::List) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Value::from(items.map(str::to_owned).collect::<Vec<_>>())
        }
        Some(Kind::Map(_) | Kind::Section(_) | Kind::Sections(_) | Kind::Free) => parsed(),
        _ => Value::from(text),
    }
}

/// The sources of settings, weakest first.
#[derive(Default)]
struct Layers {
    figment: Figment,
    origins: Vec<Origin>,
}

/// One source, as figment merges it; its metadata's name is its place in [`Layers::origins`].
struct Layer {
    index: usize,
    settings: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.index.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.settings.clone())]))
    }
}

impl Layers {
    fn push(&mut self, origin: Origin, settings: Dict) {
        let index = self.origins.len();
        self.origins.push(origin);
        self.figment = std::mem::take(&mut self.figment).merge(Layer { index, settings });
    }

    fn settings(&self) -> Result<Settings, Error> {
        let merged = self
            .figment
            .data()
            .map_err(|error| Error::new("settings", "not readable", error.to_string()))?;
        let tree = Value::from(merged.get(&Profile::Default).cloned().unwrap_or_default());
        self.check_shape(&tree, &Settings::KIND, "")?;
        let mut settings: Settings = self.figment.extract().map_err(|error| {
            // The shape is right, so this is a number beyond its type.
            let value = error
                .path
                .iter()
                .try_fold(&tree, |value, name| under(value, name));
            let shown = value.map_or_else(String::new, show);
            let expected = format!("a value in range: {}", error.kind);
            Error::new(error.path.join("."), shown, expected)
                .given_by(value.map(|value| self.origin(value)).unwrap_or_default())
        })?;
        settings
            .derive()
            .and_then(|()| settings.validate())
            .map_err(|error| {
                let given = error
                    .key
                    .split('.')
                    .try_fold(&tree, |value, name| under(value, name));
                let origin = given.map(|value| self.origin(value)).unwrap_or_default();
                error.given_by(origin)
            })?;
        Ok(settings)
    }

    fn origin(&self, value: &Value) -> Origin {
        // A table has no source of its own when several contributed; the first value within it names one of them.
        if let Some(first) = value.as_dict().and_then(|table| table.values().next()) {
            return self.origin(first);
        }
        let name = self
            .figment
            .get_metadata(value.tag())
            .map(|metadata| metadata.name.as_ref());
        name.and_then(|name| self.origins.get(name.parse::<usize>().ok()?))
            .cloned()
            .unwrap_or_default()
    }

    /// Refuses unknown keys and values of the wrong type.
    fn check_shape(&self, value: &Value, kind: &Kind, key: &str) -> Result<(), Error> {
        if let (Some(table), Kind::Section(_) | Kind::Map(_)) = (value.as_dict(), kind) {
            for (name, value) in table {
                let key = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                let Some(kind) = kind.under(name) else {
                    // The value is left out: it may be a secret under a misspelt name.
                    let Kind::Section(fields) = kind else {
                        continue;
                    };
                    let expected = format!("one of the keys {}", names(fields));
                    return Err(Error::new(key, "not known", expected).given_by(self.origin(value)));
                };
                self.check_shape(value, kind, &key)?;
            }
            return Ok(());
        }
        if let (Some(items), Kind::Sections(fields)) = (value.as_array(), kind) {
            for (index, item) in items.iter().enumerate() {
                self.check_shape(item, &Kind::Section(fields), &format!("{key}.{index}"))?;
            }
            return Ok(());
        }
        if fits(value, kind) {
            return Ok(());
        }
        let shown = match kind {
            // What stands where a table belongs may be a password.
            Kind::Secret | Kind::Section(_) | Kind::Sections(_) | Kind::Map(_) | Kind::Free => {
                Secret::REDACTED.to_owned()
            }
            _ => show(value),
        };
        Err(Error::new(key, shown, kind.expected()).given_by(self.origin(value)))
    }
}

/// What stands under a key of a table, or at a place of a list.
fn under<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value.as_array() {
        Some(items) => items.get(name.parse::<usize>().ok()?),
        None => value.as_dict()?.get(name),
    }
}

/// Whether a value is one of its kind.
fn fits(value: &Value, kind: &Kind) -> bool {
    let text = value.as_str();
    let whole = || value.to_i128();
    match kind {
        Kind::Text | Kind::Path | Kind::Secret => text.is_some(),
        Kind::Bool => value.to_bool().is_some(),
        Kind::Whole => whole().is_some_and(|number| number >= 0) || value.to_u128().is_some(),
        Kind::Number => value.to_f64().is_some_and(f64::is_finite) || whole().is_some(),
        Kind::Duration => text.is_some_and(|text| humantime::parse_duration(text).is_ok()),
        Kind::Size => text.map_or_else(
            || whole().is_some_and(|number| u64::try_from(number).is_ok()),
            |text| text.parse::<bytesize::ByteSize>().is_ok(),
        ),
        Kind::Address => text.is_some_and(|text| text.parse::<std::net::SocketAddr>().is_ok()),
        Kind::Choice(names) => text.is_some_and(|text| names.contains(&text)),
        Kind::List => value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| item.as_str().is_some())),
        Kind::Free => value.as_dict().is_some(),
        Kind::Map(_) | Kind::Section(_) | Kind::Sections(_) => false,
    }
}

/// A value as it was given.
fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, letter) => format!("{:?}", letter.to_string()),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Num(..) => value.to_i128().map_or_else(
            || {
                value
                    .to_f64()
                    .map_or_else(|| "a number".into(), |number| number.to_string())
            },
            |number| number.to_string(),
        ),
        Value::Empty(..) => "nothing".into(),
        Value::Dict(..) => "a table".into(),
        Value::Array(_, items) => format!(
            "[{}]",
            items.iter().map(show).collect::<Vec<_>>().join(", ")
        ),
    }
}

fn is_setting(variable: &str) -> bool {
    variable.starts_with(VARIABLE_PREFIX)
        && !variable.starts_with(TEST_PREFIX)
        && !NO_SETTINGS.contains(&variable)
}

#[cfg(test)]
mod tests;
