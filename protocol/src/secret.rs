//! Secrets: the record of one, and how a function's record says what of them its instances get.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::function::{Invalid, SECRETS_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE};
use crate::id::{SecretName, Space};

#[cfg(test)]
mod tests;

/// Secrets that one function may get.
const OF_FUNCTION_MAX: usize = 64;

/// The longest name of a file that every file system of Linux takes.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Variables that the node sets in every instance.
const RESERVED: [&str; 4] = [URL_VARIABLE, TOKEN_VARIABLE, SECRETS_VARIABLE, "PORT"];

/// A secret as the config store keeps it. Its value is in it sealed only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRecord {
    /// The secret's space.
    pub space: Space,
    /// Its name within the space.
    pub name: SecretName,
    /// Random, and another one each time that it is set.
    pub version: String,
    /// The sealed value, in base64.
    pub sealed: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When its value was set last.
    pub updated_at_ms: u64,
}

impl SecretRecord {
    /// The bytes of the sealed value; none when they are no base64.
    pub fn sealed(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.sealed).ok()
    }

    /// Puts another sealed value in the place of the one before.
    pub fn set_sealed(&mut self, sealed: &[u8]) {
        self.sealed = STANDARD.encode(sealed);
    }
}

/// What is sealed is nobody's to read, but it is no use in a log either.
impl fmt::Debug for SecretRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretRecord")
            .field("space", &self.space)
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A secret that the instances of a function get: as a file, or as an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretUse {
    /// The secret's name in the function's space.
    pub name: SecretName,
    /// The environment variable that has its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The file in the directory `$HEARTH_SECRETS` that has it; named as the secret where neither this nor `env` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Where an instance finds the value of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target<'a> {
    /// In the environment variable of this name.
    Env(&'a str),
    /// In the file of this name.
    File(&'a str),
}

impl SecretUse {
    /// Where an instance finds it.
    pub fn target(&self) -> Target<'_> {
        match (&self.env, &self.file) {
            (Some(env), _) => Target::Env(env),
            (None, Some(file)) => Target::File(file),
            (None, None) => Target::File(self.name.as_str()),
        }
    }
}

/// Checks what a function's record says of secrets, beside the variables that it sets itself.
///
/// # Errors
/// Naming field, value and what was expected.
pub(crate) fn check(secrets: &[SecretUse], env: &BTreeMap<String, String>) -> Result<(), Invalid> {
    if secrets.len() > OF_FUNCTION_MAX {
        let count = secrets.len();
        return Err(Invalid(format!(
            "provider.secrets has {count} entries, expected at most {OF_FUNCTION_MAX}"
        )));
    }
    let mut targets = BTreeSet::new();
    for (at, secret) in secrets.iter().enumerate() {
        let refused = |field: &str, value: &str, expected: &str| {
            Err(Invalid(format!(
                "provider.secrets[{at}].{field} is \"{value}\", expected {expected}"
            )))
        };
        if let (Some(env), Some(_)) = (&secret.env, &secret.file) {
            return refused("env", env, "either env or file");
        }
        let (field, value) = match secret.target() {
            Target::Env(name) if !is_variable(name) => {
                return refused("env", name, "letters, digits and '_', and no digit first");
            }
            Target::Env(name) if RESERVED.contains(&name) => {
                return refused("env", name, "another name: the node itself sets this one");
            }
            Target::Env(name) if env.contains_key(name) => {
                return refused("env", name, "a name that provider.env does not have");
            }
            Target::File(name) if !is_file_name(name) => {
                return refused(
                    "file",
                    name,
                    "the name of a file, of at most 255 letters, digits, '.', '-' and '_'",
                );
            }
            Target::Env(name) => ("env", name),
            Target::File(name) => ("file", name),
        };
        if !targets.insert(secret.target()) {
            return refused(field, value, "a name that no other entry has");
        }
    }
    Ok(())
}

fn is_variable(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_part)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit())
}

fn is_file_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_sized = (1..=FILE_NAME_BYTES_MAX).contains(&name.len());
    is_sized && name.bytes().all(is_part) && !matches!(name, "." | "..")
}
