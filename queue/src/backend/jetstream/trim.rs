//! Drops the oldest dead letters beyond what is kept, and counts them. The stream itself drops none: where there are twice as many as
//! are kept it refuses more, and who has one to write waits.

use std::time::SystemTime;

use serde_json::Value;

use super::api::{Failed, Fenced, Stored};
use super::{Shared, dead};

/// What NATS stores beside the body, the subject and the owner of a letter.
const HEAD_BYTES: u64 = 102;

/// Dead letters that are kept, in number and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    letters: u64,
    bytes: u64,
}

impl Kept {
    /// As the stream says it.
    pub(super) fn of(stream: &Value) -> Option<Self> {
        let state = &stream["state"];
        Some(Self {
            letters: state["messages"].as_u64()?,
            bytes: state["bytes"].as_u64()?,
        })
    }

    pub(super) fn letters(self) -> usize {
        usize::try_from(self.letters).unwrap_or(usize::MAX)
    }
}

impl Shared {
    /// Drops the oldest dead letters while there are too many, and those that are too old where their age is asked for. One node does
    /// it; should two, each deletes the oldest one, by its sequence, and who is told that it did counts it.
    pub(super) async fn trim(&self, mut kept: Kept, by_age: bool) -> Result<(), Failed> {
        if !(by_age || self.are_too_many(kept)) || !self.sessions.is_first() {
            return Ok(());
        }
        let (stream, subjects) = (&self.names.dead, self.names.letters());
        let (mut from, mut dropped) = (1, 0);
        let trimmed = loop {
            let oldest = match self.api.next(stream, &subjects, from).await {
                Ok(Some(oldest)) => oldest,
                Ok(None) => break Ok(()),
                Err(failed) => break Err(failed),
            };
            from = oldest.sequence + 1;
            let goes = self.are_too_many(kept) || (by_age && self.is_too_old(&oldest));
            if !goes {
                break Ok(());
            }
            kept.letters = kept.letters.saturating_sub(1);
            kept.bytes = kept.bytes.saturating_sub(bytes(&oldest));
            match self.api.delete(stream, oldest.sequence).await {
                Ok(Fenced::Done(())) => dropped += 1,
                // It was redriven or purged meanwhile.
                Ok(Fenced::Moved) => {}
                Err(failed) => break Err(failed),
            }
        };
        if dropped > 0 {
            self.tell_dropped(dropped);
        }
        trimmed
    }

    fn are_too_many(&self, kept: Kept) -> bool {
        kept.letters() > self.options.dead_len_max || kept.bytes > self.options.dead_bytes_max
    }

    fn is_too_old(&self, letter: &Stored) -> bool {
        let died = dead::read(letter).map(|letter| letter.died_at);
        let age = died.and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age > self.options.dead_age_max)
    }

    fn tell_dropped(&self, dropped: u32) {
        self.meters.dropped.increment(u64::from(dropped));
        tracing::warn!(
            dropped,
            "the oldest dead letters were dropped: there are too many, or they are too old (queue.dead_len_max, queue.dead_bytes_max, queue.dead_age_max)"
        );
    }
}

/// What a letter takes in its stream.
fn bytes(letter: &Stored) -> u64 {
    let bytes = letter.body.len() + letter.subject.len() + letter.owner.len();
    u64::try_from(bytes).unwrap_or(u64::MAX) + HEAD_BYTES
}
