//! What the books of a node say, and what an audit finds when something is not in NATS that should be.

use queue::Outcome;
use queue::backend::Change;
use serde_json::json;

use super::*;

/// Deletes all that nodes hold.
async fn purge_held(nats: &Nats, cluster: &str) {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let purge = format!("$JS.API.STREAM.PURGE.hearth-{cluster}-held");
    let body = json!({}).to_string();
    let answer = client.request(purge, body.into()).await.unwrap();
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(answer.contains("\"success\":true"), "{answer}");
}

#[tokio::test]
async fn a_record_that_was_deleted_by_hand_is_missed_for_good() {
    let nats = Nats::start().await;
    let mut options = patient(options(&nats.url(), "c"));
    options.settings.sweep_interval = Duration::from_millis(200);
    let queue = open(options).await;
    queue
        .enqueue(conformance::deliveries("f", 1))
        .await
        .unwrap();
    queue
        .enqueue(conformance::deliveries("f", 3))
        .await
        .unwrap();
    let leased = next(&queue).await;
    let settled = queue.settle(&leased[0].lease, Outcome::Delivered).await;
    settled.unwrap();
    let audit = queue.audit().await.unwrap();
    assert_eq!((audit.held, audit.drift()), (3, 0), "{}", audit.books);
    purge_held(&nats, "c").await;
    let audit = queue.audit().await.unwrap();
    assert_eq!(audit.drift(), 3, "{} and {} held", audit.books, audit.held);
    // It is forgotten by the next look through the stream, and not taken for what another node has.
    until("it is forgotten", async || queue.stats().leased == 0).await;
    let audit = queue.audit().await.unwrap();
    assert_eq!((audit.held, audit.drift()), (0, 3), "{}", audit.books);
    assert_eq!(audit.books.count(Change::GivenUp), 0);
}
