//! ID tokens of service accounts, kept until they expire.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use config::settings::HttpSettings;
use protocol::function::{GcloudFunctionProvider, ServiceAccountKey};
use protocol::{Answered, Function, FunctionId, Space, Version};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use url::Url;

use crate::Error;
use crate::contract::headers::retry_after;
use crate::http::client::{Client, Credential, Heard, Posted, elsewhere};
use crate::http::{BuildError, Outbound, unreachable};

/// How long an assertion is good for, the most that Google takes: <https://developers.google.com/identity/protocols/oauth2/service-account>.
const ASSERTION_AGE: Duration = Duration::from_secs(3600);

/// How long before its end a token is not used any more: so much may a call be on its way, and clocks be apart.
const MARGIN: Duration = Duration::from_secs(60);

/// Bytes of an answer with a token.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Functions whose tokens are kept; beyond, those of functions without a call are forgotten.
const TOKENS_MAX: usize = 4096;

/// Characters of an error that are repeated.
const SAID_CHARS_MAX: usize = 512;

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// Asks for tokens, one call at a time for a function; the others wait for its outcome.
#[derive(Debug)]
pub(super) struct Tokens {
    client: Client,
    known: Mutex<HashMap<Name, Slot>>,
}

/// A function, or a version of one.
type Name = (Space, FunctionId, Option<Version>);

/// A token, and what it was made for: a record that changed meanwhile needs another one.
struct Token {
    credential: Credential,
    key: ServiceAccountKey,
    audience: String,
    good_until: SystemTime,
}

impl Tokens {
    pub(super) fn new(
        settings: &HttpSettings,
        guard: Option<Arc<Outbound>>,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            client: Client::new(settings, guard)?,
            known: Mutex::default(),
        })
    }

    /// The token of a function, as its header.
    ///
    /// # Errors
    /// Why there is none; the function was not called.
    pub(super) async fn token(
        &self,
        function: &Function,
        provider: &GcloudFunctionProvider,
    ) -> Result<Credential, Error> {
        let audience = audience(provider);
        let slot = self.slot(function);
        let mut kept = slot.lock().await;
        let is_good = |token: &&Token| {
            token.good_until > SystemTime::now()
                && token.audience == audience
                && token.key == provider.service_account_key
        };
        if let Some(token) = kept.as_ref().filter(is_good) {
            return Ok(token.credential.clone());
        }
        let token = self.ask(&provider.service_account_key, audience).await?;
        Ok(kept.insert(token).credential.clone())
    }

    pub(super) fn forget(&self, space: &Space, function_id: &FunctionId) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, id, _), _| of != space || id != function_id);
    }

    fn slot(&self, function: &Function) -> Slot {
        let (space, id) = (function.space.clone(), function.function_id.clone());
        let key = (space, id, function.version);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TOKENS_MAX && !known.contains_key(&key) {
            known.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(known.entry(key).or_default())
    }

    async fn ask(&self, key: &ServiceAccountKey, audience: String) -> Result<Token, Error> {
        let place = format!(
            "Google Cloud, a token for {} at {}",
            key.client_email(),
            key.token_uri()
        );
        let url = Url::parse(key.token_uri());
        let url = url.map_err(|error| unreachable(format!("{place}: it is no URL: {error}")))?;
        let now = SystemTime::now();
        let assertion = assertion(key, &audience, now).map_err(|why| Error::NotTaken {
            why: format!("{place}: {why}"),
            answered: None,
        })?;
        let body: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let posted = Posted {
            url,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, form)]),
            body: body.into(),
        };
        let heard = self.client.post(posted, ANSWER_BYTES_MAX).await;
        // Whatever became of the request: the function was not called.
        let heard = heard.map_err(|error| match error {
            Error::Forbidden { .. } => error,
            other => unreachable(format!("{place}: {other}")),
        })?;
        if !(200..300).contains(&heard.status) {
            return Err(refused(&place, &heard));
        }
        let (token, ends) = read(&heard).ok_or_else(|| Error::NotTaken {
            why: format!("{place}: the answer has no id_token with an end"),
            answered: None,
        })?;
        Ok(Token {
            credential: Credential::new(AUTHORIZATION, &format!("Bearer {token}"))?,
            key: key.clone(),
            audience,
            good_until: ends.checked_sub(MARGIN).unwrap_or(UNIX_EPOCH),
        })
    }
}

/// Whom a token is for: the function's URL, unless the record names another one.
fn audience(provider: &GcloudFunctionProvider) -> String {
    let own = || {
        let url = &provider.url;
        url.split(['?', '#']).next().unwrap_or_default().to_owned()
    };
    provider.audience.clone().unwrap_or_else(own)
}

/// A JWT that says who asks, signed with the account's key (RFC 7523).
fn assertion(key: &ServiceAccountKey, audience: &str, now: SystemTime) -> Result<String, String> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut header = json!({ "alg": "RS256", "typ": "JWT" });
    if !key.private_key_id().is_empty() {
        header["kid"] = json!(key.private_key_id());
    }
    let claims = json!({
        "iss": key.client_email(),
        "sub": key.client_email(),
        "aud": key.token_uri(),
        "target_audience": audience,
        "iat": now.as_secs(),
        "exp": (now + ASSERTION_AGE).as_secs(),
    });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let mut jwt = format!("{}.{}", encode(&header), encode(&claims));
    let pair = read_key(key.private_key())?;
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        jwt.as_bytes(),
        &mut signature,
    )
    .map_err(|_| "the assertion can not be signed".to_owned())?;
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(&signature, &mut jwt);
    Ok(jwt)
}

/// Reads PKCS #8 in PEM (RFC 7468).
fn read_key(pem: &str) -> Result<RsaKeyPair, String> {
    let wrong = |why: &str| {
        format!(
            "provider.serviceAccountKey.private_key is {why}, expected an RSA key in PKCS #8, as Google gives it out"
        )
    };
    let inner = pem.split_once("-----BEGIN PRIVATE KEY-----");
    let inner = inner.and_then(|(_, rest)| rest.split_once("-----END PRIVATE KEY-----"));
    let (inner, _) = inner.ok_or_else(|| wrong("no PEM of a private key"))?;
    let inner: String = inner.split_whitespace().collect();
    let der = STANDARD.decode(inner).map_err(|_| wrong("no base64"))?;
    RsaKeyPair::from_pkcs8(&der).map_err(|error| wrong(&format!("rejected ({error})")))
}

/// A token, and when it ends, as it says itself.
fn read(heard: &Heard) -> Option<(String, SystemTime)> {
    let answer: Value = serde_json::from_slice(&heard.body).ok()?;
    let token = answer.get("id_token")?.as_str()?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let ends = Duration::from_secs(claims.get("exp")?.as_u64()?);
    Some((token.to_owned(), UNIX_EPOCH.checked_add(ends)?))
}

/// What an answer without a token comes to: errors of OAuth (RFC 6749, section 5.2) are for good.
fn refused(place: &str, heard: &Heard) -> Error {
    let status = heard.status;
    let said: String = String::from_utf8_lossy(&heard.body)
        .trim()
        .chars()
        .take(SAID_CHARS_MAX)
        .collect();
    let why = format!("{place}: status {status}: {said}");
    match status {
        429 => Error::Throttled {
            why,
            retry_after_ms: retry_after(elsewhere(&heard.headers).as_deref())
                .map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
        },
        500.. => unreachable(why),
        _ => Error::NotTaken {
            why,
            answered: Some(Answered {
                status,
                said,
                retry_after_ms: None,
            }),
        },
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("audience", &self.audience)
            .field("good_until", &self.good_until)
            .finish_non_exhaustive()
    }
}
