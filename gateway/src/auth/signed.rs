//! Who calls AWS's paths: by a signature that a secret access key made, or by a token as anywhere else.
//!
//! Whose a key is, and whether it is good, is found out before the body is read, which only then tells whether the signature is right.

use std::time::{Duration, SystemTime};

use accounts::{Caller, Denied};
use bytes::Bytes;
use config::settings::Secret;
use http::request::Parts;
use protocol::Failure;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::sigv4::{self, Claim};
use super::{Guard, Need, check, check_host, token};
use crate::edge::Listener;
use crate::error::{AwsKind, Error};

/// The service that requests are signed for.
const SERVICE: &str = "lambda";

/// From so many bytes on a body is hashed where it holds up nobody.
const HASHED_HERE_MAX: usize = 256 * 1024;

/// What the head of a request says of its caller.
#[derive(Debug)]
pub(crate) struct Entrant {
    caller: Caller,
    region: Option<String>,
    /// What is still to be held against the body.
    signed: Option<(Claim, Secret)>,
}

/// Who calls, and the region that the request was signed for.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) caller: Caller,
    pub(crate) region: Option<String>,
}

impl Guard {
    /// Finds out whose the credential of a request to one of AWS's paths is, by its head.
    ///
    /// # Errors
    /// When a credential is missing or not good; without auth, when the Host is no loopback name.
    pub(crate) async fn enter(
        &self,
        parts: &Parts,
        clock_skew_max: Duration,
    ) -> Result<Entrant, Error> {
        if !self.requires_token() {
            check_host(&parts.uri, &parts.headers)?;
            // It is not checked, and says where the client thinks that it is.
            let claim = Claim::read(parts).ok().flatten();
            return Ok(Entrant {
                caller: Caller::operator(),
                region: claim.map(|claim| claim.region),
                signed: None,
            });
        }
        let claim = Claim::read(parts);
        let claim =
            claim.map_err(|why| Error::aws(AwsKind::IncompleteSignature, why.to_string()))?;
        let Some(claim) = claim else {
            if token(&parts.headers).is_none() {
                return Err(Error::aws(
                    AwsKind::MissingAuthenticationToken,
                    "Missing Authentication Token",
                ));
            }
            return Ok(Entrant {
                caller: self.caller(&parts.headers).await?,
                region: None,
                signed: None,
            });
        };
        check_terms(&claim, parts, SystemTime::now(), clock_skew_max)?;
        if claim.has_session_token {
            return Err(unrecognized());
        }
        let (caller, secret) = self
            .accounts()?
            .access_key(&claim.access_key_id)
            .await
            .map_err(denied)?;
        Ok(Entrant {
            caller,
            region: Some(claim.region.clone()),
            signed: Some((claim, secret)),
        })
    }

    /// Lets in who came with a good signature of this body, if it may do what the path is for.
    ///
    /// # Errors
    /// When the signature is another one, or the caller may not do that.
    pub(crate) async fn let_in(
        &self,
        entrant: Entrant,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Known, Error> {
        let Entrant {
            caller,
            region,
            signed,
        } = entrant;
        if let Some((claim, secret)) = signed {
            let hash = hash(body).await;
            check_payload(parts, &hash)?;
            if !claim.is_signed_by(secret.expose(), parts, &hash) {
                return Err(mismatch(
                    "The request signature we calculated does not match the signature you provided. Check your secret access key and signing method.",
                ));
            }
        }
        if self.requires_token() {
            let need = Need::of(Listener::Functions, &parts.method, parts.uri.path());
            check(&need, &caller)?;
        }
        Ok(Known { caller, region })
    }
}

/// Checks all of a claim that needs neither key nor body.
fn check_terms(
    claim: &Claim,
    parts: &Parts,
    now: SystemTime,
    skew_max: Duration,
) -> Result<(), Error> {
    if claim.service != SERVICE {
        return Err(mismatch(format!(
            "Credential should be scoped to correct service: '{SERVICE}'."
        )));
    }
    if let Some(name) = claim.unsigned(&parts.headers) {
        return Err(mismatch(format!(
            "'{name}' must be a 'SignedHeader' in the AWS Authorization."
        )));
    }
    let signed_at = moment(&claim.signed_at).ok_or_else(|| {
        Error::aws(
            AwsKind::IncompleteSignature,
            format!(
                "Date must be in ISO-8601 'basic format'. Got '{}'.",
                claim.signed_at
            ),
        )
    })?;
    if !claim.signed_at.starts_with(&claim.day) {
        return Err(mismatch(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}'.",
            claim.day, claim.signed_at
        )));
    }
    let (at, minutes) = (&claim.signed_at, skew_max.as_secs() / 60);
    if signed_at > now + skew_max {
        return Err(mismatch(format!(
            "Signature not yet current: {at} is still later than {} ({} + {minutes} min.)",
            basic(now + skew_max),
            basic(now)
        )));
    }
    let good_for = claim.expires.map_or(skew_max, Duration::from_secs);
    if now > signed_at + good_for {
        return Err(mismatch(format!(
            "Signature expired: {at} is now earlier than {} ({} - {} min.)",
            basic(now.checked_sub(good_for).unwrap_or(now)),
            basic(now),
            good_for.as_secs() / 60
        )));
    }
    Ok(())
}

/// A body whose hash is told has that one. Lambda takes no body that is not signed.
fn check_payload(parts: &Parts, hash: &str) -> Result<(), Error> {
    let Some(told) = parts.headers.get(sigv4::CONTENT_SHA256) else {
        return Ok(());
    };
    match bool::from(told.as_bytes().ct_eq(hash.as_bytes())) {
        true => Ok(()),
        false => Err(mismatch(
            "The value of x-amz-content-sha256 is not the SHA-256 of the request's body.",
        )),
    }
}

async fn hash(body: &Bytes) -> String {
    if body.len() <= HASHED_HERE_MAX {
        return hex::encode(Sha256::digest(body));
    }
    let body = body.clone();
    let hashed = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&body)));
    hashed
        .await
        .expect("hashing does not panic, and is not cancelled")
}

fn mismatch(message: impl Into<String>) -> Error {
    Error::aws(AwsKind::InvalidSignature, message)
}

fn unrecognized() -> Error {
    Error::aws(
        AwsKind::UnrecognizedClient,
        "The security token included in the request is invalid.",
    )
}

fn denied(why: Denied) -> Error {
    match why {
        Denied::Invalid | Denied::Ended => unrecognized(),
        Denied::Expired => Error::aws(
            AwsKind::ExpiredToken,
            "The security token included in the request is expired",
        ),
        Denied::Unavailable | Denied::Busy => Failure::from(why).into(),
    }
}

/// `20150830T123600Z`.
fn moment(text: &str) -> Option<SystemTime> {
    let is_basic = text.len() == 16 && text.is_ascii();
    let (date, time) = is_basic.then(|| text.split_at(8))?;
    let time = time.strip_prefix('T')?.strip_suffix('Z')?;
    let long = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        &date[4..6],
        &date[6..],
        &time[..2],
        &time[2..4],
        &time[4..]
    );
    humantime::parse_rfc3339(&long).ok()
}

fn basic(moment: SystemTime) -> String {
    let long = humantime::format_rfc3339_seconds(moment).to_string();
    long.replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        let read = moment("20150830T123600Z").unwrap();
        assert_eq!(basic(read), "20150830T123600Z");
        for wrong in [
            "",
            "20150830123600Z",
            "2015-08-30T12:36Z",
            "20151330T123600Z",
            "20150830T126600Z",
            "2015083\u{e9}T12360Z",
        ] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }
}
