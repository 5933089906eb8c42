//! What an error of AWS comes to.

use std::time::Duration;

use protocol::Answered;
use serde_json::Value;

use super::{Call, Service};
use crate::Error;
use crate::contract::headers::retry_after;
use crate::http::client::{Heard, elsewhere};

/// Errors that say that a request was not accepted because there are too many: those that AWS's own SDKs retry as such
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>), and that of a delivery stream that is over its limits.
const THROTTLED: [&str; 14] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "LimitExceededException",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    "SlowDown",
    "EC2ThrottledException",
    "KMSThrottlingException",
];

/// Errors about the size of a request.
const TOO_LARGE: [&str; 2] = ["RequestTooLargeException", "RequestEntityTooLarge"];

/// Characters of an error that are repeated.
const SAID_CHARS_MAX: usize = 512;

/// What an answer that is no success comes to.
pub(super) fn of(call: &Call<'_>, heard: &Heard) -> Error {
    let (code, said) = read(heard);
    let status = heard.status;
    let shown = match (code.as_str(), said.as_str()) {
        ("", "") => format!("status {status}"),
        ("", said) => format!("status {status}: {said}"),
        (code, "") => code.to_owned(),
        (code, said) => format!("{code}: {said}"),
    };
    let why = format!("{}: {shown}", call.place());
    let is_firehose_full =
        call.service == Service::Firehose && code == "ServiceUnavailableException";
    if status == 429 || THROTTLED.contains(&code.as_str()) || is_firehose_full {
        let pause = retry_after(elsewhere(&heard.headers).as_deref());
        let milliseconds = |pause: Duration| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        return Error::Throttled {
            why,
            retry_after_ms: pause.map(milliseconds),
        };
    }
    if status == 413 || TOO_LARGE.contains(&code.as_str()) {
        return Error::PayloadTooLarge { why };
    }
    if code == "InvalidRequestContentException" {
        return Error::PayloadRefused { why };
    }
    if status >= 500 {
        return Error::Interrupted { why };
    }
    Error::NotTaken {
        why,
        answered: Some(Answered {
            status,
            said: shown,
            retry_after_ms: None,
        }),
    }
}

/// The code of an error, and its message: from the header of the REST protocol, else from the body as both protocols have it
/// (<https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization>). What stands before a service may
/// answer in XML.
fn read(heard: &Heard) -> (String, String) {
    let text = String::from_utf8_lossy(&heard.body);
    let body: Option<Value> = serde_json::from_str(&text).ok();
    let field = |names: [&str; 2], tag: &str| {
        let in_json = |body: &Value| {
            let found = names.iter().find_map(|name| body.get(name)?.as_str());
            found.map(str::to_owned)
        };
        match &body {
            Some(body) => in_json(body),
            None => in_xml(&text, tag).map(str::to_owned),
        }
    };
    let header = heard.headers.get("x-amzn-errortype");
    let header = header.and_then(|value| value.to_str().ok());
    let code = header.map(str::to_owned);
    let code = code.or_else(|| field(["__type", "code"], "Code"));
    let code = code.unwrap_or_default();
    // `namespace#Code:http://…`
    let code = code.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default();
    let said = field(["message", "Message"], "Message").unwrap_or_else(|| text.into_owned());
    let said = said.trim().chars().take(SAID_CHARS_MAX).collect();
    (code.to_owned(), said)
}

/// The text of the first element of that name.
fn in_xml<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once("</").map(|(inner, _)| inner)
}
