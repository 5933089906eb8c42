//! Who lives: signs of life of this node and of the others, and what may be begun meanwhile.
//!
//! Safety does not rest on it. A record is changed by naming its sequence, so a node that is taken for dead and lives changes nothing;
//! this only keeps two nodes from beginning the same delivery.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::{Generation, NodeId};
use tokio::time::Instant;

use crate::backend::Deaths;

/// How long it is remembered that a session ended, or that it is dead.
const ENDED_KEPT: Duration = Duration::from_secs(3_600);

/// What is known of the session that holds a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is this one.
    Own,
    /// It lives, or nobody knows yet that it does not.
    Alive,
    /// It gives no sign of life: what it had may have run.
    Dead,
    /// It ended, and what it had did not run then.
    Ended,
}

/// What this node knows of all sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    /// The name of this one.
    own: String,
    node: NodeId,
    generation: Generation,
    deaths: Arc<dyn Deaths>,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the others were heard last, or seen first where they were not.
    others: HashMap<String, Heard>,
    /// Nobody is taken for dead by what was not heard before this.
    listening_since: Instant,
    /// The others take this one for alive until then, at least.
    held_until: Instant,
    /// Since when there was no gap in that.
    held_since: Instant,
    /// Whether what it holds was looked through since it could have been taken for dead.
    is_sure: bool,
    is_ended: bool,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    has_ended: bool,
    /// Whether it is known to be gone.
    is_told: bool,
}

impl Sessions {
    pub(super) fn new(
        node: NodeId,
        generation: Generation,
        deaths: Arc<dyn Deaths>,
        timeout: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            own: name(&node, generation),
            node,
            generation,
            deaths,
            timeout,
            state: Mutex::new(State {
                others: HashMap::new(),
                listening_since: now,
                held_until: now,
                held_since: now,
                is_sure: false,
                is_ended: false,
            }),
        }
    }

    /// The name of this session.
    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// How often a sign of life is given.
    pub(super) fn pace(&self) -> Duration {
        self.timeout / 5
    }

    /// Whether nobody can have taken over what this node holds, so that it may begin deliveries.
    pub(super) fn is_held(&self) -> bool {
        let state = self.state();
        state.is_sure && !state.is_ended && Instant::now() < state.held_until
    }

    /// A sign of life that was given then is known to have arrived; false when others may have taken this node for dead before it.
    pub(super) fn heard_own(&self, given: Instant) -> bool {
        let mut state = self.state();
        let was_held = given < state.held_until;
        if !was_held {
            state.is_sure = false;
            // What others said meanwhile was not heard.
            state.listening_since = Instant::now();
            state.held_since = state.listening_since;
        }
        // The others wait for a tenth longer at least.
        state.held_until = given + self.timeout * 2 / 5;
        was_held
    }

    /// What this node holds was looked through from that moment on; that counts if it has been held since.
    pub(super) fn looked_through(&self, since: Instant) {
        let mut state = self.state();
        state.is_sure |= since >= state.held_since;
    }

    /// This session ends; false when it ended before.
    pub(super) fn end(&self) -> bool {
        !std::mem::replace(&mut self.state().is_ended, true)
    }

    /// Whether this session ended.
    pub(super) fn is_ended(&self) -> bool {
        self.state().is_ended
    }

    /// Another session gave a sign of life, or said that it ends; true when it just ended.
    pub(super) fn heard(&self, session: &str, has_ended: bool) -> bool {
        if session == self.own {
            return false;
        }
        let heard = Heard {
            at: Instant::now(),
            has_ended,
            is_told: has_ended,
        };
        let before = self.state().others.insert(session.to_owned(), heard);
        has_ended && !before.is_some_and(|before| before.has_ended)
    }

    /// Since when it has listened without a gap, for long enough that whoever was not heard is dead.
    pub(super) fn has_listened_from(&self) -> Option<Instant> {
        let state = self.state();
        let since = state.listening_since;
        self.is_missed(since, &state).then_some(since)
    }

    /// What is known of the session that holds a record.
    pub(super) fn standing(&self, session: &str) -> Standing {
        if session == self.own {
            return Standing::Own;
        }
        let mut state = self.state();
        let heard = state.others.get(session);
        if heard.is_some_and(|heard| heard.has_ended) {
            return Standing::Ended;
        }
        let incarnation = incarnation(session);
        // One process at a time has the directory of a node.
        if incarnation.is_some_and(|(node, past)| node == self.node && past < self.generation) {
            return Standing::Dead;
        }
        // Of two nodes one of which has just started neither has heard the other, and gossip has both as not alive yet. So whoever was
        // never heard has the same time to be heard as anybody else, from now on.
        let unheard = Heard {
            at: Instant::now(),
            has_ended: false,
            is_told: false,
        };
        let heard = *state.others.entry(session.to_owned()).or_insert(unheard);
        self.of(session, heard.at, &state)
    }

    /// What becomes of another session that did not end.
    fn of(&self, session: &str, heard: Instant, state: &State) -> Standing {
        // Whoever NATS hears is not robbed, whatever gossip says.
        let is_silent = heard.elapsed() > self.timeout / 2;
        let is_dead = |(node, generation)| self.deaths.is_dead(&node, generation);
        if is_silent && incarnation(session).is_some_and(is_dead) {
            return Standing::Dead;
        }
        match self.is_missed(heard.max(state.listening_since), state) {
            true => Standing::Dead,
            false => Standing::Alive,
        }
    }

    /// Whether whoever was heard then would have been heard since. A node that NATS does not hear itself knows nothing of others.
    fn is_missed(&self, last: Instant, state: &State) -> bool {
        Instant::now() < state.held_until && last.elapsed() > self.timeout
    }

    /// Whether it is the one of those that live, as far as it knows, which does what one node should.
    pub(super) fn is_first(&self) -> bool {
        let state = self.state();
        let mut others = state.others.iter();
        others.all(|(session, heard)| {
            *session > self.own || heard.has_ended || heard.at.elapsed() > self.timeout
        })
    }

    /// The sessions that died since this was asked last.
    pub(super) fn newly_dead(&self) -> Vec<String> {
        let mut state = self.state();
        state
            .others
            .retain(|_, heard| heard.at.elapsed() < ENDED_KEPT);
        let is_dead = |(session, heard): &(&String, &Heard)| {
            !heard.is_told && self.of(session, heard.at, &state) == Standing::Dead
        };
        let dead = state.others.iter().filter(is_dead);
        let dead: Vec<String> = dead.map(|(session, _)| session.clone()).collect();
        for session in &dead {
            if let Some(heard) = state.others.get_mut(session) {
                heard.is_told = true;
            }
        }
        dead
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the session of an incarnation of a node is called.
fn name(node: &NodeId, generation: Generation) -> String {
    // A dot would divide a subject.
    format!("{}+{generation}", node.as_str().replace('.', "="))
}

/// Which incarnation of a node has that session.
fn incarnation(session: &str) -> Option<(NodeId, Generation)> {
    let (node, generation) = session.rsplit_once('+')?;
    let node = node.replace('=', ".").parse().ok()?;
    Some((node, Generation(generation.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// Gossip, by which one node is dead.
    #[derive(Debug)]
    struct Dead(&'static str);

    impl Deaths for Dead {
        fn is_dead(&self, node: &NodeId, _: Generation) -> bool {
            node.as_str() == self.0
        }
    }

    fn sessions() -> Sessions {
        let node = "n.1".parse().unwrap();
        Sessions::new(node, Generation(7), Arc::new(Dead("n9")), TIMEOUT)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_held_for_less_long_than_others_wait() {
        let sessions = sessions();
        assert!(!sessions.is_held());
        assert!(
            !sessions.heard_own(Instant::now()),
            "nothing was held before"
        );
        assert!(!sessions.is_held(), "it was not looked through");
        sessions.looked_through(Instant::now());
        assert!(sessions.is_held());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sessions.heard_own(Instant::now()));
        tokio::time::advance(Duration::from_millis(1_999)).await;
        assert!(sessions.is_held());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!sessions.is_held());
        assert!(
            !sessions.heard_own(Instant::now()),
            "others may have it by now"
        );
        assert!(!sessions.is_held());
        sessions.looked_through(Instant::now());
        assert!(sessions.is_held() && sessions.end() && !sessions.end());
        assert!(!sessions.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_not_heard_is_dead_and_nobody_is_before_he_was_listened_for() {
        let sessions = sessions();
        let check =
            |session, standing| assert_eq!(sessions.standing(session), standing, "{session}");
        let pass = async |seconds| {
            for _ in 0..seconds {
                sessions.heard_own(Instant::now());
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        };
        check(sessions.own(), Standing::Own);
        check("n=1+6", Standing::Dead);
        check("n2+1", Standing::Alive);
        // It may be there, and be heard soon.
        check("n9+1", Standing::Alive);
        sessions.heard("n9+1", false);
        check("n9+1", Standing::Alive);
        pass(3).await;
        check("n9+1", Standing::Dead);
        // It started a moment ago, and gossip has it as dead until its heart has beaten a few times.
        check("n9+2", Standing::Alive);
        pass(1).await;
        assert_eq!(sessions.has_listened_from(), None);
        assert!(!sessions.heard("n3+1", false));
        check("n9+1", Standing::Dead);
        assert!(sessions.heard("n4+1", true));
        assert!(!sessions.heard("n4+1", true), "it ended before");
        pass(2).await;
        assert!(sessions.has_listened_from().is_some());
        check("n2+1", Standing::Dead);
        check("n3+1", Standing::Alive);
        check("n4+1", Standing::Ended);
        assert!(!sessions.is_first(), "n3 lives, and its name comes first");
        let mut dead = sessions.newly_dead();
        dead.sort();
        assert_eq!(dead, ["n2+1", "n9+1", "n9+2"]);
        pass(4).await;
        assert_eq!(sessions.newly_dead(), ["n3+1"]);
        assert!(sessions.is_first());
        assert!(sessions.newly_dead().is_empty());
        // One that is not heard itself knows nothing, and listens anew when it is.
        tokio::time::advance(TIMEOUT).await;
        check("n3+1", Standing::Alive);
        sessions.heard_own(Instant::now());
        check("n3+1", Standing::Alive);
        check("n=1+6", Standing::Dead);
    }
}
