//! The answer to `next`: an invocation, with what AWS tells of it in headers.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use protocol::{Invocation, InvocationId};
use tokio::time::Instant;

/// The heads of one function's invocations; what never changes is made once.
#[derive(Debug)]
pub(super) struct NextHead {
    /// The status, and the field with the function's ARN.
    start: String,
}

/// The header of a call with what AWS's mobile SDK says of its client: JSON in base64, as the Invoke API has it.
const CLIENT_CONTEXT: &str = "x-amz-client-context";
/// The header of a call with who the client is to Amazon Cognito, in JSON.
const COGNITO_IDENTITY: &str = "lambda-runtime-cognito-identity";

impl NextHead {
    pub(super) fn new(arn: &str) -> Self {
        let start = format!("HTTP/1.1 200 OK\r\nLambda-Runtime-Invoked-Function-Arn: {arn}\r\n");
        Self { start }
    }

    /// Writes the head of an invocation that ends at `until` at the latest. What is no valid header value is left out: it came from
    /// a client.
    pub(super) fn write(
        &self,
        id: &InvocationId,
        invocation: &Invocation,
        until: Instant,
        head: &mut Vec<u8>,
    ) {
        head.extend_from_slice(self.start.as_bytes());
        let mut field = |name: &str, value: &[u8]| {
            if !value.is_empty() && HeaderValue::from_bytes(value).is_ok() {
                for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
                    head.extend_from_slice(piece);
                }
            }
        };
        field("Lambda-Runtime-Aws-Request-Id", id.as_str().as_bytes());
        let content_type = match invocation.content_type.as_str() {
            "" => "application/json",
            told => told,
        };
        field("Content-Type", content_type.as_bytes());
        if let Some(trace) = invocation.trace.parent.as_deref().and_then(x_ray) {
            field("Lambda-Runtime-Trace-Id", trace.as_bytes());
        }
        let headers = invocation.call.iter().flat_map(|call| &call.headers);
        for (name, value) in headers {
            match name.as_str() {
                CLIENT_CONTEXT => {
                    let context = STANDARD.decode(value).unwrap_or_default();
                    field("Lambda-Runtime-Client-Context", &context);
                }
                COGNITO_IDENTITY => field("Lambda-Runtime-Cognito-Identity", value),
                _ => {}
            }
        }
        let deadline_ms = (SystemTime::now() + until.saturating_duration_since(Instant::now()))
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let length = invocation.payload.len();
        write!(
            head,
            "Lambda-Runtime-Deadline-Ms: {deadline_ms}\r\nContent-Length: {length}\r\n\r\n"
        )
        .expect("a Vec takes all that is written");
    }
}

/// A W3C `traceparent` as X-Ray writes it: AWS's own root holds the same 32 digits, 8 of which it takes for a time.
fn x_ray(parent: &str) -> Option<String> {
    let mut parts = parent.split('-');
    let (_version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !is_hex(trace, 32) || !is_hex(span, 16) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let (time, rest) = trace.split_at(8);
    let sampled = flags & 1;
    Some(format!(
        "Root=1-{time}-{rest};Parent={span};Sampled={sampled}"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use protocol::invocation::{Call, TraceContext};
    use protocol::{Deadline, Hop};

    use super::*;

    fn head(content_type: &str, parent: Option<&str>, headers: &[(&str, &str)]) -> Vec<String> {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())));
        let until = Instant::now() + Duration::from_secs(3);
        let invocation = Invocation {
            id: "i-1".parse().unwrap(),
            space: "default".parse().unwrap(),
            function_id: "f".parse().unwrap(),
            payload: Bytes::from_static(b"{}"),
            content_type: content_type.to_owned(),
            call: Some(Arc::new(Call {
                headers: headers.collect(),
                ..Call::default()
            })),
            deadline: Deadline::at(until.into_std()),
            hop: Hop::Direct,
            trace: TraceContext {
                parent: parent.map(str::to_owned),
                state: None,
            },
        };
        let mut head = Vec::new();
        NextHead::new("arn:x").write(&invocation.id, &invocation, until, &mut head);
        let text = String::from_utf8(head).unwrap();
        assert!(text.ends_with("\r\n\r\n"));
        text.trim_end().lines().map(str::to_owned).collect()
    }

    #[test]
    fn all_that_aws_tells_is_told() {
        let parent = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
        let context = STANDARD.encode(r#"{"client":{"app_title":"a"}}"#);
        let lines = head(
            "",
            Some(parent),
            &[
                (CLIENT_CONTEXT, &context),
                (COGNITO_IDENTITY, r#"{"cognitoIdentityId":"c"}"#),
                ("x-other", "y"),
            ],
        );
        assert_eq!(
            lines[..7],
            [
                "HTTP/1.1 200 OK",
                "Lambda-Runtime-Invoked-Function-Arn: arn:x",
                "Lambda-Runtime-Aws-Request-Id: i-1",
                "Content-Type: application/json",
                "Lambda-Runtime-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
                r#"Lambda-Runtime-Client-Context: {"client":{"app_title":"a"}}"#,
                r#"Lambda-Runtime-Cognito-Identity: {"cognitoIdentityId":"c"}"#,
            ]
        );
        let told = lines[7]
            .strip_prefix("Lambda-Runtime-Deadline-Ms: ")
            .unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let left = told.parse::<u128>().unwrap().abs_diff(now.as_millis());
        assert!((1_000..=3_100).contains(&left), "{left} ms");
        assert_eq!(lines[8], "Content-Length: 2");
        assert_eq!(lines.len(), 9);
    }

    #[test]
    fn what_would_become_another_head_is_left_out() {
        let context = STANDARD.encode("{}\r\nLambda-Runtime-Aws-Request-Id: other");
        let headers = [(CLIENT_CONTEXT, context.as_str()), (CLIENT_CONTEXT, "&&&")];
        let lines = head("text/plain\r\nx: y", Some("00-zz-1-01"), &headers);
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("other")));
    }

    fn check(parent: &str, expected: Option<&str>) {
        assert_eq!(x_ray(parent).as_deref(), expected, "{parent}");
    }

    #[test]
    fn trace_context_is_written_as_x_ray_has_it() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let root = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331";
        let parent = |flags: &str| format!("00-{trace}-b7ad6b7169203331-{flags}");
        check(&parent("01"), Some(&format!("{root};Sampled=1")));
        check(&parent("00"), Some(&format!("{root};Sampled=0")));
        check(&parent("zz"), None);
        check("00-1-b7ad6b7169203331-01", None);
        check("", None);
        check("00-äääääääääääääääää-b7ad6b7169203331-01", None);
    }
}
