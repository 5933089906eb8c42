//! Section 8: `invoke` events.

use super::*;

fn subscribed() -> Sandbox {
    let invoke = |path: &str, function: &str| json!({"event": "invoke", "path": path, "functionId": function});
    sandbox(&[
        ("default", invoke("/", "f")),
        ("default", invoke("/run/a b", "f")),
        ("other", invoke("/", "g")),
        ("default", invoke("/", "binary")),
        ("default", http("POST", "/", "g")),
    ])
}

fn invoke(path: &str, function: &str) -> Call {
    Call::post(path, "{\"n\":1.0}")
        .header("event", "invoke")
        .header("function-id", function)
        .header("content-type", "application/json")
}

#[tokio::test]
async fn the_functions_bare_answer_is_the_clients() {
    let sandbox = subscribed();
    for (section, call, function, space) in [
        ("8", invoke("/", "f"), "f", "default"),
        ("8 decoded path", invoke("/run/a%20b", "f"), "f", "default"),
        (
            "8 space",
            invoke("/", "g").header("space", "other"),
            "g",
            "other",
        ),
        (
            "8 empty space",
            invoke("/", "f").header("space", ""),
            "f",
            "default",
        ),
    ] {
        let answer = send(&sandbox, call).await;
        assert_eq!(answer.status, 200, "section {section}");
        // The response object is not interpreted.
        let object = answer.json();
        assert_eq!(
            object["headers"],
            json!({"X-Function": function, "X-Space": space}),
            "section {section}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let envelope: Value = serde_json::from_str(object["body"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&envelope["event"], &envelope["data"]),
            (&json!("invoke"), &json!({"n": 1.0}))
        );
        assert!(
            object["body"]
                .as_str()
                .unwrap()
                .contains(r#""data":{"n":1.0}"#),
            "exact"
        );
    }
    assert_eq!(
        send(&sandbox, invoke("/", "f"))
            .await
            .header("x-hearth-start"),
        Some("warm")
    );
}

#[tokio::test]
async fn without_a_subscription_on_that_path_nothing_runs() {
    let sandbox = subscribed();
    let message = "function or subscription not found";
    let plain = Call::post("/", "").header("event", "invoke");
    for (section, call) in [
        ("8 other path", invoke("/run", "f")),
        ("8 unknown function", invoke("/", "nobody")),
        ("8 no invoke subscription", invoke("/", "raw")),
        ("8 missing id", plain.clone()),
        ("8 odd id", plain.header("function-id", "a/b")),
        ("8 other space", invoke("/", "f").header("space", "other")),
        ("8 odd space", invoke("/", "f").header("space", "a b")),
        ("8 exact path", invoke("//", "f")),
    ] {
        println!("{section}");
        refused(&sandbox, call, 404, message).await;
    }
    assert_eq!(sandbox.node.calls(), 0);
    sandbox.node.on_invoke(async |_| Err(function_error()));
    refused(
        &sandbox,
        invoke("/", "f"),
        500,
        "Function call failed. Please check logs.",
    )
    .await;
}

#[tokio::test]
async fn a_function_gets_it_in_its_form() {
    let sandbox = subscribed();
    let answer = send(&sandbox, invoke("/", "binary").header("x-mine", "1")).await;
    assert_eq!(
        (answer.status, answer.text()),
        (200, "{\"n\":1.0}"),
        "neither status nor headers of the function"
    );
    assert_eq!(answer.header("set-cookie"), None);
    let request = sandbox.node.requests.lock().unwrap()[0].clone();
    let call = request.call.unwrap();
    let names: Vec<_> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time"]
    );
    assert_eq!(call.headers[3].1, "invoke");
    assert_eq!(call.answer, protocol::invocation::AnswerRule::Success);
}
