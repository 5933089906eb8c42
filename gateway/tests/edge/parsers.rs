//! Whatever comes over the wire, nothing panics and nothing is our own fault.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::support::{Call, PATIENCE, Sandbox};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Bytes that are often nearly JSON of the right shape.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        r#"\{"function_name":"[a-z./\\\\"]{0,5}"(,"payload":[\[\]{}",:0-9a-z\\\\]{0,20})?(,"space":"[a-z ]{0,5}")?\}"#,
        r#"\{"functionId":("[a-z ]{0,4}"|[0-9]|null),"type":"(http|process|container|x)?","provider":[{}\[\]":a-z0-9]{0,20}\}"#,
        r#"\{("(limits|scaling|type|provider|payload)":("[a-z]{0,3}"|-?[0-9]{1,25}|null|\{\}|\[\]),?){0,4}\}"#,
        r#"\{("(name|type|eventType|functionId|path|method|authorizerId|metadata|filter|allowedOrigins)":("[a-z/:*,.]{0,6}"|sync|-?[0-9]{1,5}|null|\{"a":"b"\}|\["a"\]),?){0,5}\}"#,
        r#"\{"eventType":"[a-z.]{0,5}","cloudEventsVersion":"0.[12]","source":"[a-z:/]{0,4}","eventID":"[a-z]{0,3}"(,"(eventTime|extensions|data|contentType|schemaURL)":("[a-z/]{0,9}"|\{"[a-zA-Z]{0,3}":[0-9\[\]"]{0,4}\}|null|[0-9]{1,30}))?\}"#,
        ".{0,60}",
    ];
    prop_oneof![
        text.prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_body_to_invoke_is_answered(bodies in prop::collection::vec(body(), 1..4)) {
        runtime().block_on(async {
            let sandbox = Sandbox::start();
            for body in bodies {
                let answer = sandbox.invoke(&body).await;
                prop_assert!(matches!(answer.status, 200 | 400), "{:?}: {:?}", body, answer);
                answer.has_common_headers();
            }
            Ok(())
        })?;
    }

    #[test]
    fn any_record_and_path_are_answered(
        bodies in prop::collection::vec((body(), "[a-zA-Z0-9.%/_~ -]{0,8}", 0..5usize), 1..3),
    ) {
        runtime().block_on(async {
            let sandbox = Sandbox::start();
            for (body, segment, method) in bodies {
                let method = ["GET", "POST", "PUT", "DELETE", "PATCH"][method];
                let segment = segment.replace(' ', "%ff");
                for path in [
                    format!("/v1/spaces/{segment}/functions"),
                    format!("/v1/spaces/default/functions/{segment}"),
                    format!("/v1/spaces/default/functions/{segment}/logs?follow={segment}"),
                    format!("/v1/spaces/{segment}/subscriptions"),
                    format!("/v1/spaces/default/subscriptions/{segment}"),
                    format!("/v1/spaces/{segment}/eventtypes"),
                    format!("/v1/spaces/default/eventtypes/{segment}"),
                    format!("/v1/spaces/{segment}/cors"),
                    format!("/v1/spaces/default/cors/{segment}"),
                    format!("/debug/route?function={segment}&space={segment}"),
                ] {
                    let call = Call::new(method, &path).body(&body).header("if-match", "\"1\"");
                    let answer = sandbox.admin(call).await;
                    prop_assert!(answer.status < 500, "{} {} {:?}: {:?}", method, path, body, answer);
                    answer.has_common_headers();
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn any_event_is_taken_or_refused(bodies in prop::collection::vec((body(), 0..3usize), 1..4)) {
        runtime().block_on(async {
            let sandbox = Sandbox::start();
            for (body, mode) in bodies {
                let call = Call::post("/", &body);
                let call = match mode {
                    0 => call.header("content-type", "application/cloudevents+json"),
                    1 => call.header("content-type", "application/cloudevents-batch+json"),
                    _ => call.header("ce-eventtype", "a").header("ce-cloudeventsversion", "0.1").header("ce-source", "/").header("ce-eventid", "1").header("ce-x-y", "é"),
                };
                let answer = call.send(sandbox.addresses.events).await;
                prop_assert!(matches!(answer.status, 202 | 400 | 404), "{:?}: {:?}", body, answer);
            }
            Ok(())
        })?;
    }

    #[test]
    fn any_bytes_on_a_connection_leave_the_edge_well(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..60usize) {
        runtime().block_on(async {
            let sandbox = Sandbox::start();
            let call = Call::post("/invoke", r#"{"function_name":"f"}"#).bytes();
            let bytes = [&call[..cut.min(call.len())], &bytes].concat();
            for address in [sandbox.addresses.functions, sandbox.addresses.events, sandbox.addresses.config] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
                prop_assert!(!answer.starts_with(b"HTTP/1.1 5"), "{:?}", String::from_utf8_lossy(&answer));
            }
            prop_assert_eq!(sandbox.invoke(r#"{"function_name":"f"}"#).await.status, 200);
            Ok(())
        })?;
    }
}
