//! A function of AWS Lambda, on AWS's own runtime: what Hearth needs to know of it is only `"contract": "lambda"`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_runtime::streaming::{Body, channel};
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, StreamResponse, service_fn};
use serde_json::{Value, json};

static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
static IN_FLIGHT_MAX: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() -> Result<(), Error> {
    if let Ok(why) = std::env::var("LAMBDA_EXAMPLE_DIES") {
        eprintln!("{why}");
        std::process::exit(3);
    }
    lambda_runtime::run_concurrent(service_fn(answer)).await
}

async fn answer(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    let in_flight = IN_FLIGHT.fetch_add(1, Ordering::SeqCst) + 1;
    IN_FLIGHT_MAX.fetch_max(in_flight, Ordering::SeqCst);
    let answer = run(event).await;
    // Before the answer: its caller may send the next call as soon as it has this one.
    IN_FLIGHT.fetch_sub(1, Ordering::SeqCst);
    answer
}

async fn run(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    let (payload, context) = event.into_parts();
    let number = |name: &str| payload[name].as_u64();
    println!("{} runs", context.request_id);
    if let Some(ms) = number("ms") {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    if let Some(why) = payload["fail"].as_str() {
        return Err(why.into());
    }
    if let Some(code) = number("exit") {
        std::process::exit(i32::try_from(code).unwrap_or(1));
    }
    if let Some(lines) = number("stream") {
        return Ok(stream(lines, number("pause_ms").unwrap_or(0)));
    }
    if let Some(count) = number("bytes") {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(usize::try_from(count)?).collect();
        return Ok(FunctionResponse::StreamingResponse(StreamResponse::from(
            Body::from(bytes),
        )));
    }
    Ok(FunctionResponse::BufferedResponse(json!({
        "payload": payload,
        "arn": context.invoked_function_arn,
        "version": context.env_config.version,
        "request": context.request_id,
        "trace": context.xray_trace_id,
        "client": context.client_context,
        "log_stream": context.env_config.log_stream,
        "in_flight_max": IN_FLIGHT_MAX.load(Ordering::SeqCst),
        "pid": std::process::id(),
    })))
}

/// So many lines, with a pause before each but the first.
fn stream(lines: u64, pause_ms: u64) -> FunctionResponse<Value, Body> {
    let (mut sender, body) = channel();
    tokio::spawn(async move {
        for line in 0..lines {
            if line > 0 {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            // A client that went away takes no more.
            if sender.send_data(format!("line {line}\n").into()).await.is_err() {
                return;
            }
        }
    });
    FunctionResponse::StreamingResponse(StreamResponse::from(body))
}
