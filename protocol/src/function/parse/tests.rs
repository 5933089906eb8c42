use super::*;

fn parse(body: &str) -> Result<Function, String> {
    Function::parse("default", None, body.as_bytes()).map_err(|Invalid(why)| why)
}

fn refuses(body: &str, expected: &str) {
    let why = parse(body).expect_err(body);
    assert!(why.contains(expected), "{body}\n got {why}\nnot {expected}");
}

#[test]
fn an_event_gateway_record_keeps_its_four_fields() {
    let body =
        r#"{"functionId":"f","type":"http","provider":{"url":"http://a.b/c","more":1},"x":2}"#;
    let function = parse(body).unwrap();
    assert_eq!(
        serde_json::to_string(&function).unwrap(),
        r#"{"space":"default","functionId":"f","type":"http","provider":{"url":"http://a.b/c"}}"#
    );
    let again: Function = serde_json::from_str(&serde_json::to_string(&function).unwrap()).unwrap();
    assert_eq!(again, function);
}

#[test]
fn the_first_failing_check_is_named() {
    refuses("{", "EOF while parsing");
    refuses("[]", "invalid type");
    refuses(r#"{"functionId":"f"}"#, "provider configuration not set");
    refuses(
        r#"{"functionId":"f","type":"http"}"#,
        "provider configuration not set",
    );
    refuses(
        r#"{"functionId":"f","type":"cobol","provider":{}}"#,
        "provider cobol not supported",
    );
    refuses(
        r#"{"functionId":"f","type":"http","provider":{}}"#,
        "missing required fields for HTTP endpoint",
    );
    refuses(
        r#"{"functionId":"f","type":"http","provider":{"url":"/x"}}"#,
        "missing required fields",
    );
    refuses(
        r#"{"functionId":"f","type":"http","provider":3}"#,
        "unable to load function provider config",
    );
    refuses(
        r#"{"functionId":"a b","type":"http","provider":{"url":"http://a"}}"#,
        "Key: 'Function.ID' Error:Field validation for 'ID' failed on the 'functionid' tag",
    );
}

#[test]
fn variables_of_the_node_can_not_be_set() {
    for (provider, name) in [
        (r#""command":["x"]"#, "HEARTH_URL"),
        (r#""command":["x"]"#, "HEARTH_TOKEN"),
        (r#""image":"x""#, "HEARTH_TOKEN"),
    ] {
        let type_name = if provider.contains("image") {
            "container"
        } else {
            "process"
        };
        let record = |name: &str| {
            format!(
                r#"{{"functionId":"f","type":"{type_name}","provider":{{{provider},"env":{{"{name}":"x"}}}}}}"#
            )
        };
        let expected = format!("provider.env has \"{name}\", which the node itself sets");
        refuses(&record(name), &expected);
        parse(&record("HEARTH_OTHER")).unwrap();
    }
}

/// Sections 3 and 12 of the reference: provider types, and the tail of the message when something is missing.
#[test]
fn aws_types_are_kept_as_they_were_sent() {
    let check = |type_name: &str, target: &str, value: &str, what: &str| {
        let provider =
            format!(r#"{{"{target}":"{value}","region":"eu","endpoint":"http://h:1/a"}}"#);
        let with = |provider: &str| {
            format!(r#"{{"functionId":"f","type":"{type_name}","provider":{provider}}}"#)
        };
        let record = serde_json::to_string(&parse(&with(&provider)).unwrap()).unwrap();
        assert_eq!(
            record,
            with(&provider).replacen('{', r#"{"space":"default","#, 1)
        );
        let missing = format!("missing required fields for AWS {what} function");
        refuses(&with(r#"{"region":"eu"}"#), &missing);
        refuses(
            &with(&format!(r#"{{"{target}":"{value}","region":""}}"#)),
            &missing,
        );
        refuses(&with("[]"), "unable to load function provider config");
        refuses(
            &with(r#"{"region":1}"#),
            "unable to load function provider config: provider.region",
        );
    };
    check(
        "awslambda",
        "arn",
        "arn:aws:lambda:eu:1:function:f:$LATEST",
        "Lambda",
    );
    check("awskinesis", "streamName", "x", "Kinesis");
    check("awsfirehose", "deliveryStreamName", "x", "Firehose");
    check(
        "awssqs",
        "queueUrl",
        "https://sqs.eu.amazonaws.com/1/x",
        "SQS",
    );
}

#[test]
fn what_can_be_no_name_of_aws_is_refused_with_its_field_and_value() {
    let check = |type_name: &str, fields: &str, said: &str| {
        let record =
            format!(r#"{{"functionId":"f","type":"{type_name}","provider":{{{fields}}}}}"#);
        refuses(&record, said);
    };
    let region = r#""region":"eu""#;
    check(
        "awslambda",
        r#""arn":"f","region":"eu.evil/""#,
        r#"provider.region is "eu.evil/", expected"#,
    );
    check(
        "awslambda",
        &format!(r#""arn":"a/b",{region}"#),
        r#"provider.arn is "a/b", expected"#,
    );
    check(
        "awskinesis",
        &format!(r#""streamName":"a b",{region}"#),
        r#"provider.streamName is "a b""#,
    );
    let long = "x".repeat(65);
    check(
        "awsfirehose",
        &format!(r#""deliveryStreamName":"{long}",{region}"#),
        "expected at most 64 letters",
    );
    check(
        "awssqs",
        &format!(r#""queueUrl":"q",{region}"#),
        r#"provider.queueUrl is "q", expected an absolute URL"#,
    );
    for endpoint in ["h:1", "ftp://h", "http://h/?a", "http://h/#a"] {
        let fields = format!(r#""arn":"f",{region},"endpoint":"{endpoint}""#);
        check(
            "awslambda",
            &fields,
            &format!("provider.endpoint is \"{endpoint}\", expected"),
        );
    }
}

/// A function of each of the types that the original never had, with its key.
fn of_other_clouds() -> [(&'static str, serde_json::Value); 3] {
    let key = serde_json::json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k",
        "private_key": "-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----\n",
        "client_email": "a@p.iam.gserviceaccount.com", "token_uri": "https://oauth2.googleapis.com/token",
    });
    [
        (
            "gcloudfunction",
            serde_json::json!({"url": "https://f.a.run.app", "serviceAccountKey": key}),
        ),
        (
            "azurefunction",
            serde_json::json!({"url": "https://f.azurewebsites.net/api/f", "functionKey": "hidden"}),
        ),
        (
            "openwhisk",
            serde_json::json!({"apiHost": "w.example.com", "action": "p/a", "key": "user:hidden"}),
        ),
    ]
}

fn record_of(type_name: &str, provider: &serde_json::Value) -> String {
    serde_json::json!({"space": "default", "functionId": "f", "type": type_name, "provider": provider})
        .to_string()
}

#[test]
fn functions_of_other_clouds_are_kept_as_they_were_sent_and_their_keys_masked() {
    for (type_name, provider) in of_other_clouds() {
        let function = parse(&record_of(type_name, &provider)).unwrap();
        assert_eq!(function.type_name(), type_name);
        let kept = serde_json::to_value(&function).unwrap();
        assert_eq!(kept["provider"], provider);
        let read: Function = serde_json::from_value(kept).unwrap();
        assert_eq!(read, function);
        assert!(!format!("{function:?}").contains("hidden"), "{function:?}");
    }
}

#[test]
fn functions_of_other_clouds_are_refused_with_field_value_and_what_was_expected() {
    let [gcloud, azure, openwhisk] = of_other_clouds();
    let check = |(type_name, provider): &(&str, serde_json::Value),
                 pointer: &str,
                 value: serde_json::Value,
                 said: &str| {
        let mut provider = provider.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        provider.pointer_mut(parent).unwrap()[name] = value;
        refuses(&record_of(type_name, &provider), said);
    };
    use serde_json::json;
    check(
        &gcloud,
        "/url",
        json!("f"),
        "provider.url is \"f\", expected an absolute URL",
    );
    check(
        &gcloud,
        "/audience",
        json!(""),
        "provider.audience is empty",
    );
    check(
        &gcloud,
        "/more",
        json!(1),
        "unknown field \"provider.more\" for type gcloudfunction",
    );
    check(
        &gcloud,
        "/serviceAccountKey",
        json!("text"),
        "unable to load function provider config: provider.serviceAccountKey",
    );
    for (field, value, said) in [
        (
            "type",
            json!("authorized_user"),
            "is \"authorized_user\", expected \"service_account\"",
        ),
        (
            "client_email",
            json!(1),
            "is \"\", expected the account's address",
        ),
        (
            "private_key",
            json!("hidden"),
            "is no private key, expected PEM",
        ),
        (
            "token_uri",
            json!("x"),
            "is \"x\", expected an absolute URL",
        ),
    ] {
        let said = format!("provider.serviceAccountKey.{field} {said}");
        check(
            &gcloud,
            &format!("/serviceAccountKey/{field}"),
            value,
            &said,
        );
    }
    check(
        &azure,
        "/url",
        json!("ftp://h"),
        "provider.url is \"ftp://h\", expected",
    );
    check(
        &azure,
        "/functionKey",
        json!("a b"),
        "provider.functionKey can not be sent, expected",
    );
    check(
        &openwhisk,
        "/apiHost",
        json!("a b"),
        "provider.apiHost is \"a b\", expected a host",
    );
    check(
        &openwhisk,
        "/namespace",
        json!("a/b"),
        "provider.namespace is \"a/b\", expected",
    );
    for action in ["", "a/", "/a", "a/b/c", "a?b"] {
        check(
            &openwhisk,
            "/action",
            json!(action),
            &format!("provider.action is \"{action}\", expected"),
        );
    }
    for key in ["", "user", "user:", ":password"] {
        check(&openwhisk, "/key", json!(key), "provider.key");
    }
}

#[test]
fn credentials_are_shown_in_answers_and_masked_in_logs() {
    let body = r#"{"functionId":"f","type":"awslambda","provider":{"arn":"a","region":"eu","awsAccessKeyId":"id","awsSecretAccessKey":"hidden","awsSessionToken":"","more":1}}"#;
    let function = parse(body).unwrap();
    let record = serde_json::to_string(&function).unwrap();
    assert!(record.ends_with(r#""provider":{"arn":"a","region":"eu","awsAccessKeyId":"id","awsSecretAccessKey":"hidden"}}"#), "{record}");
    assert_eq!(serde_json::from_str::<Function>(&record).unwrap(), function);
    assert!(!format!("{function:?}").contains("hidden"));
}

#[test]
fn event_format_and_metadata_are_kept() {
    let with = |rest: &str| {
        format!(r#"{{"functionId":"f","type":"http","provider":{{"url":"http://a.b/c"}}{rest}}}"#)
    };
    for (name, format) in [
        ("envelope", EventFormat::Envelope),
        ("cloudevents-binary", EventFormat::CloudeventsBinary),
        ("cloudevents-structured", EventFormat::CloudeventsStructured),
        ("raw", EventFormat::Raw),
    ] {
        let rest = format!(r#","eventFormat":"{name}","metadata":{{"a":"b"}}"#);
        let function = parse(&with(&rest)).unwrap();
        assert_eq!(function.event_format(), format);
        assert!(
            serde_json::to_string(&function)
                .unwrap()
                .ends_with(&format!("{rest}}}"))
        );
    }
    assert_eq!(
        parse(&with("")).unwrap().event_format(),
        EventFormat::Envelope
    );
    let process = r#"{"functionId":"f","type":"process","provider":{"command":["x"]}}"#;
    assert_eq!(
        parse(process).unwrap().event_format(),
        EventFormat::CloudeventsBinary
    );
    refuses(
        &with(r#","eventFormat":"x""#),
        "eventFormat: unknown variant",
    );
    refuses(&with(r#","metadata":{"a":1}"#), "metadata.a: invalid type");
    refuses(
        &with(r#","metadata":[]"#),
        "metadata is [], expected an object",
    );
}

#[test]
fn our_types_refuse_unknown_fields_by_path() {
    refuses(
        r#"{"functionId":"f","type":"process","provider":{"command":["x"],"cmd":1}}"#,
        "\"provider.cmd\"",
    );
    refuses(
        r#"{"functionId":"f","type":"container","provider":{"image":"i"},"limits":{"memory":1}}"#,
        "\"limits.memory\"",
    );
    refuses(
        r#"{"functionId":"f","type":"container","provider":{"image":"i"},"limits":{"memoryMb":"x"}}"#,
        "limits.memoryMb: ",
    );
}

#[test]
fn limits_out_of_range_name_field_value_and_range() {
    let with = |rest: &str| {
        format!(r#"{{"functionId":"f","type":"container","provider":{{"image":"i"}},{rest}}}"#)
    };
    refuses(
        &with(r#""limits":{"memoryMb":1}"#),
        "limits.memoryMb is 1, expected 6 to 1048576",
    );
    refuses(
        &with(r#""limits":{"concurrency":0}"#),
        "limits.concurrency is 0, expected 1 to 10000",
    );
    refuses(
        &with(r#""limits":{"cpus":0}"#),
        "limits.cpus is 0, expected 0.01 to 1024",
    );
    refuses(
        &with(r#""limits":{"rate":{"perSecond":0}}"#),
        "limits.rate.perSecond is 0, expected 1 to 1000000",
    );
    refuses(
        &with(r#""limits":{"rate":{"burst":1}}"#),
        "limits.rate: missing field `perSecond`",
    );
    refuses(
        &with(r#""limits":{"concurrent":0}"#),
        "limits.concurrent is 0, expected 1 to 1000000",
    );
    refuses(
        &with(r#""limits":[300]"#),
        "limits is [300], expected an object",
    );
    refuses(
        &with(r#""scaling":{"min":5,"max":2}"#),
        "scaling.min is 5, expected 0 to 2",
    );
    refuses(
        &with(r#""sandbox":{"capabilities":["net-raw"]}"#),
        "sandbox.capabilities has \"net-raw\"",
    );
}

#[test]
fn the_instance_key_follows_what_shapes_an_instance() {
    let base = r#"{"functionId":"f","type":"process","provider":{"command":["x"]}"#;
    let key = |rest: &str| {
        parse(&format!("{base}{rest}}}"))
            .unwrap()
            .instance_key(|_| None)
    };
    assert_eq!(
        key(""),
        key(r#","scaling":{"max":3}"#),
        "scaling shapes no instance"
    );
    assert_eq!(
        key(""),
        key(r#","limits":{"timeoutMs":3}"#),
        "a run's bound shapes no instance"
    );
    assert_ne!(key(""), key(r#","limits":{"memoryMb":64}"#));
}

#[test]
fn a_destination_is_one_of_three() {
    let with = |set: &str| {
        format!(
            r#"{{"functionId":"f","type":"http","provider":{{"url":"http://h/"}},"delivery":{{{set}}}}}"#
        )
    };
    for set in [
        r#""onSuccess":{"function":"g"}"#,
        r#""onFailure":{"event":"order.failed"}"#,
        r#""onSuccess":{"url":"https://h/x?y"},"onFailure":{"function":"g"}"#,
    ] {
        let function = Function::parse("default", None, with(set).as_bytes()).unwrap();
        let kept = serde_json::to_string(&function.delivery).unwrap();
        assert_eq!(kept, format!("{{{set}}}"));
    }
    let long = format!(r#""onSuccess":{{"url":"http://h/{}"}}"#, "x".repeat(2_048));
    for (set, expected) in [
        (r#""onSuccess":{"topic":"x"}"#, "delivery.onSuccess"),
        (
            r#""onSuccess":{"topic":"x"}"#,
            "expected one of `function`, `event`, `url`",
        ),
        (
            r#""onSuccess":{"function":"g","url":"http://h"}"#,
            "delivery.onSuccess: expected exactly one of `function`, `event` and `url`",
        ),
        (
            r#""onFailure":{}"#,
            "delivery.onFailure: expected exactly one of `function`, `event` and `url`",
        ),
        (r#""onFailure":"g""#, "delivery.onFailure"),
        (
            r#""onFailure":{"function":"a b"}"#,
            "delivery.onFailure.function",
        ),
        (r#""onFailure":{"event":"a b"}"#, "delivery.onFailure.event"),
        (
            r#""onFailure":{"event":"a.*"}"#,
            r#"delivery.onFailure.event is "a.*", expected a name"#,
        ),
        (
            r#""onFailure":{"event":"http"}"#,
            r#"delivery.onFailure.event is "http""#,
        ),
        (
            r#""onFailure":{"event":"gateway.x"}"#,
            r#"delivery.onFailure.event is "gateway.x""#,
        ),
        (
            r#""onSuccess":{"url":"/x"}"#,
            r#"delivery.onSuccess.url is "/x", expected an absolute URL"#,
        ),
        (
            r#""onSuccess":{"url":"ftp://h/x"}"#,
            r#"delivery.onSuccess.url is "ftp://h/x""#,
        ),
        (long.as_str(), "of at most 2048 bytes"),
    ] {
        let Invalid(why) = Function::parse("default", None, with(set).as_bytes()).unwrap_err();
        assert!(why.contains(expected), "{set}: {why}");
    }
}

#[test]
fn a_function_of_lambda_is_pooled_and_what_lambda_reserves_is_the_node_s() {
    let record = |provider: &str, rest: &str| {
        format!(
            r#"{{"functionId":"f","type":"process","provider":{{"command":["x"],"contract":"lambda"{provider}}}{rest}}}"#
        )
    };
    let function = parse(&record("", "")).unwrap();
    assert_eq!(function.contract(), Some(Contract::Lambda));
    assert!(function.is_pooled());
    assert_eq!(function.event_format(), EventFormat::Envelope);
    for name in LAMBDA_VARIABLES {
        let env = record(&format!(r#","env":{{"{name}":"x"}}"#), "");
        refuses(
            &env,
            &format!("provider.env has \"{name}\", which the node itself sets"),
        );
        let secrets = format!(r#","secrets":[{{"name":"s","env":"{name}"}}]"#);
        refuses(
            &record(&secrets, ""),
            &format!("provider.secrets has \"{name}\", which the node itself sets"),
        );
        let other = env.replace("\"lambda\"", "\"http\"");
        assert!(parse(&other).is_ok(), "{name} is any other contract's own");
    }
    for name in ["_HANDLER", "TZ", "AWS_ACCESS_KEY_ID", "PYTHONPATH"] {
        let env = format!(r#","env":{{"{name}":"x"}}"#);
        assert!(parse(&record(&env, "")).is_ok(), "{name}");
    }
    for format in ["envelope", "cloudevents-structured", "raw"] {
        let rest = format!(r#","eventFormat":"{format}""#);
        assert!(parse(&record("", &rest)).is_ok(), "{format}");
    }
    refuses(
        &record("", r#","eventFormat":"cloudevents-binary""#),
        "eventFormat is \"cloudevents-binary\", expected \"envelope\"",
    );
}
