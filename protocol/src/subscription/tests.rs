use serde_json::json;

use super::*;

fn parse(body: &str) -> Result<Subscription, Invalid> {
    Subscription::parse("default", body.as_bytes())
}

/// Section 4 of the reference: the record that a body becomes.
fn becomes(body: &str, expected: &str) {
    let subscription = parse(body).unwrap_or_else(|error| panic!("{body}: {error}"));
    let record = serde_json::to_string(&subscription).unwrap();
    assert_eq!(record, expected, "{body}");
    assert_eq!(
        serde_json::from_str::<Subscription>(&record).unwrap(),
        subscription
    );
}

/// Section 4 of the reference, "Validation".
fn refuses(body: &str, expected: &str) {
    let error = parse(body).expect_err(body);
    assert_eq!(error.to_string(), expected, "{body}");
}

fn tag(field: &str, tag: &str) -> String {
    let last = field.rsplit('.').next().unwrap();
    format!(
        "Key: 'Subscription.{field}' Error:Field validation for '{last}' failed on the '{tag}' tag"
    )
}

#[test]
fn records_are_normalised() {
    becomes(
        r#"{"event":"user.created","functionId":"f"}"#,
        r#"{"space":"default","subscriptionId":"user.created,f,%2F","event":"user.created","functionId":"f","path":"/"}"#,
    );
    becomes(
        r#"{"space":"x","subscriptionId":"y","event":"http","functionId":"f","method":"get","path":"users/:id","more":1}"#,
        r#"{"space":"default","subscriptionId":"http,GET,%2Fusers%2F:id","event":"http","functionId":"f","method":"GET","path":"/users/:id"}"#,
    );
    becomes(
        r#"{"event":"http","functionId":"f","method":"POST","path":"/","cors":{}}"#,
        concat!(
            r#"{"space":"default","subscriptionId":"http,POST,%2F","event":"http","functionId":"f","method":"POST","path":"/","#,
            r#""cors":{"origins":["*"],"methods":["HEAD","GET","POST"],"headers":["Origin","Accept","Content-Type"],"allowCredentials":false}}"#,
        ),
    );
    becomes(
        r#"{"event":"http","functionId":"f","method":"GET","cors":{"origins":["http://a"],"headers":null,"allowCredentials":true}}"#,
        concat!(
            r#"{"space":"default","subscriptionId":"http,GET,%2F","event":"http","functionId":"f","method":"GET","path":"/","#,
            r#""cors":{"origins":["http://a"],"methods":["HEAD","GET","POST"],"headers":["Origin","Accept","Content-Type"],"allowCredentials":true}}"#,
        ),
    );
    becomes(
        r#"{"event":"invoke","functionId":"f","method":"GET","path":"/a","cors":null}"#,
        r#"{"space":"default","subscriptionId":"invoke,f,%2Fa","event":"invoke","functionId":"f","method":"GET","path":"/a"}"#,
    );
    becomes(
        r#"{"event":"user.*","functionId":"f","metadata":{"a":"b"},"filter":{"source":["/x","/y"],"type":"t"}}"#,
        concat!(
            r#"{"space":"default","subscriptionId":"user.*,f,%2F","event":"user.*","functionId":"f","path":"/","#,
            r#""metadata":{"a":"b"},"filter":{"source":["/x","/y"],"type":"t"}}"#,
        ),
    );
    becomes(
        r#"{"event":"a","functionId":"f","metadata":{},"filter":{}}"#,
        r#"{"space":"default","subscriptionId":"a,f,%2F","event":"a","functionId":"f","path":"/"}"#,
    );
}

#[test]
fn what_does_not_validate_is_told_field_by_field() {
    refuses(
        "{}",
        &[tag("Event", "required"), tag("FunctionID", "required")].join("\n"),
    );
    refuses(
        r#"{"event":"a b","functionId":"f"}"#,
        &tag("Event", "eventtype"),
    );
    for name in ["a*", "*.a", "a.*.b", "**", "a.**", "user.created*"] {
        refuses(
            &json!({"event": name, "functionId": "f"}).to_string(),
            &tag("Event", "eventtype"),
        );
    }
    refuses(
        r#"{"event":"a","functionId":"f","method":"get"}"#,
        &tag("Method", METHOD),
    );
    refuses(
        r#"{"event":"http","functionId":"f","method":"TRACE"}"#,
        &tag("Method", METHOD),
    );
    let missing = "Missing required fields (method, path) for HTTP event.";
    refuses(r#"{"event":"http","functionId":"f"}"#, missing);
    refuses(r#"{"event":"http","functionId":"f","method":""}"#, missing);
    refuses(
        r#"{"event":"http","functionId":"f","method":"GET","cors":{"origins":[],"headers":[]}}"#,
        &[tag("CORS.Origins", "min"), tag("CORS.Headers", "min")].join("\n"),
    );
    refuses(
        r#"{"event":"a","functionId":"f","cors":{}}"#,
        &[
            tag("CORS.Origins", "min"),
            tag("CORS.Methods", "min"),
            tag("CORS.Headers", "min"),
        ]
        .join("\n"),
    );
    refuses(
        r#"{"event":"a","functionId":"f","filter":{"type":[]}}"#,
        &tag("Filter", "min"),
    );
    refuses(
        r#"{"event":"a","functionId":"f","filter":{"a b":"x"}}"#,
        &tag("Filter", "attribute"),
    );
    let long = json!({"event": "a", "functionId": "f", "path": "x".repeat(PATH_BYTES_MAX)});
    refuses(&long.to_string(), &tag("Path", "max"));
    refuses(
        r#"{"event":"a","functionId":"a b"}"#,
        "Function \"a b\" not found.",
    );
    let spaces = Subscription::parse("ab", br#"{"event":"a","functionId":"f"}"#).unwrap_err();
    assert_eq!(spaces.to_string(), tag("Space", "min"));
}

const METHOD: &str = "eq=GET|eq=POST|eq=DELETE|eq=PUT|eq=PATCH|eq=HEAD|eq=OPTIONS";

#[test]
fn broken_json_is_told_in_the_decoders_words() {
    let says = |body: &str, expected: &str| {
        let why = parse(body).expect_err(body).to_string();
        assert!(why.contains(expected), "{body}: {why}");
    };
    says("{", "EOF while parsing");
    says("", "EOF while parsing");
    says("[]", "invalid type: sequence");
    says(r#"{"event":1}"#, "event: invalid type");
    says(
        r#"{"cors":{"origins":["a",1]}}"#,
        "cors.origins[1]: invalid type",
    );
    says(r#"{"cors":[]}"#, "cors is [], expected an object");
    says(r#"{"metadata":{"a":1}}"#, "metadata.a: invalid type");
    says(r#"{"filter":{"a":1}}"#, "filter.a: ");
}

#[test]
fn segments_are_escaped_as_go_does() {
    let check = |text: &str, expected: &str| assert_eq!(escape_segment(text), expected);
    check("/users/:id", "%2Fusers%2F:id");
    check("/?#%;, ", "%2F%3F%23%25%3B%2C%20");
    check("aZ09-_.~$&+:=@", "aZ09-_.~$&+:=@");
    check(
        "*!'()[]\"<>\\^`{|}",
        "%2A%21%27%28%29%5B%5D%22%3C%3E%5C%5E%60%7B%7C%7D",
    );
    check("ü\u{7f}\n", "%C3%BC%7F%0A");
}

#[test]
fn patterns_stand_for_all_that_goes_on_after_them() {
    let check = |pattern: &str, name: &str, expected: bool| {
        let event: EventType = pattern.parse().unwrap();
        assert_eq!(event.matches(name), expected, "{pattern} {name}");
    };
    check("user.created", "user.created", true);
    check("user.created", "user.created.v2", false);
    check("user.*", "user.created", true);
    check("user.*", "user.created.v2", true);
    check("user.*", "user.", false);
    check("user.*", "user", false);
    check("user.*", "users.created", false);
    check("*", "user.created", true);
    check("*", "http", false);
    check("*", "invoke", false);
    check("*", "gateway.event.received", false);
    check("gateway.*", "gateway.event.received", true);
    check("gateway.function.*", "gateway.event.received", false);
}

#[test]
fn a_filter_passes_events_with_all_its_attributes() {
    let check = |filter: serde_json::Value, expected: bool| {
        let body = json!({"event": "a", "functionId": "f", "filter": filter}).to_string();
        let attribute = |name: &str| match name {
            "type" => Some("user.created"),
            "source" => Some("/shop"),
            _ => None,
        };
        assert_eq!(parse(&body).unwrap().accepts(attribute), expected, "{body}");
    };
    check(json!(null), true);
    check(json!({}), true);
    check(json!({"type": "user.created"}), true);
    check(json!({"type": "user"}), false);
    check(json!({"type": ["x", "user.created"]}), true);
    check(json!({"type": "user.created", "source": ["/shop"]}), true);
    check(json!({"type": "user.created", "source": "/other"}), false);
    check(json!({"subject": "x"}), false);
}

fn typed(body: &str, id: &str, key: &str, rest: &str) {
    let subscription = parse(body).unwrap_or_else(|error| panic!("{body}: {error}"));
    let expected = format!(r#"{{"space":"default","subscriptionId":"{id}",{rest}}}"#);
    becomes(body, &expected);
    assert_eq!(subscription.subscription_id.key(), key, "{body}");
    assert!(subscription.is_typed() && subscription.subscription_id.is_typed());
}

/// Section 12 of the reference: the record, its defaults, and ids as base64 of the comma form.
#[test]
fn a_record_with_an_event_type_is_of_the_last_versions() {
    typed(
        r#"{"type":"async","eventType":"user.created","functionId":"f"}"#,
        "YXN5bmMsdXNlci5jcmVhdGVkLGYsJTJGLFBPU1Q",
        "user.created,f,%2F,POST",
        r#""type":"async","eventType":"user.created","functionId":"f","path":"/","method":"POST""#,
    );
    typed(
        r#"{"space":"x","type":"sync","eventType":"user.created","functionId":"f","path":"a","method":"put","metadata":{"a":"b"},"event":"c","cors":null}"#,
        "c3luYyx1c2VyLmNyZWF0ZWQsJTJGYSxQVVQ",
        "user.created,,PUT,%2Fa",
        r#""type":"sync","eventType":"user.created","functionId":"f","path":"/a","method":"PUT","metadata":{"a":"b"}"#,
    );
    typed(
        r#"{"type":"sync","eventType":"http.request","functionId":"f","path":"/users/:id","method":"GET"}"#,
        "c3luYyxodHRwLnJlcXVlc3QsJTJGdXNlcnMlMkY6aWQsR0VU",
        "http,GET,%2Fusers%2F:id",
        r#""type":"sync","eventType":"http.request","functionId":"f","path":"/users/:id","method":"GET""#,
    );
    typed(
        r#"{"type":"async","eventType":"a","functionId":"f","filter":{"source":"/x"}}"#,
        "YXN5bmMsYSxmLCUyRixQT1NU",
        "a,f,%2F,POST",
        r#""type":"async","eventType":"a","functionId":"f","path":"/","method":"POST","filter":{"source":"/x"}"#,
    );
}

/// A client of Event Gateway sends no `authorizerId`, and is shown none.
#[test]
fn a_subscription_to_requests_may_name_an_authorizer() {
    becomes(
        r#"{"event":"http","functionId":"f","method":"GET","authorizerId":"who","metadata":{"a":"b"}}"#,
        r#"{"space":"default","subscriptionId":"http,GET,%2F","event":"http","functionId":"f","method":"GET","path":"/","authorizerId":"who","metadata":{"a":"b"}}"#,
    );
    becomes(
        r#"{"event":"http","functionId":"f","method":"GET","authorizerId":null}"#,
        r#"{"space":"default","subscriptionId":"http,GET,%2F","event":"http","functionId":"f","method":"GET","path":"/"}"#,
    );
    typed(
        r#"{"type":"sync","eventType":"http.request","functionId":"f","path":"/users/:id","method":"GET","authorizerId":"who"}"#,
        "c3luYyxodHRwLnJlcXVlc3QsJTJGdXNlcnMlMkY6aWQsR0VU",
        "http,GET,%2Fusers%2F:id",
        r#""type":"sync","eventType":"http.request","functionId":"f","path":"/users/:id","method":"GET","authorizerId":"who""#,
    );
    let functions = |body: &str| -> Vec<String> {
        let subscription = parse(body).unwrap();
        subscription.functions().map(ToString::to_string).collect()
    };
    let asked = |authorizer: &str| {
        json!({"event": "http", "functionId": "f", "method": "GET", "authorizerId": authorizer})
            .to_string()
    };
    assert_eq!(functions(&asked("who")), ["f", "who"]);
    assert_eq!(functions(&asked("f")), ["f"]);
    for id in ["a b", ""] {
        let why = format!(
            "authorizerId is \"{id}\", expected a function that is registered in the space"
        );
        refuses(&asked(id), &why);
    }
    for event in ["user.created", "*", "invoke", "http.request"] {
        refuses(
            &json!({"event": event, "functionId": "f", "authorizerId": "who"}).to_string(),
            &format!(
                "authorizerId is set, expected none: only requests are asked about, which are the event http, and this is {event}"
            ),
        );
    }
    for (mode, event) in [("async", "http.request"), ("sync", "a"), ("async", "a")] {
        refuses(
            &json!({"type": mode, "eventType": event, "functionId": "f", "authorizerId": "who"})
                .to_string(),
            &format!(
                "authorizerId is set, expected none: only subscriptions of the type sync to http.request may have one; the event type {event} may name an authorizer for all of its subscriptions"
            ),
        );
    }
}

/// A client of Event Gateway sends no `delivery`, and is shown none.
#[test]
fn what_is_queued_may_say_how_it_is_delivered() {
    becomes(
        r#"{"event":"user.*","functionId":"f","delivery":{"attempts":3,"maxAgeSeconds":60}}"#,
        r#"{"space":"default","subscriptionId":"user.*,f,%2F","event":"user.*","functionId":"f","path":"/","delivery":{"attempts":3,"maxAgeSeconds":60}}"#,
    );
    becomes(
        r#"{"type":"async","eventType":"http.request","functionId":"f","delivery":{"attempts":1}}"#,
        concat!(
            r#"{"space":"default","subscriptionId":"YXN5bmMsaHR0cC5yZXF1ZXN0LGYsJTJGLFBPU1Q","type":"async","eventType":"http.request","#,
            r#""functionId":"f","path":"/","method":"POST","delivery":{"attempts":1}}"#,
        ),
    );
    for nothing in ["null", "{}", r#"{"attempts":null}"#] {
        becomes(
            &format!(r#"{{"event":"http","functionId":"f","method":"GET","delivery":{nothing}}}"#),
            r#"{"space":"default","subscriptionId":"http,GET,%2F","event":"http","functionId":"f","method":"GET","path":"/"}"#,
        );
    }
}

#[test]
fn a_delivery_is_refused_where_it_is_wrong_or_nothing_is_queued() {
    for (delivery, expected) in [
        (
            r#"{"attempts":0}"#,
            "delivery.attempts is 0, expected 1 to 1000",
        ),
        (
            r#"{"attempts":1001}"#,
            "delivery.attempts is 1001, expected 1 to 1000",
        ),
        (
            r#"{"maxAgeSeconds":0}"#,
            "delivery.maxAgeSeconds is 0, expected 1 to 2592000",
        ),
        (
            r#"{"idempotent":true}"#,
            "delivery.idempotent: unknown field `idempotent`, expected `attempts` or `maxAgeSeconds`",
        ),
        (
            r#"{"attempts":-1}"#,
            "delivery.attempts: invalid value: integer `-1`, expected u32",
        ),
        ("[]", "delivery is [], expected an object"),
    ] {
        refuses(
            &format!(r#"{{"event":"a","functionId":"f","delivery":{delivery}}}"#),
            expected,
        );
    }
    let waits = "a client waits for the function's answer, so nothing is queued";
    for (record, why) in [
        (json!({"event": "http", "method": "GET"}), waits),
        (json!({"type": "sync", "eventType": "a"}), waits),
        (json!({"event": "invoke"}), waits),
        (
            json!({"event": "gateway.*"}),
            "events of gateway.* are the gateway's own, which are not kept to be tried again",
        ),
        (
            json!({"type": "async", "eventType": "eventgateway.event.received"}),
            "events of eventgateway.event.received are the gateway's own, which are not kept to be tried again",
        ),
    ] {
        let mut record = record;
        record["functionId"] = json!("f");
        record["delivery"] = json!({"attempts": 3});
        refuses(
            &record.to_string(),
            &format!("delivery is set, expected none: {why}"),
        );
    }
}

/// Section 12 of the reference: what a record of the last versions must have.
#[test]
fn a_typed_record_is_refused_in_the_words_of_its_versions() {
    refuses(
        r#"{"type":"async"}"#,
        &[tag("EventType", "required"), tag("FunctionID", "required")].join("\n"),
    );
    refuses(
        r#"{"eventType":"a","functionId":"f"}"#,
        &tag("Type", "required"),
    );
    for mode in ["\"both\"", "1"] {
        let body = format!(r#"{{"type":{mode},"eventType":"a","functionId":"f"}}"#);
        refuses(&body, &tag("Type", "eq=async|eq=sync"));
    }
    for name in ["a b", "user.*", "*"] {
        refuses(
            &json!({"type": "async", "eventType": name, "functionId": "f"}).to_string(),
            &tag("EventType", "eventType"),
        );
    }
    refuses(
        r#"{"type":"sync","eventType":"a","functionId":"f","method":"TRACE"}"#,
        &tag("Method", METHOD),
    );
    refuses(
        r#"{"type":"sync","eventType":"a","functionId":"f","filter":{"source":"x"}}"#,
        "filter is set, expected none: a sync subscription answers all events of its type, path and method",
    );
    refuses(
        r#"{"type":"sync","eventType":"a","functionId":"f","cors":{}}"#,
        "cors is set, expected none: what pages may do with events of a type is a CORS configuration of its own",
    );
    refuses(
        r#"{"type":"sync","eventType":"a","functionId":"a b"}"#,
        "Function \"a b\" not found.",
    );
}

mod ids {
    use proptest::prelude::*;

    use super::*;

    fn method() -> impl Strategy<Value = Method> {
        proptest::sample::select(Method::ALL.to_vec())
    }

    proptest! {
        /// Section 12 of the reference: whatever a record says, its id is the same when it is read again, its key tells it from all
        /// others, and in the key it stands beside those that an event looks up together.
        #[test]
        fn of_typed_records_survive_and_name_one_key(
            is_sync: bool,
            event in "[a-zA-Z0-9._-]{1,12}",
            function in "[a-zA-Z0-9._-]{1,12}",
            path in "(/[a-zA-Z0-9,:*% é-]{0,6}){0,3}",
            method in method(),
        ) {
            let mode = if is_sync { "sync" } else { "async" };
            let body = json!({"type": mode, "eventType": event, "functionId": function, "path": path, "method": method});
            let subscription = parse(&body.to_string()).unwrap();
            let text = serde_json::to_string(&subscription).unwrap();
            let read: Subscription = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &subscription);
            let id = &subscription.subscription_id;
            prop_assert!(id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
            let from_url = SubscriptionId::from_url(id.as_str());
            prop_assert_eq!(from_url.key(), id.key());
            let path = escape_segment(&subscription.path);
            let key = match (is_sync, event.as_str()) {
                (true, "http.request") => format!("http,{method},{path}"),
                (true, event) => format!("{event},,{method},{path}"),
                (false, event) => format!("{event},{function},{path},{method}"),
            };
            prop_assert_eq!(id.key(), key);
        }

        /// An id of one dialect is never taken for one of the other.
        #[test]
        fn of_other_records_are_their_own_keys(event in "[a-zA-Z0-9._-]{1,12}", function in "[a-zA-Z0-9._-]{1,12}", path in "/[a-z,]{0,6}") {
            prop_assume!(event != "http");
            let body = json!({"event": event, "functionId": function, "path": path});
            let id = parse(&body.to_string()).unwrap().subscription_id;
            prop_assert!(!id.is_typed());
            prop_assert_eq!(id.key(), id.as_str());
        }
    }
}
