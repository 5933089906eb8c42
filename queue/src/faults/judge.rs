//! Whether what processes saw of their queue, until they were killed and after that, keeps its promise.

use std::collections::BTreeMap;

/// What was said of one delivery.
#[derive(Debug, Default)]
struct Fate {
    is_offered: bool,
    is_taken: bool,
    is_late: bool,
    calls: usize,
    done: usize,
    cancels: usize,
    is_cancelled: bool,
    purges: usize,
    is_purged: bool,
    /// Letters of it in the last list.
    dead: usize,
}

/// The promises that were not kept. So many processes were killed.
pub(super) fn judge(history: &str, kills: usize) -> Vec<String> {
    let mut fates = BTreeMap::<&str, Fate>::new();
    let mut broken = Vec::new();
    let mut is_listed = false;
    for (what, whom) in history.lines().filter_map(|line| line.split_once(' ')) {
        match what {
            "lists" => {
                is_listed = true;
                fates.values_mut().for_each(|fate| fate.dead = 0);
            }
            "drift" if whom != "0" => broken.push(format!("the books are wrong by {whom}")),
            "drift" => {}
            _ => fates.entry(whom).or_default().add(what),
        }
    }
    if !is_listed {
        broken.push("nobody came to the end".to_owned());
    }
    for (id, fate) in &fates {
        let found = fate.broken(kills);
        broken.extend(
            found
                .into_iter()
                .map(|what| format!("{id} {what}: {fate:?}")),
        );
    }
    broken
}

impl Fate {
    fn add(&mut self, what: &str) {
        match what {
            "offer" => self.is_offered = true,
            "took" => self.is_taken = true,
            "late" => self.is_late = true,
            "call" => self.calls += 1,
            "done" => self.done += 1,
            "cancels" => self.cancels += 1,
            "cancelled" => self.is_cancelled = true,
            "purges" => self.purges += 1,
            "purged" => self.is_purged = true,
            "dead" => self.dead += 1,
            _ => {}
        }
    }

    fn broken(&self, kills: usize) -> Vec<&'static str> {
        let ends = self.done + self.dead + self.cancels + self.purges;
        // Nobody else could have cancelled it.
        let is_missed = self.cancels == 1 && !self.is_cancelled;
        let rules = [
            (self.is_taken && ends == 0, "was lost"),
            (
                self.is_taken && is_missed,
                "was lost before it was cancelled",
            ),
            (
                self.calls + self.dead > 0 && !self.is_offered,
                "was never offered",
            ),
            (self.done > 0 && self.dead > 0, "was delivered and is dead"),
            (self.dead > 1, "is dead twice"),
            (self.is_purged && self.dead > 0, "was purged and is dead"),
            (self.done > 1 + kills, "was repeated for no reason"),
            (self.is_late && self.calls > 0, "was called before its time"),
        ];
        let found = rules.into_iter().filter(|(is_broken, _)| *is_broken);
        found.map(|(_, what)| what).collect()
    }
}

#[test]
fn each_rule_is_checked() {
    let check = |history: &str, kills, expected: &[&str]| {
        let broken = judge(&format!("{history}\nlists x"), kills);
        let broken = broken.iter().map(|found| found.split(": ").next().unwrap());
        assert_eq!(broken.collect::<Vec<_>>(), expected, "{history}");
    };
    check("offer 1\ntook 1\ncall 1\ndone 1\ndrift 0", 0, &[]);
    check("offer 1", 1, &[]);
    check("offer 1\ntook 1\ncall 1", 1, &["1 was lost"]);
    check("call 1", 0, &["1 was never offered"]);
    let twice = "offer 1\ndone 1\ndone 1";
    check(twice, 1, &[]);
    check(twice, 0, &["1 was repeated for no reason"]);
    check(
        "offer 1\nlate 1\ncancels 1\ncall 1",
        1,
        &["1 was called before its time"],
    );
    let missed = ["1 was lost before it was cancelled"];
    check("offer 1\ntook 1\ncancels 1\nnone 1", 1, &missed);
    check("offer 1\ntook 1\ncancels 1\ncancels 1\nnone 1", 1, &[]);
    check("drift 1", 0, &["the books are wrong by 1"]);
    let dead = |more: &str| judge(&format!("offer 1\n{more}lists x\ndead 1"), 0).len();
    assert_eq!((dead(""), dead("done 1\n"), dead("purged 1\n")), (0, 1, 1));
    assert_eq!(judge("offer 1\nlists x\ndead 1\ndead 1", 0).len(), 1);
    assert_eq!(judge("offer 1", 0), ["nobody came to the end"]);
}
