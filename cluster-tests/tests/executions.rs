//! Asynchronous invocations on a cluster: one execution for a key, one end, and the same answer from every node.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::api::send;
use cluster_tests::{Answer, Lost, Node, Record, Sandbox, eventually, until};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

/// How long an execution may take to its end, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A function that notes each run in a file, and answers with its payload after `then`.
async fn register(sandbox: &Sandbox, id: &str, then: &str) -> PathBuf {
    let runs = sandbox.dir().join(format!("{id}.runs"));
    let script = format!("echo $$ >> {}; {then}; cat", runs.display());
    let record = Record::command(id, ["sh", "-c", &script]).stdio();
    sandbox.register(&record).await;
    runs
}

fn runs(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn try_submit(node: &Node, key: Option<&str>, body: &Value) -> Result<Answer, Lost> {
    let mut request = node.request(Method::POST, &node.functions_url("/invoke"));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    send(request.header("prefer", "respond-async").json(body)).await
}

/// Submits what is accepted, and tells its id.
async fn submit(node: &Node, key: Option<&str>, body: &Value) -> String {
    let answer = try_submit(node, key, body).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["execution"].as_str().unwrap().to_owned()
}

fn path(id: &str) -> String {
    format!("/v1/spaces/default/executions/{id}")
}

/// Waits until a node tells that an execution is so far.
async fn reaches(node: &Node, id: &str, status: &str) -> Value {
    let what = format!("execution {id} is {status}");
    eventually(&what, PATIENCE, || async {
        let answer = node.try_config(Method::GET, &path(id), None).await;
        let answer = answer.map_err(|lost| lost.what)?;
        match answer.status == 200 && answer.json()["status"] == status {
            true => Ok(answer.json()),
            false => Err(answer.body),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_equal_keys_over_three_nodes_are_one_execution_and_one_run() {
    let sandbox = Sandbox::processes(3).await;
    let seen = register(&sandbox, "f", "true").await;
    let nodes = sandbox.nodes();
    let body = json!({ "function_name": "f", "payload": 7 });
    let calls = (0..100).map(|call| submit(&nodes[call % 3], Some("k"), &body));
    let ids: BTreeSet<String> = join_all(calls).await.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let id = ids.first().unwrap();
    for node in &nodes {
        let execution = reaches(node, id, "succeeded").await;
        assert_eq!(execution["result"]["value"], "7", "{execution}");
        assert_eq!(execution["attemptsMade"], 1, "{execution}");
    }
    until("nothing waits", PATIENCE, || async {
        let mut waiting = 0.0;
        for node in &nodes {
            waiting += node.metric("gateway_events_backlog", "").await;
        }
        waiting == 0.0
    })
    .await;
    assert_eq!(runs(&seen).len(), 1);
    let other = json!({ "function_name": "f", "payload": 8 });
    let refused = try_submit(&nodes[1], Some("k"), &other).await.unwrap();
    assert_eq!(refused.status, 422, "{refused:?}");
}

/// The first call is answered, or cut off wherever it is; the same key then names one execution, which runs to one end.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_outlives_kill_9_of_the_node_that_took_it_first() {
    let sandbox = Sandbox::processes(3).await;
    let seen = register(&sandbox, "f", "true").await;
    let (first, second) = (sandbox.node(0), sandbox.node(1));
    let later = json!({ "function_name": "f", "payload": 1, "delay_seconds": 3 });
    let id = submit(&first, Some("told"), &later).await;
    // Nobody hears of these, and the node dies among them.
    let keys: Vec<String> = (0..20).map(|key| format!("cut-{key}")).collect();
    let calls = keys.iter().map(|key| try_submit(&first, Some(key), &later));
    let calls = async {
        let first_of_them = futures_util::future::select_all(calls.map(Box::pin));
        let (_, _, others) = first_of_them.await;
        first.kill9();
        join_all(others).await;
    };
    calls.await;
    assert_eq!(submit(&second, Some("told"), &later).await, id);
    let again = keys.iter().map(|key| submit(&second, Some(key), &later));
    let mut ids: BTreeSet<String> = join_all(again).await.into_iter().collect();
    ids.insert(id.clone());
    assert_eq!(ids.len(), 21);
    for id in &ids {
        let execution = reaches(&second, id, "succeeded").await;
        assert_eq!(execution["attemptsMade"], 1, "{execution}");
    }
    assert_eq!(runs(&seen).len(), 21, "each ran once");
    first.restart();
    first.wait_ready(PATIENCE).await;
    assert_eq!(submit(&first, Some("told"), &later).await, id);
}

/// Stopped in the middle of its calls, and continued when another node has claimed what it had not queued yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_stopped_while_it_accepted_runs_nothing_twice() {
    let sandbox = Sandbox::processes(3).await;
    let seen = register(&sandbox, "f", "true").await;
    let (first, second) = (sandbox.node(0), sandbox.node(1));
    let later = json!({ "function_name": "f", "payload": 1, "delay_seconds": 6 });
    let keys: Vec<String> = (0..30).map(|key| format!("k{key}")).collect();
    let mut calls = tokio::task::JoinSet::new();
    for key in keys.clone() {
        let (first, later) = (first.clone(), later.clone());
        calls.spawn(async move { (try_submit(&first, Some(&key), &later).await, key) });
    }
    let mut told = vec![calls.join_next().await.unwrap().unwrap()];
    first.stop();
    let again = keys.iter().map(|key| submit(&second, Some(key), &later));
    let ids = join_all(again).await;
    first.cont();
    told.extend(calls.join_all().await);
    for (answer, key) in told {
        let answer = answer.unwrap();
        let place = keys.iter().position(|known| *known == key).unwrap();
        match answer.status {
            202 => assert_eq!(answer.json()["execution"], ids[place], "{key}"),
            // It was claimed meanwhile, which a client learns by asking again.
            503 => assert_eq!(submit(&first, Some(&key), &later).await, ids[place]),
            _ => panic!("{key}: {answer:?}"),
        }
    }
    for id in &ids {
        let execution = reaches(&second, id, "succeeded").await;
        assert_eq!(execution["attemptsMade"], 1, "{execution}");
    }
    assert_eq!(runs(&seen).len(), keys.len(), "each ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_read_from_another_node_after_its_own_was_killed() {
    let sandbox = Sandbox::processes(3).await;
    register(&sandbox, "f", "true").await;
    let (first, second) = (sandbox.node(0), sandbox.node(1));
    let body = json!({ "function_name": "f", "payload": { "n": 1 } });
    let id = submit(&first, None, &body).await;
    reaches(&second, &id, "succeeded").await;
    first.kill9();
    let execution = reaches(&second, &id, "succeeded").await;
    assert_eq!(execution["result"]["value"], r#"{"n":1}"#, "{execution}");
    assert_eq!(execution["acceptedBy"], first.name(), "{execution}");
    let here = format!("{}?function=f", path("").trim_end_matches('/'));
    let listed = sandbox.node(2).config(Method::GET, &here, None).await;
    assert_eq!(listed.json()["executions"][0]["id"], id, "{listed:?}");
}

/// Killed while the function runs: another node begins it again, and its end is told once.
#[tokio::test(flavor = "multi_thread")]
async fn an_execution_whose_node_was_killed_while_it_ran_is_begun_again() {
    let sandbox = Sandbox::processes(3).await;
    let seen = register(&sandbox, "f", "sleep 600").await;
    let (first, second) = (sandbox.node(0), sandbox.node(1));
    let body = json!({ "function_name": "f", "payload": 5 });
    let id = submit(&first, None, &body).await;
    reaches(&second, &id, "running").await;
    until("it runs", PATIENCE, || async { runs(&seen).len() == 1 }).await;
    let record = format!("echo $$ >> {}; cat", seen.display());
    let record = Record::command("f", ["sh", "-c", &record]).stdio();
    first.kill9();
    second.update(&sandbox.record(&record)).await;
    let execution = reaches(&second, &id, "succeeded").await;
    assert_eq!(execution["attemptsMade"], 2, "{execution}");
    let lost = &execution["attempts"][0]["error"]["code"];
    assert_eq!(lost, "interrupted", "{execution}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_execution_is_cancelled_from_another_node() {
    let sandbox = Sandbox::processes(3).await;
    let seen = register(&sandbox, "f", "sleep 600").await;
    let (first, second) = (sandbox.node(0), sandbox.node(1));
    let body = json!({ "function_name": "f" });
    let id = submit(&first, None, &body).await;
    until("it runs", PATIENCE, || async { !runs(&seen).is_empty() }).await;
    let cancelled = second.config(Method::DELETE, &path(&id), None).await;
    assert_eq!(
        (cancelled.status, &cancelled.json()["status"]),
        (200, &json!("cancelled"))
    );
    let process = PathBuf::from("/proc").join(&runs(&seen)[0]);
    until("its process is gone", PATIENCE, || async {
        !process.exists()
    })
    .await;
    until("the queue is done with it", PATIENCE, || async {
        let void = first.metric("hearth_deliveries_total", "outcome=\"void\"");
        void.await == 1.0
    })
    .await;
    let booked = async |change: &str| {
        let label = format!("change=\"{change}\"");
        first.metric("hearth_queue_deliveries_total", &label).await
    };
    assert_eq!(
        (booked("void").await, booked("delivered").await),
        (1.0, 0.0)
    );
    assert_eq!(runs(&seen).len(), 1, "it is not begun again");
    reaches(&sandbox.node(2), &id, "cancelled").await;
}

/// While etcd is away nothing is accepted, promptly; what ran meanwhile is not run again when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_came_while_the_store_was_away_is_written_down_when_it_is_back() {
    let mut sandbox = Sandbox::processes(3).await;
    let go = sandbox.dir().join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    let seen = register(&sandbox, "f", &wait).await;
    let (first, second) = (sandbox.node(0), sandbox.node(1));
    let body = json!({ "function_name": "f", "payload": 3 });
    let id = submit(&first, None, &body).await;
    reaches(&second, &id, "running").await;
    until("it runs", PATIENCE, || async { runs(&seen).len() == 1 }).await;
    sandbox.etcd().kill9();
    std::fs::write(&go, "").unwrap();
    let refused = try_submit(&first, Some("k"), &body).await.unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.summary(), "503 store_unavailable;store");
    let read = first.config(Method::GET, &path(&id), None).await;
    assert_eq!(read.status, 503, "{read:?}");
    sandbox.etcd_mut().restart().await;
    let execution = reaches(&second, &id, "succeeded").await;
    assert_eq!(execution["attemptsMade"], 1, "{execution}");
    assert_eq!(runs(&seen).len(), 1);
    let again = submit(&second, Some("k"), &body).await;
    reaches(&first, &again, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_single_node_accepted_is_there_after_kill_9() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let seen = register(&sandbox, "f", "true").await;
    let node = sandbox.node(0);
    let done = json!({ "function_name": "f", "payload": 1 });
    let done = submit(&node, None, &done).await;
    reaches(&node, &done, "succeeded").await;
    let later = json!({ "function_name": "f", "payload": 2, "delay_seconds": 2 });
    let id = submit(&node, Some("k"), &later).await;
    node.kill9();
    node.restart();
    node.wait_ready(PATIENCE).await;
    assert_eq!(submit(&node, Some("k"), &later).await, id);
    let execution = reaches(&node, &id, "succeeded").await;
    assert_eq!(execution["result"]["value"], "2", "{execution}");
    let execution = reaches(&node, &done, "succeeded").await;
    assert_eq!(execution["result"]["value"], "1", "{execution}");
    assert_eq!(runs(&seen).len(), 2);
}
