use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use config::settings::Secret;
use protocol::{Effect, ErrorCode, Failure};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::http::tests::{answer, invocation, limits, nobody, server};

fn function(type_name: &str, fields: &Value) -> Function {
    let mut provider = json!({
        "region": "eu-west-1", "awsAccessKeyId": "AKID", "awsSecretAccessKey": "secret",
    });
    for (name, value) in fields.as_object().unwrap() {
        provider[name] = value.clone();
    }
    let record = json!({"functionId": "f", "type": type_name, "provider": provider});
    Function::parse("default", None, record.to_string().as_bytes()).unwrap()
}

fn kinesis(endpoint: &str) -> Function {
    function(
        "awskinesis",
        &json!({"streamName": "s", "endpoint": endpoint}),
    )
}

fn aws(settings: &AwsSettings, is_open: bool) -> Aws {
    // A second test of the process finds it installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cloud = CloudSettings {
        backoff: Duration::from_millis(1),
        ..CloudSettings::default()
    };
    let settings = (&HttpSettings::default(), &cloud, settings);
    Aws::new(settings, is_open, limits(), None).unwrap()
}

fn open() -> Aws {
    aws(&AwsSettings::default(), true)
}

fn with_payload(bytes: usize) -> Invocation {
    Invocation {
        payload: "1".repeat(bytes).into(),
        ..invocation()
    }
}

/// The signatures that botocore 1.44 makes of the same requests at the same time.
#[test]
fn requests_are_signed_as_those_of_other_programs() {
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:f:$LATEST";
    let lambda = function("awslambda", &json!({"arn": arn}));
    let endpoint = "http://127.0.0.1:4566";
    let firehose = json!({"deliveryStreamName": "d", "endpoint": endpoint});
    let firehose = function("awsfirehose", &firehose);
    // 2026-01-02T03:04:05Z
    let now = UNIX_EPOCH + Duration::from_secs(1_767_323_045);
    for (function, token, signature) in [
        (
            lambda,
            Some("token".to_owned()),
            "SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type;x-amz-security-token, Signature=c70abeeb98456188d593fd7ad012f4b540186f175f5d38bdf2a1e4304be944b3",
        ),
        (
            firehose,
            None,
            "SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=95e9fea62a1c0551e7731dc8cabe60c3dbc5292d1d611ae43151222cb5c2c1ee",
        ),
    ] {
        let aws = open();
        let call = aws.call(&function, &invocation()).unwrap();
        let key = Credentials::new("AKID", "secret", token.clone(), None, "test");
        let posted = sign::signed(&call, &key, now).unwrap();
        let authorization = posted.headers["authorization"].to_str().unwrap();
        assert!(authorization.ends_with(signature), "{authorization}");
        let sent = posted.headers.get("x-amz-security-token");
        assert_eq!(sent.map(|sent| sent.to_str().unwrap()), token.as_deref());
        let shown = format!("{posted:?}");
        assert!(!shown.contains("AKID"), "{shown}");
    }
}

#[test]
fn each_service_is_asked_as_its_api_says() {
    let aws = open();
    let check = |type_name: &str, fields: Value, url: &str, target: &str, body: &Value| {
        let function = function(type_name, &fields);
        let call = aws.call(&function, &invocation()).unwrap();
        assert_eq!(call.url.as_str(), url);
        assert!(call.headers.contains(&("x-amz-target", target)), "{call:?}");
        let mut sent: Value = serde_json::from_slice(&call.body).unwrap();
        if let Some(key) = sent.as_object_mut().unwrap().remove("PartitionKey") {
            assert_eq!(key.as_str().map(str::len), Some(32));
        }
        sent.as_object_mut()
            .unwrap()
            .remove("MessageDeduplicationId");
        assert_eq!(&sent, body);
    };
    let data = "eyJhIjoxfQ==";
    check(
        "awskinesis",
        json!({"streamName": "s", "region": "cn-north-1"}),
        "https://kinesis.cn-north-1.amazonaws.com.cn/",
        "Kinesis_20131202.PutRecord",
        &json!({"StreamName": "s", "Data": data}),
    );
    check(
        "awsfirehose",
        json!({"deliveryStreamName": "d"}),
        "https://firehose.eu-west-1.amazonaws.com/",
        "Firehose_20150804.PutRecord",
        &json!({"DeliveryStreamName": "d", "Record": {"Data": data}}),
    );
    let message = r#"{"a":1}"#;
    for (queue, url) in [
        (
            "https://sqs.eu-west-1.amazonaws.com/1/q",
            "https://sqs.eu-west-1.amazonaws.com/",
        ),
        (
            "https://eu-west-1.queue.amazonaws.com/1/q",
            "https://sqs.eu-west-1.amazonaws.com/",
        ),
        ("http://localhost:4566/1/q", "http://localhost:4566/"),
    ] {
        check(
            "awssqs",
            json!({"queueUrl": queue}),
            url,
            "AmazonSQS.SendMessage",
            &json!({"QueueUrl": queue, "MessageBody": message}),
        );
    }
    let queue = "http://h/1/q.fifo";
    check(
        "awssqs",
        json!({"queueUrl": queue, "endpoint": "http://e/base/"}),
        "http://e/base/",
        "AmazonSQS.SendMessage",
        &json!({"QueueUrl": queue, "MessageBody": message, "MessageGroupId": "default/f"}),
    );
}

#[test]
fn what_a_service_does_not_take_is_not_sent() {
    let aws = open();
    for (type_name, fields, bytes_max) in [
        ("awslambda", json!({"arn": "f"}), 6_291_456),
        ("awskinesis", json!({"streamName": "s"}), 10_485_760 - 32),
        ("awsfirehose", json!({"deliveryStreamName": "d"}), 1_024_000),
        ("awssqs", json!({"queueUrl": "http://h/q"}), 1_048_576),
    ] {
        let function = function(type_name, &fields);
        assert!(aws.call(&function, &with_payload(bytes_max)).is_ok());
        let error = aws.call(&function, &with_payload(bytes_max + 1));
        let failure = Failure::from(&error.unwrap_err());
        let told = (failure.code, failure.effect);
        assert_eq!(told, (ErrorCode::PayloadTooLarge, Effect::Refused));
        let said = format!("takes {bytes_max}");
        assert!(failure.message.ends_with(&said), "{failure}");
    }
    let queue = function("awssqs", &json!({"queueUrl": "http://h/q"}));
    for payload in [&b""[..], b"\xff", b"a\0b"] {
        let invocation = Invocation {
            payload: Bytes::from_static(payload),
            ..invocation()
        };
        let error = aws.call(&queue, &invocation).unwrap_err();
        let told = (error.code(), error.effect());
        assert_eq!(told, (ErrorCode::InvalidRequest, Effect::Refused));
    }
}

#[test]
fn what_aws_says_decides_what_an_error_comes_to() {
    let function = kinesis("http://h");
    let aws = open();
    let call = aws.call(&function, &invocation()).unwrap();
    let of = |status: u16, header: Option<&'static str>, body: &Value| {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            let name = HeaderName::from_static("x-amzn-errortype");
            headers.insert(name, HeaderValue::from_static(header));
        }
        let body = Bytes::from(body.to_string());
        let heard = Heard {
            status,
            headers,
            body,
        };
        Failure::from(&refusal::of(&call, &heard))
    };
    let check = |status, header, body: Value, code, effect, said: &str| {
        let failure = of(status, header, &body);
        assert_eq!((failure.code, failure.effect), (code, effect), "{failure}");
        assert!(failure.message.contains(said), "{failure}");
        assert!(
            failure
                .message
                .contains("AWS Kinesis, stream s in eu-west-1"),
            "{failure}"
        );
        failure
    };
    let typed = |name: &str| json!({"__type": format!("com.amazonaws#{name}"), "message": "why"});
    let lost = "ResourceNotFoundException: why";
    let failure = check(
        400,
        None,
        typed("ResourceNotFoundException"),
        ErrorCode::Unreachable,
        Effect::Refused,
        lost,
    );
    let answered = failure.answered.unwrap();
    assert_eq!((answered.status, answered.said.as_str()), (400, lost));
    let denied = "AccessDeniedException: User is not authorized";
    check(
        403,
        Some("AccessDeniedException:http://internal.amazon.com/"),
        json!({"Message": "User is not authorized"}),
        ErrorCode::Unreachable,
        Effect::Refused,
        denied,
    );
    let xml = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>";
    let heard = Heard {
        status: 403,
        headers: HeaderMap::new(),
        body: Bytes::from_static(xml.as_bytes()),
    };
    let error = refusal::of(&call, &heard).to_string();
    assert!(error.ends_with(": AccessDenied: not you"), "{error}");
    let throttled = check(
        400,
        None,
        typed("ProvisionedThroughputExceededException"),
        ErrorCode::FunctionBusy,
        Effect::Refused,
        "ProvisionedThroughputExceededException",
    );
    assert_eq!(throttled.retry_after_ms, Some(1_000));
    let too_many = ErrorCode::FunctionBusy;
    check(
        429,
        None,
        json!({}),
        too_many,
        Effect::Refused,
        "status 429",
    );
    check(
        413,
        None,
        json!({}),
        ErrorCode::PayloadTooLarge,
        Effect::Refused,
        "status 413",
    );
    check(
        400,
        Some("InvalidRequestContentException"),
        json!({"message": "no JSON"}),
        ErrorCode::InvalidRequest,
        Effect::Refused,
        "no JSON",
    );
    for (status, name) in [(500, "InternalFailure"), (503, "ServiceUnavailable")] {
        let (code, effect) = (ErrorCode::Interrupted, Effect::Interrupted);
        check(status, None, typed(name), code, effect, name);
    }
}

fn throttled() -> String {
    let body = r#"{"__type":"ProvisionedThroughputExceededException","message":"slow down"}"#;
    answer("400 Bad Request", "", body)
}

#[tokio::test]
async fn throttled_records_are_sent_again_and_their_number_is_told() {
    let taken = answer("200 OK", "", r#"{"SequenceNumber":"7","ShardId":"0"}"#);
    let (address, mut requests) = server(vec![throttled(), throttled(), taken]).await;
    let function = kinesis(&format!("http://{address}"));
    let reply = open().invoke(&function, &invocation()).await.unwrap();
    assert_eq!(reply.body.whole(), "7");
    let sent = requests.recv().await.unwrap();
    assert!(
        sent.contains("authorization: AWS4-HMAC-SHA256 Credential=AKID/"),
        "{sent}"
    );
    assert!(requests.recv().await.is_some() && requests.recv().await.is_some());
}

#[tokio::test]
async fn what_stays_throttled_is_a_refusal_and_what_may_have_run_is_not_sent_again() {
    for (said, code, times) in [
        (throttled(), ErrorCode::FunctionBusy, 3),
        (answer("500 Oh", "", "{}"), ErrorCode::Interrupted, 1),
    ] {
        let (address, mut requests) = server(vec![said]).await;
        let function = kinesis(&format!("http://{address}"));
        let error = open().invoke(&function, &invocation()).await.unwrap_err();
        assert_eq!(error.code(), code);
        let mut sent = 0;
        while requests.try_recv().is_ok() {
            sent += 1;
        }
        assert_eq!(sent, times);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_named() {
    let function = kinesis(&format!("http://{}", nobody().await));
    let error = open().invoke(&function, &invocation()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::Unreachable, Effect::Refused)
    );
    let said = error.to_string();
    assert!(
        said.contains("AWS Kinesis, stream s in eu-west-1 at 127.0.0.1:"),
        "{said}"
    );
}

#[tokio::test]
async fn a_function_of_lambda_answers_or_says_that_it_failed() {
    let ran = answer("200 OK", "", r#"{"b":2}"#);
    let failed = answer(
        "200 OK",
        "x-amz-function-error: Unhandled\r\n",
        r#"{"errorMessage":"oh"}"#,
    );
    let (address, _requests) = server(vec![ran, failed]).await;
    let endpoint = format!("http://{address}");
    let function = function("awslambda", &json!({"arn": "f", "endpoint": endpoint}));
    let aws = open();
    let reply = aws.invoke(&function, &invocation()).await.unwrap();
    let told = (reply.status, reply.content_type.as_deref());
    assert_eq!(told, (200, Some("application/json")));
    assert_eq!(reply.body.whole(), r#"{"b":2}"#);
    let error = aws.invoke(&function, &invocation()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::FunctionFailed, Effect::Finished)
    );
    let said = r#"the function failed: Unhandled: {"errorMessage":"oh"}"#;
    assert_eq!(error.to_string(), said);
}

#[test]
fn the_nodes_credentials_are_for_the_spaces_that_may_use_them() {
    let record =
        r#"{"functionId":"f","type":"awskinesis","provider":{"streamName":"s","region":"eu"}}"#;
    let function = Function::parse("default", None, record.as_bytes()).unwrap();
    let own = AwsSettings {
        access_key_id: Some("AKNODE".into()),
        secret_access_key: Some(Secret::new("hidden")),
        ..AwsSettings::default()
    };
    let of = |spaces: &[&str]| AwsSettings {
        spaces: spaces.iter().map(|&space| space.to_owned()).collect(),
        ..own.clone()
    };
    let ask = |settings: &AwsSettings, is_open: bool| {
        let aws = aws(settings, is_open);
        let call = aws.call(&function, &invocation()).unwrap();
        let found = aws.owner.credentials(&function.space, &call);
        assert!(!format!("{aws:?}").contains("hidden"));
        found.map(|found| found.access_key_id().to_owned())
    };
    assert_eq!(ask(&of(&[]), true).unwrap(), "AKNODE");
    assert_eq!(ask(&of(&["*"]), false).unwrap(), "AKNODE");
    assert_eq!(ask(&of(&["other", "default"]), false).unwrap(), "AKNODE");
    let said = |result: Result<String, Error>| {
        let error = result.unwrap_err();
        assert_eq!(
            (error.code(), error.effect()),
            (ErrorCode::Unreachable, Effect::Refused)
        );
        error.to_string()
    };
    let closed = said(ask(&of(&["other"]), false));
    assert!(
        closed.contains("space default may not use this node's credentials (aws.spaces)"),
        "{closed}"
    );
    let none = said(ask(&AwsSettings::default(), true));
    assert!(
        none.contains("aws.access_key_id, or AWS_ACCESS_KEY_ID"),
        "{none}"
    );
    let with_own = kinesis("http://h");
    let aws = aws(&of(&[]), false);
    let call = aws.call(&with_own, &invocation()).unwrap();
    let found = aws.owner.credentials(&with_own.space, &call).unwrap();
    assert_eq!(found.access_key_id(), "AKID");
}
