//! Credentials that were checked, by their hash, so that the next call with one costs a lookup.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Caller;
use crate::records::Millis;

/// Callers on different processors seldom meet in one of so many.
const SHARDS: usize = 16;

/// The SHA-256 of a credential.
pub(crate) type Digest = [u8; 32];

/// A credential that was good when it was checked.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) caller: Caller,
    pub(crate) expires_at_ms: Millis,
    /// Cleared by the watch when what the check rested on is no longer so.
    pub(crate) is_current: Arc<AtomicBool>,
}

impl Checked {
    fn is_good(&self, now_ms: Millis) -> bool {
        self.is_current.load(Ordering::Acquire) && now_ms < self.expires_at_ms
    }
}

/// The checked credentials.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: [Mutex<HashMap<Digest, Checked>>; SHARDS],
    shard_len_max: usize,
}

impl Cache {
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            shards: Default::default(),
            shard_len_max: len_max.div_ceil(SHARDS),
        }
    }

    /// Whose the credential is, if it was checked and is still good.
    pub(crate) fn find(&self, digest: &Digest, now_ms: Millis) -> Option<Caller> {
        let mut shard = self.shard(digest);
        let checked = shard.get(digest)?;
        if checked.is_good(now_ms) {
            return Some(checked.caller.clone());
        }
        shard.remove(digest);
        None
    }

    pub(crate) fn insert(&self, digest: Digest, checked: Checked, now_ms: Millis) {
        let mut shard = self.shard(&digest);
        if shard.len() >= self.shard_len_max {
            shard.retain(|_, checked| checked.is_good(now_ms));
        }
        if shard.len() >= self.shard_len_max {
            // Half of them, so that the next ones find room without such a look at all.
            let mut nth = 0_usize;
            shard.retain(|_, _| {
                nth += 1;
                nth.is_multiple_of(2)
            });
        }
        shard.insert(digest, checked);
    }

    fn shard(&self, digest: &Digest) -> std::sync::MutexGuard<'_, HashMap<Digest, Checked>> {
        let shard = &self.shards[usize::from(digest[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(expires_at_ms: Millis) -> Checked {
        Checked {
            caller: Caller::operator(),
            expires_at_ms,
            is_current: Arc::new(AtomicBool::new(true)),
        }
    }

    fn digest(number: u32) -> Digest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn what_expired_or_was_revoked_is_found_no_more() {
        let cache = Cache::new(100);
        cache.insert(digest(1), checked(1_000), 0);
        let revoked = checked(1_000);
        cache.insert(digest(2), revoked.clone(), 0);
        assert!(cache.find(&digest(1), 999).is_some());
        assert!(cache.find(&digest(1), 1_000).is_none());
        assert!(cache.find(&digest(2), 0).is_some());
        revoked.is_current.store(false, Ordering::Release);
        assert!(cache.find(&digest(2), 0).is_none());
    }

    #[test]
    fn it_never_holds_more_than_its_share() {
        let cache = Cache::new(64);
        for number in 0..10_000 {
            cache.insert(digest(number), checked(u64::MAX), 0);
            assert!(cache.find(&digest(number), 0).is_some());
        }
        let held: usize = cache
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert!(held <= 64, "{held}");
    }
}
