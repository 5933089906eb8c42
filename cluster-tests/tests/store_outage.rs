//! etcd is away, silent, or has forgotten the past: what is known goes on running, and changes arrive after.

use std::cell::Cell;
use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::{
    Does, Link, Load, Node, NodeOptions, Record, Sandbox, Targets, Webhook, eventually,
    full_length, outage, until,
};
use reqwest::Method;
use serde_json::{Value, json};

/// How soon a write fails while the store is away: its operation timeout of 3 s, and a busy machine.
const FAILS: Duration = Duration::from_secs(6);

/// How soon changes arrive after an outage.
const ARRIVES: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn serves_while_store_is_down() {
    let mut sandbox = Sandbox::processes(3).await;
    let record = Record::process("hello", "hello").concurrency(8);
    let (_, home) = sandbox.register_warm(&record, json!({})).await;
    let others = sandbox.others(home.name());
    let (caller, restarted) = (others[0].clone(), others[1].clone());

    let load = Load::start(
        Targets::Each(vec![home.clone(), caller.clone()]),
        4,
        "hello",
        |_| json!({}),
    );
    load.more_successes(20, Duration::from_secs(20)).await;
    sandbox.etcd().kill9();

    assert_write_fails(&sandbox, &caller).await;
    restarted.kill9();
    restarted.restart();
    restarted.wait_ready(Duration::from_secs(20)).await;
    let answer = restarted.invoke("hello", json!({})).await;
    assert!(
        answer.is_ok(),
        "it knows the function from its disk: {answer:?}"
    );
    outage(if full_length() {
        Duration::from_secs(60)
    } else {
        Duration::from_secs(4)
    })
    .await;
    load.more_successes(50, Duration::from_secs(20)).await;

    sandbox.etcd_mut().restart().await;
    let later = sandbox.record(&Record::process("later", "hello"));
    eventually("a write goes through again", ARRIVES, || {
        write(&caller, &later)
    })
    .await;
    for node in sandbox.nodes() {
        until(
            &format!("the change has reached {}", node.name()),
            ARRIVES,
            || node.knows("later"),
        )
        .await;
    }
    assert_all_ok(&load.stop().await);
    for line in [
        "the config store does not answer;",
        "the config store answers again",
    ] {
        // Each watch tells it once, and again for each minute that it lasts, and says what it watches.
        for prefix in ["functions/", "subscriptions/"] {
            let told = |one: &&str| one.contains(line) && one.contains(prefix);
            // The others are not asked about what one of them brought.
            until(&format!("{prefix}: {line}"), ARRIVES, || async {
                caller.log().lines().any(|one| told(&one))
            })
            .await;
            let log = caller.log();
            let times = log.lines().filter(told).count();
            let minutes = usize::from(full_length());
            assert!(times <= 1 + minutes, "{prefix} {times} times: {log}");
        }
    }
}

/// Every node answers http events and delivers what is emitted, one that restarts meanwhile included.
#[tokio::test(flavor = "multi_thread")]
async fn events_flow_while_store_is_down() {
    // A queue in etcd would be away with it.
    let builder = Sandbox::builder()
        .nodes(3)
        .env("HEARTH_QUEUE__BACKEND", "memory");
    let mut sandbox = builder.start().await;
    let hook = Webhook::start(Does::Answer(r#"{"body": "ran"}"#)).await;
    sandbox.register(&Record::http("hook", hook.url())).await;
    let hello = Record::process("hello", "hello").concurrency(8);
    let (_, home) = sandbox.register_warm(&hello, json!({})).await;
    let page = |function: &str, path: &str| json!({"event": "http", "functionId": function, "method": "GET", "path": path});
    sandbox.subscribe(&page("hello", "/hello/:name")).await;
    let hook_page = sandbox.subscribe(&page("hook", "/hook")).await;
    let tick = json!({"event": "tick", "functionId": "hook"});
    sandbox.subscribe(&tick).await;
    let others = sandbox.others(home.name());
    let (steady, restarted) = ([home, others[0].clone()], others[1].clone());

    let is_over = Cell::new(false);
    let flow = async |node: &Node| {
        while !is_over.get() {
            assert_events_flow(node, &hook).await;
        }
    };
    let scenario = async {
        sandbox.etcd().kill9();
        let all = "/v1/spaces/default/subscriptions";
        let same = page("hook", "/hook");
        for (method, path, body) in [
            (Method::POST, all, Some(&tick)),
            (Method::PUT, hook_page.as_str(), Some(&same)),
            (Method::DELETE, hook_page.as_str(), None),
        ] {
            let answer = steady[1].config(method, path, body).await;
            let told = (answer.status, answer.error.as_deref());
            assert_eq!(told, (503, Some("store_unavailable")), "{answer:?}");
            assert!(answer.elapsed < FAILS, "{answer:?}");
        }
        restarted.kill9();
        restarted.restart();
        restarted.wait_ready(Duration::from_secs(20)).await;
        assert_events_flow(&restarted, &hook).await;
        outage(if full_length() {
            Duration::from_secs(60)
        } else {
            Duration::from_secs(4)
        })
        .await;
        assert_events_flow(&restarted, &hook).await;

        sandbox.etcd_mut().restart().await;
        let later = page("hook", "/later");
        eventually("a subscription goes through again", ARRIVES, || async {
            let answer = steady[1].config(Method::POST, all, Some(&later)).await;
            // An earlier attempt may have gone through without its answer having come back.
            let is_there = answer.status == 400 && answer.body.contains("already exists");
            match answer.status == 201 || is_there {
                true => Ok(()),
                false => Err(format!("{answer:?}")),
            }
        })
        .await;
        for node in sandbox.nodes() {
            let what = format!("{} serves what was subscribed after", node.name());
            until(&what, ARRIVES, || async {
                node.http_event(Method::GET, "/later").await.body == "ran"
            })
            .await;
            assert_events_flow(&node, &hook).await;
        }
        is_over.set(true);
    };
    tokio::join!(flow(&steady[0]), flow(&steady[1]), scenario);
    assert!(hook.ids().values().all(|times| *times == 1), "once each");
}

/// One event of each kind through a node: to a webhook, to a function that is warm somewhere, and emitted.
async fn assert_events_flow(node: &Node, hook: &Webhook) {
    let page = node.http_event(Method::GET, "/hook").await;
    assert_eq!((page.status, page.body.as_str()), (200, "ran"), "{page:?}");
    let hello = node.http_event(Method::GET, "/hello/Ada").await;
    assert_eq!(hello.status, 200, "{hello:?}");
    assert_eq!(hello.json()["hello"], "Ada");
    let emitted = node.emit("tick", &json!(node.name())).await;
    assert_eq!(emitted.status, 202, "{emitted:?}");
    let id = emitted.invocation.expect("an answer has an id");
    let what = format!("what {} accepted comes", node.name());
    until(&what, Duration::from_secs(10), || async { hook.has(&id) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_while_store_is_silent() {
    let sandbox = Sandbox::builder()
        .nodes(2)
        .env("HEARTH_STORE__ETCD__WATCH_PROGRESS_INTERVAL", "500ms")
        .env("HEARTH_STORE__ETCD__WATCH_SILENCE_MAX", "2s")
        .start()
        .await;
    sandbox
        .register_warm(&Record::process("hello", "hello").concurrency(8), json!({}))
        .await;
    let caller = sandbox.node(0);

    let load = Load::start(Targets::Each(sandbox.nodes()), 4, "hello", |_| json!({}));
    load.more_successes(20, Duration::from_secs(20)).await;
    sandbox.etcd().stop();
    assert_write_fails(&sandbox, &caller).await;
    until("the staleness shows", Duration::from_secs(10), || async {
        caller
            .cluster()
            .await
            .is_ok_and(|cluster| cluster.store_staleness_seconds >= 2.0)
    })
    .await;
    load.more_successes(20, Duration::from_secs(20)).await;
    sandbox.etcd().cont();

    let later = sandbox.record(&Record::process("later", "hello"));
    eventually("a write goes through again", ARRIVES, || {
        write(&caller, &later)
    })
    .await;
    for node in sandbox.nodes() {
        until(
            &format!("the change has reached {}", node.name()),
            ARRIVES,
            || node.knows("later"),
        )
        .await;
    }
    until("nothing is stale", ARRIVES, || async {
        caller
            .cluster()
            .await
            .is_ok_and(|cluster| cluster.store_staleness_seconds < 2.0)
    })
    .await;
    assert_all_ok(&load.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn catches_up_after_a_compaction_past_its_revision() {
    let sandbox = Sandbox::processes(1).await;
    let link = Link::to(sandbox.etcd().address()).await;
    let cut_off = sandbox.add_node(NodeOptions {
        store_url: Some(link.url()),
        ..NodeOptions::default()
    });
    sandbox.wait_settled().await;
    let writer = sandbox.node(0);
    sandbox.register(&Record::process("kept", "hello")).await;
    sandbox.register(&Record::process("deleted", "hello")).await;
    sandbox.register(&Record::process("changed", "hello")).await;

    link.cut();
    writer.delete("deleted").await;
    writer
        .update(&sandbox.record(&Record::process("changed", "hello").env("VERSION", "2")))
        .await;
    for id in ["new0", "new1", "new2", "new3", "new4"] {
        let record = sandbox.record(&Record::process(id, "hello"));
        write(&writer, &record)
            .await
            .expect("the writer's own link is up");
    }
    sandbox.etcd().compact().await;
    assert!(
        cut_off.knows("deleted").await && !cut_off.knows("new0").await,
        "the cut had no effect"
    );
    link.heal();

    for id in ["new0", "new1", "new2", "new3", "new4"] {
        until(&format!("{id} arrives"), ARRIVES, || cut_off.knows(id)).await;
    }
    until("the deletion arrives", ARRIVES, || async {
        !cut_off.knows("deleted").await
    })
    .await;
    until("the change arrives", ARRIVES, || async {
        let answer = cut_off
            .config(Method::GET, "/v1/spaces/default/functions/changed", None)
            .await;
        answer.json()["provider"]["env"]["VERSION"] == "2"
    })
    .await;
    assert!(cut_off.knows("kept").await);
    // The watch goes on from there.
    sandbox.register(&Record::process("after", "hello")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_not_ready_before_it_knows_the_registry() {
    let mut sandbox = Sandbox::processes(1).await;
    sandbox.register(&Record::process("hello", "hello")).await;
    sandbox.etcd().kill9();

    let node = sandbox.add_node(NodeOptions::default());
    until("the node answers", Duration::from_secs(20), || async {
        node.try_config(Method::GET, "/v1/status", None)
            .await
            .is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let ready = node.config(Method::GET, "/v1/ready", None).await;
    assert_eq!(
        ready.status, 503,
        "it has neither a store nor a snapshot: {ready:?}"
    );

    sandbox.etcd_mut().restart().await;
    node.wait_ready(ARRIVES).await;
    assert!(
        node.knows("hello").await,
        "ready means that the registry is loaded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_survives_a_kill() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    sandbox.register(&Record::process("hello", "hello")).await;
    let node = sandbox.node(0);

    node.kill9();
    node.restart();
    node.wait_ready(Duration::from_secs(20)).await;

    assert!(node.invoke("hello", json!({})).await.is_ok());
}

async fn write(node: &Node, record: &Value) -> Result<(), String> {
    let answer = node
        .config(Method::POST, "/v1/spaces/default/functions", Some(record))
        .await;
    // An earlier attempt may have gone through without its answer having come back.
    let is_there = answer.status == 400 && answer.body.contains("already registered");
    if answer.status == 201 || is_there {
        Ok(())
    } else {
        Err(format!("{answer:?}"))
    }
}

async fn assert_write_fails(sandbox: &Sandbox, node: &Node) {
    let refused = sandbox.record(&Record::process("refused", "hello"));
    let answer = node
        .config(Method::POST, "/v1/spaces/default/functions", Some(&refused))
        .await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.json()["errors"][0]["message"].is_string(),
        "{answer:?}"
    );
    assert_eq!(
        answer.error.as_deref(),
        Some("store_unavailable"),
        "{answer:?}"
    );
    assert!(answer.elapsed < FAILS, "{answer:?}");
}
