//! Functions of AWS Lambda, on the runtimes that AWS publishes: crate `lambda_runtime` (`examples/lambda`), PyPI's `awslambdaric`
//! (`clients/lambda_app.py`) and npm's `aws-lambda-ric` (`clients/lambda_app.js`).

#![expect(
    clippy::unwrap_used,
    reason = "the lint spares test functions, not what they call"
)]

use std::collections::HashSet;
use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::program::{self, library};
use cluster_tests::{Answer, Load, Node, Record, Sandbox, Targets, eventually, until};
use reqwest::Method;
use serde_json::{Value, json};

/// The bound on every wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// The function on AWS's runtime for Rust, as a process.
fn rust(id: &str) -> Record {
    Record::process(id, "lambda").lambda()
}

/// The function on AWS's runtime for Python.
fn python(id: &str) -> Record {
    let python = library("venv/bin/python");
    let app = program::path("lambda_app.py");
    let command = [
        python.to_str().unwrap(),
        "-m",
        "awslambdaric",
        "lambda_app.handler",
    ];
    Record::command(id, command)
        .lambda()
        .env("PYTHONPATH", app.parent().unwrap().to_str().unwrap())
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

/// The function on AWS's runtime for JavaScript; `of` is a handler of its file.
fn javascript_of(id: &str, of: &str) -> Record {
    let runtime = library("node_modules/aws-lambda-ric/bin/index.mjs");
    let handler = program::path("lambda_app").with_extension(of);
    let command = [runtime, handler].map(|path| path.display().to_string());
    Record::command(id, ["node", &command[0], &command[1]]).lambda()
}

fn javascript(id: &str) -> Record {
    javascript_of(id, "handler")
}

/// The function on AWS's runtime for Rust, in an image that has nothing else.
fn container(id: &str) -> Record {
    Record::container(id, "lambda").lambda()
}

/// The process that answered.
fn pid(answer: &Answer) -> u64 {
    answer.result()["pid"].as_u64().unwrap()
}

/// What tells the instance that answered from others, containers too, whose processes have the same numbers.
fn instance(answer: &Answer) -> String {
    let result = answer.result();
    let stream = [
        &result["log_stream"],
        &result["env"]["AWS_LAMBDA_LOG_STREAM_NAME"],
    ];
    let stream = stream.into_iter().find_map(Value::as_str);
    stream.unwrap().to_owned()
}

/// What a function that failed said: the error object of its runtime.
fn raised(answer: &Answer) -> Value {
    assert_eq!(
        answer.summary(),
        "502 function_failed;function",
        "{answer:?}"
    );
    let said = answer.json()["error"].as_str().unwrap().to_owned();
    let object = said.strip_prefix("the function failed: ").unwrap();
    serde_json::from_str(object).unwrap()
}

async fn node_with(record: &Record) -> (Sandbox, Node) {
    let sandbox = Sandbox::processes(1).await;
    sandbox.register(record).await;
    let node = sandbox.node(0);
    (sandbox, node)
}

/// JSON comes and goes, an error is the function's own, one that runs too long or dies is replaced: all that a runtime can do, by
/// way of a node that has the function or of one that has not.
async fn check_all(sandbox: &Sandbox, record: Record, error_type: &str) {
    let record = record.timeout_ms(3_000).max(1);
    let id = record.id().to_owned();
    let (cold, home) = sandbox
        .register_warm(&record, json!({"first": [1, "ä", null]}))
        .await;
    assert_eq!(cold.start.as_deref(), Some("cold"), "{cold:?}");
    assert_eq!(cold.result()["payload"], json!({"first": [1, "ä", null]}));
    let ways = [vec![home.clone()], sandbox.others(home.name())].concat();
    for node in ways {
        let before = node.invoke(&id, json!({"n": 1})).await;
        assert_eq!(before.start.as_deref(), Some("warm"), "{before:?}");
        let expected = match node.name() == home.name() {
            true => "local",
            false => "forwarded",
        };
        assert_eq!(before.route.as_deref(), Some(expected), "{before:?}");
        let arn = format!("arn:aws:lambda:us-east-1:000000000000:function:{id}");
        assert_eq!(before.result()["arn"], arn);
        assert_eq!(
            before.result()["request"].as_str(),
            before.invocation.as_deref()
        );

        let failed = node.invoke(&id, json!({"fail": "no such thing"})).await;
        let object = raised(&failed);
        assert_eq!(object["errorMessage"], "no such thing", "{object}");
        assert!(
            object["errorType"].as_str().unwrap().contains(error_type),
            "{object}"
        );
        let after = node.invoke(&id, json!({})).await;
        assert_eq!(
            instance(&after),
            instance(&before),
            "an error costs no instance"
        );
    }

    let before = home.invoke(&id, json!({})).await;
    let late = home.invoke(&id, json!({"ms": 20_000})).await;
    assert_eq!(late.summary(), "504 deadline_exceeded;function", "{late:?}");
    let after = home.invoke(&id, json!({})).await;
    assert_ne!(instance(&after), instance(&before), "it was replaced");
    let died = home.invoke(&id, json!({"exit": 3})).await;
    assert_eq!(died.summary(), "502 function_failed;function", "{died:?}");
    assert!(died.body.contains("exit code 3"), "{died:?}");
    let next = home.invoke(&id, json!({})).await;
    assert_ne!(instance(&next), instance(&after), "it was replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_on_awss_runtime_for_rust_runs_as_it_is() {
    let sandbox = Sandbox::processes(2).await;
    check_all(&sandbox, rust("lambda"), "Box<dyn").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_on_awss_runtime_for_python_runs_as_it_is() {
    let sandbox = Sandbox::processes(2).await;
    check_all(&sandbox, python("lambda"), "NoSuchThing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_on_awss_runtime_for_javascript_runs_as_it_is() {
    let sandbox = Sandbox::processes(2).await;
    check_all(&sandbox, javascript("lambda"), "NoSuchThing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_made_for_lambda_runs_as_it_is() {
    let sandbox = Sandbox::containers(1).await;
    check_all(&sandbox, container("lambda"), "Box<dyn").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_network_reaches_its_runtime_api_all_the_same() {
    let sandbox = Sandbox::containers(1).await;
    sandbox.register(&container("lambda").no_network()).await;
    let answer = sandbox.node(0).invoke("lambda", json!({"n": 1})).await;
    assert_eq!(answer.result()["payload"], json!({"n": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_finds_the_environment_of_lambda_and_is_told_the_deadline_and_the_trace() {
    let (_sandbox, node) = node_with(&python("resize").memory_mb(256).timeout_ms(7_000)).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = node
        .request(Method::POST, &node.functions_url("/invoke"))
        .header("traceparent", traceparent)
        .json(&json!({"function_name": "resize", "payload": {}}));
    let answer = cluster_tests::api::send(request).await.unwrap();
    let result = answer.result();
    let left_ms = result["left_ms"].as_u64().unwrap();
    assert!((3_000..=7_000).contains(&left_ms), "{left_ms} ms of 7 s");
    let env = &result["env"];
    for (name, expected) in [
        ("AWS_LAMBDA_FUNCTION_NAME", "resize"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/resize"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("LAMBDA_TASK_ROOT", "/var/task"),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
        ("TZ", ":UTC"),
        (
            "_X_AMZN_TRACE_ID",
            "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1",
        ),
    ] {
        assert_eq!(env[name], expected, "{name}");
    }
    let stream = env["AWS_LAMBDA_LOG_STREAM_NAME"].as_str().unwrap();
    assert!(stream.contains("/[$LATEST]"), "{stream}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_writes_is_kept_by_its_invocation() {
    let (_sandbox, node) = node_with(&python("lambda")).await;
    let answer = node.invoke("lambda", json!({})).await;
    let request = answer.result()["request"].as_str().unwrap().to_owned();
    eventually("its line is there", PATIENCE, || async {
        let path = "/v1/spaces/default/functions/lambda/logs";
        let logs = node.config(Method::GET, path, None).await.body;
        let lines = logs
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = format!("{request} runs");
        match lines.into_iter().find(|line| line["text"] == text.as_str()) {
            Some(line) if line["invocations"] == json!([request]) => Ok(()),
            Some(line) => Err(format!("it is another one's: {line}")),
            None => Err(format!("it is not in {logs}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_can_not_begin_says_why_and_one_that_never_asks_is_given_up() {
    let sandbox = Sandbox::builder()
        .env("HEARTH_NODE__START_TIMEOUT", "4s")
        .nodes(1)
        .start()
        .await;
    let node = sandbox.node(0);
    let elsewhere = python("elsewhere").env("PYTHONPATH", "/nowhere");
    sandbox.register(&elsewhere).await;
    let answer = node.invoke("elsewhere", json!({})).await;
    assert_eq!(answer.error.as_deref(), Some("start_failed"), "{answer:?}");
    let said = "its runtime failed to initialise: Runtime.ImportModuleError: Unable to import module 'lambda_app'";
    assert!(answer.body.contains(said), "{answer:?}");

    let dies = rust("dies").env("LAMBDA_EXAMPLE_DIES", "the disk is on fire");
    sandbox.register(&dies).await;
    let answer = node.invoke("dies", json!({})).await;
    assert_eq!(answer.error.as_deref(), Some("start_failed"), "{answer:?}");
    assert!(
        answer.body.contains("exit code 3") && answer.body.contains("on fire"),
        "{answer:?}"
    );

    let silent = Record::command("silent", ["sleep", "600"]).lambda();
    sandbox.register(&silent).await;
    let answer = node.invoke("silent", json!({})).await;
    assert_eq!(answer.error.as_deref(), Some("start_failed"), "{answer:?}");
    let said = "its runtime did not ask for an invocation in time";
    assert!(answer.body.contains(said), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_invocations_run_at_once_as_were_declared() {
    for (record, is_one_process) in [(rust("lambda"), true), (python("lambda"), false)] {
        let (_sandbox, node) = node_with(&record.concurrency(4).max(1)).await;
        assert!(node.invoke("lambda", json!({})).await.is_ok());
        let calls = (0..4).map(|n| {
            let node = node.clone();
            async move { (n, node.invoke("lambda", json!({"ms": 1_000, "n": n})).await) }
        });
        let begun = std::time::SystemTime::now();
        let answers = futures_util::future::join_all(calls).await;
        let took = begun.elapsed().unwrap();
        assert!(
            took < Duration::from_millis(3_500),
            "one after the other: {took:?}"
        );
        let mut pids = HashSet::new();
        for (n, answer) in &answers {
            assert_eq!(answer.result()["payload"]["n"], *n, "none is mixed up");
            pids.insert(pid(answer));
        }
        assert_eq!(pids.len() == 1, is_one_process, "{pids:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_many_come_at_once() {
    let sandbox = Sandbox::processes(2).await;
    let record = rust("lambda").concurrency(4).max(2);
    sandbox.register_warm(&record, json!({})).await;
    let nodes = Targets::Each(sandbox.nodes());
    let load = Load::start(nodes, 6, "lambda", |n| json!({ "n": n }));
    load.more_successes(400, PATIENCE).await;
    assert_all_ok(&load.stop().await);
}

/// Functions that stream are called by `http` events here.
async fn streaming(sandbox: &Sandbox, record: Record, path: &str) {
    sandbox.register(&record.event_format("raw").max(1)).await;
    let subscription =
        json!({"event": "http", "method": "POST", "path": path, "functionId": "lambda"});
    sandbox.subscribe(&subscription).await;
}

async fn listen(node: &Node, path: &str, payload: &Value) -> reqwest::Response {
    let request = node.request(Method::POST, &node.events_url(path));
    request.json(payload).send().await.unwrap()
}

/// What AWS's runtime for Rust puts before an answer that it streams: a prelude in JSON, and eight NULs.
fn behind_the_prelude(body: &[u8]) -> Option<&[u8]> {
    let end = body.windows(8).position(|eight| eight == [0; 8])?;
    Some(&body[end + 8..])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_streams_is_passed_on_as_it_comes_over_the_hop_too() {
    let sandbox = Sandbox::processes(2).await;
    streaming(&sandbox, rust("lambda"), "/lines").await;
    let first = sandbox.node(0).invoke("lambda", json!({})).await;
    let home = sandbox.named(first.node.as_deref().unwrap());
    sandbox.wait_warm("lambda", &home).await;
    for node in [home.clone(), sandbox.others(home.name()).remove(0)] {
        let payload = json!({"stream": 3, "pause_ms": 700});
        let mut response = listen(&node, "/lines", &payload).await;
        assert_eq!(response.status(), 200);
        let kind = &response.headers()["content-type"];
        assert_eq!(kind, "application/vnd.awslambda.http-integration-response");
        let (mut body, mut pieces) = (Vec::new(), 0);
        while let Some(piece) = response.chunk().await.unwrap() {
            body.extend_from_slice(&piece);
            pieces += 1;
        }
        assert!(pieces >= 3, "it came in {pieces} pieces");
        let text = behind_the_prelude(&body).unwrap();
        assert_eq!(text, b"line 0\nline 1\nline 2\n");
    }
}

/// A function that fails while it streams: what it has written arrives, and that it is not all.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_javascript_streams_and_breaks_off_where_it_fails() {
    let sandbox = Sandbox::processes(1).await;
    let record = javascript_of("lambda", "streaming");
    streaming(&sandbox, record, "/pieces").await;
    let pieces = ["one, ", "two, ", "three"];
    for fail in [None, Some("no such thing")] {
        let payload = json!({"pieces": pieces, "ms": 300, "fail": fail});
        let mut response = listen(&sandbox.node(0), "/pieces", &payload).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain");
        let (mut body, mut count) = (Vec::new(), 0);
        let end = loop {
            match response.chunk().await {
                Ok(Some(piece)) => {
                    body.extend_from_slice(&piece);
                    count += 1;
                }
                end => break end,
            }
        };
        assert_eq!(String::from_utf8_lossy(&body), pieces.concat());
        assert!(count >= 3, "it came in {count} pieces");
        assert_eq!(end.is_err(), fail.is_some(), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_all_values_arrive_as_they_are() {
    let sandbox = Sandbox::processes(1).await;
    streaming(&sandbox, rust("lambda"), "/bytes").await;
    let response = listen(&sandbox.node(0), "/bytes", &json!({"bytes": 300_000})).await;
    let body = response.bytes().await.unwrap();
    let bytes = behind_the_prelude(&body).unwrap();
    let expected: Vec<u8> = (0..=u8::MAX).cycle().take(300_000).collect();
    assert!(bytes == expected, "{} bytes", bytes.len());
    // Who can take it only whole gets it whole.
    let answer = sandbox.node(0).invoke("lambda", json!({"stream": 2})).await;
    let said = answer.result();
    assert!(
        said.as_str().unwrap().ends_with("line 0\nline 1\n"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_the_payload_of_a_function() {
    let sandbox = Sandbox::processes(1).await;
    sandbox.register(&python("lambda").max(1)).await;
    for subscription in [
        json!({"event": "user.created", "functionId": "lambda"}),
        json!({"event": "http", "method": "POST", "path": "/hook", "functionId": "lambda"}),
    ] {
        sandbox.subscribe(&subscription).await;
    }
    let node = sandbox.node(0);
    let answer = node.emit("user.created", &json!({"ms": 1})).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    until("it was delivered", PATIENCE, || async {
        let path = "/v1/spaces/default/functions/lambda/logs";
        let logs = node.config(Method::GET, path, None).await;
        logs.body.contains(" runs")
    })
    .await;
    // The answer to a request is Event Gateway's response object, as of its functions of Lambda; this one answers none.
    let response = listen(&node, "/hook", &json!({})).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_takes_its_instances_along() {
    let sandbox = Sandbox::processes(2).await;
    for record in [rust("rust"), python("python"), javascript("javascript")] {
        let id = record.id().to_owned();
        let (_, home) = sandbox
            .register_warm(&record.max(1).timeout_ms(60_000), json!({}))
            .await;
        let entry = sandbox.others(home.name()).remove(0);
        let calling = {
            let (entry, id) = (entry.clone(), id.clone());
            async move { entry.invoke(&id, json!({"ms": 40_000})).await }
        };
        let killing = async {
            until("it runs", PATIENCE, || async {
                home.in_flight().await == 1
            })
            .await;
            home.kill9();
        };
        let (interrupted, ()) = tokio::join!(calling, killing);
        assert_eq!(
            interrupted.error.as_deref(),
            Some("interrupted"),
            "{interrupted:?}"
        );
        let next = entry.invoke(&id, json!({"n": 2})).await;
        assert_eq!(next.result()["payload"]["n"], 2, "the next call runs");
        home.restart();
        home.wait_ready(PATIENCE).await;
        sandbox.wait_settled().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_node_that_was_killed_are_removed_and_not_adopted() {
    let sandbox = Sandbox::containers(1).await;
    sandbox.register(&container("lambda").max(1)).await;
    let node = sandbox.node(0);
    assert!(node.invoke("lambda", json!({})).await.is_ok());
    let before = sandbox.containers_of("lambda").await;
    assert_eq!(before.len(), 1, "{before:?}");
    node.kill9();
    node.restart();
    node.wait_ready(PATIENCE).await;
    until("it is removed", PATIENCE, || async {
        let now = sandbox.containers_of("lambda").await;
        now.iter().all(|container| container.id != before[0].id)
    })
    .await;
    let answer = node.invoke("lambda", json!({})).await;
    assert_eq!(answer.start.as_deref(), Some("cold"), "{answer:?}");
    assert_eq!(sandbox.containers_of("lambda").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_not_answered_by_the_runtime_api_of_another() {
    let sandbox = Sandbox::containers(1).await;
    let image = sandbox.engine().shell_image(sandbox.dir()).await;
    sandbox.register(&container("lambda").max(1)).await;
    let node = sandbox.node(0);
    let before = node.invoke("lambda", json!({})).await;
    let theirs = sandbox.containers_of("lambda").await.remove(0);
    let variable = "AWS_LAMBDA_RUNTIME_API";
    let api = sandbox
        .engine()
        .variable(&theirs.id, variable)
        .await
        .unwrap();
    // Another function's container gets through the firewall to that port, and no further.
    let api = api.replace(':', " ");
    let request = r"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: x\r\n\r\n";
    let script = format!("printf '{request}' | /busybox nc -w 5 {api}; true");
    sandbox
        .register(&Record::shell("stranger", image, &script))
        .await;
    let answer = node.invoke("stranger", json!({})).await;
    let said = answer.result();
    assert!(said.as_str().unwrap().contains("403 Forbidden"), "{said}");
    let after = node.invoke("lambda", json!({})).await;
    assert_eq!(instance(&after), instance(&before));
    assert_eq!(after.start.as_deref(), Some("warm"), "{after:?}");
}

/// Each runtime, cold and warm, by both ways, at one and at four at once, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn long_all_runtimes_by_all_ways() {
    let sandbox = Sandbox::processes(3).await;
    for round in 0..3 {
        for (name, record) in [
            ("rust", rust as fn(&str) -> Record),
            ("python", python),
            ("javascript", javascript),
        ] {
            for slots in [1, 4] {
                let id = format!("{name}-{slots}-{round}");
                let record = record(&id).concurrency(slots).max(2);
                let (cold, _) = sandbox.register_warm(&record, json!({"n": 0})).await;
                assert_eq!(cold.start.as_deref(), Some("cold"), "{cold:?}");
                let nodes = Targets::Each(sandbox.nodes());
                let load = Load::start(nodes, 8, &id, |n| json!({ "n": n }));
                load.more_successes(500, Duration::from_secs(120)).await;
                assert_all_ok(&load.stop().await);
                sandbox.node(0).delete(&id).await;
            }
        }
    }
}
