//! What waits to be told to one async plugin: bounded, so that a plugin that is slow costs only itself.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::stage::Stage;

/// A queue with limits, oldest first.
#[derive(Debug)]
pub(super) struct Lane {
    len_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Stage, Bytes)>,
    bytes: usize,
    is_closed: bool,
}

impl Lane {
    pub(super) fn new(len_max: usize, bytes_max: usize) -> Self {
        Self {
            len_max,
            bytes_max,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Adds one, unless there is no room. Returns whether there was.
    pub(super) fn push(&self, stage: Stage, about: Bytes) -> bool {
        let mut state = self.lock();
        let fits =
            state.waiting.len() < self.len_max && state.bytes + about.len() <= self.bytes_max;
        if fits && !state.is_closed {
            state.bytes += about.len();
            state.waiting.push_back((stage, about));
            self.changed.notify_one();
            return true;
        }
        false
    }

    /// Takes the oldest; waits for one, and ends when the lane is closed and empty. One task may wait at a time.
    pub(super) async fn pop(&self) -> Option<(Stage, Bytes)> {
        loop {
            {
                let mut state = self.lock();
                if let Some((stage, about)) = state.waiting.pop_front() {
                    state.bytes -= about.len();
                    return Some((stage, about));
                }
                if state.is_closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_is_turned_away_and_the_rest_comes_in_order() {
        let lane = Lane::new(3, 10);
        let push =
            |text: &'static str| lane.push(Stage::Received, Bytes::from_static(text.as_bytes()));
        assert!(push("1234"));
        assert!(!push("1234567"), "11 bytes are over 10");
        assert!(push("2"));
        assert!(push("3"));
        assert!(!push(""), "three wait");
        assert_eq!(lane.pop().await.unwrap().1, "1234");
        assert!(push("123456"));
        lane.close();
        assert!(!push(""));
        for expected in ["2", "3", "123456"] {
            assert_eq!(lane.pop().await.unwrap().1, expected);
        }
        assert_eq!(lane.pop().await, None);
    }
}
