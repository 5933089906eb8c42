use super::super::Attributes;
use super::*;

const NOW_MS: u64 = 1_700_000_000_000;

const MINIMAL: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "7"),
    ("ce-source", "/s"),
    ("ce-type", "user.created"),
];

fn binary(headers: &[(&str, &str)], content_type: &str, body: &str) -> Result<Event, Invalid> {
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| (*name, value.as_bytes()));
    let content_type = Some(content_type).filter(|value| !value.is_empty());
    read_binary(
        headers,
        content_type,
        Bytes::copy_from_slice(body.as_bytes()),
        NOW_MS,
    )
}

fn structured(body: &str) -> Result<Event, Invalid> {
    read_structured(&Bytes::copy_from_slice(body.as_bytes()), NOW_MS)
}

fn mode(content_type: &str, names: &[&str], expected: Option<Mode>) {
    let found = Mode::of(Some(content_type), names.iter().copied());
    assert_eq!(found, Ok(expected), "{content_type} {names:?}");
}

#[test]
fn the_mode_is_known_by_content_type_and_headers() {
    mode(
        "application/cloudevents+json; charset=utf-8",
        &["ce-id"],
        Some(Mode::Structured),
    );
    mode("Application/CloudEvents+JSON", &[], Some(Mode::Structured));
    mode("application/cloudevents-batch+json", &[], Some(Mode::Batch));
    mode("application/json", &["ce-type"], Some(Mode::Binary));
    mode("application/json", &["ce-rotation", "accept"], None);
    mode("application/cloud", &[], None);
    let avro = Mode::of(Some("application/cloudevents+avro"), [].into_iter());
    let why = avro.unwrap_err().to_string();
    assert!(why.contains("application/cloudevents+avro"), "{why}");
}

#[test]
fn binary_mode_reads_all_attributes() {
    let mut headers = MINIMAL.to_vec();
    headers.extend([
        ("ce-subject", "\"caf%C3%A9%20%22x%22\""),
        ("ce-time", "2018-04-05T17:31:00Z"),
        ("ce-dataschema", "http://a/b"),
        ("ce-tenant", "t1"),
        ("accept", "*/*"),
    ]);
    let event = binary(&headers, "application/json", "{\"n\":1.50}").unwrap();
    assert_eq!(
        (event.id.as_str(), event.event_type.as_str()),
        ("7", "user.created")
    );
    assert_eq!(event.data.bytes(), "{\"n\":1.50}");
    let attributes = &event.attributes;
    assert_eq!(attributes.source, "/s");
    assert_eq!(attributes.subject.as_deref(), Some("café \"x\""));
    assert_eq!(event.time(), "2018-04-05T17:31:00Z");
    assert_eq!(attributes.data_schema.as_deref(), Some("http://a/b"));
    assert_eq!(attributes.extensions["tenant"], "t1");
}

fn refuses_binary(name: &str, value: Option<&str>, expected: &str) {
    let mut headers: Vec<_> = MINIMAL
        .into_iter()
        .filter(|(known, _)| *known != name)
        .collect();
    headers.extend(value.map(|value| (name, value)));
    let why = binary(&headers, "text/plain", "x").unwrap_err().to_string();
    assert_eq!(why, format!("CloudEvent is not valid: {expected}"));
}

#[test]
fn binary_mode_names_the_attribute_that_is_wrong() {
    refuses_binary("ce-specversion", None, "ce-specversion is missing");
    refuses_binary("ce-id", None, "ce-id is missing");
    refuses_binary("ce-source", None, "ce-source is missing");
    refuses_binary("ce-type", None, "ce-type is missing");
    refuses_binary("ce-type", Some(""), "ce-type is empty");
    refuses_binary(
        "ce-specversion",
        Some("0.3"),
        "ce-specversion is not supported, expected 1.0",
    );
    refuses_binary(
        "ce-time",
        Some("today"),
        "ce-time is no time as RFC 3339 writes them",
    );
    refuses_binary("ce-subject", Some("%FF"), "ce-subject is not valid UTF-8");
    refuses_binary("ce-data", Some("x"), "ce-data is no name of an attribute");
    refuses_binary(
        "ce-my_ext",
        Some("x"),
        "ce-my_ext is no attribute: names have only letters a to z and digits",
    );
    let broken = binary(&MINIMAL, "application/json", "{").unwrap_err();
    assert!(broken.to_string().contains("the body is no valid JSON"));
}

fn member(member: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"7","source":"/s","type":"t"{member}}}"#)
}

fn data_of(members: &str) -> (Payload, String) {
    let event = structured(&member(members)).expect(members);
    (event.data, event.data_type)
}

#[test]
fn structured_mode_reads_data_of_every_kind() {
    let json = |text: &'static str| Payload::Json(Bytes::from_static(text.as_bytes()));
    let bytes = |text: &'static str| Payload::Bytes(Bytes::from_static(text.as_bytes()));
    let check = |members: &str, data: Payload, data_type: &str| {
        assert_eq!(data_of(members), (data, data_type.to_owned()), "{members}");
    };
    let default = "application/json";
    check(r#","data":{"a":1.10}"#, json(r#"{"a":1.10}"#), default);
    check(r#","data":null"#, json("null"), default);
    check(r#","data":"x""#, json(r#""x""#), default);
    check("", bytes(""), default);
    check(
        r#","datacontenttype":"text/xml","data":"<a\u0062/>""#,
        bytes("<ab/>"),
        "text/xml",
    );
    check(
        r#","datacontenttype":"text/xml","data":{"a":1}"#,
        json(r#"{"a":1}"#),
        "text/xml",
    );
    check(
        r#","datacontenttype":"image/png","data_base64":"aGk=""#,
        bytes("hi"),
        "image/png",
    );
    check(r#","data_base64":"WzFd""#, json("[1]"), default);
}

fn refuses_structured(body: &str, expected: &str) {
    let why = structured(body).expect_err(body).to_string();
    assert_eq!(why, format!("CloudEvent is not valid: {expected}"));
}

#[test]
fn structured_mode_names_the_attribute_that_is_wrong() {
    refuses_structured("", "the body is no JSON object");
    refuses_structured("[]", "the body is no JSON object");
    refuses_structured(
        r#"{"id":"7","source":"/s","type":"t"}"#,
        "specversion is missing",
    );
    refuses_structured(
        r#"{"specversion":"1.0","id":null,"source":"/s","type":"t"}"#,
        "id is missing",
    );
    refuses_structured(
        r#"{"specversion":"1.0","id":"7","source":"","type":"t"}"#,
        "source is empty",
    );
    refuses_structured(
        &member(r#","time":"x""#),
        "time is no time as RFC 3339 writes them",
    );
    refuses_structured(
        &member(r#","ext":{}"#),
        "ext is no text, boolean or integer",
    );
    refuses_structured(
        &member(r#","ext":1.5"#),
        "ext is no text, boolean or integer",
    );
    refuses_structured(
        &member(r#","Ext":"x""#),
        "Ext is no attribute: names have only letters a to z and digits",
    );
    refuses_structured(
        &member(r#","data":1,"data_base64":"""#),
        "data_base64 stands beside data",
    );
    refuses_structured(&member(r#","data_base64":"*""#), "data_base64 is no base64");
    let extensions = structured(&member(r#","a":true,"b":-7,"c":null"#)).unwrap();
    let extensions = extensions.attributes.extensions;
    assert_eq!(
        extensions.into_iter().collect::<Vec<_>>(),
        [
            ("a".to_owned(), "true".to_owned()),
            ("b".to_owned(), "-7".to_owned())
        ]
    );
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let batch = |body: String| read_batch(&Bytes::from(body), NOW_MS);
    assert_eq!(batch("[]".into()).unwrap(), []);
    let events = batch(format!("[{}, {}]", member(""), member(r#","data":1"#))).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].data.bytes(), "1");
    let why = batch(format!("[{}, {{}}]", member(""))).unwrap_err();
    assert_eq!(
        why.to_string(),
        "event 1 of the batch: CloudEvent is not valid: specversion is missing"
    );
    assert!(batch("{}".into()).is_err());
}

fn round_trip(event: &Event) {
    let written = structured(std::str::from_utf8(&event.to_structured()).unwrap()).unwrap();
    let expected = Event {
        attributes: Attributes {
            time: Some(event.time()),
            ..event.attributes.clone()
        },
        ..event.clone()
    };
    assert_eq!(written, expected, "structured");
    let headers = event.to_binary_headers();
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()));
    let body = event.data.bytes().clone();
    let written = read_binary(headers, Some(&event.data_type), body, NOW_MS).unwrap();
    assert_eq!(written, expected, "binary");
}

#[test]
fn what_is_written_is_read_the_same() {
    let bytes = |bytes: &'static [u8]| Payload::Bytes(Bytes::from_static(bytes));
    let json = Payload::Json(Bytes::from_static(b"{\"n\":1.10}"));
    let mut event = Event::new("a.b", "/p?q=%20", json, "application/json", NOW_MS);
    // Attributes of another version are not told.
    event.attributes.is_transformed = false;
    event.attributes.subject = Some("é \"%41\" \u{1F600}".to_owned());
    event
        .attributes
        .extensions
        .insert("x1".into(), "a, b".into());
    round_trip(&event);
    for (data, data_type) in [
        (bytes(b"\xff\x00"), "image/png"),
        (bytes("té\"xt".as_bytes()), "text/plain; charset=utf-8"),
        (bytes(b"plain"), "application/octet-stream"),
        (bytes(b""), "text/plain"),
        (bytes(b"\xff"), "text/plain"),
    ] {
        round_trip(&Event {
            data,
            data_type: data_type.to_owned(),
            ..event.clone()
        });
    }
}

#[test]
fn an_event_that_was_no_cloud_event_has_all_that_one_needs() {
    let event = Event::new("a", "", Payload::Bytes(Bytes::new()), "text/plain", NOW_MS);
    let headers = event.to_binary_headers();
    assert!(headers.contains(&("ce-source".into(), "/".into())));
    assert!(headers.contains(&("ce-time".into(), "2023-11-14T22:13:20.000Z".into())));
    assert_eq!(
        std::str::from_utf8(&event.to_structured()).unwrap(),
        format!(
            r#"{{"specversion":"1.0","id":"{}","source":"/","type":"a","time":"2023-11-14T22:13:20.000Z","datacontenttype":"text/plain"}}"#,
            event.id
        )
    );
}
