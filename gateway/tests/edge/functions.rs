//! Section 3 of Event Gateway's behaviour: function records over the config API.

use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox};

const ALL: &str = "/v1/spaces/default/functions";

async fn create(sandbox: &Sandbox, space: &str, record: &str) -> Answer {
    let path = format!("/v1/spaces/{space}/functions");
    sandbox.admin(Call::post(&path, record)).await
}

/// The message of a refusal in Event Gateway's shape.
fn message(answer: &Answer) -> String {
    assert_eq!(answer.status, 400, "{answer:?}");
    let body = answer.json();
    let message = body["errors"][0]["message"].as_str().unwrap();
    assert_eq!(body, json!({"errors": [{"message": message}]}));
    message.to_owned()
}

/// Section 3: the tails of what does not validate, for create and update alike; nothing is stored.
#[tokio::test]
async fn what_does_not_validate_is_400() {
    let sandbox = Sandbox::start();
    let http =
        |provider: &str| format!(r#"{{"functionId":"f","type":"http","provider":{provider}}}"#);
    let typed = |name: &str| {
        format!(r#"{{"functionId":"f","type":"{name}","provider":{{"region":"eu"}}}}"#)
    };
    let field = |field: &str, tag: &str| {
        format!(
            "Key: 'Function.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
        )
    };
    let url = r#"{"url":"http://a.example"}"#;
    let cases = [
        (
            r#"{"functionId":"f"}"#.to_owned(),
            "provider configuration not set".to_owned(),
        ),
        (
            r#"{"functionId":"f","type":"","provider":{}}"#.to_owned(),
            "provider configuration not set".to_owned(),
        ),
        // Corrected: the original dropped the connection.
        (
            r#"{"functionId":"f","type":"http"}"#.to_owned(),
            "provider configuration not set".to_owned(),
        ),
        (http("null"), "provider configuration not set".to_owned()),
        (typed("cobol"), "provider cobol not supported".to_owned()),
        (
            http("{}"),
            "missing required fields for HTTP endpoint".to_owned(),
        ),
        (
            http(r#"{"url":"/relative"}"#),
            "missing required fields for HTTP endpoint".to_owned(),
        ),
        (
            typed("awslambda"),
            "missing required fields for AWS Lambda function".to_owned(),
        ),
        (
            typed("awskinesis"),
            "missing required fields for AWS Kinesis function".to_owned(),
        ),
        (
            typed("awsfirehose"),
            "missing required fields for AWS Firehose function".to_owned(),
        ),
        (
            typed("awssqs"),
            "missing required fields for AWS SQS function".to_owned(),
        ),
        (
            format!(r#"{{"type":"http","provider":{url}}}"#),
            field("ID", "required"),
        ),
        (
            format!(r#"{{"functionId":"a b","type":"http","provider":{url}}}"#),
            field("ID", "functionid"),
        ),
    ];
    for (record, tail) in cases {
        let expected = format!("Function doesn't validate. Validation error: {tail}");
        assert_eq!(
            message(&create(&sandbox, "default", &record).await),
            expected,
            "{record}"
        );
    }
    for (space, tag) in [("ab", "min"), ("a%20b", "space")] {
        let expected = format!(
            "Function doesn't validate. Validation error: {}",
            field("Space", tag)
        );
        assert_eq!(
            message(&create(&sandbox, space, &http(url)).await),
            expected,
            "{space}"
        );
    }
    for (record, why) in [
        ("{", "EOF"),
        ("[]", "invalid type"),
        (&http("3"), "unable to load function provider config: "),
    ] {
        let told = message(&create(&sandbox, "default", record).await);
        let is_told =
            told.starts_with("Function doesn't validate. Validation error: ") && told.contains(why);
        assert!(is_told, "{record}: {told}");
    }
    // Section 3: an update is validated before the function is looked for.
    let put = Call::new("PUT", &format!("{ALL}/nobody")).body(typed("cobol"));
    let expected = "Function doesn't validate. Validation error: provider cobol not supported";
    assert_eq!(message(&sandbox.admin(put).await), expected);
    assert_eq!(
        sandbox.admin(Call::get(ALL)).await.text(),
        "{\"functions\":[]}\n"
    );
}

/// Section 3: what a provider has is answered as it was sent, credentials included; what it does not know is passed over.
#[tokio::test]
async fn records_of_every_type_are_answered_as_they_were_sent() {
    let sandbox = Sandbox::start();
    let keys = r#","awsAccessKeyId":"id","awsSecretAccessKey":"key","awsSessionToken":"token""#;
    for (id, type_name, provider) in [
        (
            "web",
            "http",
            r#""url":"http://a.example/b?c=d""#.to_owned(),
        ),
        (
            "lambda",
            "awslambda",
            format!(r#""arn":"a","region":"eu"{keys}"#),
        ),
        (
            "plain-lambda",
            "awslambda",
            r#""arn":"a","region":"eu""#.to_owned(),
        ),
        (
            "kinesis",
            "awskinesis",
            format!(r#""streamName":"s","region":"eu"{keys}"#),
        ),
        (
            "firehose",
            "awsfirehose",
            format!(r#""deliveryStreamName":"s","region":"eu"{keys}"#),
        ),
        (
            "sqs",
            "awssqs",
            format!(r#""queueUrl":"http://q.example","region":"eu"{keys}"#),
        ),
    ] {
        let sent = format!(
            r#"{{"more":1,"space":"other","functionId":"{id}","type":"{type_name}","provider":{{{provider},"more":2}}}}"#
        );
        let record = format!(
            r#"{{"space":"default","functionId":"{id}","type":"{type_name}","provider":{{{provider}}}}}"#
        );
        let created = create(&sandbox, "default", &sent).await;
        assert_eq!(
            (created.status, created.text()),
            (201, format!("{record}\n").as_str())
        );
        let read = sandbox.admin(Call::get(&format!("{ALL}/{id}"))).await;
        assert_eq!((read.status, read.text()), (200, created.text()));
    }
}

/// Section 3: an update replaces type and provider completely.
#[tokio::test]
async fn an_update_replaces_all_and_may_change_the_type() {
    let sandbox = Sandbox::start();
    let lambda = r#"{"functionId":"f","type":"awslambda","provider":{"arn":"a","region":"eu","awsSessionToken":"t"},"metadata":{"a":"b"}}"#;
    assert_eq!(create(&sandbox, "default", lambda).await.status, 201);
    let one = format!("{ALL}/f");
    let put =
        Call::new("PUT", &one).body(r#"{"type":"http","provider":{"url":"http://a.example"}}"#);
    let expected = json!({"space": "default", "functionId": "f", "type": "http", "provider": {"url": "http://a.example"}});
    let updated = sandbox.admin(put).await;
    assert_eq!((updated.status, updated.json()), (200, expected));
    assert_eq!(sandbox.admin(Call::get(&one)).await.text(), updated.text());
}

/// Section 3: identity is the pair of space and id, whose names may be long; a space begins with the first record in it.
#[tokio::test]
async fn an_id_is_of_its_space() {
    let sandbox = Sandbox::start();
    let long = "a.B-_9".repeat(100);
    for space in ["default", "sho", "a.B-_9"] {
        for id in ["f", long.as_str()] {
            let record = json!({"functionId": id, "type": "http", "provider": {"url": format!("http://{space}.example")}});
            let created = create(&sandbox, space, &record.to_string()).await;
            assert_eq!(
                (created.status, &created.json()["space"]),
                (201, &json!(space))
            );
        }
    }
    let one = |space: &str| Call::get(&format!("/v1/spaces/{space}/functions/f"));
    let url = sandbox.admin(one("sho")).await.json()["provider"]["url"].take();
    assert_eq!(url, "http://sho.example");
    let delete = Call::new("DELETE", "/v1/spaces/sho/functions/f");
    assert_eq!(sandbox.admin(delete).await.status, 204);
    let statuses = [
        sandbox.admin(one("sho")).await.status,
        sandbox.admin(one("default")).await.status,
    ];
    assert_eq!(statuses, [404, 200]);
    let spaces: Value = sandbox.admin(Call::get("/v1/spaces")).await.json();
    assert_eq!(spaces, json!({"spaces": ["a.B-_9", "default", "sho"]}));
    // Names are held to the rules by create and update alone.
    let list = sandbox.admin(Call::get("/v1/spaces/a%20b/functions")).await;
    assert_eq!((list.status, list.text()), (200, "{\"functions\":[]}\n"));
}
