use super::super::{Mode, read_structured};
use super::*;
use crate::function::EventFormat;

const NOW_MS: u64 = 1_700_000_000_000;

fn structured(body: &str) -> Result<Event, Invalid> {
    read_structured(&Bytes::copy_from_slice(body.as_bytes()), NOW_MS)
}

fn written(event: &Event) -> String {
    String::from_utf8(event.to_version_01().to_vec()).unwrap()
}

fn becomes(body: &str, expected: &str) {
    let event = structured(body).unwrap_or_else(|why| panic!("{body}: {why}"));
    assert_eq!(written(&event), expected, "{body}");
    assert_eq!(
        structured(expected).map(|read| written(&read)),
        Ok(expected.to_owned())
    );
}

/// Section 12: the members of an event, and that what it says comes out as it came in.
#[test]
fn structured_mode_reads_and_writes_all_attributes() {
    becomes(
        concat!(
            r#"{"eventType":"a.b","eventTypeVersion":"2","cloudEventsVersion":"0.1","source":"/s","eventID":"7","eventTime":"2018-04-05T17:31:00Z","#,
            r#""schemaURL":"http://a/b","extensions":{"tenant":"t1","n":1.10,"camelCase":"x","o":{"a":[1e400]}},"contentType":"application/json","data":{"n":1.10},"more":1}"#,
        ),
        concat!(
            r#"{"eventType":"a.b","eventTypeVersion":"2","cloudEventsVersion":"0.1","source":"/s","eventID":"7","eventTime":"2018-04-05T17:31:00Z","#,
            r#""schemaURL":"http://a/b","extensions":{"camelCase":"x","n":1.10,"o":{"a":[1e400]},"tenant":"t1"},"contentType":"application/json","data":{"n":1.10}}"#,
        ),
    );
    let start = r#"{"eventType":"a","cloudEventsVersion":"0.1","source":"urn:x","eventID":"7""#;
    let time = r#""eventTime":"2023-11-14T22:13:20.000Z""#;
    for (more, expected) in [
        ("", r#""contentType":"application/json","data":null"#),
        (
            r#","data":"x","extensions":null"#,
            r#""contentType":"application/json","data":"x""#,
        ),
        (
            r#","contentType":"text/plain","data":"x""#,
            r#""contentType":"text/plain","data":"x""#,
        ),
    ] {
        becomes(
            &format!("{start}{more}}}"),
            &format!("{start},{time},{expected}}}"),
        );
    }
}

#[test]
fn an_event_of_0_1_is_told_in_the_other_forms_too() {
    let body = r#"{"eventType":"a","cloudEventsVersion":"0.1","source":"/s","eventID":"7","extensions":{"tenant":"t","o":{}},"contentType":"text/plain","data":"hi"}"#;
    let event = structured(body).unwrap();
    let envelope =
        r#"{"event":"a","id":"7","receivedAt":1700000000000,"data":"hi","dataType":"text/plain"}"#;
    assert_eq!(event.to_envelope(), envelope);
    let binary = event.encode(EventFormat::CloudeventsBinary);
    assert_eq!(
        (binary.payload.as_ref(), binary.content_type.as_str()),
        (&b"hi"[..], "text/plain")
    );
    let headers = event.to_binary_headers();
    assert!(
        headers.contains(&("ce-tenant".to_owned(), "t".to_owned())),
        "{headers:?}"
    );
    assert!(
        !headers.iter().any(|(name, _)| name == "ce-o"),
        "{headers:?}"
    );
    let typed = event.encode_typed(EventFormat::Envelope);
    assert_eq!(typed.content_type, "application/cloudevents+json");
    assert_eq!(
        event.encode_typed(EventFormat::Raw),
        event.encode(EventFormat::Raw)
    );
}

fn refused(body: &str, expected: &str) {
    assert_eq!(
        structured(body).expect_err(body).to_string(),
        expected,
        "{body}"
    );
}

/// Section 12: what does not validate, in the validator's words.
#[test]
fn what_is_missing_is_told_line_by_line() {
    let tag = |field: &str, tag: &str| {
        format!(
            "Key: 'Event.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
        )
    };
    let lines = |lines: &[String]| format!("CloudEvent doesn't validate: {}", lines.join("\n"));
    refused(
        r#"{"eventType":"a"}"#,
        &lines(&[
            tag("CloudEventsVersion", "required"),
            tag("Source", "required"),
            tag("EventID", "required"),
        ]),
    );
    refused(
        r#"{"cloudEventsVersion":"0.2","source":"s","eventID":"","eventType":null}"#,
        &lines(&[
            tag("EventType", "required"),
            tag("CloudEventsVersion", "eq=0.1"),
            tag("Source", "uri"),
            tag("EventID", "required"),
        ]),
    );
    refused(
        r#"{"eventType":1}"#,
        "CloudEvent is not valid: eventType is no text",
    );
    refused(
        r#"{"eventType":"a","cloudEventsVersion":"0.1","source":"/","eventID":"1","eventTime":"now"}"#,
        "CloudEvent is not valid: eventTime is no time as RFC 3339 writes them",
    );
    refused(
        r#"{"eventType":"a","extensions":[]}"#,
        "CloudEvent is not valid: extensions is no JSON object",
    );
    // With neither version's attributes it is an event of 1.0 that lacks them.
    refused("{}", "CloudEvent is not valid: specversion is missing");
}

/// Section 12: binary mode, by the headers `CE-*`.
#[test]
fn binary_mode_is_known_by_its_headers() {
    let headers = [
        ("ce-eventtype", "a.b"),
        ("ce-eventtypeversion", "2"),
        ("ce-cloudeventsversion", "0.1"),
        ("ce-source", "/s"),
        ("ce-eventid", "7"),
        ("ce-eventtime", "2018-04-05T17:31:00Z"),
        ("ce-schemaurl", "http://a/b"),
        ("ce-x-tenant", "t1"),
        ("ce-x-trace-id", "x"),
        ("accept", "*/*"),
    ];
    let mode = Mode::of(Some("text/plain"), headers.iter().map(|(name, _)| *name));
    assert_eq!(mode, Ok(Some(Mode::BinaryVersion01)));
    let read = |headers: &[(&str, &str)], content_type: &str, body: &'static str| {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        read_binary_version_01(headers, Some(content_type), body.into(), NOW_MS)
    };
    let event = read(&headers, "application/json", "[1.0]").unwrap();
    let expected = concat!(
        r#"{"eventType":"a.b","eventTypeVersion":"2","cloudEventsVersion":"0.1","source":"/s","eventID":"7","eventTime":"2018-04-05T17:31:00Z","#,
        r#""schemaURL":"http://a/b","extensions":{"tenant":"t1","trace-Id":"x"},"contentType":"application/json","data":[1.0]}"#,
    );
    assert_eq!(written(&event), expected);
    let form = read(&headers, "application/x-www-form-urlencoded", "a=1").unwrap();
    assert!(
        written(&form).ends_with(r#""data":"a=1"}"#),
        "{}",
        written(&form)
    );
    let bytes = read(&headers, "text/plain", "hi").unwrap();
    assert!(
        written(&bytes).ends_with(r#""data":"aGk="}"#),
        "{}",
        written(&bytes)
    );
    let missing = read(&headers[..1], "text/plain", "hi")
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("CloudEvent doesn't validate: Key: 'Event.CloudEventsVersion'"),
        "{missing}"
    );
}

/// Section 12: what the gateway adds.
#[test]
fn the_gateway_says_what_it_made_and_who_was_authorized() {
    let data = Payload::Json(Bytes::from_static(b"1"));
    let mut event = Event::new("a", "/", data, "application/json", NOW_MS);
    let transformed =
        r#""extensions":{"eventgateway":{"transformed":"true","transformation-version":"0.1"}}"#;
    assert!(written(&event).contains(transformed), "{}", written(&event));
    let authorization = serde_json::json!({"principalId": "me"});
    event.set_authorization(&authorization);
    let authorized = r#""eventgateway":{"authorization":{"principalId":"me"},"transformation-version":"0.1","transformed":"true"}"#;
    assert!(written(&event).contains(authorized), "{}", written(&event));

    let body = r#"{"eventType":"a","cloudEventsVersion":"0.1","source":"/s","eventID":"7","extensions":{"eventgateway":"mine","a":"b"}}"#;
    let mut event = structured(body).unwrap();
    event.set_authorization(&authorization);
    let replaced =
        r#""extensions":{"a":"b","eventgateway":{"authorization":{"principalId":"me"}}}"#;
    assert!(written(&event).contains(replaced), "{}", written(&event));
}
