//! Requests that an authorizer is asked about before the function of their subscription is called.

use std::collections::BTreeMap;
use std::time::Duration;

use super::typed::{authorize, called, delivered, got, typed};
use super::*;

const ALLOWED: &str = r#"{"authorization":{"principalId":"J\u00fcrgen","context":{"a":"b"}}}"#;

/// A subscription that has the function `answers` asked.
fn asking((space, mut record): (&'static str, Value)) -> (&'static str, Value) {
    record["authorizerId"] = json!("answers");
    (space, record)
}

fn legacy(method: &str, path: &str, function: &str) -> (&'static str, Value) {
    ("default", http(method, path, function))
}

fn request_typed(method: &str, path: &str, function: &str) -> (&'static str, Value) {
    typed("sync", "http.request", method, path, function)
}

/// What authorizers say by their ids; all other functions do as ever.
fn say(sandbox: &Sandbox, said: &[(&'static str, &'static str)]) {
    let said: BTreeMap<_, _> = said.iter().copied().collect();
    sandbox.node.on_invoke(move |request: Request| {
        let said = said.get(request.function_id.as_str()).copied();
        async move {
            match said {
                Some(said) => Ok(replied(None, said)),
                None => run(request),
            }
        }
    });
}

fn principal(event: &Value) -> &Value {
    &event["extensions"]["eventgateway"]["authorization"]["principalId"]
}

/// The value of the header that a function was called with, each time.
fn headers(sandbox: &Sandbox, function: &str, name: &str) -> Vec<Option<String>> {
    let requests = sandbox.node.requests.lock().unwrap();
    let own = requests
        .iter()
        .filter(|request| request.function_id.as_str() == function);
    own.map(|request| {
        let headers = &request.call.as_ref().unwrap().headers;
        let found = headers.iter().filter(|(one, _)| one == name);
        let mut found = found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap());
        let value = found.next();
        assert!(found.next().is_none(), "it is told once");
        value
    })
    .collect()
}

#[tokio::test]
async fn a_request_reaches_its_function_only_if_the_authorizer_lets_it() {
    let sandbox = sandbox(&[
        asking(legacy("POST", "/old/:id", "f")),
        asking(request_typed("POST", "/new/:id", "g")),
        typed("async", "http.request", "POST", "/new/7", "pooled-envelope"),
        legacy("POST", "/free", "f"),
    ]);
    let call = |path: &str| {
        Call::post(path, r#"{"n":1}"#)
            .header("content-type", "application/json")
            .header("x-api-key", "k")
    };
    let refuses = [
        r#"{"error":{"message":"no"}}"#,
        r#"{"error":{"message":"no"},"authorization":{"principalId":"me"}}"#,
        "{}",
        r#"{"authorization":null}"#,
        r#"{"authorization":{}}"#,
        "no JSON",
        "",
    ];
    let told =
        |event: &str| format!("Authorization of event type {event:?} failed. Please check logs.");
    for said in refuses {
        say(&sandbox, &[("answers", said)]);
        refused(&sandbox, call("/old/7"), 403, &told("http")).await;
        refused(&sandbox, call("/new/7"), 403, &told("http.request")).await;
    }
    sandbox.node.on_invoke(
        async |request: Request| match request.function_id.as_str() {
            "answers" => Err(function_error()),
            _ => Ok(replied(None, "{}")),
        },
    );
    assert_eq!(send(&sandbox, call("/old/7")).await.status, 403);
    let answer = send(&sandbox, call("/new/7")).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("x-hearth-error"), Some("forbidden;gateway"));
    delivered(&sandbox).await;
    // What is queued is another subscription, which names nobody; and whom nobody guards is not asked about.
    let called = called(&sandbox);
    let count = |id: &str| called.iter().filter(|called| *called == id).count();
    assert_eq!((count("f"), count("g")), (0, 0));
    assert_eq!(count("pooled-envelope"), refuses.len() + 1);
    let asked = got(&sandbox, "answers");
    assert_eq!(asked.len(), 2 * (refuses.len() + 1));
    assert_eq!(send(&sandbox, call("/free")).await.status, 200);
    assert_eq!(got(&sandbox, "answers").len(), asked.len());

    // Both dialects ask alike.
    for (asked, path) in asked.iter().zip(["/old/7", "/new/7"]) {
        let (media_type, question) = asked;
        assert_eq!(media_type, "application/cloudevents+json");
        let event = &question["event"];
        assert_eq!(event["eventType"], "http.request");
        assert_eq!(event["data"]["params"], json!({"id": "7"}));
        let request = &question["request"];
        assert_eq!(
            (&request["method"], &request["path"], &request["body"]),
            (&json!("POST"), &json!(path), &json!({"n": 1}))
        );
        assert_eq!(request["headers"]["X-Api-Key"], "k");
    }

    say(&sandbox, &[("answers", ALLOWED)]);
    for (path, function) in [("/old/7", "f"), ("/new/7", "g")] {
        let answer = send(&sandbox, call(path)).await;
        assert_eq!(
            (answer.status, answer.header("x-function")),
            (200, Some(function)),
            "{answer:?}"
        );
        assert_eq!(*principal(&answer.json()), "J\u{fc}rgen");
    }
    let envelope = &got(&sandbox, "f")[1].1;
    assert_eq!(
        envelope["extensions"]["eventgateway"]["authorization"]["context"],
        json!({"a": "b"})
    );
    assert_eq!(
        (&envelope["event"], &envelope["data"]["params"]["id"]),
        (&json!("http"), &json!("7"))
    );
}

#[tokio::test]
async fn functions_of_other_forms_are_told_by_a_header_that_no_client_can_send() {
    let forms = ["raw", "binary", "structured", "f"];
    let subscriptions: Vec<_> = forms
        .iter()
        .flat_map(|form| {
            [
                asking(legacy("POST", &format!("/old/{form}"), form)),
                asking(request_typed("POST", &format!("/new/{form}"), form)),
                legacy("POST", &format!("/free/{form}"), form),
            ]
        })
        .collect();
    let sandbox = sandbox(&subscriptions);
    say(&sandbox, &[("answers", ALLOWED)]);
    let name = "x-hearth-authorization";
    for form in forms {
        for route in ["old", "new", "free"] {
            let call = Call::post(&format!("/{route}/{form}"), "{}");
            let call = call.header(name, r#"{"principalId":"evil"}"#);
            send(&sandbox, call).await;
        }
        let told = headers(&sandbox, form, name);
        if form == "f" {
            assert_eq!(told, [None, None, None], "its envelope says so");
            continue;
        }
        let [Some(old), Some(new), None] = &told[..] else {
            panic!("{form}: {told:?}");
        };
        assert!(old.is_ascii());
        let said: Value = serde_json::from_str(old).unwrap();
        assert_eq!(
            said,
            json!({"principalId": "J\u{fc}rgen", "context": {"a": "b"}})
        );
        assert_eq!(old, new);
    }
}

/// A preflight has nothing to judge it by, and makes nothing run.
#[tokio::test]
async fn preflights_are_not_asked_about() {
    let mut own = http("GET", "/cors", "f");
    own["cors"] = json!({"origins": ["http://a.example"]});
    let sandbox = sandbox(&[
        asking(("default", own)),
        asking(legacy("GET", "/old", "f")),
        asking(request_typed("GET", "/new", "f")),
        asking(legacy("OPTIONS", "/options", "f")),
    ]);
    say(&sandbox, &[("answers", ALLOWED)]);
    for (path, status, allowed) in [
        ("/cors", 200, Some("http://a.example")),
        ("/old", 202, None),
        ("/new", 202, None),
    ] {
        let call = Call::new("OPTIONS", path)
            .header("origin", "http://a.example")
            .header("access-control-request-method", "GET");
        let answer = send(&sandbox, call).await;
        let seen = (answer.status, answer.header("access-control-allow-origin"));
        assert_eq!(seen, (status, allowed), "{path}");
    }
    assert_eq!(called(&sandbox), [""; 0]);
    // What is no preflight is a request, whatever its method; and who is refused may be told so by a page's rules.
    assert_eq!(
        send(&sandbox, Call::new("OPTIONS", "/options"))
            .await
            .status,
        200
    );
    assert_eq!(called(&sandbox), ["answers", "f"]);
    say(&sandbox, &[("answers", "{}")]);
    let call = Call::get("/cors").header("origin", "http://a.example");
    let answer = send(&sandbox, call).await;
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://a.example")
    );
}

#[tokio::test]
async fn of_two_authorizers_that_of_the_event_type_is_asked_first() {
    let sandbox = sandbox(&[asking(request_typed("POST", "/", "f"))]);
    authorize(&sandbox, "http.request", "g");
    let first = r#"{"authorization":{"principalId":"first"}}"#;
    let second = r#"{"authorization":{"principalId":"second"}}"#;
    for (of_type, own, status, asked) in [
        ("{}", second, 403, vec!["g"]),
        (first, "{}", 403, vec!["answers", "g"]),
        (first, second, 200, vec!["answers", "f", "g"]),
    ] {
        sandbox.node.requests.lock().unwrap().clear();
        say(&sandbox, &[("g", of_type), ("answers", own)]);
        let answer = send(&sandbox, Call::post("/", "1")).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(called(&sandbox), asked);
    }
    // The second knows what the first said, and has the last word.
    assert_eq!(*principal(&got(&sandbox, "answers")[0].1["event"]), "first");
    assert_eq!(*principal(&got(&sandbox, "f")[0].1), "second");
    assert!(
        got(&sandbox, "g")[0].1["event"]
            .get("extensions")
            .is_none_or(|extensions| extensions["eventgateway"].get("authorization").is_none())
    );

    // One that is named twice is asked once.
    authorize(&sandbox, "http.request", "answers");
    sandbox.node.requests.lock().unwrap().clear();
    assert_eq!(send(&sandbox, Call::post("/", "1")).await.status, 200);
    assert_eq!(called(&sandbox), ["answers", "f"]);
}

/// The function has what of the request's time the authorizer leaves, and one that does not answer takes no more than that.
#[tokio::test]
async fn the_time_of_a_request_is_the_authorizers_too() {
    let sandbox =
        Sandbox::with(|settings| settings.node.start_timeout = Duration::from_millis(150));
    let mut functions = functions("default");
    let quick = json!({"space": "default", "functionId": "quick", "type": "http", "provider": {"url": "http://a.example/b"}, "limits": {"timeoutMs": 50}});
    functions.push(serde_json::from_value(quick).unwrap());
    let subscription = asking(legacy("POST", "/", "quick")).1.to_string();
    let subscription = Subscription::parse("default", subscription.as_bytes()).unwrap();
    *sandbox.node.registry.lock().unwrap() = Arc::new(registry(functions, [subscription]));
    say(&sandbox, &[("answers", ALLOWED), ("quick", "{}")]);
    assert_eq!(send(&sandbox, Call::post("/", "1")).await.status, 200);
    let begun: Vec<_> = {
        let requests = sandbox.node.requests.lock().unwrap();
        requests.iter().map(|request| request.begun).collect()
    };
    let [None, Some(_)] = begun[..] else {
        panic!("the function's time counts from the request's begin: {begun:?}");
    };
    sandbox.node.on_invoke(
        async |request: Request| match request.function_id.as_str() {
            "answers" => std::future::pending().await,
            _ => Ok(replied(None, "{}")),
        },
    );
    assert_eq!(send(&sandbox, Call::post("/", "1")).await.status, 403);
    assert_eq!(called(&sandbox), ["answers", "answers", "quick"]);
}
