//! One datagram: sealing and opening.
//!
//! ```text
//! version u8 | sender's session 16 | counter u64 be | sealed: { kind u8 | receiver's session 16 | payload } | tag 16
//! ```
//!
//! The nonce of XChaCha20-Poly1305 is session and counter: a session is 16 random bytes made at start, and its counter never
//! comes back, so no nonce is used twice, under whichever of the cluster's keys. Version and cluster id are bound as additional data.

use std::fmt;

use chacha20poly1305::aead::{Aead, AeadInOut, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

const VERSION: u8 = 1;
const SESSION_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + SESSION_BYTES + 8;
const INNER_BYTES: usize = 1 + SESSION_BYTES;
const TAG_BYTES: usize = 16;

/// What sealing adds to a payload.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + INNER_BYTES + TAG_BYTES;

/// One incarnation of a gossip socket: random, so never seen before.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Session([u8; SESSION_BYTES]);

impl Session {
    /// Stands for "the receiver's session is not known yet".
    pub(super) const UNKNOWN: Self = Self([0; SESSION_BYTES]);

    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A gossip message.
    Whole,
    /// The first part of a gossip message that does not fit.
    First,
    /// The rest of it.
    Rest,
    /// "My session is the one this comes from": the answer to a datagram that names another. Payload: that datagram's counter.
    Hello,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Whole => 0,
            Self::First => 1,
            Self::Rest => 2,
            Self::Hello => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Whole, Self::First, Self::Rest, Self::Hello]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// A datagram that somebody with the cluster's secret sealed, at some time, for somebody.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) from: Session,
    pub(super) counter: u64,
    pub(super) kind: Kind,
    pub(super) to: Session,
    pub(super) payload: Vec<u8>,
}

/// Why a datagram can not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// Too few bytes to be one.
    Short,
    /// Another layout.
    Version,
    /// Another secret or cluster id, or altered on its way.
    Key,
    /// Well sealed, but with something unknown inside.
    Malformed,
}

/// The cluster's keys, and this incarnation's session and counter.
pub(super) struct Seal {
    /// The first one seals, all open. Never empty.
    ciphers: Vec<XChaCha20Poly1305>,
    bound: Vec<u8>,
    session: Session,
    counter: u64,
}

impl Seal {
    pub(super) fn new(keys: &[[u8; 32]], cluster_id: &str) -> Self {
        let mut bound = vec![VERSION];
        bound.extend_from_slice(cluster_id.as_bytes());
        Self {
            ciphers: ciphers(keys),
            bound,
            session: Session::random(),
            counter: 0,
        }
    }

    /// Takes other keys; session and counter go on.
    pub(super) fn set_keys(&mut self, keys: &[[u8; 32]]) {
        self.ciphers = ciphers(keys);
    }

    /// This incarnation.
    pub(super) fn session(&self) -> Session {
        self.session
    }

    /// Becomes another incarnation.
    pub(super) fn renew(&mut self) {
        self.session = Session::random();
        self.counter = 0;
    }

    /// Seals one datagram; gives its counter too.
    pub(super) fn seal(&mut self, kind: Kind, to: Session, payload: &[u8]) -> (u64, Vec<u8>) {
        let counter = self.counter;
        self.counter = counter
            .checked_add(1)
            .expect("no process sends 2^64 datagrams");
        let mut inner = Vec::with_capacity(INNER_BYTES + payload.len() + TAG_BYTES);
        inner.push(kind.code());
        inner.extend_from_slice(&to.0);
        inner.extend_from_slice(payload);
        self.ciphers[0]
            .encrypt_in_place(&nonce(self.session, counter), &self.bound, &mut inner)
            .expect("a datagram is far shorter than the cipher's limit");
        let mut datagram = Vec::with_capacity(HEADER_BYTES + inner.len());
        datagram.push(VERSION);
        datagram.extend_from_slice(&self.session.0);
        datagram.extend_from_slice(&counter.to_be_bytes());
        datagram.extend_from_slice(&inner);
        (counter, datagram)
    }

    /// Opens one datagram.
    pub(super) fn open(&self, datagram: &[u8]) -> Result<Opened, Unopened> {
        let (header, sealed) = datagram
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Unopened::Short)?;
        if header[0] != VERSION {
            return Err(Unopened::Version);
        }
        if sealed.len() < INNER_BYTES + TAG_BYTES {
            return Err(Unopened::Short);
        }
        let mut from = Session::UNKNOWN;
        from.0.copy_from_slice(&header[1..=SESSION_BYTES]);
        let mut counter = [0; 8];
        counter.copy_from_slice(&header[1 + SESSION_BYTES..]);
        let counter = u64::from_be_bytes(counter);
        let nonce = nonce(from, counter);
        let payload = || Payload {
            msg: sealed,
            aad: &self.bound,
        };
        let inner = self
            .ciphers
            .iter()
            .find_map(|cipher| cipher.decrypt(&nonce, payload()).ok())
            .ok_or(Unopened::Key)?;
        let (inner_header, payload) = inner
            .split_first_chunk::<INNER_BYTES>()
            .ok_or(Unopened::Malformed)?;
        let kind = Kind::from_code(inner_header[0]).ok_or(Unopened::Malformed)?;
        let mut to = Session::UNKNOWN;
        to.0.copy_from_slice(&inner_header[1..]);
        Ok(Opened {
            from,
            counter,
            kind,
            to,
            payload: payload.to_vec(),
        })
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("session", &self.session)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

fn ciphers(keys: &[[u8; 32]]) -> Vec<XChaCha20Poly1305> {
    assert!(!keys.is_empty(), "a keyring has at least one secret");
    keys.iter()
        .map(|key| XChaCha20Poly1305::new(key.into()))
        .collect()
}

fn nonce(session: Session, counter: u64) -> XNonce {
    let mut nonce = [0; 24];
    nonce[..SESSION_BYTES].copy_from_slice(&session.0);
    nonce[SESSION_BYTES..].copy_from_slice(&counter.to_be_bytes());
    nonce.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_unopened(datagram: &[u8], expected: Unopened) {
        assert_eq!(
            Seal::new(&[[1; 32]], "hearth").open(datagram).unwrap_err(),
            expected
        );
    }

    #[test]
    fn what_can_not_be_opened_says_why() {
        let (_, datagram) =
            Seal::new(&[[1; 32]], "hearth").seal(Kind::Whole, Session::UNKNOWN, b"hello");
        check_unopened(b"", Unopened::Short);
        check_unopened(&datagram[..OVERHEAD_BYTES - 1], Unopened::Short);
        check_unopened(&datagram[..datagram.len() - 1], Unopened::Key);
        check_unopened(&[&[9], &datagram[1..]].concat(), Unopened::Version);
        let (_, other_secret) =
            Seal::new(&[[2; 32]], "hearth").seal(Kind::Whole, Session::UNKNOWN, b"hello");
        check_unopened(&other_secret, Unopened::Key);
        let (_, other_cluster) =
            Seal::new(&[[1; 32]], "hearts").seal(Kind::Whole, Session::UNKNOWN, b"hello");
        check_unopened(&other_cluster, Unopened::Key);
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, new) = ([1; 32], [2; 32]);
        let opens =
            |datagram: &[u8], keys: &[[u8; 32]]| Seal::new(keys, "hearth").open(datagram).is_ok();
        let mut seal = Seal::new(&[old, new], "hearth");
        let (first, datagram) = seal.seal(Kind::Whole, Session::UNKNOWN, b"hello");
        assert!(opens(&datagram, &[old]) && opens(&datagram, &[new, old]));
        assert!(!opens(&datagram, &[new]));
        let session = seal.session();
        seal.set_keys(&[new, old]);
        let (second, datagram) = seal.seal(Kind::Whole, Session::UNKNOWN, b"hello");
        assert!(opens(&datagram, &[new]) && opens(&datagram, &[old, new]));
        assert!(!opens(&datagram, &[old]));
        assert_eq!((seal.session(), second), (session, first + 1));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(payload: Vec<u8>, to: [u8; 16]) {
            let mut seal = Seal::new(&[[1; 32]], "hearth");
            seal.seal(Kind::Hello, Session::UNKNOWN, b"");
            let (counter, datagram) = seal.seal(Kind::First, Session(to), &payload);
            prop_assert_eq!(datagram.len(), payload.len() + OVERHEAD_BYTES);
            let opened = Seal::new(&[[1; 32]], "hearth").open(&datagram).unwrap();
            prop_assert_eq!(opened, Opened { from: seal.session(), counter, kind: Kind::First, to: Session(to), payload });
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(datagram: Vec<u8>) {
            prop_assert!(Seal::new(&[[1; 32]], "hearth").open(&datagram).is_err());
        }

        #[test]
        fn an_altered_datagram_is_refused(payload: Vec<u8>, position: prop::sample::Index, change in 1_u8..) {
            let (_, mut datagram) = Seal::new(&[[1; 32]], "hearth").seal(Kind::Whole, Session::UNKNOWN, &payload);
            let position = position.index(datagram.len());
            datagram[position] ^= change;
            prop_assert!(Seal::new(&[[1; 32]], "hearth").open(&datagram).is_err());
        }
    }
}
