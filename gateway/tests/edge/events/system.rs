//! Section 10: what the gateway says of `http` and `invoke` events.

use super::*;
use crate::support::eventually;

/// The envelopes that the function `g` got, by event.
fn heard(sandbox: &Sandbox) -> Vec<Value> {
    let requests = sandbox.node.requests.lock().unwrap();
    let requests = requests
        .iter()
        .filter(|request| request.function_id.as_str() == "g");
    let mut heard: Vec<Value> = requests
        .map(|request| serde_json::from_slice(&request.payload).unwrap())
        .collect();
    heard.sort_by_key(|envelope| envelope["event"].to_string());
    heard
}

fn watched(subscription: Value) -> Sandbox {
    let names = [
        "gateway.event.received",
        "gateway.function.invoking",
        "gateway.function.invoked",
        "gateway.function.invocationFailed",
    ];
    let watch = |name| ("default", json!({"event": name, "functionId": "g"}));
    let mut subscriptions = names.map(watch).to_vec();
    subscriptions.push(("default", subscription));
    sandbox(&subscriptions)
}

#[tokio::test]
async fn a_call_is_told_before_and_after() {
    let sandbox = watched(http("POST", "/a/:id", "f"));
    let call = Call::post("/a/7", "[1.0]").header("content-type", "application/json");
    let answer = send(&sandbox, call).await;
    eventually("three events are heard", || heard(&sandbox).len() == 3).await;
    let heard = heard(&sandbox);
    let [received, invoked, invoking] = heard.as_slice() else {
        panic!("{heard:?}");
    };
    assert_eq!(received["event"], "gateway.event.received");
    assert_eq!(received["dataType"], "application/json");
    let data = &received["data"];
    assert_eq!(
        (&data["path"], &data["headers"]["Content-Type"]),
        (&json!("/a/7"), &json!("application/json"))
    );
    // Before routing nobody knows the parameters.
    assert_eq!(data["event"]["data"]["params"], Value::Null);
    assert_eq!(invoking["event"], "gateway.function.invoking");
    let data = &invoking["data"];
    assert_eq!(
        (&data["space"], &data["functionId"]),
        (&json!("default"), &json!("f"))
    );
    assert_eq!(data["event"]["data"]["params"], json!({"id": "7"}));
    assert_eq!(
        data["event"]["id"],
        answer.header("x-hearth-invocation").unwrap()
    );
    assert_eq!(invoked["event"], "gateway.function.invoked");
    assert!(invoked["data"]["result"].is_string(), "{invoked}");
}

#[tokio::test]
async fn a_failed_call_is_told_whatever_the_reason() {
    let sandbox = watched(json!({"event": "invoke", "functionId": "f"}));
    sandbox
        .node
        .on_invoke(async |request| match request.function_id.as_str() {
            "f" => Err(failed(
                ErrorCode::Unreachable,
                Component::Provider,
                Effect::Refused,
            )),
            _ => Ok(replied(None, "{}")),
        });
    let call = Call::post("/", "")
        .header("event", "invoke")
        .header("function-id", "f");
    assert_eq!(send(&sandbox, call).await.status, 500);
    eventually("three events are heard", || heard(&sandbox).len() == 3).await;
    let heard = heard(&sandbox);
    let names: Vec<_> = heard
        .iter()
        .map(|envelope| envelope["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "gateway.event.received",
            "gateway.function.invocationFailed",
            "gateway.function.invoking"
        ]
    );
    assert_eq!(heard[1]["data"]["error"], "the reason");
}
