//! What of the bench is run, and for how long.

use std::time::Duration;

use anyhow::{bail, ensure};

use super::cell::{COMPARISONS, Cell};
use super::{alias, aws, checks, cold, emit, footprint, lambda, loss, queues, registry, tls};

/// The parts of a run.
#[derive(Debug, Clone)]
pub struct Selection {
    only: Vec<String>,
    /// How often each load is run.
    pub(super) rounds: usize,
    /// How long each load is run.
    pub(super) length: Duration,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            rounds: 5,
            length: Duration::from_secs(1),
        }
    }
}

impl Selection {
    /// Runs only what these rows need, named as in the table, with commas between.
    ///
    /// # Errors
    /// When there is no row of such a name.
    pub fn only(&mut self, list: &str) -> anyhow::Result<()> {
        let known = names();
        self.only = list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        match self.only.iter().find(|name| !known.contains(name)) {
            Some(unknown) => bail!(
                "there is no row {unknown}, the rows are {}",
                known.join(", ")
            ),
            None => Ok(()),
        }
    }

    /// Runs each load so many times.
    ///
    /// # Errors
    /// When that is fewer than three: a median of two is none.
    pub fn rounds(&mut self, rounds: usize) -> anyhow::Result<()> {
        ensure!(rounds >= 3, "--rounds {rounds}: at least 3 are needed");
        self.rounds = rounds;
        Ok(())
    }

    /// Runs each load for so many seconds.
    ///
    /// # Errors
    /// When that is no time, or too long for a run.
    pub fn seconds(&mut self, seconds: f64) -> anyhow::Result<()> {
        ensure!(
            (0.1..=60.0).contains(&seconds),
            "--seconds {seconds}: between 0.1 and 60 are possible"
        );
        self.length = Duration::from_secs_f64(seconds);
        Ok(())
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == name)
    }

    pub(super) fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }
}

/// The names of all rows.
pub fn names() -> Vec<String> {
    let loads = COMPARISONS.map(|comparison| Cell::all().map(move |cell| comparison.name(cell)));
    let fixed = emit::NAMES
        .iter()
        .chain(&aws::NAMES)
        .chain(&checks::NAMES)
        .chain(&lambda::NAMES)
        .chain(&tls::NAMES)
        .chain(&queues::NAMES)
        .chain(&registry::NAMES)
        .chain(&alias::NAMES)
        .chain(&cold::NAMES)
        .chain(&loss::NAMES)
        .chain(&footprint::NAMES);
    loads
        .into_iter()
        .flatten()
        .chain(fixed.map(|name| (*name).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_knows_its_rows() {
        let mut selection = Selection::default();
        assert!(selection.wants("cold_start"));
        selection.only("warm_c1_added, ready_ms").unwrap();
        assert!(selection.wants("ready_ms") && !selection.wants("cold_start"));
        let error = selection.only("warm").unwrap_err().to_string();
        assert!(
            error.contains("no row warm, ") && error.contains("forward_c64_rps"),
            "{error}"
        );
        assert!(selection.rounds(2).is_err() && selection.seconds(0.0).is_err());
    }
}
