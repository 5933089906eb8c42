use std::collections::BTreeSet;
use std::path::Path;

use super::*;

/// docs/openapi.json is what the node serves, byte for byte. `HEARTH_REGENERATE=1` writes it.
#[test]
fn the_file_in_docs_is_the_description() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    if std::env::var_os("HEARTH_REGENERATE").is_some() {
        std::fs::write(&path, &*JSON).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        file == *JSON,
        "docs/openapi.json is not what the code describes: HEARTH_REGENERATE=1 cargo nextest run -p gateway -E 'test(openapi)'"
    );
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let mut document = document();
    let mut names = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        let servers = item.servers.clone().unwrap_or_default();
        assert!(!servers.is_empty(), "{path}");
        for operation in operations(item) {
            let name = operation.operation_id.clone().unwrap_or_default();
            let summary = operation.summary.clone().unwrap_or_default();
            assert!(
                !summary.is_empty() && !summary.contains('\n'),
                "{path} {name}: {summary:?}"
            );
            let tags = operation.tags.clone().unwrap_or_default();
            assert_eq!(tags.len(), 1, "{path} {name}");
            assert!(
                operation
                    .responses
                    .responses
                    .keys()
                    .any(|status| status.starts_with(['2', '3'])),
                "{path} {name}"
            );
            assert!(
                names.insert(name.clone()),
                "{path}: there are two of {name}"
            );
        }
    }
    assert!(names.len() > 40, "{names:?}");
}

/// A reference that leads nowhere breaks every generator of clients.
#[test]
fn every_reference_leads_somewhere() {
    let json: serde_json::Value = serde_json::from_str(&JSON).unwrap();
    let mut references = BTreeSet::new();
    collect(&json, &mut references);
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(json.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(value: &serde_json::Value, references: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(|value| value.as_str()) {
                references.insert(reference.to_owned());
            }
            members
                .values()
                .for_each(|value| collect(value, references));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
