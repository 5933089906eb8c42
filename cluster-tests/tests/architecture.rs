//! The dependency direction, read from `cargo metadata`: our crates only point left, and each third-party crate that would tie us
//! down has its owners.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Our crates from left to right: each may name those in groups before its own, and none of its own group.
const GROUPS: [&[&str]; 7] = [
    &["protocol"],
    &["config"],
    &["vault"],
    &[
        "cluster",
        "providers",
        "queue",
        "plugins",
        "accounts",
        "limits",
    ],
    &["actors"],
    &["gateway"],
    &["node"],
];

/// What stands to the left and is not to be named all the same.
const NEVER: [(&str, &str); 3] = [
    ("actors", "queue"),
    ("actors", "plugins"),
    ("gateway", "providers"),
];

/// What each of our crates beside that line may name of ours.
const BESIDE: [(&str, &[&str]); 2] = [
    ("cli", &["protocol"]),
    ("cluster-tests", &["node", "protocol"]),
];

/// What crates of that line may name besides.
const BESIDES: [(&str, &str); 1] = [("node", "cli")];

/// Third-party crates and those of ours that may name them.
const OWNERS: [(&str, &[&str]); 11] = [
    ("ractor", &["actors"]),
    ("async-nats", &["queue"]),
    ("etcd-client", &["config", "queue"]),
    ("chitchat", &["cluster"]),
    ("bollard", &["providers"]),
    ("aws-credential-types", &["providers"]),
    ("aws-sigv4", &["providers"]),
    ("axum", &["gateway"]),
    ("wasmtime", &["plugins"]),
    ("croner", &["protocol"]),
    ("jiff", &["protocol"]),
];

#[test]
fn our_crates_only_point_left() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let mut wrong = Vec::new();
    for (name, named) in &ours {
        for dependency in named.iter().filter(|named| ours.contains_key(*named)) {
            if !may_name(name, dependency) {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "these point the wrong way: {wrong:#?}");
    // Printed with --no-capture, for whoever wants to see the direction.
    for (name, named) in &ours {
        let of_ours: Vec<_> = named
            .iter()
            .filter(|named| ours.contains_key(*named))
            .collect();
        println!("{name} -> {of_ours:?}");
    }
}

#[test]
fn third_party_crates_stay_with_their_owners() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for (name, named) in ours(&metadata) {
        for (dependency, owners) in OWNERS {
            if named.contains(dependency) && !owners.contains(&name.as_str()) {
                wrong.push(format!(
                    "{name} -> {dependency}, which belongs under {owners:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_has_its_place() {
    let metadata = metadata();
    let placed: BTreeSet<_> = GROUPS
        .into_iter()
        .flatten()
        .copied()
        .chain(BESIDE.iter().map(|(name, _)| *name))
        .collect();
    let unplaced: Vec<_> = ours(&metadata)
        .into_keys()
        .filter(|name| !placed.contains(name.as_str()))
        .collect();
    assert!(
        unplaced.is_empty(),
        "say in this test where these stand: {unplaced:?}"
    );
}

/// Only `node` turns backends on: what it does not ask for is not in the binary.
#[test]
fn only_node_turns_backend_features_on() {
    let metadata = metadata();
    let backends = [
        "docker",
        "process",
        "http",
        "jetstream",
        "wasm",
        "aws",
        "azure",
        "gcloud",
        "openwhisk",
    ];
    let mut wrong = Vec::new();
    for package in workspace(&metadata).filter(|package| package.name.as_str() != "node") {
        let runtime = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal);
        let has_backends = ["providers", "plugins", "queue"];
        for dependency in runtime.filter(|it| has_backends.contains(&it.name.as_str())) {
            let on: Vec<_> = dependency
                .features
                .iter()
                .filter(|on| backends.contains(&on.as_str()))
                .collect();
            if dependency.uses_default_features || !on.is_empty() {
                let (from, to) = (&package.name, &dependency.name);
                wrong.push(format!("{from} -> {to} with {on:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn may_name(name: &str, dependency: &str) -> bool {
    if let Some((_, named)) = BESIDE.iter().find(|(beside, _)| *beside == name) {
        return named.contains(&dependency);
    }
    if BESIDES.contains(&(name, dependency)) {
        return true;
    }
    if NEVER.contains(&(name, dependency)) {
        return false;
    }
    let group = |name: &str| GROUPS.iter().position(|group| group.contains(&name));
    matches!((group(name), group(dependency)), (Some(own), Some(other)) if other < own)
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata reads the workspace")
}

fn workspace(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata
        .packages
        .iter()
        .filter(|package| metadata.workspace_members.contains(&package.id))
}

/// The names of our crates with all that each names, for the tests' own needs too; examples with a workspace of their own are out.
fn ours(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    workspace(metadata)
        .map(|package| {
            let named = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.name != package.name.as_str());
            (
                package.name.to_string(),
                named.map(|dependency| dependency.name.clone()).collect(),
            )
        })
        .collect()
}
