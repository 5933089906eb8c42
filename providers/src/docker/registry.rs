//! Image references, and the credentials of the registry they point to.

use std::collections::BTreeMap;

use bollard::auth::DockerCredentials;
use config::settings::RegistrySettings;

/// An image reference, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// Registry and path as given, without tag and digest.
    pub(super) repository: &'a str,
    /// The digest, `sha256:…`, if one is given.
    pub(super) digest: Option<&'a str>,
}

/// Where names without a registry come from.
const DEFAULT_REGISTRY: &str = "docker.io";

impl<'a> Reference<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it is a registry's port.
        let path_start = name.rfind('/').map_or(0, |slash| slash + 1);
        let repository = name[path_start..]
            .find(':')
            .map_or(name, |colon| &name[..path_start + colon]);
        Self { repository, digest }
    }

    /// The registry's host, with its port if it has one.
    pub(super) fn registry(&self) -> &'a str {
        match self.repository.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            _ => DEFAULT_REGISTRY,
        }
    }

    /// The full name: equal for all the ways to write the same repository.
    pub(super) fn full_repository(&self) -> String {
        let registry = self.registry();
        let path = self
            .repository
            .strip_prefix(registry)
            .map_or(self.repository, |path| path.trim_start_matches('/'));
        match registry == DEFAULT_REGISTRY && !path.contains('/') {
            true => format!("{registry}/library/{path}"),
            false => format!("{registry}/{path}"),
        }
    }
}

/// The credentials for the registry of a reference, if the settings have some.
pub(super) fn credentials(
    registries: &BTreeMap<String, RegistrySettings>,
    reference: &Reference<'_>,
) -> Option<DockerCredentials> {
    let registry = reference.registry();
    let settings = registries.get(registry)?;
    Some(DockerCredentials {
        username: Some(settings.user.clone()),
        password: Some(settings.password.expose().to_owned()),
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, repository: &str, digest: Option<&str>, full: &str) {
        let reference = Reference::parse(text);
        assert_eq!(
            (reference.repository, reference.digest),
            (repository, digest),
            "{text}"
        );
        assert_eq!(reference.full_repository(), full, "{text}");
    }

    #[test]
    fn references_are_taken_apart() {
        check("hello", "hello", None, "docker.io/library/hello");
        check("hello:1.2", "hello", None, "docker.io/library/hello");
        check("team/hello:1", "team/hello", None, "docker.io/team/hello");
        check(
            "docker.io/team/hello",
            "docker.io/team/hello",
            None,
            "docker.io/team/hello",
        );
        check(
            "localhost:5000/hello",
            "localhost:5000/hello",
            None,
            "localhost:5000/hello",
        );
        check(
            "localhost:5000/hello:1",
            "localhost:5000/hello",
            None,
            "localhost:5000/hello",
        );
        check(
            "ghcr.io/a/b:x@sha256:12",
            "ghcr.io/a/b",
            Some("sha256:12"),
            "ghcr.io/a/b",
        );
    }
}
