//! Functions that fail, and clients that go away: who is told what, and that the others notice nothing.

use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::process::resident_bytes;
use cluster_tests::{Answer, Load, Record, Sandbox, Targets, until};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_never_answers_is_a_504() {
    let answer = crash("hang").await;
    assert_eq!(
        answer.summary(),
        "504 deadline_exceeded;function",
        "{answer:?}"
    );
    assert!(
        answer.elapsed >= Duration::from_millis(1_000),
        "it had its timeout: {answer:?}"
    );
    assert!(answer.elapsed < Duration::from_secs(4), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_answers_garbage_is_a_502() {
    let answer = crash("garbage").await;
    assert_eq!(
        answer.summary(),
        "502 malformed_answer;function",
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_answers_500_is_a_502() {
    let answer = crash("status500").await;
    assert_eq!(
        answer.summary(),
        "502 function_failed;function",
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_exits_mid_call_is_a_502() {
    assert_died(&crash("exit").await, "exit code 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_aborts_mid_call_is_a_502() {
    assert_died(&crash("abort").await, "exit code 134");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_panics_mid_call_is_a_502() {
    assert_broke_off(&crash("panic").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_breaks_off_its_answer_is_a_502() {
    assert_broke_off(&crash("half").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_cut_off_and_costs_the_node_no_memory() {
    let sandbox = Sandbox::processes(1).await;
    sandbox
        .register(&Record::process("crash", "crash").timeout_ms(20_000))
        .await;
    let node = sandbox.node(0);

    let answer = node.invoke("crash", json!({ "how": "flood-body" })).await;

    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(answer.component.as_deref(), Some("function"), "{answer:?}");
    assert_small(node.process_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_bounded_and_leaves_the_others_alone() {
    let sandbox = Sandbox::processes(1).await;
    sandbox
        .register(&Record::process("crash", "crash").timeout_ms(60_000))
        .await;
    sandbox
        .register_warm(&Record::process("hello", "hello").concurrency(8), json!({}))
        .await;
    let node = sandbox.node(0);

    let load = Load::start(Targets::Each(vec![node.clone()]), 2, "hello", |_| json!({}));
    load.more_successes(20, Duration::from_secs(20)).await;
    let flood = node.invoke("crash", json!({ "how": "flood" })).await;
    load.more(20, Duration::from_secs(20)).await;

    assert!(flood.is_ok(), "writing much is allowed: {flood:?}");
    assert_all_ok(&load.stop().await);
    assert_small(node.process_id());
    let logs = node
        .config(Method::GET, "/v1/spaces/default/functions/crash/logs", None)
        .await;
    assert_eq!(logs.status, 200, "{:?}", logs.error);
    // 1 MiB is kept of each function; what is added to each line is less than as much again.
    assert!(logs.body.len() < 2 << 20, "{} bytes", logs.body.len());
    assert!(
        logs.body.contains("again and again"),
        "the last lines are kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_over_its_memory_fails_alone() {
    let sandbox = Sandbox::containers(1).await;
    sandbox
        .register(&Record::container("crash", "crash").memory_mb(64))
        .await;
    sandbox
        .register_warm(
            &Record::container("hello", "hello").concurrency(8),
            json!({}),
        )
        .await;
    let node = sandbox.node(0);

    let load = Load::start(Targets::Each(vec![node.clone()]), 2, "hello", |_| json!({}));
    load.more_successes(20, Duration::from_secs(20)).await;
    let answer = node.invoke("crash", json!({ "how": "oom" })).await;
    load.more(20, Duration::from_secs(20)).await;

    assert_died(&answer, "memory");
    assert_all_ok(&load.stop().await);
    assert!(
        node.invoke("crash", json!({})).await.is_ok(),
        "a new container serves"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_over_its_memory_fails_alone() {
    let sandbox = Sandbox::processes(1).await;
    sandbox
        .register(&Record::process("crash", "crash").memory_mb(64))
        .await;
    let node = sandbox.node(0);

    let answer = node.invoke("crash", json!({ "how": "oom" })).await;

    assert_died(&answer, "memory");
    assert!(
        node.invoke("crash", json!({})).await.is_ok(),
        "a new process serves"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_can_not_start_says_so_promptly() {
    let sandbox = Sandbox::processes(1).await;
    sandbox
        .register(&Record::command("missing", ["/nonexistent/program"]))
        .await;
    sandbox
        .register(&Record::process("quits", "crash").env("CRASH_AT_START", "1"))
        .await;
    let node = sandbox.node(0);

    for function in ["missing", "quits"] {
        let answer = node.invoke(function, json!({})).await;
        assert!(matches!(answer.status, 502 | 503), "{answer:?}");
        assert_eq!(answer.error.as_deref(), Some("start_failed"), "{answer:?}");
        assert!(
            answer.elapsed < Duration::from_secs(10),
            "it was not waited for: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stdio_function_that_fails_is_a_502() {
    let sandbox = Sandbox::processes(1).await;
    let script = "echo half an answer; echo the reason >&2; exit 3";
    sandbox
        .register(&Record::command("fails", ["/bin/sh", "-c", script]).stdio())
        .await;
    let node = sandbox.node(0);

    let answer = node.invoke("fails", json!({})).await;

    assert_eq!(
        answer.summary(),
        "502 function_failed;function",
        "{answer:?}"
    );
    until(
        "what it wrote to stderr is in its log",
        Duration::from_secs(5),
        || async {
            let logs = node
                .config(Method::GET, "/v1/spaces/default/functions/fails/logs", None)
                .await;
            logs.body.contains("the reason")
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_comes_back_when_its_client_hangs_up() {
    let sandbox = Sandbox::processes(2).await;
    let (_, mut home) = sandbox
        .register_warm(
            &Record::process("sleep", "sleep").max(1),
            json!({ "ms": 1 }),
        )
        .await;

    // Once at the node where the slot is, once through a hop.
    for is_forwarded in [false, true] {
        let caller = match is_forwarded {
            false => home.clone(),
            true => sandbox.others(home.name())[0].clone(),
        };
        let call = caller.try_invoke("sleep", json!({ "ms": 25_000 }));
        let in_flight = until("the slot is taken", Duration::from_secs(10), || async {
            home.in_flight().await > 0
        });
        tokio::select! {
            answer = call => panic!("the call should have outlasted the test: {answer:?}"),
            () = in_flight => {}
        }
        // Leaving the select dropped the call, and with it the connection.
        let next = caller.invoke("sleep", json!({ "ms": 1 })).await;
        assert!(next.is_ok(), "{next:?}");
        assert!(next.elapsed < Duration::from_secs(10), "{next:?}");
        assert_eq!(
            next.result()["in_flight_max"],
            1,
            "the busy instance is not given to the next call"
        );
        until("nothing is in flight", Duration::from_secs(5), || async {
            home.in_flight().await == 0
        })
        .await;
        // While the busy instance is removed there, the next one may have started elsewhere.
        home = sandbox.named(next.node.as_deref().expect("it ran somewhere"));
        sandbox.wait_warm("sleep", &home).await;
    }
}

/// Calls the function that crashes, and then makes sure that the next call of the same function is served.
async fn crash(how: &str) -> Answer {
    let sandbox = Sandbox::processes(2).await;
    let record = Record::process("crash", "crash").timeout_ms(1_000);
    sandbox.register_warm(&record, json!({})).await;
    let node = sandbox.node(0);
    let answer = node.invoke("crash", json!({ "how": how })).await;
    let next = node.invoke("crash", json!({})).await;
    assert!(next.is_ok(), "the next call after {how}: {next:?}");
    answer
}

/// The instance ended by itself during its only call: the function failed, and how is said.
#[track_caller]
fn assert_died(answer: &Answer, how: &str) {
    assert_eq!(
        answer.summary(),
        "502 function_failed;function",
        "{answer:?}"
    );
    assert!(
        answer.body.contains(how) && !answer.body.contains("may have run"),
        "{answer:?}"
    );
    assert!(answer.elapsed < Duration::from_secs(5), "{answer:?}");
}

/// The function gave up the call, and its instance lives: how far it came nobody knows.
#[track_caller]
fn assert_broke_off(answer: &Answer) {
    assert_eq!(answer.summary(), "502 interrupted;function", "{answer:?}");
    let said = "the function closed the connection without a whole answer";
    assert!(
        answer.body.contains(said) && answer.body.contains("may have run"),
        "{answer:?}"
    );
    assert!(answer.elapsed < Duration::from_secs(5), "{answer:?}");
}

#[track_caller]
fn assert_small(node: i32) {
    let bytes = resident_bytes(node).expect("the node runs");
    // The answer's limit is 6 MiB and the output kept 64 MiB in all; a debug build at rest has some 60 MiB.
    assert!(bytes < 200 << 20, "{} MiB", bytes >> 20);
}
