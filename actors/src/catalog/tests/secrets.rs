use protocol::SecretName;
use vault::Plain;

use super::*;

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn plain(text: &str) -> Plain {
    text.as_bytes().to_vec().into()
}

async fn set(node: &TestCatalog, secret: &str, value: &str) -> Result<StoredSecret, Error> {
    let space = Space::default_space();
    node.catalog
        .set_secret(&space, &name(secret), &plain(value))
        .await
}

fn with_secrets(id: &str, secrets: &Value) -> Function {
    let provider = json!({"command": ["x"], "secrets": secrets});
    let body = json!({"functionId": id, "type": "process", "provider": provider});
    Function::parse("default", None, body.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_value_is_sealed_and_each_set_is_another_version() {
    let (node, other, store) = two_nodes().await;
    let made = set(&node, "db", "hunter2").await.unwrap();
    assert!(made.is_new && made.functions.is_empty());
    let again = set(&other, "db", "hunter2").await.unwrap();
    assert!(!again.is_new);
    assert_ne!(again.secret.version, made.secret.version);
    assert_eq!(again.secret.created_at_ms, made.secret.created_at_ms);
    let listed = node.catalog.secrets("default").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].secret, again.secret);
    for entry in store.list("").await.unwrap().entries {
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(!format!("{again:?} {:?}", node.registry.load()).contains(&again.secret.sealed));

    for (value, bytes) in [("", 0), (&*"x".repeat(65_537), 65_537)] {
        let refused = message(set(&node, "db", value).await);
        let expected = format!("the value has {bytes} bytes, expected 1 to 65536");
        assert!(refused.contains(&expected), "{refused}");
    }
    assert!(set(&node, "db", &"x".repeat(65_536)).await.is_ok());
}

#[tokio::test]
async fn a_function_has_secrets_that_are_there_and_stay() {
    let (node, other, _) = two_nodes().await;
    let named = with_secrets("f", &json!([{"name": "a"}, {"name": "b", "env": "B"}]));
    set(&node, "a", "1").await.unwrap();
    let refused = message(node.catalog.create(named.clone()).await);
    assert_eq!(
        refused,
        "provider.secrets[1].name is \"b\", expected a secret that is set in the space"
    );
    set(&other, "b", "2").await.unwrap();
    node.catalog.create(named).await.unwrap();
    let refused = message(other.catalog.delete_secret("default", "a").await);
    assert_eq!(
        refused,
        "Secret \"a\" cannot be deleted because it's used by: f."
    );
    let registered = node.registry.load().iter().next().unwrap().clone();
    assert_eq!(registered.secrets.len(), 2);

    // One that it names no more may go.
    let fewer = with_secrets("f", &json!([{"name": "b"}]));
    other.catalog.update(fewer, None).await.unwrap();
    node.catalog.delete_secret("default", "a").await.unwrap();
    let refused = message(node.catalog.delete_secret("default", "a").await);
    assert_eq!(refused, "Secret \"a\" not found.");
    node.catalog.delete("default", "f", None).await.unwrap();
    other.catalog.delete_secret("default", "b").await.unwrap();
}

#[tokio::test]
async fn a_secret_is_named_or_deleted_never_both() {
    for round in 0..20 {
        let (node, other, store) = two_nodes().await;
        set(&node, "s", "1").await.unwrap();
        let named = with_secrets("f", &json!([{"name": "s"}]));
        let (made, deleted) = tokio::join!(
            node.catalog.create(named),
            other.catalog.delete_secret("default", "s"),
        );
        assert!(
            made.is_ok() != deleted.is_ok(),
            "{round}: {made:?} {deleted:?}"
        );
        let is_there = store.get("secrets/default/s").await.unwrap().is_some();
        assert_eq!(is_there, made.is_ok());
    }
}

#[tokio::test]
async fn the_secrets_of_a_space_are_bounded_for_all_nodes_together() {
    let (mut node, mut other, _) = two_nodes().await;
    node.catalog.secrets.per_space_max = 3;
    other.catalog.secrets.per_space_max = 3;
    let nodes = [&node, &other];
    let sets = (0..6).map(|number| async move {
        let name = format!("s{number}");
        set(nodes[number % 2], &name, "1").await
    });
    let made = join_all(sets).await;
    let refused = made.iter().filter_map(|made| made.as_ref().err());
    let refused: Vec<_> = refused.map(ToString::to_string).collect();
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert!(refused[0].contains("has 3 secrets, the most it may have"));
    // Another value for one that is there is not one more.
    let listed = node.catalog.secrets("default").await.unwrap();
    assert!(
        set(&node, listed[0].secret.name.as_str(), "2")
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn another_value_means_new_instances_and_none_means_none() {
    let node = TestNode::start().await;
    let catalog = &node.running.control.catalog;
    let (space, secret) = (Space::default_space(), name("s"));
    catalog
        .set_secret(&space, &secret, &plain("1"))
        .await
        .unwrap();
    catalog
        .create(with_secrets("f", &json!([{"name": "s", "env": "S"}])))
        .await
        .unwrap();
    let invoker = &node.running.control.invoker;
    for (starts, value) in [
        (1, None),
        (1, None),
        (2, Some("2")),
        (2, None),
        (3, Some("3")),
    ] {
        if let Some(value) = value {
            catalog
                .set_secret(&space, &secret, &plain(value))
                .await
                .unwrap();
        }
        assert!(invoker.invoke(node.request("f", "x")).await.is_ok());
        assert_eq!(node.provider.counts().starts, starts);
    }

    // What can not be opened starts nothing, and says what to do.
    let key = "secrets/default/s";
    let stored = node.store.get(key).await.unwrap().unwrap();
    let mut altered: Value = serde_json::from_slice(&stored.value).unwrap();
    altered["version"] = json!("other");
    altered["sealed"] = json!("AQID");
    node.store
        .put(key, altered.to_string().into(), None)
        .await
        .unwrap();
    crate::fixtures::until("the node knows it", || {
        let registry = node.running.control.registry.load();
        let registered = registry.iter().next().unwrap();
        registered.secrets[0].secret.version == "other"
    })
    .await;
    let refused = invoker.invoke(node.request("f", "x")).await.unwrap_err();
    let told = refused.failure.message;
    for part in [
        "secret s of function f in space default",
        "hearth secret set",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(node.provider.counts().starts, 3);
}
