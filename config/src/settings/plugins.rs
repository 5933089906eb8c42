//! `[plugins]`: WebAssembly modules that hook into events.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::error::{NOT_SET, above_zero, is_name, require};
use super::field::{Kind, Setting, section, size};
use super::{Error, Secret};

/// The longest name.
const NAME_LEN_MAX: usize = 64;

section! {
    /// Plugins: WebAssembly modules that see, change or refuse events.
    pub struct PluginsSettings {
        /// The plugins, in the order in which they are asked; a flag or a variable replaces the whole list.
        pub load: Vec<PluginSettings> = Vec::new(),
        /// How long one call of a plugin may take, the wait for its turn included.
        #[serde(with = "humantime_serde")]
        pub timeout: Duration = Duration::from_secs(1),
        /// Memory that one call of a plugin may have.
        #[serde(with = "size")]
        pub memory_max: ByteSize = ByteSize::mib(64),
        /// How long the sync plugins may take over all events of one request, of which a batch has many.
        #[serde(with = "humantime_serde")]
        pub request_timeout: Duration = Duration::from_secs(10),
        /// Calls of one plugin that run at once while requests wait for them; others wait for their turn.
        pub concurrency: usize = 4,
        /// Bytes that a plugin may answer a call with, and so the most that it can make of an event.
        #[serde(with = "size")]
        pub answer_max: ByteSize = ByteSize::mib(8),
        /// Bytes that a plugin may log during one call; what is over is left out and counted.
        #[serde(with = "size")]
        pub log_max: ByteSize = ByteSize::kib(16),
        /// What waits to be told to one async plugin; beyond it things go untold and are counted.
        pub observe_len_max: usize = 1_000,
        /// Bytes of what waits to be told to one async plugin.
        #[serde(with = "size")]
        pub observe_bytes_max: ByteSize = ByteSize::mib(16),
        /// The largest file of a plugin.
        #[serde(with = "size")]
        pub file_max: ByteSize = ByteSize::mib(16),
        /// How often the files are looked at; one that changed is loaded anew.
        #[serde(with = "humantime_serde")]
        pub reload_interval: Duration = Duration::from_secs(1),
    }
}

section! {
    /// One plugin.
    pub struct PluginSettings {
        /// The WebAssembly module.
        pub path: PathBuf = PathBuf::new(),
        /// The plugin's name in logs, metrics and errors; without one, the file's name without its extension.
        pub name: String = String::new(),
        /// What becomes of an event when a sync plugin fails or is too slow: `refuse`, the default, or `continue`.
        pub on_failure: OnFailure = OnFailure::Refuse,
        /// The plugin's own settings, a table that is handed to it as JSON; `hearth settings` does not show the values.
        pub settings: PluginOptions = PluginOptions::default(),
    }
}

/// What becomes of an event when a sync plugin fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is refused: what a plugin should have looked at does not pass without.
    #[default]
    Refuse,
    /// It goes on as it was before that plugin.
    Continue,
}

/// A plugin's own settings. They may hold a key, so their values are not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PluginOptions(Map<String, Value>);

impl PluginOptions {
    /// The table as one JSON object, to be handed to the plugin.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("a table with text keys can be written as JSON")
    }
}

impl FromIterator<(String, Value)> for PluginOptions {
    fn from_iter<T: IntoIterator<Item = (String, Value)>>(members: T) -> Self {
        Self(members.into_iter().collect())
    }
}

impl Serialize for PluginOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.keys().map(|name| (name, Secret::REDACTED)))
    }
}

impl fmt::Debug for PluginOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Setting for OnFailure {
    const KIND: Kind = Kind::Choice(&["refuse", "continue"]);
}

impl Setting for PluginOptions {
    const KIND: Kind = Kind::Free;
}

impl Setting for Vec<PluginSettings> {
    const KIND: Kind = match PluginSettings::KIND {
        Kind::Section(fields) => Kind::Sections(fields),
        _ => panic!("the macro makes a section"),
    };
}

impl PluginsSettings {
    /// Names the plugins that have no name after their files.
    pub(super) fn derive(&mut self) {
        for plugin in &mut self.load {
            if plugin.name.is_empty()
                && let Some(stem) = plugin.path.file_stem()
            {
                plugin.name = stem.to_string_lossy().into_owned();
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("plugins", self: timeout, request_timeout, memory_max, concurrency, answer_max, log_max, observe_len_max, observe_bytes_max, file_max, reload_interval);
        let mut names = BTreeSet::new();
        for (index, plugin) in self.load.iter().enumerate() {
            let key = |field| format!("plugins.load.{index}.{field}");
            if plugin.path.as_os_str().is_empty() {
                return Err(Error::new(
                    key("path"),
                    NOT_SET,
                    "the path of a WebAssembly module",
                ));
            }
            require(
                is_name(&plugin.name, NAME_LEN_MAX),
                &key("name"),
                format!("{:?}", plugin.name),
                "a name of letters, digits, '.', '-' and '_', 64 at most, that begins with a letter or digit",
            )?;
            require(
                names.insert(&plugin.name),
                &key("name"),
                format!("{:?}", plugin.name),
                "a name that no other plugin has: set plugins.load.name",
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn load(file: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.toml");
        std::fs::write(&path, file).unwrap();
        let loaded = Settings::merge(Some(&path), std::iter::empty(), &super::super::Flags::new());
        loaded.map_err(|error| error.to_string())
    }

    #[test]
    fn plugins_are_named_after_their_files_and_keep_their_order() {
        let file = "[[plugins.load]]\npath = '/p/z.wasm'\n\
            [[plugins.load]]\npath = '/p/a.wasm'\nname = 'first'\non_failure = 'continue'\n\
            settings = { n = 1, key = 'hunter2', of = [true, { a = 0.5 }] }\n";
        let settings = load(file).unwrap();
        let [z, first] = settings.plugins.load.as_slice() else {
            panic!("{settings:?}");
        };
        assert_eq!((z.name.as_str(), z.on_failure), ("z", OnFailure::Refuse));
        assert_eq!(
            (first.name.as_str(), first.on_failure),
            ("first", OnFailure::Continue)
        );
        assert_eq!(z.settings.to_json(), "{}");
        let json: Value = serde_json::from_str(&first.settings.to_json()).unwrap();
        let expected = serde_json::json!({"n": 1, "key": "hunter2", "of": [true, {"a": 0.5}]});
        assert_eq!(json, expected);
        let shown = format!("{settings:?} {}", settings.to_toml());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("key = \"<redacted>\""), "{shown}");
    }

    #[test]
    fn wrong_plugins_are_refused_by_key() {
        for (file, expected) in [
            ("[[plugins.load]]", "setting plugins.load.0.path is not set"),
            (
                "[[plugins.load]]\npath = 'a'\n[[plugins.load]]\npath = 7",
                "setting plugins.load.1.path is 7 ",
            ),
            (
                "[[plugins.load]]\npath = 'a'\nnope = 1",
                "setting plugins.load.0.nope is not known",
            ),
            (
                "[[plugins.load]]\npath = 'a'\non_failure = 'pray'",
                "expected one of: refuse, continue",
            ),
            (
                "[[plugins.load]]\npath = 'a'\nname = 'two words'",
                "setting plugins.load.0.name is \"two words\" (file ",
            ),
            (
                "[[plugins.load]]\npath = 'x/a.wasm'\n[[plugins.load]]\npath = 'y/a.wasm'",
                "setting plugins.load.1.name is \"a\"",
            ),
            (
                "[[plugins.load]]\npath = 'a'\nsettings = 'x'",
                "setting plugins.load.0.settings is <redacted>",
            ),
            (
                "[plugins]\nload = 'a'",
                "expected a list of tables with the keys path, name",
            ),
            (
                "[plugins]\nload = ['a']",
                "setting plugins.load.0 is <redacted>",
            ),
            ("[plugins]\ntimeout = '0s'", "setting plugins.timeout is 0s"),
        ] {
            let message = load(file).unwrap_err();
            assert!(message.contains(expected), "{file}: {message}");
        }
    }
}
