//! Functions on other clouds: AWS as moto serves it, with signatures and permissions checked, read back with boto3; Google Cloud, Azure
//! and OpenWhisk as servers that check tokens and keys as these do.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use cluster_tests::{
    Answer, Moto, Node, Platforms, Record, Sandbox, eventually, full_length, outage,
};
use serde_json::{Value, json};

/// How long an event may take to a cloud, on a machine that is busy with other tests.
const DELIVERED: Duration = Duration::from_secs(30);

/// A record of an AWS type at moto, with a key.
fn of_aws(moto: &Moto, id: &str, type_name: &str, target: (&str, &Value), key: &Value) -> Record {
    let mut provider = key.clone();
    provider["region"] = json!("eu-west-1");
    provider["endpoint"] = json!(moto.url());
    provider[target.0] = target.1.clone();
    Record::remote(id, type_name, &provider).timeout_ms(20_000)
}

/// The error's message, after its status, code and component are as a call that a cloud did not take has them.
fn not_taken(answer: &Answer) -> String {
    let head = (answer.status, answer.error.as_deref());
    assert_eq!(head, (502, Some("unreachable")), "{answer:?}");
    assert_eq!(answer.component.as_deref(), Some("provider"));
    said(answer)
}

fn said(answer: &Answer) -> String {
    answer.json()["error"].as_str().expect("a text").to_owned()
}

/// One record of a service, as it was read back.
fn found<'a>(came: &'a Value, service: &str, field: &str, value: &str) -> Option<&'a Value> {
    let mut all = came[service].as_array().expect("a list").iter();
    all.find(|one| one[field] == value)
}

/// Each node answers with the number or id that AWS gave the record, and what boto3 reads there is what was sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_aws_is_read_back_by_its_number_or_id() {
    let sandbox = Sandbox::processes(2).await;
    let (moto, made) = Moto::start(sandbox.dir()).await;
    let key = &made["key"];
    let targets = [
        ("stream", "awskinesis", ("streamName", &json!("stream"))),
        (
            "delivery",
            "awsfirehose",
            ("deliveryStreamName", &json!("delivery")),
        ),
        ("queue", "awssqs", ("queueUrl", &made["queue"])),
        ("fifo", "awssqs", ("queueUrl", &made["fifo"])),
        ("lambda", "awslambda", ("arn", &json!("function"))),
    ];
    for (id, type_name, target) in targets {
        sandbox
            .register(&of_aws(&moto, id, type_name, target, key))
            .await;
    }
    sandbox
        .subscribe(&json!({"event": "order.made", "functionId": "stream"}))
        .await;
    let mut told = Vec::new();
    for node in sandbox.nodes() {
        let payload = json!({"from": node.name(), "text": "für alle"});
        for service in ["stream", "delivery", "queue", "fifo"] {
            let answer = node.invoke(service, payload.clone()).await;
            let id = answer.result().as_str().expect("a number or id").to_owned();
            told.push((service, id, payload.to_string()));
        }
        // moto runs no code: it answers with what it was sent.
        let answer = node.invoke("lambda", payload.clone()).await;
        assert_eq!(answer.result(), payload);
    }
    let emitted = sandbox
        .node(1)
        .emit("order.made", &json!({"order": 7}))
        .await;
    assert_eq!(emitted.status, 202);

    let came = eventually("the event came to the stream", DELIVERED, || async {
        let came = moto.came().await;
        match came["kinesis"].as_array().expect("a list").len() {
            3 => Ok(came),
            _ => Err(came.to_string()),
        }
    });
    // What was in the queues is gone when it was read.
    let before = moto.came().await;
    let after = came.await;
    for (service, id, text) in &told {
        match *service {
            "stream" => {
                let record = found(&before, "kinesis", "id", id).expect("it is there");
                assert_eq!(&record["text"], text);
            }
            "delivery" => {
                let all = before["firehose"].as_array().expect("a list");
                assert!(all.contains(&json!(text)), "{before}");
            }
            name => {
                let message = found(&before, name, "id", id).expect("it is there");
                assert_eq!(&message["text"], text);
                let group = if name == "fifo" {
                    json!("default/fifo")
                } else {
                    Value::Null
                };
                assert_eq!(message["group"], group);
            }
        }
    }
    let keys: BTreeSet<_> = after["kinesis"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|record| record["key"].to_string())
        .collect();
    assert_eq!(keys.len(), 3, "partition keys are random");
    let event = after["kinesis"][2]["text"].as_str().expect("a text");
    let event: Value = serde_json::from_str(event).expect("an event is JSON");
    assert_eq!(
        (&event["event"], &event["data"]),
        (&json!("order.made"), &json!({"order": 7}))
    );
}

/// Whatever is wrong, the error says what, where, and what AWS said of it; and no log says a key.
#[tokio::test(flavor = "multi_thread")]
async fn what_aws_does_not_take_is_told_with_what_it_said() {
    let node_key = ("AKNODE0123456789ABCD", "the-secret-of-the-node");
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .env("AWS_ACCESS_KEY_ID", node_key.0)
        .env("AWS_SECRET_ACCESS_KEY", node_key.1)
        .start()
        .await;
    let (moto, made) = Moto::start(sandbox.dir()).await;
    let node = sandbox.node(0);
    let (key, stream) = (&made["key"], json!("stream"));
    let mut wrong = key.clone();
    wrong["awsSecretAccessKey"] = json!("another-secret");
    let cases = [
        (
            "wrong",
            "awskinesis",
            ("streamName", &stream),
            &wrong,
            "AWS Kinesis, stream stream in eu-west-1: ",
        ),
        (
            "powerless",
            "awskinesis",
            ("streamName", &stream),
            &made["powerless"],
            "AccessDenied: User: arn:aws:iam::123456789012:user/powerless is not authorized",
        ),
        // The node's own key, which this AWS does not know.
        (
            "node",
            "awskinesis",
            ("streamName", &stream),
            &json!({}),
            "The security token included in the request is invalid",
        ),
        (
            "stream",
            "awskinesis",
            ("streamName", &json!("none")),
            key,
            "ResourceNotFoundException: Stream none",
        ),
        (
            "delivery",
            "awsfirehose",
            ("deliveryStreamName", &json!("none")),
            key,
            "delivery stream none in eu-west-1: ResourceNotFoundException",
        ),
        (
            "queue",
            "awssqs",
            ("queueUrl", &json!(format!("{}/1/none", moto.url()))),
            key,
            "QueueDoesNotExist",
        ),
    ];
    for (id, type_name, target, key, expected) in cases {
        sandbox
            .register(&of_aws(&moto, id, type_name, target, key))
            .await;
        let answer = node.invoke(id, json!({"a": 1})).await;
        let said = not_taken(&answer);
        assert!(said.contains(expected), "{id}: {said}");
    }
    let queue = of_aws(&moto, "text", "awssqs", ("queueUrl", &made["queue"]), key);
    sandbox.register(&queue).await;
    let large = node.invoke("text", json!("x".repeat(1_048_576))).await;
    assert_eq!(
        (large.status, large.error.as_deref()),
        (413, Some("payload_too_large"))
    );
    assert!(said(&large).contains("AWS SQS takes 1048576"), "{large:?}");

    moto.kill9();
    let answer = node.invoke("text", json!({"a": 1})).await;
    let said = not_taken(&answer);
    assert!(
        said.contains("the function can not be reached: AWS SQS, queue http://"),
        "{said}"
    );
    let retries = node
        .metric("hearth_cloud_retries_total", "type=\"awssqs\"")
        .await;
    assert!((retries - 2.0).abs() < f64::EPSILON, "{retries}");
    let log = node.log();
    // But for the line of the sandbox, which says how the node was started.
    let log: Vec<_> = log
        .lines()
        .filter(|line| !line.starts_with("--- "))
        .collect();
    let log = log.join("\n");
    assert!(!log.is_empty());
    for secret in [
        node_key.1,
        "another-secret",
        key["awsSecretAccessKey"].as_str().expect("a text"),
    ] {
        assert!(!log.contains(secret), "the log has {secret}");
    }
}

/// Tokens and keys are those that the platforms ask for; what is wrong with them is told apart from what the function says.
#[tokio::test(flavor = "multi_thread")]
async fn functions_of_google_azure_and_openwhisk_are_called_as_their_platforms_ask() {
    let sandbox = Sandbox::processes(2).await;
    let platforms = Platforms::start(sandbox.dir()).await;
    let (url, keys) = (platforms.url(), platforms.keys());
    let google =
        |key: &Value| json!({"url": format!("{url}/gcloud/function"), "serviceAccountKey": key});
    let azure = |key: &str| json!({"url": format!("{url}/azure/api/function"), "functionKey": key});
    let whisk = |action: &str, key: &str| json!({"apiHost": url, "namespace": "guest", "action": action, "key": key});
    let text = |name: &str| keys[name].as_str().expect("a text").to_owned();
    let (azure_key, whisk_key) = (text("azure"), text("openwhisk"));
    let mut unknown = keys["account"].clone();
    unknown["client_email"] = json!("nobody@project.iam.gserviceaccount.com");
    let mut elsewhere = google(&keys["account"]);
    elsewhere["audience"] = json!("https://another.example");
    for (id, type_name, provider) in [
        ("google", "gcloudfunction", google(&keys["account"])),
        ("google-unknown", "gcloudfunction", google(&unknown)),
        ("google-elsewhere", "gcloudfunction", elsewhere),
        ("azure", "azurefunction", azure(&azure_key)),
        ("azure-wrong", "azurefunction", azure("wrong")),
        ("whisk", "openwhisk", whisk("tools/echo", &whisk_key)),
        (
            "whisk-broken",
            "openwhisk",
            whisk("tools/broken", &whisk_key),
        ),
        ("whisk-none", "openwhisk", whisk("none", &whisk_key)),
        ("whisk-wrong", "openwhisk", whisk("tools/echo", "a:b")),
    ] {
        sandbox
            .register(&Record::remote(id, type_name, &provider))
            .await;
    }
    let payload = json!({"n": 1});
    let mut tokens = Vec::new();
    for node in [0, 1, 0, 1].map(|place| sandbox.node(place)) {
        for id in ["google", "azure", "whisk"] {
            let answer = node.invoke(id, payload.clone()).await;
            assert_eq!(answer.result()["got"], payload, "{id}: {answer:?}");
            if id == "google" {
                assert_eq!(answer.result()["email"], keys["account"]["client_email"]);
                tokens.push(answer.result()["tokens"].clone());
            }
        }
    }
    assert_eq!(
        tokens,
        [1, 2, 2, 2].map(|count| json!(count)),
        "each node keeps one"
    );

    let node = sandbox.node(0);
    for (id, expected) in [
        (
            "google-unknown",
            "status 400: {\"error\": \"invalid_grant\"",
        ),
        (
            "google-elsewhere",
            "status 401: Bearer error=\"invalid_token\"",
        ),
        (
            "azure-wrong",
            "status 401: provider.functionKey is no key of it",
        ),
        (
            "whisk-none",
            "action guest/none: status 404: The requested resource does not exist.",
        ),
        (
            "whisk-wrong",
            "status 401: The supplied authentication is invalid.",
        ),
    ] {
        let said = not_taken(&node.invoke(id, payload.clone()).await);
        assert!(said.contains(expected), "{id}: {said}");
    }
    let answer = node.invoke("whisk-broken", payload).await;
    assert_eq!(
        (answer.status, answer.error.as_deref()),
        (502, Some("function_failed"))
    );
    assert_eq!(answer.component.as_deref(), Some("function"));
    assert!(said(&answer).contains("it is broken"), "{answer:?}");
    let shards = [("later", "495"), ("never", "")];
    for (stream, number) in shards {
        let provider = json!({
            "streamName": stream, "region": "eu-west-1", "endpoint": format!("{url}/kinesis"),
            "awsAccessKeyId": "a", "awsSecretAccessKey": "b",
        });
        sandbox
            .register(&Record::remote(stream, "awskinesis", &provider))
            .await;
        let answer = node.invoke(stream, json!(1)).await;
        if number.is_empty() {
            assert_eq!(
                (answer.status, answer.error.as_deref()),
                (429, Some("function_busy"))
            );
            assert_eq!(answer.retry_after, Some(1));
            assert!(
                said(&answer).contains("Rate exceeded for shard s."),
                "{answer:?}"
            );
        } else {
            assert_eq!(
                answer.result(),
                number,
                "taken at the third attempt: {answer:?}"
            );
        }
    }
}

/// All events that were accepted come to the queue, through an AWS that does not answer for a while. A queue, since moto's streams lose
/// records that come at once.
#[tokio::test(flavor = "multi_thread")]
async fn long_events_reach_a_queue_through_an_outage_of_aws() {
    let events = if full_length() { 400 } else { 100 };
    let sandbox = Sandbox::processes(3).await;
    let (moto, made) = Moto::start(sandbox.dir()).await;
    let target = ("queueUrl", &made["queue"]);
    let record = of_aws(&moto, "queue", "awssqs", target, &made["key"]).timeout_ms(2_000);
    sandbox.register(&record).await;
    sandbox
        .subscribe(&json!({"event": "order.made", "functionId": "queue"}))
        .await;
    let emit = async |node: &Node, order: usize| {
        let emitted = node.emit("order.made", &json!({"order": order})).await;
        assert_eq!(emitted.status, 202, "{emitted:?}");
    };
    for order in 0..events {
        if order == events / 4 {
            moto.stop();
        }
        emit(&sandbox.node(order % 3), order).await;
    }
    // Longer than a call may take.
    outage(Duration::from_secs(6)).await;
    moto.cont();
    // What was read is no longer in the queue.
    let orders = Mutex::new(BTreeSet::new());
    eventually("every event came", 6 * DELIVERED, || async {
        let came = moto.came().await;
        let messages = came["queue"].as_array().expect("a list");
        let read = messages
            .iter()
            .filter_map(|message| serde_json::from_str::<Value>(message["text"].as_str()?).ok())
            .filter_map(|event| event["data"]["order"].as_u64());
        let mut orders = orders.lock().expect("no holder panics");
        orders.extend(read);
        match orders.len() == events {
            true => Ok(()),
            false => Err(format!("{} of {events}", orders.len())),
        }
    })
    .await;
}
