//! Tokens: JWTs with one algorithm, EdDSA over Ed25519, and a key id that has to be known.
//!
//! Nothing in a token's head chooses how it is checked: it has to say what is the only possibility, and what it says besides is
//! passed over. So there is no `none`, and no public key is ever taken for a shared secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::records::user::UserId;

/// What a token may be at most; those that are made here have some 450 bytes.
pub(crate) const BYTES_MAX: usize = 2048;

#[derive(Serialize, Deserialize)]
struct Head {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    kid: String,
    /// Extensions that a reader has to understand; there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The cluster.
    pub(crate) iss: String,
    /// The user.
    pub(crate) sub: UserId,
    /// The session.
    pub(crate) sid: String,
    /// Seconds since 1970.
    pub(crate) iat: u64,
    pub(crate) exp: u64,
    pub(crate) jti: String,
}

/// A token that was read and not checked yet.
#[derive(Debug)]
pub(crate) struct Unchecked<'a> {
    /// The number of the signing key.
    pub(crate) key: u64,
    /// To be believed only after [`Unchecked::is_signed_by`].
    pub(crate) claims: Claims,
    signed: &'a [u8],
    signature: Vec<u8>,
}

/// Signs a token.
pub(crate) fn sign(
    claims: &Claims,
    number: u64,
    key: &Ed25519KeyPair,
) -> serde_json::Result<String> {
    let head = Head {
        alg: "EdDSA".to_owned(),
        typ: Some("JWT".to_owned()),
        kid: number.to_string(),
        crit: None,
    };
    let mut token = encode(&serde_json::to_vec(&head)?);
    token.push('.');
    token.push_str(&encode(&serde_json::to_vec(claims)?));
    let signature = key.sign(token.as_bytes());
    token.push('.');
    token.push_str(&encode(signature.as_ref()));
    Ok(token)
}

/// Reads a token; nothing where it is none of ours.
pub(crate) fn read(token: &[u8]) -> Option<Unchecked<'_>> {
    if token.len() > BYTES_MAX {
        return None;
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (head, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let signed = &token[..head.len() + 1 + claims.len()];
    let head: Head = serde_json::from_slice(&decode(head)?).ok()?;
    if head.alg != "EdDSA" || head.crit.is_some() {
        return None;
    }
    Some(Unchecked {
        key: head.kid.parse().ok()?,
        claims: serde_json::from_slice(&decode(claims)?).ok()?,
        signed,
        signature: decode(signature)?,
    })
}

impl Unchecked<'_> {
    /// Whether the key's private half signed it.
    pub(crate) fn is_signed_by(&self, public: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, public);
        key.verify(self.signed, &self.signature).is_ok()
    }
}

/// Bytes as texts of tokens and records have them.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes again.
pub(crate) fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair;

    use super::*;

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            iss: "c".to_owned(),
            sub: UserId::random(),
            sid: "s".to_owned(),
            iat: 1,
            exp: 2,
            jti: "j".to_owned(),
        }
    }

    fn is_good(token: &str, public: &[u8]) -> bool {
        read(token.as_bytes()).is_some_and(|token| token.is_signed_by(public))
    }

    /// The token with another head.
    fn with_head(token: &str, head: &str) -> String {
        let (_, rest) = token.split_once('.').unwrap();
        format!("{}.{rest}", encode(head.as_bytes()))
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let (pair, claims) = (pair(1), claims());
        let token = sign(&claims, 7, &pair).unwrap();
        let read = read(token.as_bytes()).unwrap();
        assert_eq!((read.key, &read.claims), (7, &claims));
        assert!(read.is_signed_by(pair.public_key().as_ref()));
    }

    /// The example of RFC 8037, appendix A.4, signed by another implementation.
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let seed = decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        assert_eq!(encode(pair.public_key().as_ref()), public);
        let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(encode(pair.sign(signed.as_bytes()).as_ref()), signature);
    }

    #[test]
    fn nothing_else_is_a_token() {
        let pair = pair(1);
        let public = pair.public_key().as_ref();
        let token = sign(&claims(), 1, &pair).unwrap();
        assert!(is_good(&token, public));
        assert!(
            !is_good(&token, self::pair(2).public_key().as_ref()),
            "another key's"
        );
        let (unsigned, signature) = token.rsplit_once('.').unwrap();
        for wrong in [
            String::new(),
            "a.b.c".to_owned(),
            unsigned.to_owned(),
            format!("{unsigned}."),
            format!("{token}.{signature}"),
            format!("{token}="),
            format!("{unsigned}.{}", encode(&[0; 64])),
            "x".repeat(BYTES_MAX + 1),
        ] {
            assert!(!is_good(&wrong, public), "{wrong}");
        }
        for head in [
            r#"{"alg":"none","kid":"1"}"#,
            r#"{"alg":"None","kid":"1"}"#,
            r#"{"alg":"HS256","kid":"1"}"#,
            r#"{"alg":"EdDSA"}"#,
            r#"{"alg":"EdDSA","kid":"../1"}"#,
            r#"{"alg":"EdDSA","kid":1}"#,
            r#"{"alg":"EdDSA","kid":"1","crit":["exp"]}"#,
            r#"{"alg":"EdDSA","kid":"1"}"#,
            "[]",
        ] {
            let wrong = with_head(&token, head);
            assert!(!is_good(&wrong, public), "{head}");
            let unsigned = wrong.rsplit_once('.').unwrap().0;
            assert!(
                !is_good(&format!("{unsigned}."), public),
                "{head} without a signature"
            );
        }
        let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public);
        let confused = with_head(&token, r#"{"alg":"HS256","kid":"1"}"#);
        let signed = confused.rsplit_once('.').unwrap().0;
        let tag = ring::hmac::sign(&hmac, signed.as_bytes());
        assert!(!is_good(
            &format!("{signed}.{}", encode(tag.as_ref())),
            public
        ));
    }
}
