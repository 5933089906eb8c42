//! Signs requests: Signature Version 4, <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::Call;
use crate::Error;
use crate::http::client::Posted;

/// A request as it is sent, signed at that time.
///
/// # Errors
/// When it can not be signed; nothing was sent.
pub(super) fn signed(
    call: &Call<'_>,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<Posted, Error> {
    let failed = |why: String| Error::NotTaken {
        why: format!("{}: it can not be signed: {why}", call.place()),
        answered: None,
    };
    let identity = credentials.clone().into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(call.region)
        .name(call.service.name())
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| failed(error.to_string()))?
        .into();
    let request = SignableRequest::new(
        "POST",
        call.url.as_str(),
        call.headers.iter().copied(),
        SignableBody::Bytes(&call.body),
    );
    let request = request.map_err(|error| failed(error.to_string()))?;
    let signed = sign(request, &params).map_err(|error| failed(error.to_string()))?;
    let (instructions, _) = signed.into_parts();
    let mut headers = HeaderMap::with_capacity(call.headers.len() + 3);
    let own = call.headers.iter().copied();
    for (name, value) in own.chain(instructions.headers()) {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        let (Ok(name), Ok(mut value)) = (name, value) else {
            return Err(failed("its credentials can not be headers".to_owned()));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(Posted {
        url: call.url.clone(),
        headers,
        body: call.body.clone(),
    })
}
