//! Several nodes on one NATS: what one has, what the others take over, and what they see of each other.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use protocol::{Component, Effect, ErrorCode, Failure};
use queue::{DeliveryId, Error, Outcome, Stats};
use serde_json::json;

use super::*;
use crate::server::Proxy;

pub(super) fn dead_letter() -> Outcome {
    let (code, component) = (ErrorCode::FunctionFailed, Component::Function);
    Outcome::DeadLetter {
        reason: Failure::new(code, component, Effect::Finished, "status 500"),
        answer: Bytes::from_static(b"no"),
    }
}

fn again() -> Outcome {
    Outcome::Again {
        after: Duration::ZERO,
        counts: true,
    }
}

/// Nothing waits, runs or died: looked at by a node that begins when all others ended.
async fn is_empty(nats: &Nats, cluster: &str) {
    let last = open(options_of("last", &nats.url(), cluster)).await;
    sleep(Duration::from_millis(1_200)).await;
    assert!(last.lease(MANY).await.unwrap().is_empty());
    assert_eq!(last.stats(), Stats::default());
}

/// A node that is cut off loses what it has to another one, and changes nothing of it when it is back.
#[tokio::test]
async fn a_node_that_was_cut_off_settles_nothing() {
    let nats = Nats::start().await;
    let proxy = Proxy::to(&nats).await;
    let cut = open(patient(options_of("cut", &proxy.url, "c"))).await;
    let other = open(patient(options_of("other", &nats.url(), "c"))).await;
    let sent = [
        conformance::deliveries("one", 1),
        conformance::deliveries("three", 3),
        conformance::deliveries("waits", 1),
    ];
    for batch in &sent {
        cut.enqueue(batch.clone()).await.unwrap();
    }
    let few = Permits { free: 4, total: 4 };
    let mut before = Vec::new();
    while before.len() < 4 {
        before.extend(cut.lease(few).await.unwrap());
    }
    // One of three ended while there was a connection.
    let ended = before
        .iter()
        .position(|leased| leased.delivery.function_id.to_string() == "three");
    let ended = before.remove(ended.unwrap());
    cut.settle(&ended.lease, Outcome::Delivered).await.unwrap();
    proxy.cut();
    let mut taken = Vec::new();
    while taken.len() < 4 {
        taken.extend(next(&other).await);
    }
    assert!(
        taken.iter().all(|leased| leased.attempts == 1),
        "each may have run"
    );
    assert!(taken.iter().all(|leased| leased.lease.id != ended.lease.id));
    until("it begins nothing more", async || {
        cut.lease(MANY).await.unwrap().is_empty()
    })
    .await;
    proxy.heal();
    for (leased, outcome) in before
        .iter()
        .zip([Outcome::Delivered, again(), dead_letter()])
    {
        let lost = cut.settle(&leased.lease, outcome).await;
        assert_eq!(lost, Err(Error::LeaseLost(leased.lease)), "{leased:?}");
    }
    until("it knows that it has nothing", async || {
        cut.stats() == Stats::default()
    })
    .await;
    for leased in &taken {
        other
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
    // It goes on as before with what comes now.
    cut.enqueue(conformance::deliveries("new", 1))
        .await
        .unwrap();
    let new = next(&cut).await.remove(0);
    cut.settle(&new.lease, Outcome::Delivered).await.unwrap();
    drop((cut, other));
    is_empty(&nats, "c").await;
}

/// A node that ends leaves what waits to the others at once, and nothing of it counts as tried.
#[tokio::test]
async fn a_node_that_ends_leaves_what_waits() {
    let nats = Nats::start().await;
    let options_of = |node| {
        let mut options = patient(options_of(node, &nats.url(), "c"));
        // Whoever would wait until it is missed waits for longer than the test.
        options.settings.session_timeout = Duration::from_secs(120);
        options
    };
    let (first, second) = (open(options_of("a")).await, open(options_of("b")).await);
    let sent = conformance::deliveries("f", 3);
    first.enqueue(sent.clone()).await.unwrap();
    first.close(Instant::now() + PATIENCE).await;
    assert!(first.lease(MANY).await.unwrap().is_empty());
    let refused = first.enqueue(conformance::deliveries("f", 1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let taken = tokio::time::timeout(PATIENCE, next(&second)).await.unwrap();
    let ids: Vec<_> = taken.iter().map(|leased| leased.lease.id).collect();
    assert_eq!(ids, sent.iter().map(|sent| sent.id).collect::<Vec<_>>());
    assert!(taken.iter().all(|leased| leased.attempts == 0));
}

/// A node that starts again has what it had before, at once, attempts included.
#[tokio::test]
async fn a_restarted_node_has_what_it_had() {
    let nats = Nats::start().await;
    let options = || patient(options(&nats.url(), "c"));
    let before = open(options()).await;
    let sent = conformance::deliveries("f", 2);
    before.enqueue(sent.clone()).await.unwrap();
    let leased = before.lease(MANY).await.unwrap();
    before.settle(&leased[0].lease, again()).await.unwrap();
    drop(before);
    let after = open(options()).await;
    assert_eq!(after.stats().waiting, 2);
    let leased = after.lease(MANY).await.unwrap();
    let attempts: Vec<_> = leased.iter().map(|leased| leased.attempts).collect();
    // The first one was tried, and each of them may be running when the node went away.
    assert_eq!(attempts, [2, 1]);
}

/// What is cancelled, dead, redriven or purged on one node is so on all.
#[tokio::test]
async fn nodes_see_what_others_have() {
    let nats = Nats::start().await;
    let [one, other] = ["a", "b"].map(|node| patient(options_of(node, &nats.url(), "c")));
    let (one, other) = (open(one).await, open(other).await);
    let sent = conformance::deliveries("f", 3);
    let alone = conformance::deliveries("alone", 1);
    one.enqueue(sent.clone()).await.unwrap();
    one.enqueue(alone.clone()).await.unwrap();
    let leased = one.lease(MANY).await.unwrap();
    let lease_of = |id| {
        leased
            .iter()
            .find(|leased| leased.lease.id == id)
            .unwrap()
            .lease
    };
    for id in [sent[1].id, alone[0].id] {
        assert_eq!(other.cancel(id).await, Ok(true));
        assert_eq!(other.cancel(id).await, Ok(false));
        let lease = lease_of(id);
        assert_eq!(one.extend(&lease).await, Err(Error::LeaseLost(lease)));
    }
    assert_eq!(other.cancel(DeliveryId::random()).await, Ok(false));
    for id in [sent[0].id, sent[2].id] {
        one.settle(&lease_of(id), dead_letter()).await.unwrap();
    }
    let letters = other.dead_letters(0, 10).await.unwrap();
    let ids: Vec<_> = letters.iter().map(|letter| letter.delivery.id).collect();
    assert_eq!(ids, [sent[0].id, sent[2].id]);
    assert_eq!(letters[0].answer, Bytes::from_static(b"no"));
    until("all know how many there are", async || {
        other.stats().dead == 2
    })
    .await;
    assert_eq!(other.purge(sent[2].id).await, Ok(true));
    assert_eq!(one.purge(sent[2].id).await, Ok(false));
    let (by_one, by_other) = tokio::join!(one.redrive(sent[0].id), other.redrive(sent[0].id));
    let redriven = [by_one.unwrap(), by_other.unwrap()];
    assert_eq!(redriven.iter().filter(|redriven| **redriven).count(), 1);
    let node = if redriven[0] { &one } else { &other };
    let again = next(node).await.remove(0);
    assert_eq!((again.lease.id, again.attempts), (sent[0].id, 0));
    node.settle(&again.lease, Outcome::Delivered).await.unwrap();
    drop((one, other));
    is_empty(&nats, "c").await;
}

/// A node that wrote a dead letter and died before it could say so leaves one dead letter, whoever takes over, and whatever it does when
/// it turns out to live.
#[tokio::test]
async fn a_dead_letter_that_was_written_is_kept_by_whoever_takes_over() {
    let nats = Nats::start().await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let ask = async |what: &str, body: serde_json::Value| {
        let subject = format!("$JS.API.STREAM.MSG.{what}");
        let answer = client.request(subject, body.to_string().into()).await;
        serde_json::from_slice::<serde_json::Value>(&answer.unwrap().payload).unwrap()
    };
    let options = || patient(options(&nats.url(), "c"));
    let queue = open(options()).await;
    let sent = conformance::deliveries("f", 1).remove(0);
    queue.enqueue(vec![sent.clone()]).await.unwrap();
    let subject = format!("hearth.c.held.one.{}", sent.id);
    let record = ask("GET.hearth-c-held", json!({ "last_by_subj": subject })).await;
    let leased = queue.lease(MANY).await.unwrap().remove(0);
    queue.settle(&leased.lease, dead_letter()).await.unwrap();
    let written = queue.dead_letter(sent.id).await.unwrap().unwrap().position;
    drop(queue);
    // As it was before the record was deleted.
    let decode = |field: &str| BASE64_STANDARD.decode(record["message"][field].as_str().unwrap());
    let headers = String::from_utf8(decode("hdrs").unwrap()).unwrap();
    let owner = headers
        .lines()
        .find_map(|line| line.strip_prefix("Hearth-Owner: "));
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Hearth-Owner", owner.unwrap());
    let body = decode("data").unwrap().into();
    let put = client.request_with_headers(subject, headers, body).await;
    put.unwrap();
    let after = open(options()).await;
    assert_eq!(after.stats().waiting, 0);
    // What the first one would take back.
    ask("DELETE.hearth-c-dead", json!({ "seq": written })).await;
    let kept = after.dead_letter(sent.id).await.unwrap();
    assert!(kept.is_some_and(|letter| letter.position > written));
    assert_eq!(after.stats().dead, 1);
}
