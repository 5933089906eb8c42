//! What happened to events, as seen from outside the nodes, and whether it keeps the promise of a 202.
//!
//! [`Ledger`] is the record on disk, [`History::judge`] the pure judgement over it, [`scenario::ALL`] what is done to clusters
//! while the record is made, and [`run()`] does one of them.

mod faults;
mod ledger;
mod line;
mod lost;
mod report;
mod run;
pub mod scenario;
mod subscriber;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

pub use ledger::Ledger;
pub use line::{Cause, Did, Line, Told};
pub use report::Report;
pub use run::{Outcome, Size, run};
pub use scenario::Scenario;

/// How long before a node is killed a success may not have reached its queue's disk or etcd.
const UNSETTLED_MS: u64 = 2_000;

/// All that was recorded of a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    subscribers: BTreeSet<String>,
    emits: BTreeMap<String, Told>,
    fates: BTreeMap<(String, String), Fate>,
    troubles: Vec<(u64, u64, Cause)>,
    calls: usize,
}

/// What became of an event at one of its subscribers.
#[derive(Debug, Clone, Default)]
struct Fate {
    /// When it was taken, in the order of the record.
    taken_ms: Vec<u64>,
    /// The ids of the deliveries that are dead letters, each time that one was listed.
    dead: Vec<String>,
}

/// A promise that was not kept for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// It was accepted, and neither delivered nor is it a dead letter.
    Lost,
    /// It has two terminal states: two dead letters, or one beside a success that nothing could undo.
    EndedTwice,
    /// It was delivered, or is a dead letter, and was not accepted.
    NeverAccepted,
    /// Its success was repeated, and nothing happened to a node that explains it.
    Repeated,
    /// At the end a node's own books of its queue do not balance.
    Drift,
}

/// What the record says.
#[derive(Debug, Default)]
pub struct Findings {
    /// Events that were answered with 202.
    pub accepted: usize,
    /// Events of which their writer was not told: they may be delivered or not.
    pub indeterminate: usize,
    /// Events that were refused for certain.
    pub refused: usize,
    /// Calls of functions, whatever they did.
    pub calls: usize,
    /// Events that were taken, counted for each subscriber.
    pub delivered: usize,
    /// Dead letters.
    pub dead_letters: usize,
    /// Successes beyond the first, each explained by what was done to a node.
    pub duplicates: usize,
    /// How many of these each cause explains.
    pub causes: BTreeMap<Cause, usize>,
    /// Promises that were not kept, with event and subscriber.
    pub broken: Vec<(Broken, String)>,
}

impl History {
    /// Adds a line of the record.
    pub fn add(&mut self, line: Line) {
        match line {
            Line::Subscriber(name) => {
                self.subscribers.insert(name);
            }
            Line::Emit { id, told } => {
                self.emits.insert(id, told);
            }
            Line::Call {
                subscriber,
                id,
                did,
                at_ms,
            } => {
                self.calls += 1;
                let fate = self.fates.entry((id, subscriber)).or_default();
                if did == Did::Took {
                    fate.taken_ms.push(at_ms);
                }
            }
            Line::Dead {
                subscriber,
                id,
                delivery,
            } => {
                let fate = self.fates.entry((id, subscriber)).or_default();
                fate.dead.push(delivery);
            }
            Line::Trouble {
                from_ms,
                until_ms,
                cause,
            } => self.troubles.push((from_ms, until_ms, cause)),
        }
    }

    /// Says what became of all events, once nothing waits any more.
    pub fn judge(&self) -> Findings {
        let told = |what| self.emits.values().filter(|told| **told == what).count();
        let mut findings = Findings {
            accepted: told(Told::Accepted),
            indeterminate: told(Told::Unknown),
            refused: told(Told::Refused),
            calls: self.calls,
            ..Findings::default()
        };
        for (id, _) in self
            .emits
            .iter()
            .filter(|(_, told)| **told == Told::Accepted)
        {
            for subscriber in &self.subscribers {
                let fate = self.fates.get(&(id.clone(), subscriber.clone()));
                if fate.is_none_or(|fate| fate.taken_ms.is_empty() && fate.dead.is_empty()) {
                    findings.breaks(Broken::Lost, id, subscriber);
                }
            }
        }
        for ((id, subscriber), fate) in &self.fates {
            if matches!(self.emits.get(id), None | Some(Told::Refused)) {
                findings.breaks(Broken::NeverAccepted, id, subscriber);
            }
            findings.delivered += usize::from(!fate.taken_ms.is_empty());
            findings.dead_letters += fate.dead.len();
            let is_firm = fate
                .taken_ms
                .iter()
                .any(|taken| self.doubt(*taken).is_none());
            if fate.dead.len() > 1 || (is_firm && !fate.dead.is_empty()) {
                findings.breaks(Broken::EndedTwice, id, subscriber);
            }
            let Some((_, repeated)) = fate.taken_ms.split_last() else {
                continue;
            };
            findings.duplicates += repeated.len();
            for cause in repeated.iter().map(|taken| self.doubt(*taken)) {
                match cause {
                    Some(cause) => *findings.causes.entry(cause).or_default() += 1,
                    None => findings.breaks(Broken::Repeated, id, subscriber),
                }
            }
        }
        findings
    }

    /// What was done at that time that may have kept a success from the queue.
    fn doubt(&self, taken_ms: u64) -> Option<Cause> {
        let troubles = self.troubles.iter().filter(|(from, until, _)| {
            from.saturating_sub(UNSETTLED_MS) <= taken_ms && taken_ms <= *until
        });
        // What was done to the cluster explains what its nodes say.
        troubles.map(|(_, _, cause)| *cause).min()
    }
}

impl Findings {
    /// How many events one promise was not kept for.
    pub fn count(&self, broken: Broken) -> usize {
        self.broken
            .iter()
            .filter(|(what, _)| *what == broken)
            .count()
    }

    fn breaks(&mut self, broken: Broken, id: &str, subscriber: &str) {
        self.broken.push((broken, format!("{id} for {subscriber}")));
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::EndedTwice => "ended twice",
            Self::NeverAccepted => "delivered though never accepted",
            Self::Repeated => "repeated for no reason",
            Self::Drift => "in the books and not in the queue, or the other way round",
        })
    }
}

/// The time of the record, in milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("the clock is later than 1970").as_millis();
    u64::try_from(now).expect("milliseconds since 1970 have 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges a record of the subscribers a and b.
    fn judge(record: &str) -> Findings {
        let mut history = History::default();
        for line in ["subscriber a", "subscriber b"]
            .into_iter()
            .chain(record.lines())
        {
            history.add(line.trim().parse().unwrap());
        }
        history.judge()
    }

    #[test]
    fn each_promise_is_checked() {
        let check = |record: &str, expected: &[(Broken, &str)]| {
            let broken = judge(record).broken;
            let broken: Vec<_> = broken
                .iter()
                .map(|(what, whom)| (*what, whom.as_str()))
                .collect();
            assert_eq!(broken, expected, "{record}");
        };
        let all = "emit 1 accepted
            call a 1 took 9000
            call b 1 took 9000";
        check("", &[]);
        check(all, &[]);
        check(
            "emit 1 accepted",
            &[(Broken::Lost, "1 for a"), (Broken::Lost, "1 for b")],
        );
        check(
            "emit 1 accepted\ncall a 1 took 9000",
            &[(Broken::Lost, "1 for b")],
        );
        for did in ["late", "refused", "failed", "hung"] {
            let record = format!("emit 1 accepted\ncall a 1 took 9000\ncall b 1 {did} 9000");
            check(&record, &[(Broken::Lost, "1 for b")]);
            check(&format!("{record}\ndead b 1 x"), &[]);
            check(&format!("{record}\ncall b 1 took 9999"), &[]);
        }
        // Not told is not promised, and not excluded.
        check("emit 1 unknown", &[]);
        check(
            "emit 1 unknown\ncall a 1 took 9000\ncall b 1 failed 9000\ndead b 1 x",
            &[],
        );
        check("emit 1 refused", &[]);
        for record in [
            "emit 1 refused\ncall a 1 failed 9000",
            "call a 1 took 9000",
            "dead a 1 x",
        ] {
            check(record, &[(Broken::NeverAccepted, "1 for a")]);
        }
        check(
            &format!("{all}\ndead a 1 x"),
            &[(Broken::EndedTwice, "1 for a")],
        );
        let dead = "emit 1 accepted
            call a 1 took 9000
            dead b 1 x";
        check(dead, &[]);
        check(
            &format!("{dead}\ndead b 1 y"),
            &[(Broken::EndedTwice, "1 for b")],
        );
        check(
            &format!("{dead}\ndead b 1 x"),
            &[(Broken::EndedTwice, "1 for b")],
        );
        check(
            &format!("{all}\ncall a 1 took 9900"),
            &[(Broken::Repeated, "1 for a")],
        );
    }

    /// A success that a killed node did not come to tell may be repeated, or the delivery may die later. An older one may not.
    #[test]
    fn what_was_done_to_a_node_explains_what_came_just_before() {
        let check = |trouble: &str, expected: &[Broken]| {
            let repeated = format!(
                "{trouble}
                emit 1 accepted
                call a 1 took 9000
                call a 1 took 15000
                call b 1 took 9000
                dead b 1 x"
            );
            let findings = judge(&repeated);
            let broken: Vec<_> = findings.broken.iter().map(|(what, _)| *what).collect();
            assert_eq!(broken, expected, "{repeated}");
            assert_eq!(findings.duplicates, 1);
        };
        let both = [Broken::Repeated, Broken::EndedTwice];
        check("trouble 10000 10500 killed", &[]);
        check("trouble 11000 11000 killed", &[]);
        check("trouble 5000 9000 store", &[]);
        check("trouble 11001 12000 killed", &both);
        check("trouble 5000 8999 session", &both);
        check("trouble 14000 16000 killed", &both);
    }

    #[test]
    fn all_is_counted() {
        let findings = judge(
            "trouble 1000 2000 session
            trouble 1400 1500 killed
            emit 1 accepted
            emit 2 unknown
            emit 3 refused
            call a 1 failed 900
            call a 1 took 1500
            call a 1 took 1600
            call b 1 refused 1500
            dead b 1 x
            call b 2 took 1700",
        );
        assert!(findings.broken.is_empty(), "{findings:?}");
        let counts = (findings.accepted, findings.indeterminate, findings.refused);
        assert_eq!(counts, (1, 1, 1));
        let counts = (findings.calls, findings.delivered, findings.dead_letters);
        assert_eq!(counts, (5, 2, 1));
        assert_eq!(findings.duplicates, 1);
        assert_eq!(findings.causes, BTreeMap::from([(Cause::Killed, 1)]));
    }
}
