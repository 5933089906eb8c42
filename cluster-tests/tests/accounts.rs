//! Users on three nodes: a token that one node ended is refused by the others at once, whatever is cut, killed or away; and guessing
//! gets nowhere by asking another node.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use cluster_tests::namespace::Network;
use cluster_tests::ports::Ports;
use cluster_tests::{Node, NodeOptions, Sandbox, eventually, full_length, until};
use futures_util::{StreamExt, stream};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How soon a revocation holds everywhere.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

/// The bound on every other wait of these tests.
const PATIENCE: Duration = Duration::from_secs(30);

const PASSWORD: &str = "password123";

static CLIENT: LazyLock<Client> = LazyLock::new(cluster_tests::api::client);

/// What a call was answered with.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    retry_after: Option<u64>,
    body: Value,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body)
    }
}

async fn call(node: &Node, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
    let mut request = CLIENT.request(method, node.functions_url(&format!("/api/v1/{path}")));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let retry_after = response.headers().get("retry-after");
    Answer {
        status: response.status(),
        retry_after: retry_after.map(|value| value.to_str().unwrap().parse().unwrap()),
        body: response.json().await.unwrap(),
    }
}

fn credentials(email: &str) -> Option<Value> {
    Some(json!({ "email": email, "password": PASSWORD }))
}

async fn sign_up(node: &Node, email: &str) {
    let made = call(node, Method::POST, "users", "", credentials(email)).await;
    assert_eq!(made.status, 201, "{made:?}");
}

async fn login(node: &Node, email: &str) -> String {
    let token = eventually("a login succeeds", PATIENCE, || async {
        let answer = call(node, Method::POST, "users/login", "", credentials(email)).await;
        match answer.status.as_u16() {
            201 => Ok(answer.body["token"].as_str().unwrap().to_owned()),
            _ => Err(answer),
        }
    });
    token.await
}

async fn me(node: &Node, token: &str) -> StatusCode {
    call(node, Method::GET, "users/me", token, None)
        .await
        .status
}

/// Holds that a token is good at each of these nodes.
async fn is_good_at(nodes: &[Node], token: &str) {
    for node in nodes {
        assert_eq!(me(node, token).await, 200, "{}", node.name());
    }
}

/// Holds that each of these nodes refuses the token in time, counted from now.
async fn is_refused_in_time(nodes: &[Node], token: &str) {
    let since = Instant::now();
    for node in nodes {
        while me(node, token).await != 401 {
            assert!(
                since.elapsed() < REVOKED_WITHIN,
                "{} still lets it in",
                node.name()
            );
        }
    }
}

/// Ends a token in each way that there is, and holds that all nodes refuse it.
async fn revoke_in_every_way(nodes: &[Node], email: &str) {
    let [first, .., last] = nodes else {
        panic!("there are several")
    };
    sign_up(first, email).await;
    for _ in 0..5 {
        let token = login(last, email).await;
        is_good_at(nodes, &token).await;
        let out = call(first, Method::POST, "users/logout", &token, None).await;
        assert_eq!(out.status, 200, "{out:?}");
        is_refused_in_time(nodes, &token).await;
    }
    let token = login(first, email).await;
    let other = login(last, email).await;
    is_good_at(nodes, &token).await;
    let change = json!({ "password": PASSWORD, "newPassword": PASSWORD });
    let changed = call(
        first,
        Method::POST,
        "users/me/password",
        &token,
        Some(change),
    )
    .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    is_refused_in_time(nodes, &token).await;
    is_refused_in_time(nodes, &other).await;
    let token = login(last, email).await;
    is_good_at(nodes, &token).await;
    let deleted = call(first, Method::DELETE, "users/me", &token, None).await;
    let message = format!("User email {email} deleted successfully.");
    assert_eq!(
        (deleted.status.as_u16(), &deleted.body["message"]),
        (200, &json!(message))
    );
    is_refused_in_time(nodes, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_one_node_ended_is_refused_by_all_within_a_second() {
    let sandbox = Sandbox::builder().auth_required().nodes(3).start().await;
    revoke_in_every_way(&sandbox.nodes(), "ada@example.com").await;
    let third = sandbox.node(2);
    let stale = third.metric("hearth_accounts_staleness_seconds", "").await;
    // As often as the store is asked whether it is still there.
    assert!(stale < 10.0, "{stale}");
    let ended = third
        .metric("hearth_credentials_denied_total", "reason=\"ended\"")
        .await;
    assert!(ended > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_gossip_cut_a_revocation_reaches_every_node_all_the_same() {
    let ports = Ports::reserve();
    let network = Network::create(ports.number(), 3);
    let mut builder = Sandbox::builder()
        .auth_required()
        .etcd_on(&network.root_address().to_string(), ports);
    for node in 0..3 {
        builder = builder.node(NodeOptions {
            place: Some(network.place(node)),
            ..NodeOptions::default()
        });
    }
    let sandbox = builder.start().await;
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        network.cut_between(one, other);
    }
    for node in sandbox.nodes() {
        until("each node sees itself only", PATIENCE, || async {
            node.alive().await.len() == 1
        })
        .await;
    }
    revoke_in_every_way(&sandbox.nodes(), "ada@example.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_slowed_on_all_nodes_together() {
    let sandbox = Sandbox::builder()
        .auth_required()
        .env("HEARTH_AUTH__LOGIN_DELAY_MAX", "2s")
        .nodes(3)
        .start()
        .await;
    let nodes = sandbox.nodes();
    sign_up(&nodes[0], "ada@example.com").await;
    // What is done once at the start is done by then.
    login(&nodes[1], "ada@example.com").await;
    let guesses = if full_length() { 100_000 } else { 1_000 };
    let began = Instant::now();
    let answers: Vec<Answer> = stream::iter(0..guesses)
        .map(|number| {
            let node = &nodes[number % nodes.len()];
            let guess =
                json!({ "email": "ada@example.com", "password": format!("guess {number}") });
            call(node, Method::POST, "users/login", "", Some(guess))
        })
        .buffer_unordered(12)
        .collect()
        .await;
    let looked_at = answers.iter().filter(|answer| answer.status == 401).count();
    // Five, those that were under way on three nodes with two hashes each, and one for each second that passed since.
    let most = 5 + 3 * 2 + usize::try_from(began.elapsed().as_secs()).unwrap() * 6 + 6;
    assert!(
        (5..=most).contains(&looked_at),
        "{looked_at} of at most {most}"
    );
    for answer in answers.iter().filter(|answer| answer.status != 401) {
        let is_told = answer
            .retry_after
            .is_some_and(|seconds| (1..=2).contains(&seconds));
        let is_slowed = answer.status == 429 && is_told && answer.body["code"] == "rate_limited";
        // Before the first failures are known as many wait for a hash as there is room for.
        assert!(is_slowed || answer.status == 503, "{answer:?}");
    }
    let mut hashed = 0.0;
    for node in &nodes {
        hashed += node
            .metric("hearth_logins_total", "outcome=\"wrong\"")
            .await;
    }
    assert!(
        (hashed - f64::from(u32::try_from(looked_at).unwrap())).abs() < 0.5,
        "{hashed}"
    );
    let right = call(
        &nodes[2],
        Method::POST,
        "users/login",
        "",
        credentials("ada@example.com"),
    )
    .await;
    assert_eq!(
        right.status, 429,
        "the right password has to wait as well: {right:?}"
    );
    login(&nodes[2], "ada@example.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_user_had_goes_although_the_node_that_was_asked_is_killed() {
    let sandbox = Sandbox::builder().auth_required().nodes(3).start().await;
    let nodes = sandbox.nodes();
    sign_up(&nodes[0], "ada@example.com").await;
    let token = login(&nodes[0], "ada@example.com").await;
    let id = call(&nodes[1], Method::GET, "users/me", &token, None)
        .await
        .body["userId"]
        .clone();
    let path = format!("/v1/spaces/u-{}/functions", id.as_str().unwrap());
    let function =
        json!({ "functionId": "f", "type": "http", "provider": { "url": "http://a.example" } });
    let made = nodes[1].config(Method::POST, &path, Some(&function)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let deleted = call(&nodes[0], Method::DELETE, "users/me", &token, None).await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    nodes[0].kill9();
    is_refused_in_time(&nodes[1..], &token).await;
    until("its function is gone", PATIENCE, || async {
        let left = nodes[2].config(Method::GET, &path, None).await;
        left.json()["functions"] == json!([])
    })
    .await;
    // The email is free when all else is gone.
    eventually("another has its email", PATIENCE, || async {
        let again = call(
            &nodes[1],
            Method::POST,
            "users",
            "",
            credentials("ada@example.com"),
        )
        .await;
        match again.status.as_u16() {
            201 => Ok(()),
            _ => Err(again),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_tokens_stay_good_also_on_a_node_that_starts() {
    let mut sandbox = Sandbox::builder().auth_required().nodes(3).start().await;
    let nodes = sandbox.nodes();
    sign_up(&nodes[0], "ada@example.com").await;
    let token = login(&nodes[0], "ada@example.com").await;
    is_good_at(&nodes, &token).await;
    let snapshot = nodes[2].data_dir().join("accounts.snapshot");
    until(
        "the third node has written what it knows",
        PATIENCE,
        || async {
            std::fs::read_to_string(&snapshot).is_ok_and(|text| !text.contains("\"sessions\":[]"))
        },
    )
    .await;
    sandbox.etcd().kill9();
    nodes[2].kill9();
    nodes[2].restart();
    nodes[2].wait_ready(PATIENCE).await;
    is_good_at(&nodes, &token).await;
    for (path, body) in [
        ("users/login", credentials("ada@example.com")),
        ("users/logout", None),
    ] {
        let refused = call(&nodes[1], Method::POST, path, &token, body).await;
        assert_eq!(refused.status, 503, "{path}: {refused:?}");
        assert_eq!(refused.body["code"], "store_unavailable", "{refused:?}");
    }
    until("the lag of revocations is told", PATIENCE, || async {
        nodes[1]
            .metric("hearth_accounts_staleness_seconds", "")
            .await
            > 1.0
    })
    .await;
    is_good_at(&nodes, &token).await;
    sandbox.etcd_mut().restart().await;
    eventually("a logout goes through again", PATIENCE, || async {
        let out = call(&nodes[1], Method::POST, "users/logout", &token, None).await;
        match out.status.as_u16() {
            200 | 401 => Ok(()),
            _ => Err(out),
        }
    })
    .await;
    for node in &nodes {
        until("all nodes refuse it", PATIENCE, || async {
            me(node, &token).await == 401
        })
        .await;
    }
}
