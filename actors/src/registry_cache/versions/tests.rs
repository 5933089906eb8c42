use config::store::{Change, Listing, WatchEvent};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Kind;
use super::*;
use crate::fixtures::function;

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn entry(key: String, value: &Value, revision: u64) -> Entry {
    Entry {
        key,
        value: value.to_string().into_bytes().into(),
        revision: Revision(revision),
    }
}

fn published(number: u32, revision: u64) -> Entry {
    let function = Function {
        version: Some(version(number)),
        ..function("f", &json!({"scaling": {"min": 2}}))
    };
    let value = json!({"version": number, "function": function, "publishedAtMs": 1, "digest": "x"});
    entry(
        version_key("default", "f", version(number)),
        &value,
        revision,
    )
}

fn alias(target: Value, revision: u64) -> Entry {
    let mut value = target;
    for (field, text) in [("space", "default"), ("functionId", "f"), ("name", "prod")] {
        value[field] = text.into();
    }
    entry(alias_key("default", "f", "prod"), &value, revision)
}

struct Cache(State);

impl Cache {
    /// A function with these versions and an alias.
    fn new(numbers: &[u32], target: Value) -> Self {
        let mut cache = Self(State::default());
        let record = serde_json::to_value(function("f", &json!({}))).unwrap();
        cache.put(
            Kind::Functions,
            entry("functions/default/f".into(), &record, 1),
        );
        for number in numbers {
            cache.put(Kind::Versions, published(*number, 1));
        }
        cache.put(Kind::Aliases, alias(target, 1));
        cache
    }

    fn put(&mut self, kind: Kind, entry: Entry) {
        self.change(kind, entry.revision, Change::Put(entry));
    }

    fn change(&mut self, kind: Kind, revision: Revision, change: Change) {
        let changes = vec![change];
        self.0
            .on_events(kind, vec![WatchEvent::Changes { revision, changes }]);
    }

    fn delete(&mut self, kind: Kind, key: &str, revision: u64) {
        self.change(kind, Revision(revision), Change::Deleted(key.to_owned()));
    }

    fn resolve(&self, qualifier: &str, dice: f64) -> Result<Option<u32>, Unresolved> {
        let (space, id) = ("default".parse().unwrap(), "f".parse().unwrap());
        let registry = self.0.registry();
        let qualifier = qualifier.parse().unwrap();
        let version = registry.resolve(&space, &id, &qualifier, |_| None, dice)?;
        if let Some(version) = version {
            assert!(
                registry.version(&space, &id, version).is_some(),
                "{version} is there"
            );
        }
        Ok(version.map(Version::number))
    }

    fn min(&self, number: u32) -> u32 {
        let (space, id) = ("default".parse().unwrap(), "f".parse().unwrap());
        let registry = self.0.registry();
        let registered = registry.version(&space, &id, version(number)).unwrap();
        registered.function.scaling().min
    }
}

#[test]
fn a_qualifier_leads_to_a_version() {
    let cache = Cache::new(&[1, 2], json!({"version": 1, "weights": {"2": 0.25}}));
    assert_eq!(cache.resolve("$LATEST", 0.0), Ok(None));
    assert_eq!(cache.resolve("2", 0.9), Ok(Some(2)));
    assert_eq!(cache.resolve("prod", 0.2), Ok(Some(2)));
    assert_eq!(cache.resolve("prod", 0.3), Ok(Some(1)));
    let refused = |qualifier: &str| cache.resolve(qualifier, 0.0).unwrap_err().to_string();
    assert_eq!(refused("3"), "function f in space default has no version 3");
    assert_eq!(
        refused("test"),
        "function f in space default has no alias test"
    );
}

#[test]
fn whichever_is_told_first_an_alias_names_only_versions_that_are_there() {
    let mut cache = Cache::new(&[1], json!({"version": 1}));
    cache.put(Kind::Aliases, alias(json!({"version": 2}), 3));
    assert_eq!(
        cache.resolve("prod", 0.0),
        Ok(Some(1)),
        "2 is not known yet"
    );
    cache.put(Kind::Versions, published(2, 2));
    assert_eq!(cache.resolve("prod", 0.0), Ok(Some(2)));
    // The alias has left 2 for 3, and 2 was deleted, but only the latter is known here yet.
    cache.put(Kind::Versions, published(3, 4));
    cache.delete(Kind::Versions, &version_key("default", "f", version(2)), 6);
    assert_eq!(cache.resolve("prod", 0.0), Ok(Some(2)));
    cache.put(Kind::Aliases, alias(json!({"version": 3}), 5));
    assert_eq!(cache.resolve("prod", 0.0), Ok(Some(3)));
    assert!(cache.resolve("2", 0.0).is_err());
}

#[test]
fn a_version_keeps_instances_up_only_while_an_alias_names_it() {
    let mut cache = Cache::new(&[1, 2], json!({"version": 1}));
    assert_eq!((cache.min(1), cache.min(2)), (2, 0));
    cache.put(
        Kind::Aliases,
        alias(json!({"version": 1, "weights": {"2": 0.5}}), 2),
    );
    assert_eq!((cache.min(1), cache.min(2)), (2, 2));
    cache.put(Kind::Aliases, alias(json!({"version": 2}), 3));
    assert_eq!((cache.min(1), cache.min(2)), (0, 2));
    cache.delete(Kind::Aliases, &alias_key("default", "f", "prod"), 4);
    assert_eq!((cache.min(1), cache.min(2)), (0, 0));
}

#[test]
fn what_is_left_of_a_function_that_is_gone_is_not_there() {
    let mut cache = Cache::new(&[1], json!({"version": 1}));
    assert_eq!(cache.0.registry().published().count(), 1);
    cache.delete(Kind::Functions, "functions/default/f", 2);
    assert_eq!(cache.0.registry().published().count(), 0);
    let refused = cache.resolve("prod", 0.0).unwrap_err().to_string();
    assert_eq!(refused, "function f is not registered in space default");
    cache.0.on_listing(
        Kind::Versions,
        Listing {
            entries: Vec::new(),
            revision: Revision(3),
        },
    );
    cache.0.on_listing(
        Kind::Aliases,
        Listing {
            entries: Vec::new(),
            revision: Revision(3),
        },
    );
    assert!(cache.0.registry().versions.is_empty());
}

proptest! {
    /// Whatever of two watches is told when, each call finds a version that is there, and in the end both say the same.
    #[test]
    fn no_order_of_two_watches_tears_an_alias(order in Just((0..12u32).collect::<Vec<_>>()).prop_shuffle()) {
        let mut cache = Cache::new(&[1], json!({"version": 1}));
        // The alias goes from each version to the next one, which was published before, and the one before is deleted.
        let mut versions = (2..8u32).flat_map(|number| {
            let before = version_key("default", "f", version(number - 1));
            let revision = u64::from(number) * 10;
            let deleted = (number > 2).then_some((revision + 2, Change::Deleted(before)));
            [Some((revision, Change::Put(published(number, revision)))), deleted].into_iter().flatten()
        });
        let mut aliases = (2..8u32).map(|number| {
            let revision = u64::from(number) * 10 + 1;
            (revision, Change::Put(alias(json!({"version": number}), revision)))
        });
        let mut told = 0;
        for step in order {
            let (kind, next) = match step % 2 {
                0 => (Kind::Versions, versions.next()),
                _ => (Kind::Aliases, aliases.next()),
            };
            if let Some((revision, change)) = next {
                cache.change(kind, Revision(revision), change);
                told += 1;
            }
            let found = cache.resolve("prod", 0.0);
            prop_assert!(found.is_ok(), "{found:?} after {told}");
        }
        for (kind, (revision, change)) in versions.map(|one| (Kind::Versions, one)).chain(aliases.map(|one| (Kind::Aliases, one))) {
            cache.change(kind, Revision(revision), change);
            prop_assert!(cache.resolve("prod", 0.0).is_ok());
        }
        prop_assert_eq!(cache.resolve("prod", 0.0), Ok(Some(7)));
    }
}
