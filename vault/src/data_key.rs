//! The key that seals what is at rest, and how it is wrapped: a random one for the whole cluster, so that a new cluster secret costs one
//! record and not all of them.
//!
//! ```text
//! sealed: version u8 | nonce 24 | ciphertext | tag 16      XChaCha20-Poly1305; additional data: version and context
//! ```

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;

/// A key that seals and opens. Never shown.
#[derive(Clone)]
pub struct DataKey {
    cipher: XChaCha20Poly1305,
    bytes: [u8; 32],
}

impl DataKey {
    /// A key that nobody else has.
    pub(crate) fn random() -> Self {
        Self::new(rand::random())
    }

    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        let cipher = XChaCha20Poly1305::new(&bytes.into());
        Self { cipher, bytes }
    }

    /// Seals a value for one place, such as the key of its record; elsewhere it does not open.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        // 24 random bytes do not come twice: that is what this cipher's long nonce is for.
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload {
            msg: plain,
            aad: &bound(context),
        };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a value in memory is shorter than the cipher's limit");
        [&[VERSION], nonce.as_slice(), &sealed].concat()
    }

    /// Opens what was sealed for this place; `None` when it was not, or not with this key, or was altered.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (version, sealed) = sealed.split_first()?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: sealed,
            aad: &bound(context),
        };
        let nonce = XNonce::from(*nonce);
        let opened = (*version == VERSION).then(|| self.cipher.decrypt(&nonce, payload));
        opened?.ok()
    }

    /// Derives a key for one purpose (HKDF-SHA256). Keys of different purposes tell nothing of each other or of this one.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(b"hearth data key"), &self.bytes)
            .expand(purpose.as_bytes(), &mut key)
            .expect("32 bytes are fewer than HKDF-SHA256 can give");
        key
    }

    /// Seals this key with another one.
    pub(crate) fn wrap(&self, context: &str, with: &Self) -> Vec<u8> {
        with.seal(context, &self.bytes)
    }

    /// Opens a key that was sealed with this one.
    pub(crate) fn unwrap(&self, context: &str, wrapped: &[u8]) -> Option<Self> {
        let bytes = self.open(context, wrapped)?;
        bytes.try_into().ok().map(Self::new)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

fn bound(context: &str) -> Vec<u8> {
    [&[VERSION], context.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_in_its_place_and_nowhere_else() {
        let (key, other) = (DataKey::random(), DataKey::random());
        for plain in [&b""[..], b"a secret", &[7; 100_000]] {
            let sealed = key.seal("secrets/default/one", plain);
            assert!(plain.is_empty() || !sealed.windows(plain.len()).any(|part| part == plain));
            assert_eq!(
                key.open("secrets/default/one", &sealed).as_deref(),
                Some(plain)
            );
            assert_eq!(key.open("secrets/default/two", &sealed), None);
            assert_eq!(other.open("secrets/default/one", &sealed), None);
            assert_ne!(key.seal("secrets/default/one", plain), sealed);
        }
    }

    #[test]
    fn what_was_altered_or_cut_does_not_open() {
        let key = DataKey::random();
        let sealed = key.seal("c", b"a secret");
        for position in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[position] ^= 1;
            assert_eq!(key.open("c", &altered), None, "{position}");
            assert_eq!(key.open("c", &sealed[..position]), None, "{position}");
        }
    }

    #[test]
    fn what_is_derived_is_of_its_purpose_and_key_alone() {
        let (key, other) = (DataKey::random(), DataKey::random());
        assert_eq!(key.derive("a"), key.derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), other.derive("a"));
    }

    #[test]
    fn a_wrapped_key_is_the_same_key() {
        let (key, wrapping) = (DataKey::random(), DataKey::random());
        let wrapped = key.wrap("vault/key", &wrapping);
        let same = wrapping.unwrap("vault/key", &wrapped).unwrap();
        assert_eq!(
            same.open("c", &key.seal("c", b"x")).as_deref(),
            Some(&b"x"[..])
        );
        assert!(key.unwrap("vault/key", &wrapped).is_none());
        assert_eq!(format!("{key:?}"), "<redacted>");
    }
}
