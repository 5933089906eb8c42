//! `hearth.toml`: what a function's directory says of the function.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::{Function, FunctionId, Space};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::console::Console;
use crate::failure::Failure;

/// The file's name.
const FILE: &str = "hearth.toml";

/// What `hearth up` notes in the record's metadata, by which it knows its own again.
const MADE_BY: (&str, &str) = ("madeBy", "hearth up");

/// The variable that tells a command which `hearth up` it is of; another one gives the function new instances.
const BUILD_VARIABLE: &str = "FUNCTION_BUILD";

/// Goes to the function's directory and runs its command there: `provider.command` has no directory of its own.
const IN_DIRECTORY: [&str; 3] = ["sh", "-c", r#"cd "$0" && exec "$@""#];

/// A function's directory and what its `hearth.toml` says.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The directory, absolute.
    pub(crate) dir: PathBuf,
    /// The file, as messages name it.
    shown: String,
    file: File,
}

/// The file, in its own shape.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    function_id: FunctionId,
    contract: Option<String>,
    port: Option<u16>,
    payload: Option<toml::Value>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    secrets: Option<toml::Value>,
    event_format: Option<String>,
    #[serde(default)]
    image: Image,
    process: Option<Process>,
    limits: Option<toml::Table>,
    scaling: Option<toml::Table>,
    delivery: Option<toml::Table>,
    sandbox: Option<toml::Table>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// How its image is built.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    name: Option<String>,
    dockerfile: Option<String>,
}

/// How it runs without a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Process {
    /// Builds the program; empty where there is nothing to build.
    #[serde(default)]
    pub(crate) build: Vec<String>,
    /// Program and arguments, as one types them in the directory.
    pub(crate) command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// What a function is registered to run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Runs<'a> {
    /// Containers of this image.
    Image(&'a str),
    /// The command in its directory, as this build of it.
    Process(&'a str),
}

impl Manifest {
    /// Reads a directory's file and checks all of it, so that nothing is built for a record that would be refused.
    ///
    /// # Errors
    /// When the file can not be read, or has a value that is not as expected.
    pub(crate) fn read(dir: &Path, console: &mut Console<'_>) -> Result<Self, Failure> {
        let path = dir.join(FILE);
        let shown = path.display().to_string();
        let text = console.read(&path).map_err(|failure| {
            failure.hint("`hearth new --lang LANGUAGE NAME` makes a directory that has one")
        })?;
        let text = String::from_utf8(text)
            .map_err(|error| Failure::usage(format!("{shown} is not UTF-8: {error}")))?;
        let dir = dir
            .canonicalize()
            .map_err(|error| Failure::usage(format!("cannot find {}: {error}", dir.display())))?;
        let manifest = Self::parse(dir, shown, &text)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), Failure> {
        let space: Space = "default".parse().expect("it is a space's name");
        self.record(&space, Runs::Image(&self.image_name()?))?;
        if self.file.process.is_some() {
            self.record(&space, Runs::Process("checked"))?;
        }
        self.payload().map(drop)
    }

    fn parse(dir: PathBuf, shown: String, text: &str) -> Result<Self, Failure> {
        let file = toml::from_str(text).map_err(|error| {
            Failure::usage(format!("{shown}: {}", error.to_string().trim_end()))
        })?;
        Ok(Self { dir, shown, file })
    }

    /// The function's id.
    pub(crate) fn id(&self) -> &FunctionId {
        &self.file.function_id
    }

    /// What the function is invoked with when the user says nothing: the file's payload, or null.
    ///
    /// # Errors
    /// When JSON can not say it.
    pub(crate) fn payload(&self) -> Result<Box<RawValue>, Failure> {
        let payload = match &self.file.payload {
            Some(payload) => self.json("payload", payload)?,
            None => Value::Null,
        };
        Ok(serde_json::value::to_raw_value(&payload).expect("a JSON value has a JSON form"))
    }

    /// The Dockerfile, from the directory.
    pub(crate) fn dockerfile(&self) -> &str {
        self.file
            .image
            .dockerfile
            .as_deref()
            .unwrap_or("Dockerfile")
    }

    /// The name that its image is built under, without a tag: `image.name`, or one made of the function's id.
    ///
    /// # Errors
    /// When an engine would not take it.
    pub(crate) fn image_name(&self) -> Result<String, Failure> {
        let Some(name) = &self.file.image.name else {
            return Ok(format!("hearth/{}", image_part(self.id().as_str())));
        };
        match is_image_name(name) {
            true => Ok(name.clone()),
            false => Err(self.wrong(&format!(
                "image.name is \"{name}\", expected a name such as hearth/hello: lower case letters, digits, '.', '-' and \
                 '_' between slashes, without a tag"
            ))),
        }
    }

    /// How it runs without a container.
    ///
    /// # Errors
    /// When the file does not say.
    pub(crate) fn process(&self) -> Result<&Process, Failure> {
        self.file.process.as_ref().ok_or_else(|| {
            self.wrong("process is missing, expected process.command, a program and its arguments")
                .hint("for example: [process] command = [\"python3\", \"main.py\"]")
        })
    }

    /// The record to register.
    ///
    /// # Errors
    /// When a value is none that the API takes; the message names it.
    pub(crate) fn record(&self, space: &Space, runs: Runs<'_>) -> Result<Vec<u8>, Failure> {
        let file = &self.file;
        let mut env = file.env.clone();
        let mut provider = Map::new();
        let type_name = match runs {
            Runs::Image(image) => {
                provider.insert("image".to_owned(), json!(image));
                if let Some(port) = file.port {
                    provider.insert("port".to_owned(), json!(port));
                }
                "container"
            }
            Runs::Process(build) => {
                let process = self.process()?;
                provider.insert("command".to_owned(), json!(self.command(process)?));
                env.extend(process.env.clone());
                env.insert(BUILD_VARIABLE.to_owned(), build.to_owned());
                "process"
            }
        };
        provider.insert("env".to_owned(), json!(env));
        if let Some(contract) = &file.contract {
            provider.insert("contract".to_owned(), json!(contract));
        }
        if let Some(secrets) = &file.secrets {
            provider.insert("secrets".to_owned(), self.json("secrets", secrets)?);
        }
        let mut metadata = file.metadata.clone();
        metadata.insert(MADE_BY.0.to_owned(), MADE_BY.1.to_owned());
        let mut record = Map::new();
        record.insert("space".to_owned(), json!(space));
        record.insert("functionId".to_owned(), json!(file.function_id));
        record.insert("type".to_owned(), json!(type_name));
        record.insert("provider".to_owned(), Value::Object(provider));
        record.insert("metadata".to_owned(), json!(metadata));
        if let Some(format) = &file.event_format {
            record.insert("eventFormat".to_owned(), json!(format));
        }
        let sections = [
            ("limits", &file.limits),
            ("scaling", &file.scaling),
            ("delivery", &file.delivery),
            ("sandbox", &file.sandbox),
        ];
        for (name, section) in sections {
            if let Some(section) = section {
                let section = self.json(name, &toml::Value::Table(section.clone()))?;
                record.insert(name.to_owned(), section);
            }
        }
        let record = Value::Object(record).to_string().into_bytes();
        Function::parse(space.as_str(), None, &record)
            .map_err(|error| self.wrong(&own_names(&error.to_string())))?;
        Ok(record)
    }

    fn command(&self, process: &Process) -> Result<Vec<String>, Failure> {
        if process.command.first().is_none_or(String::is_empty) {
            return Err(
                self.wrong("process.command is empty, expected a program and its arguments")
            );
        }
        let dir = self.dir.to_str().ok_or_else(|| {
            Failure::usage(format!(
                "the path {} is not UTF-8, and can not stand in a record",
                self.dir.display()
            ))
        })?;
        let words = IN_DIRECTORY.into_iter().chain([dir]).map(str::to_owned);
        Ok(words.chain(process.command.iter().cloned()).collect())
    }

    /// A value of the file as JSON.
    fn json(&self, path: &str, value: &toml::Value) -> Result<Value, Failure> {
        Ok(match value {
            toml::Value::String(text) => json!(text),
            toml::Value::Integer(number) => json!(number),
            toml::Value::Float(number) if number.is_finite() => json!(number),
            toml::Value::Boolean(is) => json!(is),
            toml::Value::Array(values) => {
                let values = values.iter().enumerate();
                let values = values.map(|(at, value)| self.json(&format!("{path}[{at}]"), value));
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            toml::Value::Table(table) => {
                let pairs = table.iter().map(|(key, value)| {
                    Ok((key.clone(), self.json(&format!("{path}.{key}"), value)?))
                });
                Value::Object(pairs.collect::<Result<_, Failure>>()?)
            }
            toml::Value::Float(_) | toml::Value::Datetime(_) => {
                return Err(self.wrong(&format!(
                    "{path} is {value}, expected what JSON has: a text, a number, true, false, an array or a table"
                )));
            }
        })
    }

    fn wrong(&self, what: &str) -> Failure {
        Failure::usage(format!("{}: {what}", self.shown))
    }
}

/// Whether `hearth up` made this record.
pub(crate) fn is_ours(function: &Value) -> bool {
    function["metadata"][MADE_BY.0] == MADE_BY.1
}

/// What the API says of a record, by the file's names: what is the provider's in a record stands by itself in the file.
fn own_names(message: &str) -> String {
    let message = message.trim_start_matches("unable to load function provider config: ");
    message.replace("provider.", "")
}

/// The id in the form that the parts of an image's name have: lower case, and single separators within.
fn image_part(id: &str) -> String {
    let id = id.to_ascii_lowercase();
    let words: Vec<_> = id
        .split(|it: char| !it.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    match words.is_empty() {
        // An id of separators alone.
        true => "function".to_owned(),
        false => words.join("-"),
    }
}

/// Whether engines take it for an image's name without a tag; a first part may be a registry with its port.
fn is_image_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let is_within = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
        !part.is_empty()
            && part.bytes().all(|it| is_within(it) || b"._-".contains(&it))
            && part.bytes().next().is_some_and(is_within)
            && part.bytes().last().is_some_and(is_within)
    };
    let mut parts = name.split('/');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<_> = parts.collect();
    let is_registry = || {
        first.rsplit_once(':').is_some_and(|(host, port)| {
            is_part(host) && !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit())
        })
    };
    rest.iter().all(|part| is_part(part)) && (is_part(first) || (!rest.is_empty() && is_registry()))
}

#[cfg(test)]
mod tests;
