//! A function's record as AWS's `FunctionConfiguration`, and what a client changes of it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use actors::catalog::Stored;
use protocol::Function;
use protocol::function::{ContainerProvider, Provider};
use protocol::version::LATEST;
use serde_json::{Map, Value, json};

use super::Context;
use super::sent::{Sent, unlike};
use crate::error::{AwsKind, Error};

/// What of AWS's is noted in the metadata of a record; no tag has such a name.
const NOTES: &str = "aws:";
const ROLE: &str = "aws:role";
const DESCRIPTION: &str = "aws:description";
const MODIFIED: &str = "aws:lastModified";

/// The seconds that Lambda lets a function run, where its client does not say.
const TIMEOUT_SECONDS: u32 = 3;

/// What `Timeout` may be, in seconds.
const TIMEOUT_RANGE: (u32, u32) = (1, 900);

/// What `MemorySize` may be, in MiB.
const MEMORY_RANGE: (u32, u32) = (128, 10_240);

/// The longest description, in characters.
const DESCRIPTION_CHARACTERS_MAX: usize = 256;

/// What a client wants to be so of a function, besides its code.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    role: Option<String>,
    description: Option<String>,
    timeout_seconds: Option<u32>,
    memory_mb: Option<u32>,
    env: Option<BTreeMap<String, String>>,
    image: Option<ImageConfig>,
}

/// How an image is started. It is set as a whole.
#[derive(Debug, Default)]
struct ImageConfig {
    entrypoint: Vec<String>,
    command: Vec<String>,
    working_directory: Option<String>,
}

impl Wanted {
    /// Takes what there is of it in a body.
    ///
    /// # Errors
    /// Naming the member that is wrong.
    pub(super) fn take(sent: &mut Sent) -> Result<Self, Error> {
        let env = match sent.object("Environment")? {
            None => None,
            Some(mut environment) => {
                let variables = environment.texts("Variables")?;
                environment.finish("Environment.")?;
                Some(variables.unwrap_or_default())
            }
        };
        let image = match sent.object("ImageConfig")? {
            None => None,
            Some(mut config) => {
                let image = ImageConfig {
                    entrypoint: config.list("EntryPoint")?.unwrap_or_default(),
                    command: config.list("Command")?.unwrap_or_default(),
                    working_directory: config
                        .text("WorkingDirectory")?
                        .filter(|path| !path.is_empty()),
                };
                config.finish("ImageConfig.")?;
                Some(image)
            }
        };
        let description = sent.text("Description")?;
        if let Some(text) = &description
            && text.chars().count() > DESCRIPTION_CHARACTERS_MAX
        {
            let expected = "a string of at most 256 characters";
            return Err(unlike("Description", &json!(text), expected));
        }
        Ok(Self {
            role: sent.text("Role")?,
            description,
            timeout_seconds: sent.number("Timeout", TIMEOUT_RANGE)?,
            memory_mb: sent.number("MemorySize", MEMORY_RANGE)?,
            env,
            image,
        })
    }

    /// The same with what Lambda has where a new function's client does not say.
    pub(super) fn of_new(self) -> Self {
        Self {
            timeout_seconds: self.timeout_seconds.or(Some(TIMEOUT_SECONDS)),
            memory_mb: self.memory_mb.or(Some(MEMORY_RANGE.0)),
            ..self
        }
    }

    /// Changes a function.
    ///
    /// # Errors
    /// When its type has no such thing.
    pub(super) fn apply(&self, function: &mut Function) -> Result<(), Error> {
        if let Some(seconds) = self.timeout_seconds {
            function.limits.get_or_insert_default().timeout_ms = Some(seconds * 1000);
        }
        if let Some(mb) = self.memory_mb {
            function.limits.get_or_insert_default().memory_mb = Some(mb);
        }
        if let Some(env) = &self.env {
            match &mut function.provider {
                Provider::Container(container) => container.env.clone_from(env),
                Provider::Process(process) => process.env.clone_from(env),
                _ => return Err(without(function, "Environment")),
            }
        }
        if let Some(image) = &self.image {
            let Provider::Container(container) = &mut function.provider else {
                return Err(without(function, "ImageConfig"));
            };
            container.entrypoint.clone_from(&image.entrypoint);
            container.command.clone_from(&image.command);
            container
                .working_directory
                .clone_from(&image.working_directory);
        }
        note(function, ROLE, self.role.as_deref());
        note(function, DESCRIPTION, self.description.as_deref());
        Ok(())
    }
}

fn without(function: &Function, member: &str) -> Error {
    let (id, type_name) = (&function.function_id, function.type_name());
    Error::aws(
        AwsKind::InvalidParameterValue,
        format!("{member} is set, and function {id} is of type {type_name}, which has none"),
    )
}

/// Notes a text; an empty one is forgotten.
fn note(function: &mut Function, name: &str, text: Option<&str>) {
    let Some(text) = text else { return };
    let notes = function.metadata.get_or_insert_default();
    match text.is_empty() {
        true => drop(notes.remove(name)),
        false => drop(notes.insert(name.to_owned(), text.to_owned())),
    }
}

/// Notes that a function is changed now.
pub(super) fn note_change(function: &mut Function) {
    let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let now = now.replace('Z', "+0000");
    note(function, MODIFIED, Some(&now));
}

/// The architecture of images, as AWS calls it: that of the node.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads the tags of a body.
///
/// # Errors
/// When one has a name that AWS's own have.
pub(super) fn take_tags(sent: &mut Sent) -> Result<BTreeMap<String, String>, Error> {
    let tags = sent.texts("Tags")?.unwrap_or_default();
    match tags
        .keys()
        .find(|name| name.is_empty() || name.starts_with(NOTES))
    {
        None => Ok(tags),
        Some(name) => Err(Error::aws(
            AwsKind::InvalidParameterValue,
            format!(
                "Tags has {name:?}, expected names that are not empty and do not begin with aws:"
            ),
        )),
    }
}

/// A function's metadata, but for what of AWS's is noted there.
pub(super) fn tags(function: &Function) -> Map<String, Value> {
    let all = function.metadata.iter().flatten();
    let tags = all.filter(|(name, _)| !name.starts_with(NOTES));
    tags.map(|(name, value)| (name.clone(), json!(value)))
        .collect()
}

/// The name of a record's revision.
pub(super) fn revision_id(stored: &Stored) -> String {
    stored.revision.0.to_string()
}

/// A function as AWS's clients see it.
pub(super) fn of(context: &Context, stored: &Stored) -> Map<String, Value> {
    let function = &stored.function;
    let limits = function.limits();
    let noted = |name: &str| function.metadata.as_ref()?.get(name);
    let seconds = limits.timeout.as_millis().div_ceil(1000);
    let version = function.version.map(|version| version.to_string());
    let Value::Object(mut told) = json!({
        "FunctionName": function.function_id,
        "FunctionArn": context.arn(&function.function_id, version.as_deref()),
        "CodeSize": 0,
        "Description": noted(DESCRIPTION).map_or("", String::as_str),
        "Timeout": u64::try_from(seconds).unwrap_or(u64::MAX),
        "MemorySize": limits.memory_mb,
        "Version": version.as_deref().unwrap_or(LATEST),
        "RevisionId": revision_id(stored),
        // A record is stored when its image was found, and runs from then on.
        "State": "Active",
        "LastUpdateStatus": "Successful",
    }) else {
        unreachable!("an object was written down")
    };
    for (member, name) in [("Role", ROLE), ("LastModified", MODIFIED)] {
        if let Some(text) = noted(name) {
            told.insert(member.to_owned(), json!(text));
        }
    }
    let env = match &function.provider {
        Provider::Container(container) => {
            told.extend(of_image(container));
            &container.env
        }
        Provider::Process(process) => &process.env,
        _ => return told,
    };
    if !env.is_empty() {
        told.insert("Environment".to_owned(), json!({"Variables": env}));
    }
    told
}

fn of_image(container: &ContainerProvider) -> Map<String, Value> {
    let mut told = Map::new();
    told.insert("PackageType".to_owned(), json!("Image"));
    told.insert("Architectures".to_owned(), json!([architecture()]));
    if let Some(hash) = hash(container) {
        told.insert("CodeSha256".to_owned(), json!(hash));
    }
    let mut config = Map::new();
    if !container.entrypoint.is_empty() {
        config.insert("EntryPoint".to_owned(), json!(container.entrypoint));
    }
    if !container.command.is_empty() {
        config.insert("Command".to_owned(), json!(container.command));
    }
    if let Some(path) = &container.working_directory {
        config.insert("WorkingDirectory".to_owned(), json!(path));
    }
    if !config.is_empty() {
        let response = json!({"ImageConfig": config});
        told.insert("ImageConfigResponse".to_owned(), response);
    }
    told
}

fn hash(container: &ContainerProvider) -> Option<&str> {
    let digest = container.digest.as_deref()?;
    Some(digest.strip_prefix("sha256:").unwrap_or(digest))
}

/// The hash of a function's image, where it has one.
pub(super) fn code_hash(function: &Function) -> Option<&str> {
    match &function.provider {
        Provider::Container(container) => hash(container),
        _ => None,
    }
}

/// Where the code of a function is.
pub(super) fn code(function: &Function) -> Value {
    let Provider::Container(container) = &function.provider else {
        return json!({});
    };
    let image = &container.image;
    // A tag stands behind the last slash, a digest behind an @.
    let name = image.split_once('@').map_or(&**image, |(name, _)| name);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let resolved = container.digest.as_ref();
    let resolved = resolved.map(|digest| format!("{name}@{digest}"));
    json!({"RepositoryType": "OCI", "ImageUri": image, "ResolvedImageUri": resolved})
}
