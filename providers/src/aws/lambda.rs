//! Lambda: one synchronous invocation, <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>.

use bytes::Bytes;
use protocol::Reply;
use protocol::function::AwsLambdaProvider;

use super::{Call, Service, check_size, url};
use crate::Error;
use crate::http::client::Heard;

/// Bytes of a payload, 6 MiB: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Characters of a function's error that are repeated.
const SAID_CHARS_MAX: usize = 512;

pub(super) fn call<'a>(
    provider: &'a AwsLambdaProvider,
    endpoint: Option<&str>,
    payload: &Bytes,
) -> Result<Call<'a>, Error> {
    check_size(Service::Lambda, payload.len(), PAYLOAD_BYTES_MAX)?;
    // The other characters that a name may have stand for themselves in a path.
    let name = provider.arn.replace(':', "%3A").replace('$', "%24");
    let path = format!("/2015-03-31/functions/{name}/invocations");
    Ok(Call {
        service: Service::Lambda,
        region: &provider.region,
        resource: format!("function {}", provider.arn),
        url: url(Service::Lambda, &provider.region, endpoint, &path)?,
        headers: vec![
            ("content-type", "application/json"),
            ("x-amz-invocation-type", "RequestResponse"),
        ],
        body: payload.clone(),
        credentials: &provider.credentials,
    })
}

/// What the function answered.
///
/// # Errors
/// What it failed with.
pub(super) fn reply(heard: Heard) -> Result<Reply, Error> {
    let Some(kind) = heard.headers.get("x-amz-function-error") else {
        return Ok(super::reply("application/json", heard.body));
    };
    let kind = String::from_utf8_lossy(kind.as_bytes());
    let said = String::from_utf8_lossy(&heard.body);
    let said: String = said.chars().take(SAID_CHARS_MAX).collect();
    Err(Error::Failed {
        why: format!("{kind}: {said}"),
        answered: None,
    })
}
