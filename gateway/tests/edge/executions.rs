//! Invocations that are not waited for: accepted, run, read, listed and cancelled.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use config::settings::AuthMode;
use protocol::{Component, Effect, ErrorCode, Function};
use queue::Queue;
use serde_json::{Value, json};

use crate::support::{Answer, Call, PATIENCE, Sandbox, eventually, failed, replied};

const PATH: &str = "/v1/spaces/default/executions";

/// An edge that knows the functions `f` and `g`; `small` takes 10 bytes.
fn start() -> Sandbox {
    let sandbox = Sandbox::start();
    know_functions(&sandbox);
    sandbox
}

fn know_functions(sandbox: &Sandbox) {
    let function = |space: &str, id: &str, limits: Value| -> Function {
        let provider = json!({ "url": "http://a.example/" });
        let record = json!({ "space": space, "functionId": id, "type": "http", "provider": provider, "limits": limits });
        serde_json::from_value(record).unwrap()
    };
    let functions = [
        function("default", "f", json!({})),
        function("default", "g", json!({})),
        function("other", "f", json!({})),
        function("default", "small", json!({ "bodyBytes": 10 })),
    ];
    let registry = actors::scripted::registry(functions, []);
    *sandbox.node.registry.lock().unwrap() = Arc::new(registry);
}

impl Sandbox {
    async fn submit(&self, body: Value) -> Answer {
        self.submit_with(body, &[]).await
    }

    async fn submit_with(&self, body: Value, fields: &[(&str, &str)]) -> Answer {
        let mut call = Call::post("/invoke", body.to_string());
        for (name, value) in fields {
            call = call.header(name, value);
        }
        call.send(self.addresses.functions).await
    }

    /// Submits what is accepted, and tells its id.
    async fn execute(&self, body: Value) -> String {
        let answer = self.submit(body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["execution"].as_str().unwrap().to_owned()
    }

    async fn execution(&self, id: &str) -> Value {
        let answer = Call::get(&format!("{PATH}/{id}"));
        let answer = answer.send(self.addresses.config).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Waits until an execution is so far.
    async fn reaches(&self, id: &str, status: &str) -> Value {
        let reached = async {
            loop {
                let execution = self.execution(id).await;
                if execution["status"] == status {
                    return execution;
                }
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        match reached {
            Ok(execution) => execution,
            Err(_) => panic!("{:?} is not {status}", self.execution(id).await),
        }
    }
}

fn simple() -> Value {
    json!({ "function_name": "f", "payload": { "a": 1 }, "async": true })
}

#[tokio::test]
async fn an_invocation_is_accepted_and_its_result_read_by_its_id_on_both_apis() {
    let sandbox = start();
    let body = json!({ "function_name": "f", "payload": { "a": 1 } });
    let preferred = [("prefer", "respond-async")];
    let answer = sandbox.submit_with(body, &preferred).await;
    answer.has_common_headers();
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    let location = answer.header("location").unwrap();
    let id = answer.json()["execution"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("{PATH}/{id}"));
    let execution = sandbox.reaches(&id, "succeeded").await;
    let result = json!({ "status": 200, "contentType": "application/json", "bytes": 7, "value": { "a": 1 } });
    assert_eq!(execution["result"], result);
    for (field, expected) in [
        ("id", json!(id)),
        ("space", json!("default")),
        ("functionId", json!("f")),
        ("acceptedBy", json!("n1")),
        ("attemptsMade", json!(1)),
    ] {
        assert_eq!(execution[field], expected, "{execution}");
    }
    let attempt = &execution["attempts"][0];
    assert_eq!(
        (&attempt["node"], &attempt["start"]),
        (&json!("n1"), &json!("warm"))
    );
    assert_eq!(attempt["phases"], json!({ "route": 4, "run": 1250 }));
    let logs = format!("/v1/spaces/default/functions/f/logs?invocation={id}");
    assert_eq!(execution["logs"], logs);
    let here = Call::get(location).send(sandbox.addresses.functions).await;
    assert_eq!(here.json(), execution);
    let requests = sandbox.node.requests.lock().unwrap();
    assert_eq!(requests[0].id.as_str(), id);
    assert_eq!(
        (requests.len(), &requests[0].payload[..]),
        (1, &br#"{"a":1}"#[..])
    );
}

#[tokio::test]
async fn what_can_not_be_accepted_is_refused_at_once_and_leaves_nothing() {
    let sandbox = start();
    let big = "x".repeat(11);
    for (body, fields, status, told) in [
        (
            json!({ "function_name": "nope", "async": true }),
            None,
            404,
            "Function not found",
        ),
        (
            json!({ "function_name": "f", "space": "third", "async": true }),
            None,
            404,
            "Function not found",
        ),
        (
            json!({ "function_name": "small", "payload": big, "async": true }),
            None,
            413,
            "takes 10 (limits.bodyBytes)",
        ),
        (
            json!({ "function_name": "f", "async": 1 }),
            None,
            400,
            "async: invalid type",
        ),
        (
            json!({ "function_name": "f", "async": true, "delay_seconds": -1 }),
            None,
            400,
            "delay_seconds is -1",
        ),
        (
            json!({ "function_name": "f", "async": true, "delay_seconds": 1e9 }),
            None,
            400,
            "executions.delay_max",
        ),
        (
            simple(),
            Some(("idempotency-key", "")),
            400,
            "Idempotency-Key is not",
        ),
    ] {
        let fields = fields.map(|field| [field]);
        let fields = fields.as_ref().map_or(&[][..], |fields| &fields[..]);
        let answer = sandbox.submit_with(body.clone(), fields).await;
        answer.has_common_headers();
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(told), "{body}: {error}");
    }
    assert_eq!(sandbox.node.calls(), 0);
    let listed = Call::get(PATH).send(sandbox.addresses.config).await;
    assert_eq!(listed.json(), json!({ "executions": [], "next": null }));
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_key_is_free_again() {
    let sandbox = Sandbox::with(|settings| {
        settings.queue.len_max = 1;
        settings.queue.function_share = 1.0;
    });
    know_functions(&sandbox);
    let later = json!({ "function_name": "f", "async": true, "delay_seconds": 600 });
    let first = sandbox.execute(later.clone()).await;
    let key = [("idempotency-key", "k")];
    let refused = sandbox.submit_with(later.clone(), &key).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("x-hearth-error"), Some("overloaded;queue"));
    let listed = Call::get(PATH).send(sandbox.addresses.config).await.json();
    assert_eq!(listed["executions"].as_array().unwrap().len(), 1);
    assert_eq!(listed["executions"][0]["id"], first);
}

#[tokio::test]
async fn equal_keys_name_one_execution_that_runs_once() {
    let sandbox = start();
    let key = [("idempotency-key", "\"order-7\"")];
    let calls = (0..20).map(|_| sandbox.submit_with(simple(), &key));
    let answers = futures_util::future::join_all(calls).await;
    let ids: BTreeSet<_> = answers
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, 202, "{answer:?}");
            answer.json()["execution"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 1);
    let id = ids.first().unwrap();
    sandbox.reaches(id, "succeeded").await;
    let again = sandbox.submit_with(simple(), &key).await.json();
    assert_eq!(again, json!({ "execution": id, "status": "succeeded" }));
    assert_eq!(sandbox.node.calls(), 1);
    let another = json!({ "function_name": "f", "payload": { "a": 2 }, "async": true });
    let refused = sandbox.submit_with(another, &key).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert_eq!(
        refused.header("x-hearth-error"),
        Some("invalid_request;gateway")
    );
    for (field, value) in [("function_name", "g"), ("space", "other")] {
        let mut body = simple();
        body[field] = json!(value);
        let answer = sandbox.submit_with(body, &key).await;
        assert_eq!(answer.status, 202, "a key is of one function: {answer:?}");
        assert_ne!(answer.json()["execution"], json!(id));
    }
    // Who waits for the answer has no use for a key.
    let waited = json!({ "function_name": "f", "payload": 5 });
    assert_eq!(sandbox.submit_with(waited, &key).await.status, 200);
}

#[tokio::test]
async fn a_function_that_fails_ends_its_execution_with_the_reason() {
    let sandbox = start();
    sandbox.node.on_invoke(|_| async {
        Err(failed(
            ErrorCode::FunctionFailed,
            Component::Function,
            Effect::Finished,
        ))
    });
    let id = sandbox.execute(simple()).await;
    let execution = sandbox.reaches(&id, "failed").await;
    let error =
        json!({ "code": "function_failed", "component": "function", "message": "the reason" });
    assert_eq!(execution["error"], error);
    assert_eq!(execution["attempts"][0]["error"], error);
    sandbox
        .node
        .on_invoke(|_| async { Ok(replied(Some("application/json"), "{")) });
    let id = sandbox.execute(simple()).await;
    let execution = sandbox.reaches(&id, "failed").await;
    assert_eq!(execution["error"]["code"], "malformed_answer");
}

#[tokio::test]
async fn an_execution_is_cancelled_while_it_waits_and_while_it_runs() {
    let sandbox = start();
    let cancel = async |id: &str| {
        let call = Call::new("DELETE", &format!("{PATH}/{id}"));
        call.send(sandbox.addresses.functions).await
    };
    let later = json!({ "function_name": "f", "async": true, "delay_seconds": 600 });
    let waiting = sandbox.execute(later).await;
    let answer = cancel(&waiting).await;
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(cancel(&waiting).await.status, 200, "it is so already");
    sandbox.node.on_invoke(|_| pending());
    let running = sandbox.execute(simple()).await;
    sandbox.reaches(&running, "running").await;
    eventually("the function is called", || sandbox.node.calls() == 1).await;
    assert_eq!(cancel(&running).await.status, 200);
    let node = &sandbox.node;
    eventually("the call is dropped", || {
        node.cancelled.load(Ordering::SeqCst) == 1
    })
    .await;
    let stats = || sandbox.queues.custom.stats();
    eventually("the queue is done with it", || stats().leased == 0).await;
    assert_eq!(sandbox.execution(&running).await["status"], "cancelled");
    sandbox.node.on_invoke(|_| async { Ok(replied(None, "")) });
    let done = sandbox.execute(simple()).await;
    sandbox.reaches(&done, "succeeded").await;
    eventually("the queue is done with it", || stats().leased == 0).await;
    // What was cancelled while it ran was not delivered; what waits is void when its time has come.
    let books = sandbox.queues.custom.audit().await.unwrap().books;
    assert_eq!(books.to_string(), "accepted 3, delivered 1, void 1");
    let answer = cancel(&done).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    let told = format!("execution {done} is succeeded already");
    assert_eq!(answer.json()["error"], told);
    let unknown = "01935b9e-7c1a-7000-8000-000000000001";
    assert_eq!(cancel(unknown).await.status, 404);
    assert_eq!(cancel("x").await.status, 400);
}

#[tokio::test]
async fn executions_are_listed_newest_first_and_filtered() {
    let sandbox = start();
    let mut ids = Vec::new();
    for function in ["f", "g", "f"] {
        let body = json!({ "function_name": function, "async": true });
        let id = sandbox.execute(body).await;
        sandbox.reaches(&id, "succeeded").await;
        ids.insert(0, id);
    }
    let list = async |query: &str| {
        let call = Call::get(&format!("{PATH}{query}"));
        let answer = call.send(sandbox.addresses.config).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        let listed = answer.json();
        let executions = listed["executions"].as_array().unwrap().iter();
        let found = executions.map(|one| one["id"].as_str().unwrap().to_owned());
        (found.collect::<Vec<_>>(), listed["next"].clone())
    };
    let first = &ids[0];
    for (query, expected, next) in [
        (String::new(), &ids[..], Value::Null),
        ("?limit=1".to_owned(), &ids[..1], json!(first)),
        (format!("?after={first}"), &ids[1..], Value::Null),
        (
            "?function=g&status=succeeded".to_owned(),
            &ids[1..2],
            Value::Null,
        ),
        ("?status=failed".to_owned(), &[][..], Value::Null),
        ("?since=99999999999999".to_owned(), &[][..], Value::Null),
    ] {
        assert_eq!(list(&query).await, (expected.to_vec(), next), "{query}");
    }
    for (query, told) in [
        ("?limit=0", "limit is 0, expected 1 to 1000"),
        ("?status=done", "expected one of: accepted, queued"),
        ("?after=x", "after: the id of an execution is a UUID"),
        ("?function=a%20b", "function: a function id has only"),
        ("?since=yesterday", "since"),
    ] {
        let call = Call::get(&format!("{PATH}{query}"));
        let answer = call.send(sandbox.addresses.config).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.text().contains(told), "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn a_function_submits_and_reads_in_its_own_space() {
    let sandbox = Sandbox::with(|settings| settings.auth.mode = AuthMode::Required);
    know_functions(&sandbox);
    let mine = |call: Call| call.header("authorization", "Bearer mine");
    let call = mine(Call::post(
        "/invoke",
        r#"{"function_name":"f","async":true}"#,
    ));
    let answer = call.send(sandbox.inner).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let location = answer.header("location").unwrap();
    assert!(location.starts_with("/v1/spaces/other/executions/"));
    let read = mine(Call::get(location)).send(sandbox.inner).await;
    assert_eq!(
        (read.status, &read.json()["functionId"]),
        (200, &json!("f"))
    );
    let elsewhere = mine(Call::get(PATH)).send(sandbox.inner).await;
    assert_eq!(elsewhere.status, 403, "{elsewhere:?}");
}
