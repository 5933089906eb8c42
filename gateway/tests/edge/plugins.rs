//! Plugins on the events API (section 10): what they may refuse and change, what they are told, and what one that misbehaves costs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use bytesize::ByteSize;
use config::settings::{PluginSettings, PluginsSettings};
use plugins::testing::{HANG, HOG, TRAP, answer, answering, module};
use plugins::wasm::Plugins;
use plugins::{Hooks, Mode, Refusal, Stage, Subject};
use protocol::{Component, Effect, ErrorCode};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::events::{http, send, subscribe};
use crate::support::{Answer, Call, PATIENCE, Sandbox, eventually, failed};

const RECEIVED: &str = "gateway.event.received";
const INVOKING: &str = "gateway.function.invoking";

/// What a scripted plugin says of what it is asked: nothing, other data, or a refusal.
type Say = Box<dyn Fn(&Value) -> Option<Result<Value, Refusal>> + Send + Sync>;

/// A plugin that is asked and told at every stage, and remembers it.
struct Scripted {
    say: Say,
    asked: Mutex<Vec<(Stage, Value)>>,
    told: Mutex<Vec<(Stage, Value)>>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

impl Scripted {
    fn new(
        say: impl Fn(&Value) -> Option<Result<Value, Refusal>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            say: Box::new(say),
            asked: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// One that changes the data of events at a stage.
    fn changing(
        stage: Stage,
        change: impl Fn(Value) -> Value + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::new(move |about| {
            let is_meant = (stage == Stage::Received) == about.get("path").is_some();
            is_meant.then(|| Ok(change(about["event"]["data"].clone())))
        })
    }

    fn stages(&self) -> Vec<Stage> {
        let told = self.told.lock().unwrap();
        told.iter().map(|(stage, _)| *stage).collect()
    }
}

#[async_trait]
impl Hooks for Scripted {
    fn any(&self, stage: Stage, mode: Mode) -> bool {
        mode == Mode::Async || stage.is_decidable()
    }

    async fn ask(&self, stage: Stage, subject: &mut dyn Subject) -> Result<(), Refusal> {
        let about: Value = serde_json::from_slice(&subject.about()).unwrap();
        let said = (self.say)(&about);
        self.asked.lock().unwrap().push((stage, about));
        match said {
            None => Ok(()),
            Some(Err(refusal)) => Err(refusal),
            Some(Ok(data)) => {
                subject
                    .change(&to_raw_value(&data).unwrap())
                    .map_err(|_| Refusal::Failed {
                        plugin: "scripted".to_owned(),
                        stage,
                    })
            }
        }
    }

    fn request_timeout(&self) -> Duration {
        PATIENCE
    }

    fn tell(&self, stage: Stage, about: Bytes) {
        let about = serde_json::from_slice(&about).unwrap();
        self.told.lock().unwrap().push((stage, about));
    }
}

/// An edge with these plugins, and subscriptions of every kind.
fn sandbox(hooks: Arc<dyn Hooks>) -> Sandbox {
    let sandbox = Sandbox::with_hooks(|_| {}, Some(hooks));
    let subscriptions = [
        http("POST", "/a/:id", "f"),
        http("POST", "/raw", "raw"),
        json!({"event": "invoke", "functionId": "f"}),
        json!({"event": "user.created", "functionId": "g", "path": "/"}),
    ];
    let subscriptions = subscriptions.map(|record| ("default", record));
    subscribe(&sandbox, &subscriptions);
    sandbox
}

fn custom(body: &str) -> Call {
    Call::post("/", body)
        .header("event", "user.created")
        .header("content-type", "application/json")
}

fn invoke(body: &str) -> Call {
    Call::post("/", body)
        .header("event", "invoke")
        .header("function-id", "f")
        .header("content-type", "application/json")
}

fn http_event(body: &str) -> Call {
    Call::post("/a/7", body).header("content-type", "application/json")
}

fn batch() -> Call {
    let event = |n: u8| json!({"specversion": "1.0", "id": n.to_string(), "source": "/", "type": "user.created", "data": {"n": n}});
    let body = json!([event(1), event(2)]).to_string();
    Call::post("/", body).header("content-type", "application/cloudevents-batch+json")
}

/// The payloads that a function was called with.
fn payloads(sandbox: &Sandbox, function: &str) -> Vec<Value> {
    let requests = sandbox.node.requests.lock().unwrap();
    let own = requests
        .iter()
        .filter(|request| request.function_id.as_str() == function);
    own.map(|request| serde_json::from_slice(&request.payload).unwrap())
        .collect()
}

fn is_refused(answer: &Answer, status: u16, error: &str, message: &str) {
    answer.has_common_headers();
    let got = (answer.status, answer.header("x-hearth-error"));
    assert_eq!(got, (status, Some(error)), "{answer:?}");
    assert_eq!(answer.json()["errors"][0]["message"], message, "{answer:?}");
}

fn veto() -> Refusal {
    Refusal::Vetoed {
        plugin: "scripted".to_owned(),
        text: "not today".to_owned(),
    }
}

/// Section 6: a plugin may refuse what is received: 400 with its text, whatever kind of event it is, and nothing comes of it.
#[tokio::test]
async fn a_veto_of_what_is_received_is_400_with_the_plugins_text() {
    let hooks = Scripted::new(|_| Some(Err(veto())));
    let sandbox = sandbox(hooks.clone());
    for call in [
        custom("{}"),
        invoke("{}"),
        http_event("{}"),
        batch(),
        Call::get("/nowhere"),
    ] {
        let answer = send(&sandbox, call).await;
        is_refused(&answer, 400, "vetoed;plugin", "not today");
    }
    assert_eq!(sandbox.node.calls(), 0);
    assert_eq!(hooks.stages(), [], "nobody is told of what did not come in");
    // A body that is no JSON is refused before, and the functions API has no plugins.
    let answer = send(&sandbox, custom("{")).await;
    is_refused(
        &answer,
        400,
        "invalid_request;gateway",
        "malformed JSON body",
    );
    let answer = sandbox.invoke(r#"{"function_name":"f"}"#).await;
    assert_ne!(answer.header("x-hearth-error"), Some("vetoed;plugin"));
}

/// Section 7: a veto of a call is a call that failed, and those who watch are told so.
#[tokio::test]
async fn a_veto_of_a_call_is_a_call_that_failed() {
    let hooks = Scripted::new(|about| about.get("functionId").map(|_| Err(veto())));
    let sandbox = sandbox(hooks.clone());
    for call in [invoke("{}"), http_event("{}")] {
        let answer = send(&sandbox, call).await;
        let message = "Function call failed. Please check logs.";
        is_refused(&answer, 500, "vetoed;plugin", message);
    }
    assert_eq!(send(&sandbox, custom("{}")).await.status, 202);
    eventually("three calls failed", || {
        let failed = |stage: &&Stage| **stage == Stage::InvocationFailed;
        hooks.stages().iter().filter(failed).count() == 3
    })
    .await;
    assert_eq!(sandbox.node.calls(), 0);
    let told = hooks.told.lock().unwrap();
    assert_eq!(told.last().unwrap().1["error"], "not today");
}

#[tokio::test]
async fn changed_data_is_what_goes_on() {
    for stage in [Stage::Received, Stage::Invoking] {
        let sandbox = sandbox(Scripted::changing(stage, |mut data| {
            data["seen"] = json!(true);
            data
        }));
        for call in [custom(r#"{"n":1}"#), batch()] {
            assert_eq!(send(&sandbox, call).await.status, 202);
        }
        eventually("three are delivered", || payloads(&sandbox, "g").len() == 3).await;
        for envelope in payloads(&sandbox, "g") {
            assert_eq!(envelope["data"]["seen"], true, "{stage}: {envelope}");
        }
        assert_eq!(send(&sandbox, invoke(r#"{"n":1}"#)).await.status, 200);
        let data = &payloads(&sandbox, "f")[0]["data"];
        assert_eq!(*data, json!({"n": 1, "seen": true}), "{stage}");
    }
}

/// What is changed of an `http` event is the request: every form of it has the change.
#[tokio::test]
async fn a_changed_request_is_what_goes_on() {
    for stage in [Stage::Received, Stage::Invoking] {
        let sandbox = sandbox(Scripted::changing(stage, |data| {
            let mut headers = data["headers"].clone();
            headers["X-Added"] = json!("1");
            headers.as_object_mut().unwrap().remove("X-Secret");
            json!({"headers": headers, "body": {"was": data["body"]}, "path": data["path"]})
        }));
        let sent = |call: Call| {
            call.header("x-secret", "s")
                .header("x-kept", "a")
                .header("x-kept", "b")
        };
        let answer = send(&sandbox, sent(http_event("[1.0]"))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let data = &payloads(&sandbox, "f")[0]["data"];
        assert_eq!(data["body"], json!({"was": [1.0]}), "{stage}");
        assert_eq!(data["params"], json!({"id": "7"}));
        let headers = &data["headers"];
        let got = ["X-Added", "X-Secret", "X-Kept", "Content-Length"].map(|name| &headers[name]);
        assert_eq!(
            got,
            [&json!("1"), &Value::Null, &json!("a, b"), &json!("13")],
            "{stage}"
        );
        let raw = Call::post("/raw", "{}").header("content-type", "application/json");
        assert_eq!(send(&sandbox, sent(raw)).await.status, 418);
        assert_eq!(payloads(&sandbox, "raw"), [json!({"was": {}})]);
        let requests = sandbox.node.requests.lock().unwrap();
        let call = requests.last().unwrap().call.clone().unwrap();
        let names: Vec<_> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(
            names.contains(&"x-added") && !names.contains(&"x-secret"),
            "{names:?}"
        );
        assert_eq!(
            names.iter().filter(|name| **name == "x-kept").count(),
            2,
            "not joined"
        );
    }
}

#[tokio::test]
async fn what_a_plugin_can_not_change_fails_it() {
    let failed = "plugin scripted failed at gateway.event.received. Please check logs.";
    let text = |call: Call| call.header("content-type", "text/plain");
    for (call, data) in [
        (http_event("{}"), json!({"path": "/b"})),
        (http_event("{}"), json!({"method": "GET"})),
        (http_event("{}"), json!({"headers": {"Host": "evil"}})),
        (http_event("{}"), json!({"headers": {"Connection": "x"}})),
        (http_event("{}"), json!({"headers": {"A b": "c"}})),
        (http_event("{}"), json!({"headers": {"A": "b\nc: d"}})),
        (http_event("{}"), json!({"headers": ["A"]})),
        (http_event("{}"), json!({"more": 1})),
        (http_event("{}"), json!([])),
        (text(Call::post("/a/7", "hi")), json!({"body": {"n": 1}})),
        (
            text(Call::post("/", "hi").header("event", "user.created")),
            json!({"n": 1}),
        ),
    ] {
        let sandbox = sandbox(Scripted::changing(Stage::Received, {
            let data = data.clone();
            move |_| data.clone()
        }));
        let answer = send(&sandbox, call).await;
        is_refused(&answer, 500, "plugin_failed;plugin", failed);
        assert_eq!(sandbox.node.calls(), 0, "{data}");
    }
}

/// Section 10: plugins are told of the stages with the data of the system events.
#[tokio::test]
async fn a_watcher_is_told_of_all_four_stages() {
    let hooks = Scripted::new(|_| None);
    let sandbox = sandbox(hooks.clone());
    assert_eq!(send(&sandbox, http_event("[1.0]")).await.status, 200);
    sandbox.node.on_invoke(async |_| {
        Err(failed(
            ErrorCode::FunctionFailed,
            Component::Function,
            Effect::Finished,
        ))
    });
    assert_eq!(send(&sandbox, invoke("{}")).await.status, 500);
    use Stage::{InvocationFailed, Invoked, Invoking, Received};
    let stages = [
        Received,
        Invoking,
        Invoked,
        Received,
        Invoking,
        InvocationFailed,
    ];
    assert_eq!(hooks.stages(), stages);
    let told = hooks.told.lock().unwrap();
    let about: Vec<_> = told.iter().map(|(_, about)| about).collect();
    assert_eq!(about[0]["path"], "/a/7");
    assert_eq!(about[0]["headers"]["Content-Type"], "application/json");
    assert_eq!(about[1]["event"]["data"]["params"], json!({"id": "7"}));
    assert_eq!(
        (&about[1]["space"], &about[1]["functionId"]),
        (&json!("default"), &json!("f"))
    );
    assert!(about[2]["result"].is_string());
    assert_eq!(about[5]["error"], "the reason");
}

/// Plugins see no more of a client's credentials than functions do.
#[tokio::test]
async fn plugins_do_not_see_the_token_of_this_node() {
    let hooks = Scripted::new(|_| None);
    let change =
        |settings: &mut config::Settings| settings.auth.mode = config::settings::AuthMode::Required;
    let sandbox = Sandbox::with_hooks(change, Some(hooks.clone()));
    subscribe(&sandbox, &[("default", http("POST", "/a/:id", "f"))]);
    let token = "Bearer 0123456789abcdef";
    let answer = send(&sandbox, http_event("{}").header("authorization", token)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (asked, told) = (hooks.asked.lock().unwrap(), hooks.told.lock().unwrap());
    assert_eq!((asked.len(), told.len()), (2, 3));
    for (stage, about) in asked.iter().chain(told.iter()) {
        assert!(
            !about.to_string().contains("0123456789"),
            "{stage}: {about}"
        );
    }
}

/// Plugins from WebAssembly text, in an order, with a time limit.
async fn loaded(modules: &[String], timeout: Duration) -> (Arc<Plugins>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let load = modules.iter().enumerate().map(|(index, text)| {
        let path = dir.path().join(format!("p{index}.wasm"));
        std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
        PluginSettings {
            path,
            name: format!("p{index}"),
            ..PluginSettings::default()
        }
    });
    let settings = PluginsSettings {
        load: load.collect(),
        timeout,
        memory_max: ByteSize::mib(4),
        reload_interval: Duration::from_millis(10),
        ..PluginsSettings::default()
    };
    (Arc::new(Plugins::start(&settings).await.unwrap()), dir)
}

#[tokio::test]
async fn a_plugin_that_fails_costs_its_event_and_nothing_else() {
    for (body, what) in [(TRAP, "a trap"), (HOG, "memory")] {
        let (hooks, _dir) = loaded(&[module(&[(RECEIVED, "sync")], body, &[])], PATIENCE).await;
        let sandbox = sandbox(hooks);
        for call in [custom("{}"), http_event("{}")] {
            let answer = send(&sandbox, call).await;
            let message = "plugin p0 failed at gateway.event.received. Please check logs.";
            is_refused(&answer, 500, "plugin_failed;plugin", message);
        }
        assert_eq!(sandbox.node.calls(), 0, "{what}");
    }
    let (hooks, _dir) = loaded(&[module(&[(INVOKING, "sync")], TRAP, &[])], PATIENCE).await;
    let sandbox = sandbox(hooks);
    let answer = send(&sandbox, http_event("{}")).await;
    let message = "Function call failed. Please check logs.";
    is_refused(&answer, 500, "plugin_failed;plugin", message);
}

/// The tests' runtime has one thread: a plugin that hung on it would hold up everything.
#[tokio::test]
async fn a_plugin_that_hangs_is_cut_off_and_others_are_served_meanwhile() {
    let (hooks, _dir) = loaded(
        &[module(&[(INVOKING, "sync")], HANG, &[])],
        Duration::from_secs(1),
    )
    .await;
    let sandbox = sandbox(hooks);
    let begun = Instant::now();
    let hanging = send(&sandbox, http_event("{}"));
    let served = async {
        let mut count = 0;
        while begun.elapsed() < Duration::from_millis(800) {
            assert_eq!(send(&sandbox, custom("{}")).await.status, 202);
            let status = Call::get("/v1/status")
                .send(sandbox.addresses.config)
                .await
                .status;
            assert_eq!(status, 200);
            count += 1;
        }
        count
    };
    let (answer, served) = tokio::join!(hanging, served);
    let message = "Function call failed. Please check logs.";
    is_refused(&answer, 500, "plugin_failed;plugin", message);
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < PATIENCE);
    assert!(served > 3, "{served} were served meanwhile");
}

#[tokio::test]
async fn an_async_plugin_that_hangs_delays_nobody() {
    let stages = Stage::ALL.map(|stage| (stage.name(), "async"));
    let (hooks, _dir) = loaded(&[module(&stages, HANG, &[])], PATIENCE).await;
    let sandbox = sandbox(hooks);
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(send(&sandbox, http_event("{}")).await.status, 200);
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_new_file_is_taken_and_a_broken_one_is_not() {
    let saying = |text: &str| answer(&[(RECEIVED, "sync")], &json!({"veto": text}).to_string());
    let (hooks, dir) = loaded(&[saying("old")], PATIENCE).await;
    let path = dir.path().join("p0.wasm");
    let sandbox = sandbox(hooks);
    let said = async || {
        let answer = send(&sandbox, custom("{}")).await.json();
        answer["errors"][0]["message"].as_str().unwrap().to_owned()
    };
    std::fs::write(&path, "\0asm, but broken").unwrap();
    for _ in 0..20 {
        assert_eq!(said().await, "old");
    }
    std::fs::write(&path, wat::parse_str(saying("newer")).unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while said().await != "newer" {
        assert!(Instant::now() < deadline, "the new file is not taken");
    }
}

/// The order of the settings is the order of asking: the first changes what the second refuses.
#[tokio::test]
async fn plugins_are_asked_in_the_order_of_the_settings() {
    let change = answer(
        &[(RECEIVED, "sync")],
        r#"{"data":{"longer":"than before"}}"#,
    );
    let texts = [r#"{"veto":"it was changed"}"#, ""];
    let refuse = format!(
        "(if (result i64) (i32.gt_u (local.get $length) (i32.const 320)) (then {}) (else (i64.const 0)))",
        answering(0, texts[0])
    );
    let refuse = module(&[(RECEIVED, "sync")], &refuse, &texts);
    let (forth, _one) = loaded(&[change.clone(), refuse.clone()], PATIENCE).await;
    let (back, _two) = loaded(&[refuse, change], PATIENCE).await;
    let mut statuses = Vec::new();
    for hooks in [forth, back] {
        statuses.push(send(&sandbox(hooks), custom("1")).await.status);
    }
    assert_eq!(statuses, [400, 202]);
}
