//! Subscriptions to requests that have an authorizer asked, on three nodes: whichever is called, nobody reaches the function whom the
//! authorizer does not let through.

use std::time::Duration;

use cluster_tests::{Answer, Builder, Does, Node, Record, Sandbox, Webhook, api, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

const SUBSCRIPTIONS: &str = "/v1/spaces/default/subscriptions";

/// How long after a change was answered every node does as it says.
const SERVED_WITHIN: Duration = Duration::from_millis(500);

/// How long a process may take to start and to be asked.
const ASKED_WITHIN: Duration = Duration::from_secs(20);

/// An authorizer, as a process that calls who it lets through by its own id.
fn authorizer(sandbox: &Sandbox, id: &str) -> Record {
    let signs = sandbox.dir().to_str().expect("a path of text");
    Record::command(id, [env!("CARGO_BIN_EXE_authorizer")])
        .concurrency(8)
        .max(1)
        .env("NAME", id)
        .env("SIGNS", signs)
}

fn asking(authorizer: &str) -> Value {
    json!({"event": "http", "method": "GET", "path": "/account/:id", "functionId": "hook", "authorizerId": authorizer})
}

/// Requests the account as somebody without any credential of the cluster.
async fn request(sandbox: &Sandbox, node: &Node, path: &str, key: &str) -> Answer {
    let request = sandbox.client().get(node.events_url(path));
    let answered = api::send(request.header("x-key", key).bearer_auth("own")).await;
    answered.unwrap_or_else(|lost| panic!("{} did not answer: {lost:?}", node.name()))
}

fn is_refused(answer: &Answer, event: &str) {
    let message = format!("Authorization of event type {event:?} failed. Please check logs.");
    let expected = json!({ "errors": [{ "message": message }] });
    assert_eq!(
        (answer.status, answer.json()),
        (403, expected),
        "{answer:?}"
    );
}

/// What the function was told of its last caller.
fn principal(hook: &Webhook) -> Value {
    let envelopes = hook.envelopes();
    let envelope = envelopes.last().expect("the function was called");
    envelope["extensions"]["eventgateway"]["authorization"].clone()
}

/// Waits until a node lets somebody through in the name of this authorizer.
async fn lets_through(sandbox: &Sandbox, node: &Node, hook: &Webhook, name: &str) {
    let what = format!("{} asks {name}", node.name());
    until(&what, SERVED_WITHIN, || async {
        request(sandbox, node, "/account/7", "good").await.status == 200
            && principal(hook)["principalId"] == name
    })
    .await;
}

async fn start(builder: Builder) -> (Sandbox, Webhook) {
    let sandbox = builder.nodes(3).start().await;
    let hook = Webhook::start(Does::Answer(r#"{"body": "ran"}"#)).await;
    sandbox.register(&Record::http("hook", hook.url())).await;
    (sandbox, hook)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_the_authorizer_does_not_let_through_reaches_no_function_by_any_node() {
    let (sandbox, hook) = start(Sandbox::builder()).await;
    let (_, home) = sandbox
        .register_warm(&authorizer(&sandbox, "who"), json!({}))
        .await;
    let id = sandbox.subscribe(&asking("who")).await;
    let types = "/v1/spaces/default/eventtypes";
    let made = sandbox
        .node(0)
        .config(Method::POST, types, Some(&json!({"name": "http.request"})))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let typed = json!({"type": "sync", "eventType": "http.request", "method": "GET", "path": "/typed", "functionId": "hook", "authorizerId": "who"});
    sandbox.subscribe(&typed).await;
    let mut ran = 0;
    for node in sandbox.nodes() {
        lets_through(&sandbox, &node, &hook, "who").await;
        let said = principal(&hook);
        assert_eq!(said["context"]["path"], "/account/7");
        assert_eq!(said["context"]["type"], "http.request");
        assert_eq!(
            said["context"]["authorization"], "Bearer own",
            "without auth it is the client's"
        );
        let answer = request(&sandbox, &node, "/typed", "good").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let told = hook.envelopes().last().expect("it was called").clone();
        assert_eq!(
            (
                &told["eventType"],
                &told["extensions"]["eventgateway"]["authorization"]["principalId"]
            ),
            (&json!("http.request"), &json!("who"))
        );
        ran = hook.envelopes().len();
        for key in ["", "bad", "nonsense"] {
            is_refused(&request(&sandbox, &node, "/account/7", key).await, "http");
            is_refused(
                &request(&sandbox, &node, "/typed", key).await,
                "http.request",
            );
        }
        assert_eq!(hook.envelopes().len(), ran, "a refused call reached it");
    }
    // One process answered for all of them, wherever they came in.
    let instances = home.instance_ids().await.expect("a list");
    assert_eq!(instances.len(), 1, "{instances:?}");
    for node in sandbox.others(home.name()) {
        assert_eq!(node.instance_ids().await.expect("a list"), [""; 0]);
    }

    // It ends in the middle of a call, by itself or because it is killed.
    let [one, other] = &sandbox.others(home.name())[..] else {
        panic!("three nodes without one are two");
    };
    is_refused(&request(&sandbox, one, "/account/7", "die").await, "http");
    let asked = sandbox.dir().join("asked");
    let is_asked = async {
        until("the authorizer is asked", ASKED_WITHIN, || async {
            asked.exists()
        })
        .await;
        let id = std::fs::read_to_string(&asked).expect("read the file");
        let id = Pid::from_raw(id.parse().expect("a process id"));
        kill(id, Signal::SIGKILL).expect("kill the authorizer");
    };
    let (answer, ()) = tokio::join!(request(&sandbox, other, "/account/7", "hang"), is_asked);
    is_refused(&answer, "http");
    assert_eq!(hook.envelopes().len(), ran, "a refused call reached it");
    let answer = request(&sandbox, one, "/account/7", "good").await;
    assert_eq!(answer.status, 200, "it is started again: {answer:?}");

    // Whoever is named is not deleted, and another one is asked by every node.
    let function = |id: &str| format!("/v1/spaces/default/functions/{id}");
    let refused = one.config(Method::DELETE, &function("who"), None).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let why = "Function who cannot be deleted because it's used as an authorizer for subscription ";
    assert!(refused.body.contains(why), "{refused:?}");
    sandbox.register(&authorizer(&sandbox, "other")).await;
    // It is warm before it is asked, so that the bound is that of the update.
    let answer = other.invoke("other", json!({})).await;
    assert!(answer.is_ok(), "{answer:?}");
    let updated = other.config(Method::PUT, &id, Some(&asking("other"))).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    for node in sandbox.nodes() {
        lets_through(&sandbox, &node, &hook, "other").await;
    }
    let refused = home.config(Method::DELETE, &function("other"), None).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let refused = home.config(Method::DELETE, &function("who"), None).await;
    assert_eq!(
        refused.status, 400,
        "the typed one names it still: {refused:?}"
    );
    one.unsubscribe(&id).await;
    home.delete("other").await;
}

/// With auth, in a space that is open for events: anyone may call, and the authorizer decides.
#[tokio::test(flavor = "multi_thread")]
async fn in_an_open_space_the_authorizer_decides_who_of_all_may_call() {
    let builder = Sandbox::builder().auth_required();
    let builder = builder.env("HEARTH_OUTBOUND__ALLOW", "[\"127.0.0.1\"]");
    let (sandbox, hook) = start(builder).await;
    sandbox.register(&authorizer(&sandbox, "who")).await;
    sandbox.subscribe(&asking("who")).await;
    for node in sandbox.nodes() {
        let answer = request(&sandbox, &node, "/account/7", "good").await;
        assert_eq!(answer.status, 401, "the space is closed: {answer:?}");
    }
    let open = json!({"events": "open"});
    let node = sandbox.node(0);
    let opened = node.config(Method::PATCH, "/v1/spaces/default", Some(&open));
    assert_eq!(opened.await.status, 200);
    for node in sandbox.nodes() {
        let what = format!("{} knows that the space is open", node.name());
        until(&what, ASKED_WITHIN, || async {
            request(&sandbox, &node, "/account/7", "good").await.status == 200
        })
        .await;
        let said = principal(&hook);
        assert_eq!(said["principalId"], "who");
        // Where the node takes tokens, nobody's is handed to a function.
        assert_eq!(said["context"]["authorization"], "");
        let ran = hook.envelopes().len();
        is_refused(&request(&sandbox, &node, "/account/7", "bad").await, "http");
        assert_eq!(hook.envelopes().len(), ran);
    }
    let listed = sandbox
        .node(1)
        .config(Method::GET, SUBSCRIPTIONS, None)
        .await;
    assert_eq!(listed.json()["subscriptions"][0]["authorizerId"], "who");
}
