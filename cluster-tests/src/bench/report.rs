//! What was measured, as a table for people and as JSON for scripts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::machine::Machine;

/// What the ratio of a figure has to keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Ours divided by the reference, at most.
    RatioAtMost(f64),
    /// Ours divided by the reference, at least.
    RatioAtLeast(f64),
}

/// One figure beside what it is compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Hearth's figure.
    pub ours: f64,
    /// The same of nginx or the engine, measured in the same run.
    pub reference: Option<f64>,
    /// Ours divided by the reference.
    pub ratio: Option<f64>,
    /// The bound: of the ratio where there is a reference, else of ours.
    pub target: Option<f64>,
    /// Whether it was kept.
    pub met: Option<bool>,
    /// The unit of both figures.
    pub unit: &'static str,
    /// How many runs the figures are the medians of.
    pub runs: usize,
}

/// All rows of a run, and the measurements they were made from.
#[derive(Debug)]
pub struct Report {
    machine: Machine,
    rows: Vec<Row>,
    details: Vec<[String; 7]>,
    notes: Vec<String>,
}

/// The file's form.
#[derive(Serialize)]
struct File<'a> {
    commit: &'a str,
    machine: &'a Machine,
    rows: &'a [Row],
}

impl Row {
    /// A figure that is compared with a reference.
    pub fn compared(
        name: &str,
        ours: f64,
        reference: f64,
        unit: &'static str,
        target: Option<Target>,
        runs: usize,
    ) -> Self {
        // A reference that is nothing or less is noise: there is no ratio to it, and no target is met by it.
        let ratio = (reference > 0.0).then(|| ours / reference);
        let is = |keeps: &dyn Fn(f64) -> bool| Some(ratio.is_some_and(keeps));
        let (bound, met) = match target {
            Some(Target::RatioAtMost(bound)) => (Some(bound), is(&|ratio| ratio <= bound)),
            Some(Target::RatioAtLeast(bound)) => (Some(bound), is(&|ratio| ratio >= bound)),
            None => (None, None),
        };
        Self {
            name: name.to_owned(),
            ours: rounded(ours),
            reference: Some(rounded(reference)),
            ratio: ratio.map(rounded),
            target: bound,
            met,
            unit,
            runs,
        }
    }

    /// A figure that stands for itself, with the most it may be.
    pub fn alone(
        name: &str,
        ours: f64,
        unit: &'static str,
        at_most: Option<f64>,
        runs: usize,
    ) -> Self {
        Self {
            name: name.to_owned(),
            ours: rounded(ours),
            reference: None,
            ratio: None,
            target: at_most,
            met: at_most.map(|bound| ours <= bound),
            unit,
            runs,
        }
    }

    /// A figure that stands for itself, with the least it may be.
    pub fn at_least(name: &str, ours: f64, unit: &'static str, bound: f64, runs: usize) -> Self {
        Self {
            target: Some(bound),
            met: Some(ours >= bound),
            ..Self::alone(name, ours, unit, None, runs)
        }
    }
}

impl Report {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine,
            rows: Vec::new(),
            details: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a line to the table of what the rows were made from: load, way, median, 99th percentile,
    /// rate, the servers' processor time a call, rounds.
    pub(super) fn detail(&mut self, detail: [String; 7]) {
        self.details.push(detail);
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Writes `target/bench/results.json` of this repository and returns its path.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let path = root.join("target/bench/results.json");
        let dir = path.parent().expect("the path has several parts");
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let commit = commit(root);
        let file = File {
            commit: &commit,
            machine: &self.machine,
            rows: &self.rows,
        };
        let mut text = serde_json::to_string_pretty(&file)?;
        text.push('\n');
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.canonicalize()?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        if !self.details.is_empty() {
            let titles = [
                "load",
                "way",
                "p50 us",
                "p99 us",
                "requests/s",
                "servers' cpu us",
                "rounds",
            ];
            writeln!(f, "{}\n", table(titles, self.details.iter().cloned(), 2))?;
        }
        let titles = [
            "name",
            "ours",
            "reference",
            "ratio",
            "target",
            "met",
            "unit",
            "runs",
        ];
        let rows = self.rows.iter().map(|row| {
            let figure = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), shown);
            let met = match row.met {
                Some(true) => "yes",
                Some(false) => "MISSED",
                None => "-",
            };
            [
                row.name.clone(),
                shown(row.ours),
                figure(row.reference),
                figure(row.ratio),
                figure(row.target),
                met.to_owned(),
                row.unit.to_owned(),
                row.runs.to_string(),
            ]
        });
        writeln!(f, "{}", table(titles, rows, 1))?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let missed = self.rows.iter().filter(|row| row.met == Some(false));
        let missed: Vec<_> = missed.map(|row| row.name.as_str()).collect();
        let aims = self.rows.iter().filter(|row| row.met.is_some()).count();
        match missed.as_slice() {
            [] => writeln!(f, "all {aims} targets met"),
            missed => writeln!(
                f,
                "{} of {aims} targets missed: {}",
                missed.len(),
                missed.join(", ")
            ),
        }
    }
}

fn table<const N: usize>(
    titles: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    texts: usize,
) -> String {
    let mut builder = Builder::default();
    builder.push_record(titles);
    for row in rows {
        builder.push_record(row);
    }
    let mut table = builder.build();
    table
        .with(Style::blank())
        .modify(Columns::new(texts..), Alignment::right());
    table.to_string()
}

/// Three decimals are more than any figure here is worth.
fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

fn shown(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1000.0 => format!("{figure:.0}"),
        size if size >= 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// What is checked out, as git names it.
fn commit(root: &Path) -> String {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "rev-parse", "HEAD"])
        .current_dir(root)
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_of_the_ratio_where_there_is_a_reference() {
        let met = |target| Row::compared("x", 12.0, 10.0, "us", Some(target), 3).met;
        assert_eq!(met(Target::RatioAtMost(1.2)), Some(true));
        assert_eq!(met(Target::RatioAtMost(1.1)), Some(false));
        assert_eq!(met(Target::RatioAtLeast(1.3)), Some(false));
        let noise = Row::compared("x", 1.0, -1.0, "us", Some(Target::RatioAtMost(1.2)), 3);
        assert_eq!((noise.ratio, noise.met), (None, Some(false)));
        assert_eq!(Row::alone("x", 12.0, "ms", Some(11.0), 3).met, Some(false));
        let row = Row::alone("x", 12.0, "ms", None, 3);
        assert_eq!((row.target, row.met, row.ratio), (None, None, None));
    }
}
