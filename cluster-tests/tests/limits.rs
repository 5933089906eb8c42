//! Rates, calls in flight and quotas, measured from outside: over three nodes, whichever of them the calls come by, and with nodes killed.

#![expect(clippy::print_stdout, reason = "it says what was measured")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_tests::{Answer, Does, Node, Record, Sandbox, Webhook, eventually, until};
use futures_util::future::join_all;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// The bound on every wait of these tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a rate is measured.
const MEASURED: Duration = Duration::from_secs(5);

/// Callers of a rate, each without a pause.
const CALLERS: usize = 6;

const PER_SECOND: usize = 60;
const BURST: usize = 30;

fn webhook(url: &str, limit: &str, value: Value) -> Record {
    Record::http("limited", url).limit(limit, value)
}

fn with_rate(url: &str) -> Record {
    let rate = json!({ "perSecond": PER_SECOND, "burst": BURST });
    webhook(url, "rate", rate)
}

/// What came of many calls.
#[derive(Debug, Default)]
struct Tally {
    served: usize,
    refused: usize,
    took: Duration,
}

/// Calls the nodes in turn, without a pause, and holds that whatever is refused is refused for the limit.
async fn call_for(how_long: Duration, nodes: &[Node]) -> Tally {
    let begun = Instant::now();
    let callers = (0..CALLERS).map(|caller| async move {
        let mut tally = (0, 0);
        for node in nodes.iter().cycle().skip(caller) {
            if begun.elapsed() >= how_long {
                break;
            }
            let answer = node.invoke("limited", json!({})).await;
            match answer.status {
                200 => tally.0 += 1,
                _ => {
                    is_limited(&answer);
                    tally.1 += 1;
                }
            }
        }
        tally
    });
    let tallies = join_all(callers).await;
    Tally {
        served: tallies.iter().map(|(served, _)| served).sum(),
        refused: tallies.iter().map(|(_, refused)| refused).sum(),
        took: begun.elapsed(),
    }
}

fn is_limited(answer: &Answer) {
    assert_eq!(answer.summary(), "429 rate_limited;gateway", "{answer:?}");
    assert!(
        answer.retry_after.is_some_and(|after| after > 0),
        "{answer:?}"
    );
}

/// Holds that what was served is what the rate allows, within a tenth.
fn assert_rate(tally: &Tally, burst: usize, what: &str) {
    let millis = usize::try_from(tally.took.as_millis()).expect("it is short");
    let allowed = burst + PER_SECOND * millis / 1000;
    let off = tally.served.abs_diff(allowed);
    println!("{what}: {tally:?}, {allowed} allowed");
    assert!(off * 10 <= allowed, "{what}: {tally:?}, {allowed} allowed");
    assert!(tally.refused > 0, "{what}: nothing was refused: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_within_a_tenth_whichever_nodes_the_calls_come_by() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer("{}")).await;
    sandbox.register(&with_rate(hook.url())).await;
    let all = sandbox.nodes();
    let one = call_for(MEASURED, &all[..1]).await;
    assert_rate(&one, BURST, "by one node");
    let by_all = call_for(MEASURED, &all).await;
    assert_rate(&by_all, 0, "by all nodes, with the burst used up");
    let served = one.served + by_all.served;
    assert_eq!(hook.envelopes().len(), served, "what was refused never ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_node_neither_gives_more_nor_starves_the_others() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer("{}")).await;
    sandbox.register(&with_rate(hook.url())).await;
    let all = sandbox.nodes();
    let before = call_for(MEASURED / 2, &all).await;
    assert_rate(&before, BURST, "before");
    all[0].kill9();
    let after = call_for(MEASURED, &all[1..]).await;
    assert_rate(&after, 0, "after one was killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_each_node_gives_its_part() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer("{}")).await;
    sandbox.register(&with_rate(hook.url())).await;
    let all = sandbox.nodes();
    call_for(MEASURED / 5, &all).await;
    sandbox.etcd().kill9();
    // Until each node has noticed, and used up what it had.
    call_for(MEASURED, &all).await;
    let away = call_for(MEASURED, &all).await;
    assert_rate(&away, 0, "without the store");
}

/// A function that takes a while, and knows how many of its calls run at once.
struct Busy {
    url: String,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Busy {
    async fn start(takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&now), Arc::clone(&most));
        let tasks = TaskTracker::new();
        let serving = tasks.clone().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (now, most) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
                tasks.spawn(async move {
                    let mut head = [0; 4096];
                    let read = stream.read(&mut head).await;
                    if read.is_ok_and(|read| read > 0) {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::time::sleep(takes).await;
                        now.fetch_sub(1, Ordering::SeqCst);
                        let answer =
                            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        Self {
            url,
            now,
            most,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

/// As many calls at once, by the nodes in turn; how many were served.
async fn call_at_once(count: usize, nodes: &[Node]) -> usize {
    let calls = nodes.iter().cycle().take(count);
    let answers = join_all(calls.map(|node| node.invoke("limited", json!({})))).await;
    let is_served = |answer: &&Answer| match answer.status {
        200 => true,
        _ => {
            is_limited(answer);
            false
        }
    };
    answers.iter().filter(is_served).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_are_in_flight_than_a_limit_allows() {
    let sandbox = Sandbox::processes(3).await;
    // Longer than a call waits for room, so that whatever is too much is refused.
    let busy = Busy::start(Duration::from_secs(2)).await;
    sandbox
        .register(&webhook(&busy.url, "concurrent", json!(10)))
        .await;
    let all = sandbox.nodes();
    for (what, nodes) in [
        ("one", &all[..1]),
        ("another", &all[2..]),
        ("all", &all[..]),
    ] {
        busy.most.store(0, Ordering::SeqCst);
        let served = call_at_once(40, nodes).await;
        let most = busy.most.load(Ordering::SeqCst);
        println!("by {what}: {served} served, {most} at once");
        assert!((9..=10).contains(&served), "by {what}: {served} served");
        assert!(most <= 10, "by {what}: {most} at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_at_a_time_may_come_by_any_node() {
    let sandbox = Sandbox::processes(3).await;
    let busy = Busy::start(Duration::from_millis(1)).await;
    sandbox
        .register(&webhook(&busy.url, "concurrent", json!(1)))
        .await;
    let all = sandbox.nodes();
    for node in all.iter().cycle().take(30) {
        let answer = node.invoke("limited", json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(busy.most.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_had_in_flight_is_given_to_the_others() {
    let sandbox = Sandbox::processes(3).await;
    let busy = Busy::start(Duration::from_secs(60)).await;
    sandbox
        .register(&webhook(&busy.url, "concurrent", json!(4)))
        .await;
    let (first, last) = (sandbox.node(0), sandbox.node(2));
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let first = first.clone();
            AbortOnDropHandle::new(TaskTracker::new().spawn(async move {
                let _ = first.try_invoke("limited", json!({})).await;
            }))
        })
        .collect();
    until("all four run", PATIENCE, || async {
        busy.now.load(Ordering::SeqCst) == 4
    })
    .await;
    is_limited(&last.invoke("limited", json!({})).await);
    first.kill9();
    drop(calls);
    let quick = Busy::start(Duration::from_millis(1)).await;
    let moved = sandbox.record(&webhook(&quick.url, "concurrent", json!(4)));
    let path = "/v1/spaces/default/functions/limited";
    let updated = last.config(Method::PUT, path, Some(&moved)).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    eventually("the others have all of it", PATIENCE, || async {
        let answer = last.invoke("limited", json!({})).await;
        (answer.status == 200)
            .then_some(())
            .ok_or_else(|| answer.summary())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_has_as_many_functions_as_it_may_have_however_many_nodes_are_asked() {
    let sandbox = Sandbox::processes(3).await;
    let all = sandbox.nodes();
    let set = json!({ "limits": { "functions": 4 } });
    let answer = all[0]
        .config(Method::PATCH, "/v1/spaces/team", Some(&set))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let made = join_all(
        all.iter()
            .cycle()
            .take(12)
            .enumerate()
            .map(|(place, node)| async move {
                let record = Record::command(&format!("f{place}"), ["cat"]).stdio();
                let path = "/v1/spaces/team/functions";
                node.config(Method::POST, path, Some(record.json())).await
            }),
    )
    .await;
    let with = |status| made.iter().filter(|answer| answer.status == status).count();
    assert_eq!((with(201), with(409)), (4, 8), "{made:#?}");
    let refused = made.iter().find(|answer| answer.status == 409);
    let said = &refused.expect("there are eight").body;
    assert!(said.contains("space team has 4 functions"), "{said}");
    // One that goes makes room, and one that is replaced takes none.
    let kept = made
        .iter()
        .position(|answer| answer.status == 201)
        .expect("four");
    let path = format!("/v1/spaces/team/functions/f{kept}");
    let record = Record::command(&format!("f{kept}"), ["wc"]).stdio();
    let replaced = all[1].config(Method::PUT, &path, Some(record.json())).await;
    assert_eq!(replaced.status, 200, "{replaced:?}");
    assert_eq!(all[2].config(Method::DELETE, &path, None).await.status, 204);
    let again = all[0].config(
        Method::POST,
        "/v1/spaces/team/functions",
        Some(record.json()),
    );
    assert_eq!(again.await.status, 201);
}

/// Submits invocations that wait for an hour, by the nodes in turn; how many were taken.
async fn submit(count: usize, nodes: &[Node]) -> usize {
    let mut taken = 0;
    for node in nodes.iter().cycle().take(count) {
        let body = json!({ "function_name": "later", "async": true, "delay_seconds": 3600 });
        let answer = node.invoke_raw(body.to_string()).await;
        match answer.status {
            202 => taken += 1,
            _ => is_limited(&answer),
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_queued_than_a_space_may_have_queued() {
    let sandbox = Sandbox::processes(3).await;
    let all = sandbox.nodes();
    sandbox
        .register(&Record::command("later", ["cat"]).stdio())
        .await;
    let set = json!({ "limits": { "queued": 20 } });
    let answer = all[0]
        .config(Method::PATCH, "/v1/spaces/default", Some(&set))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let is_known = |node: Node| async move {
        let read = node.config(Method::GET, "/v1/spaces/default", None).await;
        read.json()["limits"]["queued"] == 20
    };
    for node in &all {
        until("the limit is known", PATIENCE, || is_known(node.clone())).await;
    }
    let taken = submit(45, &all).await;
    assert!((18..=20).contains(&taken), "{taken} were taken");
    // What a killed node had queued goes to the others, and is queued still.
    all[0].kill9();
    let more = submit(8, &all[1..]).await;
    assert!(taken + more <= 22, "{taken} and {more} were taken");
    all[0].restart();
    sandbox.wait_settled().await;
    let more = more + submit(12, &all).await;
    assert!(taken + more <= 22, "{taken} and {more} were taken");
}

/// A call of the functions API by a user.
async fn me(client: &Client, node: &Node, token: &str) -> reqwest::Response {
    let url = node.functions_url("/api/v1/users/me");
    let request = client.get(url).bearer_auth(token);
    request.send().await.expect("the node answers")
}

async fn user(client: &Client, node: &Node, email: &str) -> (String, String) {
    let body = json!({ "email": email, "password": "password123" });
    let post = |path: &str| client.post(node.functions_url(path)).json(&body).send();
    let made = post("/api/v1/users").await.expect("the node answers");
    assert_eq!(made.status(), 201);
    let login = post("/api/v1/users/login").await.expect("the node answers");
    let told: Value = login.json().await.expect("JSON");
    let token = told["token"].as_str().expect("a token").to_owned();
    let answer = me(client, node, &token).await;
    let told: Value = answer.json().await.expect("JSON");
    (token, told["userId"].as_str().expect("an id").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_call_as_often_as_it_may_and_others_do_not_notice() {
    let sandbox = Sandbox::builder().nodes(3).auth_required().start().await;
    let (all, client) = (sandbox.nodes(), sandbox.client());
    let (token, id) = user(client, &all[0], "ada@example.com").await;
    let (other, _) = user(client, &all[0], "grace@example.com").await;
    let set = json!({ "limits": { "rate": { "perSecond": 2, "burst": 10 } } });
    let path = format!("/v1/users/{id}");
    let changed = all[1].config(Method::PATCH, &path, Some(&set)).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json()["limits"], set["limits"]);
    until("every node knows", PATIENCE, || async {
        let answers = join_all(all.iter().map(|node| me(client, node, &token))).await;
        let is_told = |answer: &reqwest::Response| answer.headers().contains_key("ratelimit-limit");
        answers.iter().all(is_told)
    })
    .await;
    let (begun, mut served, mut refused) = (Instant::now(), 0, 0);
    for node in all.iter().cycle().take(60) {
        let answer = me(client, node, &token).await;
        let field = |name: &str| {
            let value = answer.headers().get(name)?;
            value.to_str().ok()?.parse::<u64>().ok()
        };
        assert_eq!(field("ratelimit-limit"), Some(10));
        assert!(field("ratelimit-remaining").is_some_and(|left| left <= 10));
        match answer.status().as_u16() {
            200 => served += 1,
            429 => {
                assert!(field("retry-after") > Some(0), "{answer:?}");
                assert!(field("ratelimit-reset") > Some(0), "{answer:?}");
                refused += 1;
            }
            status => panic!("{status}"),
        }
        assert_eq!(me(client, node, &other).await.status(), 200);
    }
    let allowed = 10 + 2 * begun.elapsed().as_secs() + 2;
    assert!(
        served <= allowed,
        "{served} of {allowed}, {refused} refused"
    );
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_can_not_be_is_refused_and_named() {
    let sandbox = Sandbox::processes(1).await;
    let node = sandbox.node(0);
    for (body, expected) in [
        (
            json!({ "limits": { "rate": { "perSecond": 0 } } }),
            "limits.rate.perSecond is 0",
        ),
        (json!({ "limits": { "queued": 0 } }), "limits.queued is 0"),
        (json!({ "limits": { "requests": 1 } }), "requests"),
        (json!({ "limits": 5 }), "limits"),
        (json!({}), "nothing changes"),
    ] {
        let answer = node
            .config(Method::PATCH, "/v1/spaces/team", Some(&body))
            .await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.body.contains(expected), "{body}: {}", answer.body);
    }
    let stored = node.config(Method::GET, "/v1/spaces/team", None).await;
    assert_eq!(stored.json().get("limits"), None, "nothing was stored");
}
