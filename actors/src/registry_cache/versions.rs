//! The versions and aliases this node knows, function by function.
//!
//! Versions and aliases are heard of by watches of their own, so one may be a moment ahead of the other. What is published here is never torn: an alias
//! names only versions that are there. One whose new versions are not known yet stays as it was before, and a version that an alias still names stays
//! until that alias is known to have left it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Revision;
use config::store::Entry;
use protocol::{
    Alias, AliasName, Component, Effect, ErrorCode, Failure, Function, FunctionId,
    PublishedVersion, Qualifier, Space, Version,
};

use super::state::{State, gauge, parsed, with_secrets};
use super::{ALIASES_PREFIX, Registered, Registry, VERSIONS_PREFIX};

/// What of a function has been published.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    /// Its versions. One that no alias sends calls to keeps no instances up, whatever its `scaling.min`.
    pub versions: BTreeMap<Version, Arc<Registered>>,
    /// Its aliases; the versions that they name are there.
    pub aliases: BTreeMap<AliasName, Arc<RegisteredAlias>>,
}

/// An alias as the registry has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredAlias {
    /// The record.
    pub alias: Arc<Alias>,
    /// The revision of its last change.
    pub revision: Revision,
}

/// Why a qualifier names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The space has no such function.
    #[error("function {id} is not registered in space {space}")]
    Function {
        /// The space.
        space: Space,
        /// The function's id.
        id: FunctionId,
    },
    /// The function has no such version.
    #[error("function {id} in space {space} has no version {version}")]
    Version {
        /// The space.
        space: Space,
        /// The function's id.
        id: FunctionId,
        /// The version.
        version: Version,
    },
    /// The function has no such alias.
    #[error("function {id} in space {space} has no alias {name}")]
    Alias {
        /// The space.
        space: Space,
        /// The function's id.
        id: FunctionId,
        /// The alias.
        name: AliasName,
    },
}

/// What a call of it is told; nothing ran.
impl From<Unresolved> for Failure {
    fn from(unresolved: Unresolved) -> Self {
        let code = match unresolved {
            Unresolved::Function { .. } => ErrorCode::FunctionNotFound,
            Unresolved::Version { .. } | Unresolved::Alias { .. } => ErrorCode::NotFound,
        };
        let message = unresolved.to_string();
        Self::new(code, Component::Gateway, Effect::Refused, message)
    }
}

impl Registry {
    /// Finds a version of a function.
    pub fn version(
        &self,
        space: &Space,
        id: &FunctionId,
        version: Version,
    ) -> Option<&Arc<Registered>> {
        self.versions_of(space, id)?.versions.get(&version)
    }

    /// Finds a function as it is now, or a version of it.
    pub fn at(
        &self,
        space: &Space,
        id: &FunctionId,
        version: Option<Version>,
    ) -> Option<&Arc<Registered>> {
        match version {
            None => self.function(space, id),
            Some(version) => self.version(space, id, version),
        }
    }

    /// Finds an alias of a function.
    pub fn alias(
        &self,
        space: &Space,
        id: &FunctionId,
        name: &AliasName,
    ) -> Option<&Arc<RegisteredAlias>> {
        self.versions_of(space, id)?.aliases.get(name)
    }

    /// What of a function has been published; nothing of one that is not registered.
    pub fn versions_of(&self, space: &Space, id: &FunctionId) -> Option<&Arc<Versions>> {
        let versions = self.versions.get(space)?.get(id)?;
        self.function(space, id).map(|_| versions)
    }

    /// The version that a call goes to; `None` is the record that can still be changed. `header` looks a header of the call up, by its
    /// name in lower case, and `dice` is a random number from 0 to below 1.
    ///
    /// # Errors
    /// When there is no such function, version or alias.
    pub fn resolve<'a>(
        &self,
        space: &Space,
        id: &FunctionId,
        qualifier: &Qualifier,
        header: impl FnOnce(&str) -> Option<&'a [u8]>,
        dice: f64,
    ) -> Result<Option<Version>, Unresolved> {
        let names = || (space.clone(), id.clone());
        if self.function(space, id).is_none() {
            let (space, id) = names();
            return Err(Unresolved::Function { space, id });
        }
        match qualifier {
            Qualifier::Latest => Ok(None),
            Qualifier::Version(version) if self.version(space, id, *version).is_some() => {
                Ok(Some(*version))
            }
            Qualifier::Version(version) => {
                let ((space, id), version) = (names(), *version);
                Err(Unresolved::Version { space, id, version })
            }
            Qualifier::Alias(name) => match self.alias(space, id, name) {
                Some(found) => Ok(Some(found.alias.target.choose(header, dice))),
                None => {
                    let ((space, id), name) = (names(), name.clone());
                    Err(Unresolved::Alias { space, id, name })
                }
            },
        }
    }

    /// All versions of all functions.
    pub fn published(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.versions.iter().flat_map(move |(space, functions)| {
            let registered = functions
                .iter()
                .filter(move |(id, _)| self.function(space, id).is_some());
            registered.flat_map(|(_, of_function)| of_function.versions.values())
        })
    }
}

impl State {
    /// Makes anew what was published of each function that has a changed version or alias.
    pub(super) fn set_versions(&self, registry: &mut Registry, changed: &BTreeSet<String>) {
        let functions: BTreeSet<(Space, FunctionId)> =
            changed.iter().filter_map(|key| function_of(key)).collect();
        let mut spaces = BTreeSet::new();
        for (space, id) in functions {
            let versions = self.versions_of_function(registry, &space, &id);
            let of_space = registry.versions.entry(space.clone()).or_default();
            let of_space = Arc::make_mut(of_space);
            match versions.versions.is_empty() && versions.aliases.is_empty() {
                true => of_space.remove(&id),
                false => of_space.insert(id, Arc::new(versions)),
            };
            spaces.insert(space);
        }
        for space in spaces {
            let of_space = registry.versions.get(&space);
            let all = of_space
                .into_iter()
                .flat_map(|functions| functions.values());
            let (versions, aliases) = all.fold((0, 0), |(versions, aliases), one| {
                (versions + one.versions.len(), aliases + one.aliases.len())
            });
            gauge("hearth_versions", &space, versions);
            gauge("hearth_aliases", &space, aliases);
            if of_space.is_some_and(|functions| functions.is_empty()) {
                registry.versions.remove(&space);
            }
        }
    }

    /// Makes anew what was published of all functions of some spaces, whose secrets have changed.
    pub(super) fn set_versions_of(&self, registry: &mut Registry, spaces: &BTreeSet<Space>) {
        let functions = spaces.iter().flat_map(|space| {
            let functions = registry.versions.get(space).into_iter();
            let ids = functions.flat_map(|functions| functions.keys());
            ids.map(move |id| format!("{VERSIONS_PREFIX}{space}/{id}/"))
        });
        let functions: BTreeSet<String> = functions.collect();
        self.set_versions(registry, &functions);
    }

    fn versions_of_function(
        &self,
        registry: &Registry,
        space: &Space,
        id: &FunctionId,
    ) -> Versions {
        let before = (registry.versions.get(space)).and_then(|functions| functions.get(id));
        let prefix = format!("{VERSIONS_PREFIX}{space}/{id}/");
        let stored: BTreeMap<Version, &Arc<Registered>> = self
            .versions
            .under(&prefix)
            .filter_map(|registered| Some((registered.function.version?, registered)))
            .collect();
        let known = |version: Version| {
            let kept = || before?.versions.get(&version);
            stored.get(&version).copied().or_else(kept)
        };
        let prefix = format!("{ALIASES_PREFIX}{space}/{id}/");
        let aliases: BTreeMap<AliasName, Arc<RegisteredAlias>> = self
            .aliases
            .under(&prefix)
            .filter_map(|newest| {
                let name = &newest.alias.name;
                let is_whole = |alias: &&Arc<RegisteredAlias>| {
                    let mut named = alias.alias.target.versions();
                    named.all(|version| known(version).is_some())
                };
                // Its versions are told in a moment.
                let kept = || before?.aliases.get(name);
                let alias = Some(newest).filter(is_whole).or_else(kept)?;
                Some((name.clone(), Arc::clone(alias)))
            })
            .collect();
        let named: BTreeSet<Version> = (aliases.values())
            .flat_map(|alias| alias.alias.target.versions())
            .collect();
        let secrets = registry.secrets.get(space);
        let numbers: BTreeSet<Version> = stored.keys().chain(&named).copied().collect();
        let versions = numbers.into_iter().filter_map(|version| {
            let registered = known(version)?;
            let before = before.and_then(|before| before.versions.get(&version));
            let own = with_scaling(registered, named.contains(&version), before);
            Some((version, with_secrets(&own, secrets, before)))
        });
        Versions {
            versions: versions.collect(),
            aliases,
        }
    }
}

/// A version as its instances are scaled: one that no alias sends calls to keeps none up. One that is as it was is shared with what was before.
fn with_scaling(
    registered: &Arc<Registered>,
    is_named: bool,
    before: Option<&Arc<Registered>>,
) -> Arc<Registered> {
    let scaling = registered.function.scaling();
    let min = if is_named { scaling.min } else { 0 };
    // What was kept from before may have been scaled otherwise, so it is compared with what is to be.
    let is_same = |one: &&Arc<Registered>| {
        one.function.scaling().min == min && one.revision == registered.revision
    };
    if let Some(same) = before.filter(is_same) {
        return Arc::clone(same);
    }
    if scaling.min == min {
        return Arc::clone(registered);
    }
    let mut function = Function::clone(&registered.function);
    let set = function.scaling.get_or_insert_default();
    (set.min, set.max) = (Some(min), Some(scaling.max));
    Arc::new(Registered {
        function: Arc::new(function),
        ..Registered::clone(registered)
    })
}

/// The function in the key of a version or an alias.
fn function_of(key: &str) -> Option<(Space, FunctionId)> {
    let rest = key
        .strip_prefix(VERSIONS_PREFIX)
        .or_else(|| key.strip_prefix(ALIASES_PREFIX))?;
    let mut parts = rest.splitn(3, '/');
    let (space, id) = (parts.next()?, parts.next()?);
    parts.next()?;
    Some((space.parse().ok()?, id.parse().ok()?))
}

/// Reads a version; one that can not be read runs nothing.
pub(crate) fn read_version(entry: &Entry) -> Option<Registered> {
    let published: PublishedVersion = parsed(entry)?;
    let function = published.function;
    let (space, id) = (function.space.as_str(), function.function_id.as_str());
    let is_own = function.version == Some(published.version)
        && version_key(space, id, published.version) == entry.key;
    if !is_own {
        tracing::error!(key = %entry.key, "a record in the store names another version than its key");
        return None;
    }
    Some(Registered {
        key: function.instance_key(|_| None),
        secrets: Vec::new(),
        function: Arc::new(function),
        revision: entry.revision,
    })
}

/// Reads an alias; one that can not be read is none.
pub(crate) fn read_alias(entry: &Entry) -> Option<RegisteredAlias> {
    let alias: Alias = parsed(entry)?;
    let key = alias_key(
        alias.space.as_str(),
        alias.function_id.as_str(),
        alias.name.as_str(),
    );
    if key != entry.key {
        tracing::error!(key = %entry.key, "a record in the store names another alias than its key");
        return None;
    }
    Some(RegisteredAlias {
        alias: Arc::new(alias),
        revision: entry.revision,
    })
}

/// The key of a version's record: those of a function are in the order of their numbers.
pub(crate) fn version_key(space: &str, function_id: &str, version: Version) -> String {
    let number = version.number();
    format!("{VERSIONS_PREFIX}{space}/{function_id}/{number:010}")
}

/// The key of an alias's record.
pub(crate) fn alias_key(space: &str, function_id: &str, name: &str) -> String {
    format!("{ALIASES_PREFIX}{space}/{function_id}/{name}")
}

#[cfg(test)]
mod tests;
