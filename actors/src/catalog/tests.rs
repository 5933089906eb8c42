use async_trait::async_trait;
use config::store::{Listing, MemoryStore, Store, Transaction, Watch};
use futures_util::future::join_all;
use protocol::SubscriptionId;
use protocol::{Component, Effect};
use serde_json::{Value, json};

use super::*;
use crate::fixtures::TestNode;
use crate::testing::TestCatalog;

mod cors;
mod event_types;
mod schedules;
mod secrets;
mod versions;

/// Two nodes on one store.
async fn two_nodes() -> (TestCatalog, TestCatalog, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    let start = || TestCatalog::start(Arc::clone(&store) as Arc<dyn Store>);
    (start().await, start().await, store)
}

fn function(id: &str) -> Function {
    let body = json!({"functionId": id, "type": "http", "provider": {"url": "http://a.example"}});
    Function::parse("default", None, body.to_string().as_bytes()).unwrap()
}

fn subscription(body: &Value) -> Subscription {
    Subscription::parse("default", body.to_string().as_bytes()).unwrap()
}

fn http(path: &str, function: &str) -> Subscription {
    subscription(&json!({"event": "http", "method": "GET", "path": path, "functionId": function}))
}

fn custom(event: &str, function: &str) -> Subscription {
    subscription(&json!({"event": event, "functionId": function}))
}

async fn ids(node: &TestCatalog) -> Vec<String> {
    let stored = node.catalog.subscriptions("default").await.unwrap();
    stored
        .iter()
        .map(|stored| stored.subscription.subscription_id.to_string())
        .collect()
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("a refusal").to_string()
}

/// Section 4 of the reference: the order of a create's checks; one that fails leaves nothing.
#[tokio::test]
async fn a_create_is_checked_in_order_and_leaves_nothing_when_it_fails() {
    let (node, _, store) = two_nodes().await;
    let create = |subscription| node.catalog.create_subscription(subscription);
    node.catalog.create(function("f")).await.unwrap();
    create(http("/:a", "f")).await.unwrap();
    let before = store.list("").await.unwrap();

    let exists = "Subscription \"http,GET,%2F:a\" already exists.";
    assert_eq!(message(create(http("/:a", "nobody")).await), exists);
    let conflict = "Subscription path conflict: parameter with different name (\"a\") already defined: for route: /:b";
    assert_eq!(message(create(http("/:b", "nobody")).await), conflict);
    let unknown = "Function \"nobody\" not found.";
    assert_eq!(message(create(http("/:a/b", "nobody")).await), unknown);
    assert_eq!(message(create(custom("a", "nobody")).await), unknown);
    let other = Subscription {
        space: "other".parse().unwrap(),
        ..custom("a", "f")
    };
    assert_eq!(
        message(create(other).await),
        "Function \"f\" not found.",
        "of another space"
    );
    let wildcard = "Subscription path conflict: wildcard must be the last parameter";
    let post = json!({"event": "http", "method": "POST", "path": "/*a/b", "functionId": "f"});
    assert_eq!(message(create(subscription(&post)).await), wildcard);
    assert_eq!(store.list("").await.unwrap(), before);
}

#[tokio::test]
async fn of_two_conflicting_paths_one_wins_whatever_node_is_asked() {
    let (one, other, _) = two_nodes().await;
    one.catalog.create(function("f")).await.unwrap();
    for round in 0..40 {
        let paths = [format!("/{round}/:a"), format!("/{round}/:b")];
        let (first, second) = tokio::join!(
            one.catalog.create_subscription(http(&paths[0], "f")),
            other.catalog.create_subscription(http(&paths[1], "f")),
        );
        let outcomes = [first.is_ok(), second.is_ok()];
        let refused = first.and(second);
        assert!(outcomes[0] != outcomes[1], "round {round}: {outcomes:?}");
        assert!(matches!(refused, Err(Error::Path(_))), "{refused:?}");
    }
    assert_eq!(ids(&one).await.len(), 40);
}

#[tokio::test]
async fn paths_that_do_not_conflict_are_all_taken_at_once() {
    let (one, other, _) = two_nodes().await;
    one.catalog.create(function("f")).await.unwrap();
    let creates = (0..60).map(|number| {
        let node = if number % 2 == 0 { &one } else { &other };
        let path = format!("/a/{number}");
        async move { node.catalog.create_subscription(http(&path, "f")).await }
    });
    for created in join_all(creates).await {
        created.unwrap();
    }
    assert_eq!(ids(&other).await.len(), 60);
}

#[tokio::test]
async fn a_function_is_subscribed_or_deleted_never_both() {
    let (one, other, store) = two_nodes().await;
    for round in 0..40 {
        one.catalog.create(function("f")).await.unwrap();
        let subscription = match round % 2 {
            0 => custom("a", "f"),
            _ => http("/a", "f"),
        };
        let id = subscription.subscription_id.clone();
        let (subscribed, deleted) = tokio::join!(
            one.catalog.create_subscription(subscription),
            other.catalog.delete("default", "f", None),
        );
        match (subscribed, deleted) {
            (Ok(_), Err(Error::InUse)) => {
                one.catalog
                    .delete_subscription("default", &id, None)
                    .await
                    .unwrap();
                // The other node may not have heard of it yet, but decides by what is so.
                other.catalog.delete("default", "f", None).await.unwrap();
            }
            (Err(Error::UnknownFunction(_)), Ok(())) => {}
            outcome => panic!("round {round}: {outcome:?}"),
        }
        assert_eq!(ids(&one).await, [""; 0]);
    }
    assert!(store.list("uses/").await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn a_path_that_was_freed_on_one_node_is_free_on_the_other_at_once() {
    let (one, other, _) = two_nodes().await;
    one.catalog.create(function("f")).await.unwrap();
    for _ in 0..20 {
        let stored = one
            .catalog
            .create_subscription(http("/:a", "f"))
            .await
            .unwrap();
        let id = &stored.subscription.subscription_id;
        let refused = other.catalog.create_subscription(http("/b", "f")).await;
        assert!(matches!(refused, Err(Error::Path(_))), "{refused:?}");
        one.catalog
            .delete_subscription("default", id, None)
            .await
            .unwrap();
        let stored = other
            .catalog
            .create_subscription(http("/b", "f"))
            .await
            .unwrap();
        let id = &stored.subscription.subscription_id;
        other
            .catalog
            .delete_subscription("default", id, None)
            .await
            .unwrap();
    }
}

/// Section 12 of the reference: what an update may change.
#[tokio::test]
async fn an_update_changes_no_identity_and_no_age() {
    let (node, _, _) = two_nodes().await;
    let catalog = &node.catalog;
    catalog.create(function("f")).await.unwrap();
    catalog.create(function("g")).await.unwrap();
    let first = catalog.create_subscription(custom("a", "f")).await.unwrap();
    let id = first.subscription.subscription_id.clone();
    catalog.create_subscription(custom("a", "g")).await.unwrap();

    let refused = |field: &str, body: Value| {
        let id = id.clone();
        let expected =
            format!("Invalid update. '{field}' of existing subscription cannot be updated.");
        async move {
            let updated = catalog
                .update_subscription(&id, subscription(&body), None)
                .await;
            assert_eq!(message(updated), expected);
        }
    };
    refused("Event", json!({"event": "b", "functionId": "f"})).await;
    refused(
        "FunctionID",
        json!({"event": "a", "functionId": "g", "path": "/x"}),
    )
    .await;
    refused(
        "Path",
        json!({"event": "a", "functionId": "f", "path": "/x", "method": "GET"}),
    )
    .await;
    refused(
        "Method",
        json!({"event": "a", "functionId": "f", "method": "GET"}),
    )
    .await;
    let unknown = SubscriptionId::from_url("a,x,%2F");
    let updated = catalog
        .update_subscription(&unknown, custom("a", "x"), None)
        .await;
    assert_eq!(message(updated), "Subscription \"a,x,%2F\" not found.");

    let body = json!({"event": "a", "functionId": "f", "metadata": {"k": "v"}});
    for _ in 0..2 {
        let updated = catalog
            .update_subscription(&id, subscription(&body), None)
            .await
            .unwrap();
        assert!(updated.revision > first.revision);
        assert_eq!(catalog.subscription("default", &id).await.unwrap(), updated);
    }
    let changed = catalog
        .update_subscription(&id, custom("a", "f"), Some(first.revision))
        .await;
    assert_eq!(
        message(changed),
        "Subscription \"a,f,%2F\" changed meanwhile."
    );
    let registry = node.registry.get();
    let subscribers = registry.subscriptions.subscribers(None, "a", "/");
    let order: Vec<_> = subscribers
        .map(|subscription| subscription.function_id.to_string())
        .collect();
    assert_eq!(order, ["f", "g"], "in the order of creation");
}

#[tokio::test]
async fn what_can_not_be_read_is_deleted_without_harm() {
    let (node, _, store) = two_nodes().await;
    store
        .put("subscriptions/default/http,GET,%2Fa", "{".into(), None)
        .await
        .unwrap();
    let id = SubscriptionId::from_url("http,GET,%2Fa");
    node.catalog
        .delete_subscription("default", &id, None)
        .await
        .unwrap();
    let again = node.catalog.delete_subscription("default", &id, None).await;
    assert_eq!(message(again), "Subscription \"http,GET,%2Fa\" not found.");
}

#[tokio::test]
async fn spaces_are_those_that_hold_something() {
    let (one, other, _) = two_nodes().await;
    assert!(one.catalog.spaces().is_empty());
    let elsewhere = Function {
        space: "shop".parse().unwrap(),
        ..function("f")
    };
    one.catalog.create(elsewhere).await.unwrap();
    other.catalog.create(function("f")).await.unwrap();
    let names: Vec<_> = other
        .catalog
        .spaces()
        .iter()
        .map(Space::to_string)
        .collect();
    assert!(names.contains(&"default".to_owned()), "{names:?}");
    other.catalog.delete("default", "f", None).await.unwrap();
    let names: Vec<_> = other
        .catalog
        .spaces()
        .iter()
        .map(Space::to_string)
        .collect();
    assert_eq!(names, ["shop"]);
}

/// A store that answers nothing.
#[derive(Debug)]
struct Away(MemoryStore);

fn away() -> StoreError {
    StoreError::Unavailable {
        why: "it is away".into(),
        effect: Effect::Refused,
    }
}

#[async_trait]
impl Store for Away {
    async fn get(&self, _: &str) -> Result<Option<Entry>, StoreError> {
        Err(away())
    }

    async fn list(&self, _: &str) -> Result<Listing, StoreError> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Err(away())
    }

    async fn list_page(
        &self,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        Err(away())
    }

    async fn commit(&self, _: Transaction) -> Result<Revision, StoreError> {
        Err(away())
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.0.watch(prefix, after)
    }

    fn staleness(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test]
async fn a_node_that_starts_while_the_store_is_away_has_the_subscriptions_of_its_last_run() {
    let (node, _, _) = two_nodes().await;
    node.catalog.create(function("f")).await.unwrap();
    let http = node
        .catalog
        .create_subscription(http("/:a", "f"))
        .await
        .unwrap();
    node.catalog
        .create_subscription(custom("a", "f"))
        .await
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let again = loop {
        // The snapshot is written in the background.
        let store = Arc::new(Away(MemoryStore::new()));
        let again = TestCatalog::start_in(store, Arc::clone(&node.dir)).await;
        let within = Instant::now() + Duration::from_secs(2);
        let has_all = |registry: &Registry| registry.subscriptions.iter().count() == 2;
        if again.registry.wait_until(within, has_all).await {
            break again;
        }
        assert!(Instant::now() < until, "the snapshot has no subscriptions");
    };
    let registry = again.registry.get();
    assert!(
        registry
            .subscriptions
            .http_route(None, "GET", "/x")
            .is_some()
    );
    let id = &http.subscription.subscription_id;
    assert_eq!(
        again.catalog.subscription("default", id).await.unwrap(),
        http
    );
    assert_eq!(ids(&again).await, ["a,f,%2F", "http,GET,%2F:a"]);
    let refused = again.catalog.delete_subscription("default", id, None).await;
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_function_of_a_cloud_is_registered_and_its_call_says_why_it_fails() {
    let node = TestNode::start().await;
    let lambda = json!({"type": "awslambda", "provider": {"arn": "a", "region": "eu"}});
    node.register("l", lambda).await;
    let failed = node
        .running
        .control
        .invoker
        .invoke(node.request("l", "x"))
        .await;
    let failure = failed.expect_err("no such provider").failure;
    assert_eq!(
        (failure.code, failure.component),
        (ErrorCode::Internal, Component::Provider)
    );
    assert_eq!(failure.effect, Effect::Refused);
    assert_eq!(
        failure.message,
        "this node can not call functions of type awslambda"
    );
}

/// Whether it is asked by a new subscription or by an update of one; and which of the guards are left.
#[tokio::test]
async fn a_function_is_asked_about_requests_or_deleted_never_both() {
    let (one, other, store) = two_nodes().await;
    let asking = |authorizer: &str| {
        let body = json!({"event": "http", "method": "GET", "path": "/", "functionId": "f", "authorizerId": authorizer});
        subscription(&body)
    };
    for id in ["f", "kept"] {
        one.catalog.create(function(id)).await.unwrap();
    }
    let id = asking("who").subscription_id;
    for round in 0..40 {
        one.catalog.create(function("who")).await.unwrap();
        let is_update = round % 2 == 1;
        if is_update {
            let created = one.catalog.create_subscription(asking("kept")).await;
            created.unwrap();
        }
        let asked = async {
            match is_update {
                true => {
                    one.catalog
                        .update_subscription(&id, asking("who"), None)
                        .await
                }
                false => one.catalog.create_subscription(asking("who")).await,
            }
        };
        let (asked, deleted) = tokio::join!(asked, other.catalog.delete("default", "who", None));
        match (asked, deleted) {
            (Ok(_), Err(Error::IsSubscriptionAuthorizer { .. })) => {
                // The other node may not have heard of it yet, but decides by what is so.
                match round % 4 {
                    0 | 1 => drop(one.catalog.delete_subscription("default", &id, None).await),
                    _ => {
                        let updated = one.catalog.update_subscription(&id, asking("f"), None);
                        updated.await.unwrap();
                    }
                }
                other.catalog.delete("default", "who", None).await.unwrap();
            }
            (Err(Error::UnknownSubscriptionAuthorizer(_)), Ok(())) => {}
            outcome => panic!("round {round}: {outcome:?}"),
        }
        let _ = one.catalog.delete_subscription("default", &id, None).await;
    }
    for id in ["f", "kept"] {
        other.catalog.delete("default", id, None).await.unwrap();
    }
    assert!(store.list("uses/").await.unwrap().entries.is_empty());
}
