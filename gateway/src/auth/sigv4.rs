//! AWS Signature Version 4: what a request says of its signature, and the signature that it should have.
//!
//! As <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html> has it, for services other than S3: the
//! path is encoded twice. Nothing here knows keys or clocks.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};

/// The one algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What ends a credential's scope.
const TERMINATOR: &str = "aws4_request";
/// When a request was signed, `20150830T123600Z`.
pub(super) const DATE: HeaderName = HeaderName::from_static("x-amz-date");
/// The SHA-256 of the body, where it is told.
pub(super) const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
/// The most headers that a signature names: as many as a request may have.
const SIGNED_HEADERS_MAX: usize = 100;

/// What a request says of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) access_key_id: String,
    /// `20150830`, of the scope.
    pub(super) day: String,
    pub(super) region: String,
    pub(super) service: String,
    /// `20150830T123600Z`.
    pub(super) signed_at: String,
    /// The names of the headers that are signed, in lower case, as they stand there.
    signed_headers: Vec<String>,
    signature: [u8; 32],
    /// For how many seconds it is good, where it stands in the query.
    pub(super) expires: Option<u64>,
    /// Whether a session token came along.
    pub(super) has_session_token: bool,
}

/// Why a request's words about its signature can not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Incomplete(String);

impl Claim {
    /// Reads the claim of a request; none where it makes none.
    ///
    /// # Errors
    /// When it is not whole.
    pub(super) fn read(parts: &Parts) -> Result<Option<Self>, Incomplete> {
        if let Some(value) = parts.headers.get(http::header::AUTHORIZATION) {
            let value = value.to_str().unwrap_or_default();
            return match value.strip_prefix(ALGORITHM) {
                Some(rest) => Self::of_header(rest, &parts.headers).map(Some),
                None => Ok(None),
            };
        }
        let query = parts.uri.query().unwrap_or_default();
        match query.contains("X-Amz-Signature=") {
            true => Self::of_query(query).map(Some),
            false => Ok(None),
        }
    }

    fn of_header(rest: &str, fields: &HeaderMap) -> Result<Self, Incomplete> {
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for part in rest.split(',').map(str::trim) {
            match part.split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => headers = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => {
                    return Err(Incomplete(format!(
                        "Authorization header has {part:?}, expected Credential, SignedHeaders and Signature"
                    )));
                }
            }
        }
        let missing =
            |what| move || Incomplete(format!("Authorization header requires '{what}' parameter."));
        let date = fields.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.ok_or_else(|| {
            Incomplete(
                "Authorization header requires existence of an 'X-Amz-Date' header.".to_owned(),
            )
        })?;
        let credential = credential.ok_or_else(missing("Credential"))?;
        let headers = headers.ok_or_else(missing("SignedHeaders"))?;
        let signature = signature.ok_or_else(missing("Signature"))?;
        let has_session_token = fields.contains_key("x-amz-security-token");
        Self::new(
            credential,
            headers,
            signature,
            date,
            None,
            has_session_token,
        )
    }

    fn of_query(query: &str) -> Result<Self, Incomplete> {
        let find = |name: &str| {
            let found = pairs(query).find(|(found, _)| found == name);
            let value = found.map(|(_, value)| value);
            value.ok_or_else(|| Incomplete(format!("the query requires '{name}'")))
        };
        let algorithm = find("X-Amz-Algorithm")?;
        if algorithm != ALGORITHM {
            return Err(Incomplete(format!(
                "X-Amz-Algorithm is {algorithm:?}, expected {ALGORITHM}"
            )));
        }
        let expires = find("X-Amz-Expires")?;
        // A week: as long as AWS lets one be good.
        let seconds = expires
            .parse()
            .ok()
            .filter(|seconds| (1..=604_800).contains(seconds));
        let seconds = seconds.ok_or_else(|| {
            Incomplete(format!(
                "X-Amz-Expires is {expires:?}, expected 1 to 604800 seconds"
            ))
        })?;
        let has_session_token = find("X-Amz-Security-Token").is_ok();
        Self::new(
            &find("X-Amz-Credential")?,
            &find("X-Amz-SignedHeaders")?,
            &find("X-Amz-Signature")?,
            &find("X-Amz-Date")?,
            Some(seconds),
            has_session_token,
        )
    }

    fn new(
        credential: &str,
        headers: &str,
        signature: &str,
        date: &str,
        expires: Option<u64>,
        has_session_token: bool,
    ) -> Result<Self, Incomplete> {
        let scope: Vec<_> = credential.split('/').collect();
        let [access_key_id, day, region, service, TERMINATOR] = scope.as_slice() else {
            return Err(Incomplete(format!(
                "Credential is {credential:?}, expected KEY/DAY/REGION/SERVICE/{TERMINATOR}"
            )));
        };
        let mut bytes = [0; 32];
        hex::decode_to_slice(signature, &mut bytes)
            .map_err(|_| Incomplete("Signature is not 64 hexadecimal digits".to_owned()))?;
        let signed_headers: Vec<_> = headers.split(';').map(str::to_owned).collect();
        if signed_headers.len() > SIGNED_HEADERS_MAX {
            return Err(Incomplete(format!(
                "SignedHeaders names more than {SIGNED_HEADERS_MAX} headers"
            )));
        }
        Ok(Self {
            access_key_id: (*access_key_id).to_owned(),
            day: (*day).to_owned(),
            region: (*region).to_owned(),
            service: (*service).to_owned(),
            signed_at: date.to_owned(),
            signed_headers,
            signature: bytes,
            expires,
            has_session_token,
        })
    }

    /// A header that has to be signed and is not: the host, and all of AWS's own that are there.
    pub(super) fn unsigned<'a>(&self, fields: &'a HeaderMap) -> Option<&'a str> {
        let is_signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        let own = fields.keys().map(HeaderName::as_str);
        let own = own.filter(|name| name.starts_with("x-amz-"));
        std::iter::once("host")
            .chain(own)
            .find(|name| !is_signed(name))
    }

    /// Whether the signature is that of the request, by this secret. `payload_hash` is the SHA-256 of the body in hexadecimal digits.
    pub(super) fn is_signed_by(&self, secret: &str, parts: &Parts, payload_hash: &str) -> bool {
        let mac = self.mac(secret, parts, payload_hash);
        mac.verify(&self.signature.into()).is_ok()
    }

    fn mac(&self, secret: &str, parts: &Parts, payload_hash: &str) -> Hmac<Sha256> {
        let canonical = self.canonical_request(parts, payload_hash);
        let to_sign = format!(
            "{ALGORITHM}\n{}\n{}/{}/{}/{TERMINATOR}\n{}",
            self.signed_at,
            self.day,
            self.region,
            self.service,
            hex::encode(Sha256::digest(&canonical)),
        );
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [&*self.day, &*self.region, &*self.service, TERMINATOR] {
            key = keyed(&key, part.as_bytes())
                .finalize()
                .into_bytes()
                .to_vec();
        }
        keyed(&key, to_sign.as_bytes())
    }

    fn canonical_request(&self, parts: &Parts, payload_hash: &str) -> Vec<u8> {
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(parts.method.as_str().as_bytes());
        text.push(b'\n');
        text.extend_from_slice(canonical_path(parts.uri.path()).as_bytes());
        text.push(b'\n');
        text.extend_from_slice(canonical_query(parts.uri.query().unwrap_or_default()).as_bytes());
        text.push(b'\n');
        for name in &self.signed_headers {
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            for (position, value) in parts.headers.get_all(name.as_str()).iter().enumerate() {
                if position > 0 {
                    text.push(b',');
                }
                push_trimmed(&mut text, value.as_bytes());
            }
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(self.signed_headers.join(";").as_bytes());
        text.push(b'\n');
        text.extend_from_slice(payload_hash.as_bytes());
        text
    }
}

fn keyed(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.chain_update(text)
}

/// A header's value without white space around it and with single spaces in it.
fn push_trimmed(text: &mut Vec<u8>, value: &[u8]) {
    let mut was_space = false;
    for byte in value.trim_ascii() {
        let is_space = *byte == b' ';
        if !(is_space && was_space) {
            text.push(*byte);
        }
        was_space = is_space;
    }
}

/// The path without `.`, `..` and empty segments, encoded once more.
fn canonical_path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut canonical = String::with_capacity(path.len() + 16);
    for segment in &segments {
        canonical.push('/');
        push_encoded(&mut canonical, segment.as_bytes());
    }
    if segments.is_empty() || path.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

/// The parameters by name and value, encoded in the one way, without the signature itself.
fn canonical_query(query: &str) -> String {
    let pairs = pairs(query).filter(|(name, _)| name != "X-Amz-Signature");
    let mut pairs: Vec<(String, String)> = pairs
        .map(|(name, value)| (encoded(&name), encoded(&value)))
        .collect();
    pairs.sort_unstable();
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name).into_owned(), decoded(value).into_owned())
    })
}

/// A part of a query as it was before it was encoded; what is no UTF-8 stays as it stands, and no signature fits it.
fn decoded(part: &str) -> Cow<'_, str> {
    if !part.contains(['%', '+']) {
        return part.into();
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *first == b'%');
        let escaped = escaped.and_then(|digits| hex::decode(digits).ok());
        match (first, escaped) {
            (_, Some(byte)) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            (b'+', None) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, None) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => part.into(),
    }
}

fn encoded(part: &str) -> String {
    let mut text = String::with_capacity(part.len() + 8);
    push_encoded(&mut text, part.as_bytes());
    text
}

/// Encodes all but the unreserved characters of RFC 3986.
fn push_encoded(text: &mut String, part: &[u8]) {
    for byte in part {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte));
            }
            byte => {
                text.push('%');
                text.push_str(&hex::encode_upper([*byte]));
            }
        }
    }
}

#[cfg(test)]
mod tests;
