//! Event types, and the subscriptions that need them: what two nodes could decide differently.

use protocol::EventTypeRecord;

use super::*;

fn event_type(body: &Value) -> EventTypeRecord {
    EventTypeRecord::parse("default", None, body.to_string().as_bytes()).unwrap()
}

fn named(name: &str) -> EventTypeRecord {
    event_type(&json!({"name": name}))
}

fn authorized(name: &str, function: &str) -> EventTypeRecord {
    event_type(&json!({"name": name, "authorizerId": function}))
}

fn typed(mode: &str, name: &str, path: &str) -> Subscription {
    subscription(&json!({"type": mode, "eventType": name, "functionId": "f", "path": path}))
}

#[tokio::test]
async fn of_two_creates_one_wins_whatever_node_is_asked() {
    let (one, other, _) = two_nodes().await;
    for round in 0..20 {
        let name = format!("a.{round}");
        let (first, second) = tokio::join!(
            one.catalog.create_event_type(named(&name)),
            other.catalog.create_event_type(named(&name)),
        );
        assert!(first.is_ok() != second.is_ok(), "round {round}");
        let refused = first.and(second);
        assert!(
            matches!(refused, Err(Error::EventTypeExists(_))),
            "{refused:?}"
        );
    }
    let all = other.catalog.event_types("default").await.unwrap();
    assert_eq!(all.len(), 20);
}

#[tokio::test]
async fn an_event_type_is_subscribed_to_or_deleted_never_both() {
    let (one, other, store) = two_nodes().await;
    one.catalog.create(function("f")).await.unwrap();
    for round in 0..40 {
        one.catalog.create_event_type(named("a")).await.unwrap();
        let mode = if round % 2 == 0 { "async" } else { "sync" };
        let subscription = typed(mode, "a", "/");
        let id = subscription.subscription_id.clone();
        let (subscribed, deleted) = tokio::join!(
            one.catalog.create_subscription(subscription),
            other.catalog.delete_event_type("default", "a", None),
        );
        match (subscribed, deleted) {
            (Ok(_), Err(Error::EventTypeInUse)) => {
                let catalog = &one.catalog;
                catalog
                    .delete_subscription("default", &id, None)
                    .await
                    .unwrap();
                // The other node may not have heard of it yet, but decides by what is so.
                other
                    .catalog
                    .delete_event_type("default", "a", None)
                    .await
                    .unwrap();
            }
            (Err(Error::UnknownEventType(_)), Ok(())) => {}
            outcome => panic!("round {round}: {outcome:?}"),
        }
        assert_eq!(ids(&one).await, [""; 0]);
    }
    assert!(store.list("types/").await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn a_function_is_an_authorizer_or_deleted_never_both() {
    let (one, other, store) = two_nodes().await;
    for round in 0..40 {
        one.catalog.create(function("f")).await.unwrap();
        let (created, deleted) = tokio::join!(
            one.catalog.create_event_type(authorized("a", "f")),
            other.catalog.delete("default", "f", None),
        );
        match (created, deleted) {
            (Ok(_), Err(Error::IsAuthorizer { .. })) => {
                if round % 2 == 0 {
                    one.catalog
                        .delete_event_type("default", "a", None)
                        .await
                        .unwrap();
                } else {
                    one.catalog
                        .update_event_type(named("a"), None)
                        .await
                        .unwrap();
                }
                other.catalog.delete("default", "f", None).await.unwrap();
                let _ = one.catalog.delete_event_type("default", "a", None).await;
            }
            (Err(Error::UnknownAuthorizer), Ok(())) => {}
            outcome => panic!("round {round}: {outcome:?}"),
        }
    }
    assert!(store.list("authorizes/").await.unwrap().entries.is_empty());
}

/// Section 12 of the reference: conflicts are of a space, method and event type; and an `http` subscription and a sync one to
/// `http.request` are for the same requests.
#[tokio::test]
async fn of_two_that_would_answer_the_same_one_wins_whatever_node_is_asked() {
    let (one, other, _) = two_nodes().await;
    one.catalog.create(function("f")).await.unwrap();
    for name in ["a", "http.request"] {
        one.catalog.create_event_type(named(name)).await.unwrap();
    }
    for round in 0..40 {
        let paths = [format!("/{round}/:a"), format!("/{round}/:b")];
        let pair = match round % 2 {
            0 => [typed("sync", "a", &paths[0]), typed("sync", "a", &paths[1])],
            _ => {
                let plain =
                    json!({"event": "http", "method": "POST", "path": paths[0], "functionId": "f"});
                [
                    subscription(&plain),
                    typed("sync", "http.request", &paths[round % 4 / 2]),
                ]
            }
        };
        let [first, second] = pair;
        let (first, second) = tokio::join!(
            one.catalog.create_subscription(first),
            other.catalog.create_subscription(second),
        );
        assert!(
            first.is_ok() != second.is_ok(),
            "round {round}: {first:?} {second:?}"
        );
        let refused = first.and(second);
        assert!(matches!(refused, Err(Error::Path(_))), "{refused:?}");
    }
    assert_eq!(ids(&one).await.len(), 40);
}

#[tokio::test]
async fn a_node_that_starts_while_the_store_is_away_has_the_event_types_of_its_last_run() {
    let (node, _, _) = two_nodes().await;
    node.catalog.create(function("f")).await.unwrap();
    let stored = node
        .catalog
        .create_event_type(authorized("a", "f"))
        .await
        .unwrap();
    let subscribed = node
        .catalog
        .create_subscription(typed("sync", "a", "/:x"))
        .await
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let again = loop {
        // The snapshot is written in the background.
        let store = Arc::new(Away(MemoryStore::new()));
        let again = TestCatalog::start_in(store, Arc::clone(&node.dir)).await;
        let within = Instant::now() + Duration::from_secs(2);
        let has_all = |registry: &Registry| registry.subscriptions.iter().count() == 1;
        if again.registry.wait_until(within, has_all).await {
            break again;
        }
        assert!(Instant::now() < until, "the snapshot has no subscription");
    };
    let registry = again.registry.get();
    let route = registry.subscriptions.sync_route(None, "a", "POST", "/7");
    assert_eq!(route.unwrap().subscription, &subscribed.subscription);
    let catalog = &again.catalog;
    assert_eq!(catalog.event_type("default", "a").await.unwrap(), stored);
    assert_eq!(catalog.event_types("default").await.unwrap(), [stored]);
    let id = &subscribed.subscription.subscription_id;
    assert_eq!(
        catalog.subscription("default", id).await.unwrap(),
        subscribed
    );
}
