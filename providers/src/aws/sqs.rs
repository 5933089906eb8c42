//! SQS: one message, <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>.

use protocol::Invocation;
use protocol::function::AwsSqsProvider;
use serde_json::json;
use url::Url;

use super::{Call, Service, check_size, url};
use crate::Error;

/// Bytes of a message, 1 MiB: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn call<'a>(
    provider: &'a AwsSqsProvider,
    endpoint: Option<&str>,
    invocation: &Invocation,
) -> Result<Call<'a>, Error> {
    let payload = &invocation.payload;
    check_size(Service::Sqs, payload.len(), MESSAGE_BYTES_MAX)?;
    let message = std::str::from_utf8(payload).ok();
    let message = message.filter(|text| !text.is_empty() && text.chars().all(is_taken));
    let message = message.ok_or_else(|| Error::PayloadRefused {
        why: "AWS SQS takes text in UTF-8 that is not empty and has no control characters".into(),
    })?;
    let mut body = json!({ "QueueUrl": provider.queue_url, "MessageBody": message });
    if provider.queue_url.ends_with(".fifo") {
        // Messages of a function come in their order, and one that is sent again within five minutes comes once.
        body["MessageGroupId"] = json!(group(invocation));
        body["MessageDeduplicationId"] = json!(invocation.id.as_str());
    }
    let of_queue = origin(&provider.queue_url);
    let endpoint = endpoint.or(of_queue.as_deref());
    Ok(Call {
        service: Service::Sqs,
        region: &provider.region,
        resource: format!("queue {}", provider.queue_url),
        url: url(Service::Sqs, &provider.region, endpoint, "/")?,
        headers: vec![
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", "AmazonSQS.SendMessage"),
        ],
        body: body.to_string().into(),
        credentials: &provider.credentials,
    })
}

/// A group of messages has a name of 128 characters at most.
fn group(invocation: &Invocation) -> String {
    let (space, function) = (&invocation.space, &invocation.function_id);
    let name = format!("{space}/{function}");
    name[name.len().saturating_sub(128)..].to_owned()
}

/// Where a queue's URL leads, but for the hosts of old, which do not take JSON.
fn origin(queue_url: &str) -> Option<String> {
    let url = Url::parse(queue_url).ok()?;
    let is_old = url.host_str()?.ends_with("queue.amazonaws.com");
    (!is_old).then(|| url.origin().ascii_serialization())
}

/// The characters that a message may have.
fn is_taken(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
