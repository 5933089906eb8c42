//! What an operator sees at `/metrics`.

use actors::invoker::Completed;
use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::invocation::StartKind;
use protocol::{Component, Effect, ErrorCode};

use crate::support::{Call, Sandbox, failed, replied};

const RECORD: &str = r#"{"functionId":"f","type":"http","provider":{"url":"http://a.example/b"}}"#;

#[tokio::test]
async fn requests_connections_and_durations_are_counted() {
    // The recorder is the process's own, so where tests share a process it counts those of others as well.
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).expect("no other test installs one");
    let sandbox = Sandbox::start();
    sandbox
        .node
        .on_invoke(async |request| match request.function_id.as_str() {
            "cold" => Ok(Completed {
                start: StartKind::Cold,
                ..replied(None, "x")
            }),
            "busy" => Err(failed(
                ErrorCode::FunctionBusy,
                Component::Gateway,
                Effect::Refused,
            )),
            _ => Ok(replied(None, "x")),
        });
    for function in ["warm", "cold", "busy"] {
        sandbox
            .invoke(format!(r#"{{"function_name":"{function}"}}"#))
            .await;
    }
    sandbox.admin(Call::get("/nowhere")).await;
    let functions = "/v1/spaces/shop/functions";
    for body in ["{", "{}", RECORD] {
        sandbox.admin(Call::post(functions, body)).await;
    }
    sandbox.admin(Call::get("/v1/subscriptions")).await;
    let event_types = "/v1/spaces/shop/eventtypes";
    for body in ["{", "{}", r#"{"name":"a"}"#] {
        sandbox.admin(Call::post(event_types, body)).await;
    }
    sandbox.admin(Call::get("/v1/spaces/shop/cors")).await;
    let text = handle.render();
    let created =
        r#"gateway_config_requests_total{space="shop",resource="function",operation="create"} 2"#;
    assert!(
        text.contains(created),
        "a body that is no JSON does not count:\n{text}"
    );
    for series in [
        r#"hearth_http_requests_total{listener="functions",status="200"}"#,
        r#"hearth_http_requests_total{listener="functions",status="429"}"#,
        r#"hearth_http_requests_total{listener="config",status="404"}"#,
        r#"hearth_http_connections{listener="functions"}"#,
        r#"gateway_config_requests_total{space="default",resource="subscription",operation="list"}"#,
        r#"gateway_config_requests_total{space="shop",resource="eventtype",operation="create"} 2"#,
        r#"gateway_config_requests_total{space="shop",resource="cors",operation="list"} 1"#,
        r#"gateway_eventtypes_total{space="shop"} 1"#,
        "gateway_config_request_duration_seconds_count",
        r#"gateway_functions_total{space="shop"} 1"#,
        r#"hearth_invocation_duration_seconds_count{start="warm"}"#,
        r#"hearth_invocation_duration_seconds_count{start="cold"}"#,
        r#"hearth_invocation_duration_seconds_count{start="none"}"#,
    ] {
        assert!(text.contains(series), "{series} is not in\n{text}");
    }
}
