use config::settings::VersionsSettings;
use config::store::Write;
use protocol::version::Target;
use protocol::{Alias, Version};
use serde_json::{Value, json};

use super::*;
use crate::catalog::{Expected, VersionError};
use crate::registry_cache::{ALIASES_PREFIX, VERSIONS_PREFIX};

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn alias(name: &str, target: &Value) -> Alias {
    let (space, id) = ("default".parse().unwrap(), "f".parse().unwrap());
    let body = serde_json::to_vec(target).unwrap();
    Alias::parse(space, id, name.parse().unwrap(), &body).unwrap()
}

/// Another record each time.
fn numbered(number: usize) -> Function {
    Function {
        metadata: Some([("n".to_owned(), number.to_string())].into()),
        ..function("f")
    }
}

/// A function with so many versions.
async fn with_versions(node: &TestCatalog, count: usize) {
    node.catalog.create(numbered(0)).await.unwrap();
    for number in 0..count {
        if number > 0 {
            node.catalog.update(numbered(number), None).await.unwrap();
        }
        let stored = node
            .catalog
            .publish("default", "f", None, None)
            .await
            .unwrap();
        assert_eq!(stored.published.version.number() as usize, number + 1);
    }
}

fn refused(error: Error) -> VersionError {
    match error {
        Error::Version(error) => error,
        error => panic!("{error}"),
    }
}

/// What is left in the store of versions and aliases, their guards included.
async fn left(node: &TestCatalog) -> usize {
    let mut count = 0;
    for prefix in [VERSIONS_PREFIX, ALIASES_PREFIX, NUMBERS_PREFIX] {
        count += node.catalog.store.list(prefix).await.unwrap().entries.len();
    }
    count
}

#[tokio::test]
async fn what_has_not_changed_is_published_once_and_no_number_comes_twice() {
    let (node, other, _) = two_nodes().await;
    let missing = node.catalog.publish("default", "f", None, None).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));
    with_versions(&node, 2).await;
    let again = other
        .catalog
        .publish("default", "f", Some("x".into()), None);
    let again = again.await.unwrap();
    assert_eq!((again.published.version, again.is_new), (version(2), false));
    assert_eq!(again.published.function.version, Some(version(2)));
    let first = node
        .catalog
        .version("default", "f", version(1))
        .await
        .unwrap();
    assert_eq!(
        first.published.function.metadata,
        numbered(0).metadata,
        "it never changes"
    );
    node.catalog
        .delete_version("default", "f", version(2))
        .await
        .unwrap();
    let next = node
        .catalog
        .publish("default", "f", Some("third".into()), None);
    let next = next.await.unwrap();
    assert_eq!((next.published.version, next.is_new), (version(3), true));
    assert_eq!(next.published.description.as_deref(), Some("third"));
    let all = node.catalog.versions("default", "f").await.unwrap();
    let numbers: Vec<_> = all
        .iter()
        .map(|one| one.published.version.number())
        .collect();
    assert_eq!(numbers, [1, 3]);
    let at = node.catalog.get("default", "f").await.unwrap().revision;
    let stale = node
        .catalog
        .publish("default", "f", None, Some(Revision(at.0 - 1)));
    assert!(matches!(stale.await, Err(Error::Changed(_))));
}

#[tokio::test]
async fn an_alias_names_versions_that_are_there_and_holds_them() {
    let (node, other, _) = two_nodes().await;
    with_versions(&node, 2).await;
    let unknown = node
        .catalog
        .set_alias(alias("prod", &json!({"version": 3})), Expected::Any);
    assert_eq!(
        refused(unknown.await.unwrap_err()).to_string(),
        "version is 3, expected a version that function \"f\" has"
    );
    let made = node
        .catalog
        .set_alias(alias("prod", &json!({"version": 1})), Expected::Absent);
    let made = made.await.unwrap();
    assert!(made.is_new);
    let twice = node
        .catalog
        .set_alias(alias("prod", &json!({"version": 2})), Expected::Absent);
    assert!(matches!(
        refused(twice.await.unwrap_err()),
        VersionError::AliasExists { .. }
    ));
    let nothing = node.catalog.roll_back("default", "f", "prod", None).await;
    assert!(matches!(
        refused(nothing.unwrap_err()),
        VersionError::NothingBefore { .. }
    ));

    let canary = alias("prod", &json!({"version": 1, "weights": {"2": 0.5}}));
    let set = node
        .catalog
        .set_alias(canary, Expected::At(made.revision))
        .await
        .unwrap();
    assert_eq!(set.alias.previous, Some(Target::all_to(version(1))));
    let stale = node.catalog.set_alias(
        alias("prod", &json!({"version": 1})),
        Expected::At(made.revision),
    );
    assert!(matches!(
        refused(stale.await.unwrap_err()),
        VersionError::AliasChanged { .. }
    ));
    let held = node
        .catalog
        .delete_version("default", "f", version(2))
        .await
        .unwrap_err();
    assert_eq!(held.code(), ErrorCode::Conflict);
    assert!(
        held.to_string().ends_with("it's used by aliases: prod."),
        "{held}"
    );

    node.catalog
        .set_alias(alias("prod", &json!({"version": 2})), Expected::Any)
        .await
        .unwrap();
    let back = other
        .catalog
        .roll_back("default", "f", "prod", None)
        .await
        .unwrap();
    assert_eq!(back.alias.target, Target::all_to(version(1)));
    let registry = other.registry.load();
    let known = registry.alias(
        &"default".parse().unwrap(),
        &"f".parse().unwrap(),
        &back.alias.name,
    );
    assert_eq!(
        known.unwrap().alias,
        back.alias,
        "whoever changed it finds it here"
    );
    drop(registry);
    node.catalog
        .delete_version("default", "f", version(2))
        .await
        .unwrap();
    let gone = node
        .catalog
        .roll_back("default", "f", "prod", None)
        .await
        .unwrap_err();
    assert!(matches!(refused(gone), VersionError::BeforeIsGone { .. }));
    node.catalog
        .delete_alias("default", "f", "prod", None)
        .await
        .unwrap();
    let missing = node
        .catalog
        .alias("default", "f", "prod")
        .await
        .unwrap_err();
    assert!(matches!(
        refused(missing),
        VersionError::AliasNotFound { .. }
    ));
    node.catalog
        .delete_version("default", "f", version(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_function_has_no_more_versions_and_aliases_than_it_may_have() {
    let (mut node, _, _) = two_nodes().await;
    let few = VersionsSettings {
        per_function_max: 2,
        aliases_per_function_max: 1,
    };
    node.catalog = node.catalog.clone().with_versions(few);
    with_versions(&node, 2).await;
    node.catalog.update(numbered(9), None).await.unwrap();
    let third = node
        .catalog
        .publish("default", "f", None, None)
        .await
        .unwrap_err();
    assert!(
        third
            .to_string()
            .contains("has 2 versions, the most it may have (versions.per_function_max)")
    );
    node.catalog
        .set_alias(alias("a", &json!({"version": 1})), Expected::Any)
        .await
        .unwrap();
    let second = node
        .catalog
        .set_alias(alias("b", &json!({"version": 1})), Expected::Any);
    let second = second.await.unwrap_err();
    assert!(
        second
            .to_string()
            .contains("has 1 aliases, the most it may have"),
        "{second}"
    );
    node.catalog
        .set_alias(alias("a", &json!({"version": 2})), Expected::Any)
        .await
        .unwrap();
    node.catalog
        .delete_version("default", "f", version(1))
        .await
        .unwrap();
    node.catalog
        .publish("default", "f", None, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_function_takes_its_versions_with_it() {
    let (node, _, _) = two_nodes().await;
    with_versions(&node, 120).await;
    node.catalog
        .set_alias(alias("prod", &json!({"version": 7})), Expected::Any)
        .await
        .unwrap();
    node.catalog.delete("default", "f", None).await.unwrap();
    assert_eq!(left(&node).await, 0);
    with_versions(&node, 1).await;
    // As a node leaves it that is killed between two transactions.
    let key = "functions/default/f".to_owned();
    let transaction = Transaction {
        writes: vec![Write::Delete(key)],
        ..Transaction::default()
    };
    node.catalog.store.commit(transaction).await.unwrap();
    assert!(left(&node).await > 0);
    node.catalog.create(numbered(0)).await.unwrap();
    assert_eq!(left(&node).await, 0);
    let first = node
        .catalog
        .publish("default", "f", None, None)
        .await
        .unwrap();
    assert_eq!(first.published.version, version(1));
}

#[tokio::test]
async fn who_publishes_at_once_gets_one_version_and_none_is_lost() {
    let (node, other, _) = two_nodes().await;
    node.catalog.create(numbered(0)).await.unwrap();
    let nodes = [&node, &other].into_iter().cycle().take(8);
    let all = join_all(nodes.map(|node| node.catalog.publish("default", "f", None, None))).await;
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert!(all.iter().all(|one| one.published.version == version(1)));
    assert_eq!(all.iter().filter(|one| one.is_new).count(), 1);
}

#[tokio::test]
async fn a_secret_stays_as_long_as_a_version_names_it() {
    let (node, other, _) = two_nodes().await;
    let (space, name) = (Space::default_space(), "db".parse().unwrap());
    let value = b"x".to_vec().into();
    node.catalog
        .set_secret(&space, &name, &value)
        .await
        .unwrap();
    let provider = json!({"command": ["x"], "secrets": [{"name": "db"}]});
    let body = json!({"functionId": "f", "type": "process", "provider": provider});
    let named = Function::parse("default", None, body.to_string().as_bytes()).unwrap();
    node.catalog.create(named).await.unwrap();
    node.catalog
        .publish("default", "f", None, None)
        .await
        .unwrap();
    node.catalog.update(function("f"), None).await.unwrap();
    let kept = message(other.catalog.delete_secret("default", "db").await);
    assert!(kept.contains("used by: f:1."), "{kept}");
    node.catalog
        .delete_version("default", "f", version(1))
        .await
        .unwrap();
    other.catalog.delete_secret("default", "db").await.unwrap();
}

#[tokio::test]
async fn versions_and_aliases_move_with_a_backup_and_numbers_go_on() {
    let (node, _, from) = two_nodes().await;
    with_versions(&node, 3).await;
    let target = json!({"version": 1, "weights": {"2": 0.5}});
    let set = node
        .catalog
        .set_alias(alias("prod", &target), Expected::Any);
    let set = set.await.unwrap();
    node.catalog
        .delete_version("default", "f", version(3))
        .await
        .unwrap();
    let backup = |store: &Arc<MemoryStore>| {
        let store = Arc::clone(store) as Arc<dyn Store>;
        crate::Backup::new(Arc::clone(&store), crate::testing::vault(&store))
    };
    let records = backup(&from).export().await.unwrap();
    let (node, _, into) = two_nodes().await;
    backup(&into).import(&records, "test", None).await.unwrap();
    let found = node.catalog.alias("default", "f", "prod").await.unwrap();
    assert_eq!(found.alias, set.alias);
    assert_eq!(
        node.catalog.versions("default", "f").await.unwrap().len(),
        2
    );
    node.catalog.update(numbered(9), None).await.unwrap();
    let next = node.catalog.publish("default", "f", None, None);
    assert_eq!(next.await.unwrap().published.version, version(4));
}
