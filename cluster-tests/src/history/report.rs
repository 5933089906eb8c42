//! What the scenarios came to, as a table.

use std::fmt;

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::{Broken, Outcome};

/// Broken promises of a scenario that are told in full; the rest are counted.
const TOLD_MAX: usize = 10;

const TITLES: [&str; 12] = [
    "scenario",
    "seed",
    "accepted",
    "indeterminate",
    "refused",
    "delivered",
    "dead letters",
    "duplicates",
    "losses",
    "other breaks",
    "seconds",
    "verdict",
];

/// The outcomes of scenarios; one that came to none has its reason instead.
#[derive(Debug, Default)]
pub struct Report(Vec<(&'static str, u64, Result<Outcome, String>)>);

impl Report {
    /// Adds a scenario.
    pub fn add(&mut self, name: &'static str, seed: u64, outcome: Result<Outcome, String>) {
        self.0.push((name, seed, outcome));
    }

    /// Whether all promises held, and no scenario broke off.
    pub fn is_kept(&self) -> bool {
        let mut outcomes = self.0.iter();
        outcomes.all(|(_, _, outcome)| outcome.as_ref().is_ok_and(Outcome::is_kept))
    }
}

impl Outcome {
    /// Whether all promises held.
    pub fn is_kept(&self) -> bool {
        self.findings.broken.is_empty()
    }

    fn row(&self) -> [String; 10] {
        let found = &self.findings;
        let losses = found.count(Broken::Lost);
        [
            found.accepted.to_string(),
            found.indeterminate.to_string(),
            found.refused.to_string(),
            found.delivered.to_string(),
            found.dead_letters.to_string(),
            found.duplicates.to_string(),
            losses.to_string(),
            (found.broken.len() - losses).to_string(),
            self.took.as_secs().to_string(),
            if self.is_kept() { "kept" } else { "BROKEN" }.to_owned(),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut builder = Builder::default();
        builder.push_record(TITLES);
        for (name, seed, outcome) in &self.0 {
            let mut row = vec![(*name).to_owned(), seed.to_string()];
            match outcome {
                Ok(outcome) => row.extend(outcome.row()),
                Err(_) => {
                    row.resize(TITLES.len() - 1, "-".to_owned());
                    row.push("BROKE OFF".to_owned());
                }
            }
            builder.push_record(row);
        }
        let mut table = builder.build();
        table
            .with(Style::blank())
            .modify(Columns::new(1..TITLES.len() - 1), Alignment::right());
        writeln!(f, "{table}")?;
        for (name, _, outcome) in &self.0 {
            match outcome {
                Ok(outcome) => tell(f, name, outcome)?,
                Err(why) => writeln!(f, "{name} broke off: {why}")?,
            }
        }
        Ok(())
    }
}

/// Tells what was broken, what explains the rest, and where to look.
fn tell(f: &mut fmt::Formatter<'_>, name: &str, outcome: &Outcome) -> fmt::Result {
    for (broken, whom) in outcome.findings.broken.iter().take(TOLD_MAX) {
        writeln!(f, "{name}: {broken}: {whom}")?;
    }
    let causes = outcome.findings.causes.iter();
    let causes: Vec<_> = causes
        .map(|(cause, count)| format!("{cause} {count}"))
        .collect();
    if !causes.is_empty() {
        let causes = causes.join(", ");
        writeln!(f, "{name}: duplicates by cause: {causes}")?;
    }
    match &outcome.kept {
        Some(dir) => writeln!(
            f,
            "{name}: the record and all logs stay in {}",
            dir.display()
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::history::{Cause, Findings};

    fn outcome(broken: &[(Broken, &str)]) -> Outcome {
        let broken = broken
            .iter()
            .map(|(what, whom)| (*what, (*whom).to_owned()));
        Outcome {
            name: "etcd-stop",
            seed: 7,
            findings: Findings {
                accepted: 10,
                broken: broken.collect(),
                causes: [(Cause::Killed, 3), (Cause::Session, 1)].into(),
                ..Findings::default()
            },
            took: Duration::from_millis(1_900),
            kept: Some(PathBuf::from("/kept")),
        }
    }

    #[test]
    fn a_report_names_what_was_broken_and_where_to_look() {
        let check = |outcome: Result<Outcome, String>, is_kept: bool, parts: &[&str]| {
            let mut report = Report::default();
            report.add("etcd-stop", 7, outcome);
            assert_eq!(report.is_kept(), is_kept);
            let text = report.to_string();
            for part in parts {
                assert!(text.contains(part), "{part:?} in {text}");
            }
        };
        check(
            Ok(outcome(&[])),
            true,
            &["losses", "etcd-stop", "10", "kept"],
        );
        let broken = [
            (Broken::Lost, "e-1 for steady"),
            (Broken::EndedTwice, "e-2 for picky"),
        ];
        let told = [
            "BROKEN",
            "etcd-stop: lost: e-1 for steady",
            "etcd-stop: ended twice: e-2 for picky",
            "etcd-stop: duplicates by cause: killed 3, session 1",
            "stay in /kept",
        ];
        check(Ok(outcome(&broken)), false, &told);
        let told = ["BROKE OFF", "etcd-stop broke off: no etcd"];
        check(Err("no etcd".into()), false, &told);
    }
}
