//! Functions call functions, through the listener that each node has for its own instances.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::HashMap;
use std::time::Duration;

use cluster_tests::{Answer, Node, Record, Sandbox, api, until};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// The payload with which `chain` calls `hello`.
fn call_hello() -> Value {
    json!({ "function_name": "hello", "payload": { "name": "Ada" } })
}

/// What the function that `chain` called answered.
fn called(answer: &Answer) -> Value {
    answer.result()["result"].clone()
}

/// Registers `chain` under different names until one runs elsewhere than on `home`, and returns its name and node.
async fn chain_elsewhere(
    sandbox: &Sandbox,
    home: &Node,
    record: impl Fn(&str) -> Record,
) -> (String, Node) {
    for number in 0..20 {
        let name = format!("chain-{number}");
        sandbox.register(&record(&name)).await;
        let answer = sandbox.node(0).invoke(&name, call_hello()).await;
        assert_eq!(called(&answer)["hello"], "Ada", "{answer:?}");
        let node = sandbox.named(answer.node.as_deref().unwrap());
        if node.name() != home.name() {
            return (name, node);
        }
        sandbox.node(0).delete(&name).await;
    }
    panic!("twenty functions are all at home on {}", home.name())
}

/// Has a command write down the events of a name, one a line.
async fn note_events(sandbox: &Sandbox, event: &str) -> std::path::PathBuf {
    let file = sandbox.dir().join("events");
    let script = format!("cat >> {0}; echo >> {0}", file.display());
    let noter = Record::command("noter", ["sh", "-c", &script]).stdio();
    sandbox.register(&noter.event_format("raw")).await;
    let subscription = json!({ "event": event, "functionId": "noter" });
    let path = "/v1/spaces/default/subscriptions";
    let made = sandbox
        .node(0)
        .config(Method::POST, path, Some(&subscription))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = format!("{path}/{event},noter,%2F");
    join_all(sandbox.nodes().iter().map(|node| async {
        let what = format!("{} knows the subscription", node.name());
        until(&what, PATIENCE, || async {
            node.config(Method::GET, &id, None).await.status == 200
        })
        .await;
    }))
    .await;
    file
}

/// What stands in the environment of a function: where it calls its node, and with which token.
struct Told {
    url: String,
    token: String,
}

impl Told {
    fn parse<'a>(variables: impl Iterator<Item = &'a str>) -> Self {
        let pairs = variables.filter_map(|variable| variable.split_once('='));
        let variables: HashMap<_, _> = pairs.collect();
        Self {
            url: variables["HEARTH_URL"].to_owned(),
            token: variables["HEARTH_TOKEN"].to_owned(),
        }
    }

    /// Calls `hello` as the function would, but from here.
    async fn call_hello(&self, sandbox: &Sandbox, token: Option<&str>) -> Answer {
        let url = format!("{}/invoke", self.url);
        let mut request = sandbox.client().post(url).json(&call_hello());
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        api::send(request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_calls_a_function_that_is_warm_on_another_node() {
    for builder in [Sandbox::builder(), Sandbox::builder().auth_required()] {
        let sandbox = builder.nodes(3).start().await;
        let events = note_events(&sandbox, "chain.called").await;
        let hello = Record::process("hello", "hello");
        let (first, home) = sandbox.register_warm(&hello, json!({})).await;
        let record = |name: &str| Record::process(name, "chain");
        let (chain, _) = chain_elsewhere(&sandbox, &home, record).await;
        for node in sandbox.nodes() {
            let answer = node.invoke(&chain, call_hello()).await;
            let expected = json!({ "hello": "Ada", "instance": first.instance() });
            assert_eq!(
                called(&answer),
                expected,
                "the warm one answers: {answer:?}"
            );
        }
        until("the events were delivered", PATIENCE, || async {
            let noted = std::fs::read_to_string(&events).unwrap_or_default();
            noted.matches(r#""hello":"Ada""#).count() >= 3
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_container_calls_on_after_all_nodes_were_killed() {
    let sandbox = Sandbox::containers(3).await;
    // An adopted instance may be busy with an old call until its timeout has passed.
    let hello = Record::container("hello", "hello").timeout_ms(1_000);
    let (first, home) = sandbox.register_warm(&hello, json!({})).await;
    let record = |name: &str| Record::container(name, "chain").timeout_ms(1_000);
    let (chain, chain_home) = chain_elsewhere(&sandbox, &home, record).await;
    let before = sandbox.containers_of(&chain).await;
    assert_eq!(before.len(), 1, "{before:?}");

    for node in sandbox.nodes() {
        node.kill9();
    }
    for node in sandbox.nodes() {
        node.restart();
    }
    sandbox.wait_settled().await;
    sandbox.wait_warm("hello", &home).await;
    sandbox.wait_warm(&chain, &chain_home).await;

    for node in sandbox.nodes() {
        let answer = node.invoke(&chain, call_hello()).await;
        assert_eq!(answer.start.as_deref(), Some("warm"), "{answer:?}");
        assert_eq!(called(&answer)["instance"], first.instance(), "{answer:?}");
    }
    assert_eq!(sandbox.containers_of(&chain).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_instance_itself_may_use_its_token() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .containers()
        .start()
        .await;
    sandbox.register(&Record::container("hello", "hello")).await;
    let greeted = sandbox.node(0).invoke("hello", json!({})).await;
    assert!(greeted.is_ok(), "{greeted:?}");
    let id = sandbox.containers_of("hello").await[0].id.clone();
    let format = "{{range .Config.Env}}{{println .}}{{end}}";
    let env = sandbox
        .engine()
        .docker(&["inspect", "--format", format, &id])
        .await;
    let container = Told::parse(env.lines());
    // A process that tells its own, and runs until it is allowed to end.
    let (told, end) = (sandbox.dir().join("told"), sandbox.dir().join("end"));
    let script = format!(
        "env > {0}.new; mv {0}.new {0}; while [ ! -e {1} ]; do sleep 0.05; done",
        told.display(),
        end.display()
    );
    sandbox
        .register(&Record::command("tells", ["sh", "-c", &script]).stdio())
        .await;
    let node = sandbox.node(0);
    let telling = node.invoke("tells", json!({}));
    let trying = async {
        until("the process told", PATIENCE, || async { told.exists() }).await;
        let text = std::fs::read_to_string(&told).unwrap();
        let process = Told::parse(text.lines());
        assert!(
            process.url.starts_with("http://127.0.0.1:"),
            "{}",
            process.url
        );
        for (at, token, status, why) in [
            (
                &process,
                Some(&process.token),
                200,
                "this process has the same address",
            ),
            (&process, None, 401, "no token"),
            (&process, Some(&"0".repeat(64)), 401, "a token of nobody"),
            (
                &process,
                Some(&container.token),
                403,
                "a container's, from the machine",
            ),
            (
                &container,
                Some(&container.token),
                403,
                "a container's, from the machine",
            ),
            (
                &container,
                Some(&process.token),
                403,
                "a process's, on the containers' network",
            ),
            (&container, None, 401, "no token"),
        ] {
            let token = token.map(String::as_str);
            let answer = at.call_hello(&sandbox, token).await;
            assert_eq!(answer.status, status, "{why}: {answer:?}");
        }
        let records = format!("{}/v1/spaces/default/functions", process.url);
        let request = sandbox.client().get(records).bearer_auth(&process.token);
        let answer = api::send(request).await.unwrap();
        assert_eq!(
            answer.status, 404,
            "the config API is not there: {answer:?}"
        );
        std::fs::write(&end, "").unwrap();
        process
    };
    let (ran, process) = futures_util::future::join(telling, trying).await;
    assert!(ran.is_ok(), "{ran:?}");
    let late = process.call_hello(&sandbox, Some(&process.token)).await;
    assert_eq!(late.status, 401, "its run is over: {late:?}");
    let logged = node.log();
    assert!(!logged.contains(&container.token) && !logged.contains(&process.token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_waits_for_itself_ends_with_its_time() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let chain = Record::process("chain", "chain").timeout_ms(1_500);
    sandbox.register(&chain.max(2)).await;
    sandbox.register(&Record::process("hello", "hello")).await;
    let node = sandbox.node(0);
    let nested = |inside: Value| json!({ "function_name": "chain", "payload": inside });
    let twice = node.invoke("chain", nested(call_hello())).await;
    assert_eq!(called(&twice)["result"]["hello"], "Ada", "{twice:?}");
    // The third one waits for a slot that only the first two can give back.
    let thrice = node.invoke("chain", nested(nested(call_hello()))).await;
    assert!(matches!(thrice.status, 502 | 504), "{thrice:?}");
    until("nothing is in flight any more", PATIENCE, || async {
        node.in_flight().await == 0
    })
    .await;
    let again = node.invoke("chain", call_hello()).await;
    assert_eq!(called(&again)["hello"], "Ada", "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_in_flight_calls_on_while_its_node_drains() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .env("HEARTH_NODE__DRAIN_DELAY", "100ms")
        // A queue on disk keeps for the next start what comes in during a drain; this one delivers it.
        .env("HEARTH_QUEUE__BACKEND", "memory")
        .start()
        .await;
    let events = note_events(&sandbox, "chain.called").await;
    sandbox.register(&Record::process("chain", "chain")).await;
    sandbox.register(&Record::process("sleep", "sleep")).await;
    let node = sandbox.node(0);
    let drain = async {
        until("both calls are in flight", PATIENCE, || async {
            node.in_flight().await == 2
        })
        .await;
        node.term();
        until("clients are not let in any more", PATIENCE, || async {
            let lost = node.try_invoke("sleep", json!({ "ms": 0 })).await;
            lost.is_err_and(|lost| lost.is_refused)
        })
        .await;
        assert!(!events.exists(), "the event is still to come");
    };
    // The event is emitted after the call, so when the node has been draining for a while.
    let payload = json!({ "function_name": "sleep", "payload": { "ms": 3_000 } });
    let (answer, ()) = futures_util::future::join(node.invoke("chain", payload), drain).await;
    assert_eq!(called(&answer)["slept_ms"], 3_000, "{answer:?}");
    assert!(node.exited(PATIENCE).await.success());
    let noted = std::fs::read_to_string(&events).unwrap();
    assert!(noted.contains(r#""slept_ms":3000"#), "{noted}");
}
