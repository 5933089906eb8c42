//! What the chaos run decides from outside: whether the promises held for each call, and what it tells at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::Call;

/// How long after a kill a connection may still look alive to a busy peer; see the scenarios of lost nodes.
const UNSEEN: Duration = Duration::from_millis(250);

/// Broken promises that are told in full; the rest are counted.
const TOLD_MAX: usize = 20;

/// A small generator whose whole run follows from its seed (`splitmix64`).
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("usize has 64 bits at most");
        usize::try_from(self.next_u64() % bound).expect("it is below a usize")
    }

    /// A duration between two bounds, in whole milliseconds.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = usize::try_from((most - least).as_millis()).expect("bounds are seconds apart");
        let more = u64::try_from(self.below(span + 1)).expect("usize has 64 bits at most");
        least + Duration::from_millis(more)
    }
}

/// A time during which a node was not to be relied on.
#[derive(Debug, Clone)]
pub struct Outage {
    /// The node.
    pub node: String,
    /// When it was killed, or told to end.
    pub begun: Instant,
    /// When it was ready again; `None` while it is not.
    pub ended: Option<Instant>,
}

impl Outage {
    fn overlaps(&self, call: &Call) -> bool {
        let is_over = self.ended.is_some_and(|ended| ended < call.begun);
        self.begun <= call.ended && !is_over
    }

    /// Whether the call was in flight when the outage began.
    fn struck(&self, call: &Call) -> bool {
        call.begun <= self.begun + UNSEEN && self.begun <= call.ended
    }
}

/// A time during which every node knew of a free warm slot of every function.
#[derive(Debug, Clone, Copy)]
pub struct WarmWindow {
    /// Its beginning.
    pub begun: Instant,
    /// Its end: the next kill.
    pub ended: Instant,
}

/// What a call says about the promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It succeeded as promised.
    Kept,
    /// The node that was called was itself killed or ending.
    CalledNodeWasDown,
    /// It was in flight on a node that was killed, and its caller was told so.
    Interrupted,
    /// A promise of DESIGN 1 was broken, by its number.
    Broken(u8),
}

/// Judges one call by the outages and warm windows known by the time it ended.
pub fn judge(
    call: &Call,
    is_idempotent: bool,
    outages: &[Outage],
    windows: &[WarmWindow],
) -> Verdict {
    if call.is_ok() {
        let is_cold = call
            .outcome
            .as_ref()
            .is_ok_and(|answer| answer.start.as_deref() == Some("cold"));
        let was_warm = windows
            .iter()
            .any(|window| window.begun <= call.begun && call.ended <= window.ended);
        return if is_cold && was_warm {
            Verdict::Broken(2)
        } else {
            Verdict::Kept
        };
    }
    let of_target = |outage: &&Outage| outage.node == call.target;
    if outages
        .iter()
        .filter(of_target)
        .any(|outage| outage.overlaps(call))
    {
        return Verdict::CalledNodeWasDown;
    }
    let was_struck = outages.iter().any(|outage| outage.struck(call));
    if call.error() == Some("interrupted") && was_struck && !is_idempotent {
        return Verdict::Interrupted;
    }
    // The called node was up the whole time and could have run the function itself.
    Verdict::Broken(if call.error() == Some("interrupted") {
        4
    } else {
        1
    })
}

/// The report of a chaos run.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed that repeats the run's decisions.
    pub seed: u64,
    /// What was done to nodes, and how often.
    pub actions: BTreeMap<String, usize>,
    /// How many calls ended how.
    pub calls: BTreeMap<String, usize>,
    /// Calls that were in flight anywhere when a node was killed.
    pub in_flight_at_kill: usize,
    /// Calls told that they were interrupted by a kill.
    pub interrupted: usize,
    /// Failed calls to a node that was itself down.
    pub called_node_was_down: usize,
    /// Calls and looks at the cluster that broke a promise, by its number.
    pub broken: BTreeMap<u8, usize>,
    /// Cold starts although every node knew of a free warm slot.
    pub cold_beside_warm: usize,
    /// Containers and processes that belonged to no instance.
    pub orphans: usize,
    told: Vec<String>,
}

impl Report {
    /// An empty report of a run with that seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Adds calls that have ended.
    pub fn add(
        &mut self,
        calls: &[Call],
        is_idempotent: bool,
        outages: &[Outage],
        windows: &[WarmWindow],
    ) {
        for call in calls {
            *self.calls.entry(call.summary()).or_default() += 1;
            let was_in_flight = outages.iter().any(|outage| call.spans(outage.begun));
            self.in_flight_at_kill += usize::from(was_in_flight);
            match judge(call, is_idempotent, outages, windows) {
                Verdict::Kept => {}
                Verdict::CalledNodeWasDown => self.called_node_was_down += 1,
                Verdict::Interrupted => self.interrupted += 1,
                Verdict::Broken(promise) => {
                    self.cold_beside_warm += usize::from(promise == 2);
                    self.breaks(promise, format!("{call:?}"));
                }
            }
        }
    }

    /// Counts something done to a node.
    pub fn acted(&mut self, action: &str) {
        *self.actions.entry(action.to_owned()).or_default() += 1;
    }

    /// Writes a broken promise down.
    pub fn breaks(&mut self, promise: u8, what: String) {
        *self.broken.entry(promise).or_default() += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("promise {promise}: {what}"));
        }
    }

    /// Whether all promises held.
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed                                {}", self.seed)?;
        for (action, count) in &self.actions {
            writeln!(f, "{action:<35} {count}")?;
        }
        let total: usize = self.calls.values().sum();
        writeln!(f, "calls                               {total}")?;
        for (summary, count) in &self.calls {
            writeln!(f, "  {summary:<33} {count}")?;
        }
        writeln!(
            f,
            "in flight at a kill                 {}",
            self.in_flight_at_kill
        )?;
        writeln!(
            f,
            "told that they were interrupted     {}",
            self.interrupted
        )?;
        writeln!(
            f,
            "the called node itself was down     {}",
            self.called_node_was_down
        )?;
        writeln!(
            f,
            "cold although a warm slot was free  {}",
            self.cold_beside_warm
        )?;
        writeln!(f, "orphans                             {}", self.orphans)?;
        for (promise, name) in [
            (1, "any node answers"),
            (2, "warm before cold"),
            (4, "dead nodes are routed around"),
            (6, "no orphans"),
        ] {
            let verdict = self.broken.get(&promise).map_or_else(
                || "kept".to_owned(),
                |count| format!("BROKEN {count} times"),
            );
            writeln!(f, "promise {promise}, {:<25} {verdict}", format!("{name}:"))?;
        }
        self.told.iter().try_for_each(|told| writeln!(f, "{told}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Lost;

    fn call(target: &str, from: u64, to: u64, begin: Instant) -> Call {
        let at = |ms| begin + Duration::from_millis(ms);
        let lost = Lost {
            is_refused: false,
            what: String::new(),
            elapsed: Duration::ZERO,
        };
        Call {
            target: target.into(),
            begun: at(from),
            ended: at(to),
            outcome: Err(lost),
        }
    }

    fn answered(mut call: Call, status: u16, error: Option<&str>, start: &str) -> Call {
        call.outcome = Ok(crate::Answer {
            status,
            node: None,
            start: Some(start.into()),
            version: None,
            route: None,
            error: error.map(Into::into),
            component: None,
            invocation: None,
            timing: None,
            retry_after: None,
            body: String::new(),
            elapsed: Duration::ZERO,
        });
        call
    }

    #[test]
    fn the_same_seed_decides_the_same() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..8).map(|_| rng.below(100)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn calls_are_judged_by_what_was_down_when() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let outages = [Outage {
            node: "n2".into(),
            begun: at(1_000),
            ended: Some(at(2_000)),
        }];
        let windows = [WarmWindow {
            begun: at(5_000),
            ended: at(6_000),
        }];
        let check = |call: &Call, is_idempotent, expected| {
            assert_eq!(
                judge(call, is_idempotent, &outages, &windows),
                expected,
                "{call:?}"
            );
        };
        let to = |target: &str, from, until| call(target, from, until, begin);
        let interrupted = |call| answered(call, 502, Some("interrupted"), "warm");

        check(&to("n2", 900, 1_100), false, Verdict::CalledNodeWasDown);
        check(&to("n2", 1_500, 1_501), false, Verdict::CalledNodeWasDown);
        check(&to("n2", 2_500, 2_501), false, Verdict::Broken(1));
        check(&to("n1", 900, 1_100), false, Verdict::Broken(1));
        check(
            &interrupted(to("n1", 900, 1_100)),
            false,
            Verdict::Interrupted,
        );
        check(&interrupted(to("n1", 900, 1_100)), true, Verdict::Broken(4));
        check(
            &interrupted(to("n1", 1_500, 1_600)),
            false,
            Verdict::Broken(4),
        );
        check(&interrupted(to("n1", 100, 200)), false, Verdict::Broken(4));
        check(
            &answered(to("n1", 900, 1_100), 200, None, "cold"),
            false,
            Verdict::Kept,
        );
        check(
            &answered(to("n1", 5_100, 5_200), 200, None, "warm"),
            false,
            Verdict::Kept,
        );
        check(
            &answered(to("n1", 5_100, 5_200), 200, None, "cold"),
            false,
            Verdict::Broken(2),
        );
    }
}
