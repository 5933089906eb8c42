//! Plugins of a real node: the examples, built from Rust and from AssemblyScript.

use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::{Answer, Node, Record, Sandbox, api, until};
use reqwest::Method;
use serde_json::{Value, json};

/// How long a change may take to show, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A plugin that `scripts/plugins.sh` builds.
fn example(name: &str) -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/plugins");
    let path = PathBuf::from(built).join(format!("{name}.wasm"));
    assert!(
        path.is_file(),
        "the example plugin {name} is not at {}: scripts/plugins.sh builds it",
        path.display()
    );
    path
}

async fn emit(node: &Node, event: &str, data: Value) -> Answer {
    let request = node.request(Method::POST, &node.events_url("/"));
    let request = request.header("event", event).json(&data);
    api::send(request).await.expect("an answer")
}

async fn subscribe(sandbox: &Sandbox, subscription: &Value) {
    let path = "/v1/spaces/default/subscriptions";
    let node = sandbox.node(0);
    let answer = node.config(Method::POST, path, Some(subscription)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["subscriptionId"].as_str().map(str::to_owned);
    let id = id.expect("a subscription has an id");
    let id = format!("{path}/{id}");
    until("the node knows the subscription", PATIENCE, || async {
        node.config(Method::GET, &id, None).await.status == 200
    })
    .await;
}

/// Section 10: the plugin from Rust vetoes and observes, the one from AssemblyScript changes, each with settings of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_plugins_veto_change_and_observe() {
    let load = format!(
        r#"[{{path={:?}, settings={{reserved="internal."}}}}, {{path={:?}, settings={{stamp="by a plugin"}}}}]"#,
        example("guard"),
        example("stamp")
    );
    let builder = Sandbox::builder().nodes(1).embedded();
    let sandbox = builder.env("HEARTH_PLUGINS__LOAD", &load).start().await;
    let node = sandbox.node(0);
    let seen = sandbox.dir().join("seen");
    let script = format!("cat >> {0}; echo >> {0}", seen.display());
    for record in [
        Record::command("keep", ["sh", "-c", &script]).stdio(),
        Record::command("tell", ["cat"])
            .stdio()
            .event_format("cloudevents-structured"),
        Record::command("fail", ["false"]).stdio(),
    ] {
        sandbox.register(&record).await;
    }
    for (function, event) in [("keep", "user.created"), ("fail", "user.created")] {
        let subscription = json!({"event": event, "functionId": function, "path": "/"});
        subscribe(&sandbox, &subscription).await;
    }
    let subscription =
        json!({"event": "http", "functionId": "tell", "method": "POST", "path": "/a"});
    subscribe(&sandbox, &subscription).await;

    let vetoed = emit(&node, "internal.reset", json!({})).await;
    assert_eq!(vetoed.status, 400, "{vetoed:?}");
    let message = &vetoed.json()["errors"][0]["message"];
    assert_eq!(message, "events named internal.* are our own");

    let data = json!({"name": "Ada \"}{\" Lovelace", "internal.": [1, {"a": 2}]});
    assert_eq!(emit(&node, "user.created", data).await.status, 202);
    until("the event is delivered, stamped", PATIENCE, || async {
        let text = std::fs::read_to_string(&seen).unwrap_or_default();
        let stamped =
            r#"{"stamp":"by a plugin","internal.":[1,{"a":2}],"name":"Ada \"}{\" Lovelace"}"#;
        text.lines().eq([stamped])
    })
    .await;
    until("the guard logs the failed call", PATIENCE, || async {
        node.log().contains("a call of fail failed: ")
    })
    .await;

    // The function answers with what it got.
    let request = node.request(Method::POST, &node.events_url("/a"));
    let answer = api::send(request.json(&json!([1])))
        .await
        .expect("an answer");
    let data = &answer.json()["data"];
    assert_eq!(
        (&data["body"], &data["headers"]["X-Stamp"]),
        (&json!([1]), &json!("by a plugin"))
    );
}
