//! What the keys of the queue are called.
//!
//! Below `<prefix>/<cluster id>/queue/`: `session/S` is a session of a node, on a lease; `owner/S` outlives it until nothing is held
//! under its name; `held/S/B` is a batch that it holds, and `held/S/B/N` how far one delivery of it is; `dead/…` are the dead letters in
//! the order of their positions, and `dead-name/ID` says where one of them is; `cancel/A` asks all to end a delivery, and `cancel/A/S` is the
//! answer of one.

use std::fmt;

use config::etcd::range_end;
use config::settings::EtcdSettings;

use crate::backend::DeliveryId;

/// Names one session of one node, and never another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// The keys of one cluster.
#[derive(Debug)]
pub(super) struct Keys {
    root: String,
}

/// The keys from one on, up to another one that is not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: String,
    pub(super) end: Vec<u8>,
}

/// What the key of a dead letter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeadKey {
    pub(super) position: u64,
    pub(super) id: DeliveryId,
    /// What it takes.
    pub(super) bytes: u64,
}

impl Keys {
    pub(super) fn new(settings: &EtcdSettings, cluster_id: &str) -> Self {
        Self {
            root: format!("{}/{cluster_id}/queue/", settings.prefix),
        }
    }

    pub(super) fn session(&self, id: SessionId) -> String {
        format!("{}session/{id}", self.root)
    }

    pub(super) fn sessions(&self) -> Range {
        self.under("session/")
    }

    /// The session that a key of [`Keys::session`] or [`Keys::owner`] names.
    pub(super) fn session_of(&self, key: &[u8]) -> Option<SessionId> {
        let name = self.own(key)?.rsplit('/').next()?;
        u64::from_str_radix(name, 16).ok().map(SessionId)
    }

    pub(super) fn owner(&self, id: SessionId) -> String {
        format!("{}owner/{id}", self.root)
    }

    pub(super) fn owners(&self) -> Range {
        self.under("owner/")
    }

    pub(super) fn batch(&self, session: SessionId, number: u64) -> String {
        format!("{}held/{session}/{number:016x}", self.root)
    }

    pub(super) fn progress(&self, session: SessionId, number: u64, place: u32) -> String {
        format!("{}/{place:08x}", self.batch(session, number))
    }

    /// A batch and the progress of its deliveries.
    pub(super) fn whole_batch(&self, session: SessionId, number: u64) -> Range {
        let from = self.batch(session, number);
        // '0' is the letter after '/', and numbers are all of one length.
        let end = format!("{from}0").into_bytes();
        Range { from, end }
    }

    /// All that is held under the name of a session.
    pub(super) fn held(&self, session: SessionId) -> Range {
        self.under(&format!("held/{session}/"))
    }

    /// The batch that a key below [`Keys::held`] belongs to, and the place of the delivery whose progress it is.
    pub(super) fn held_by(&self, key: &[u8]) -> Option<(u64, Option<u32>)> {
        let mut parts = self.own(key)?.strip_prefix("held/")?.split('/').skip(1);
        let number = u64::from_str_radix(parts.next()?, 16).ok()?;
        let place = match parts.next() {
            Some(place) => Some(u32::from_str_radix(place, 16).ok()?),
            None => None,
        };
        Some((number, place))
    }

    pub(super) fn dead(&self, dead: DeadKey) -> String {
        let DeadKey {
            position,
            id,
            bytes,
        } = dead;
        format!("{}dead/{position:016x}.{bytes:x}.{id}", self.root)
    }

    pub(super) fn all_dead(&self) -> Range {
        self.under("dead/")
    }

    /// Dead letters after a position.
    pub(super) fn dead_after(&self, position: u64) -> Range {
        Range {
            from: format!("{}dead/{:016x}", self.root, position.saturating_add(1)),
            end: self.all_dead().end,
        }
    }

    pub(super) fn dead_of(&self, key: &[u8]) -> Option<DeadKey> {
        let mut parts = self.own(key)?.strip_prefix("dead/")?.split('.');
        Some(DeadKey {
            position: u64::from_str_radix(parts.next()?, 16).ok()?,
            bytes: u64::from_str_radix(parts.next()?, 16).ok()?,
            id: parts.next()?.parse().ok()?,
        })
    }

    pub(super) fn dead_name(&self, id: DeliveryId) -> String {
        format!("{}dead-name/{id}", self.root)
    }

    pub(super) fn ask(&self, ask: u64) -> String {
        format!("{}cancel/{ask:016x}", self.root)
    }

    pub(super) fn answer(&self, ask: u64, session: SessionId) -> String {
        format!("{}/{session}", self.ask(ask))
    }

    /// A question and its answers.
    pub(super) fn whole_ask(&self, ask: u64) -> Range {
        let from = self.ask(ask);
        let end = format!("{from}0").into_bytes();
        Range { from, end }
    }

    pub(super) fn asks(&self) -> Range {
        self.under("cancel/")
    }

    /// The question that a key below [`Keys::asks`] belongs to, and whose answer it is.
    pub(super) fn ask_of(&self, key: &[u8]) -> Option<(u64, Option<SessionId>)> {
        let mut parts = self.own(key)?.strip_prefix("cancel/")?.split('/');
        let ask = u64::from_str_radix(parts.next()?, 16).ok()?;
        let session = match parts.next() {
            Some(session) => Some(SessionId(u64::from_str_radix(session, 16).ok()?)),
            None => None,
        };
        Some((ask, session))
    }

    fn under(&self, path: &str) -> Range {
        let from = format!("{}{path}", self.root);
        let end = range_end(from.as_bytes());
        Range { from, end }
    }

    fn own<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.root)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&EtcdSettings::default(), "one")
    }

    #[test]
    fn keys_say_what_they_were_made_of() {
        let (keys, session) = (keys(), SessionId(0xab));
        let of = |key: String| key.into_bytes();
        assert_eq!(
            keys.session(session),
            "hearth/one/queue/session/00000000000000ab"
        );
        assert_eq!(keys.session_of(&of(keys.session(session))), Some(session));
        assert_eq!(keys.session_of(&of(keys.owner(session))), Some(session));
        assert_eq!(keys.held_by(&of(keys.batch(session, 7))), Some((7, None)));
        let progress = of(keys.progress(session, 7, 3));
        assert_eq!(keys.held_by(&progress), Some((7, Some(3))));
        let dead = DeadKey {
            position: 9,
            id: DeliveryId::random(),
            bytes: 1_000,
        };
        assert_eq!(keys.dead_of(&of(keys.dead(dead))), Some(dead));
        assert_eq!(keys.ask_of(&of(keys.ask(5))), Some((5, None)));
        let answer = of(keys.answer(5, session));
        assert_eq!(keys.ask_of(&answer), Some((5, Some(session))));
        assert_eq!(keys.held_by(b"hearth/other/queue/held/1/2"), None);
    }

    #[test]
    fn a_batch_has_its_progress_and_no_other_batch() {
        let (keys, session) = (keys(), SessionId(1));
        let Range { from, end } = keys.whole_batch(session, 7);
        let is_in = |key: String| from.as_str() <= key.as_str() && key.into_bytes() < end;
        assert!(is_in(keys.batch(session, 7)) && is_in(keys.progress(session, 7, u32::MAX)));
        assert!(!is_in(keys.batch(session, 8)) && !is_in(keys.batch(session, 6)));
        assert!(!is_in(keys.progress(session, 8, 0)));
    }

    #[test]
    fn what_is_after_a_position_is_not_at_it() {
        let keys = keys();
        let key = |position| DeadKey {
            position,
            id: DeliveryId::random(),
            bytes: 1,
        };
        let after = keys.dead_after(9);
        assert!(keys.dead(key(9)) < after.from && after.from <= keys.dead(key(10)));
        assert!(keys.dead(key(u64::MAX)).into_bytes() < after.end);
    }
}
