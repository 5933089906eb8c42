//! Measures Hearth beside nginx and the container engine, each figure as a ratio to something measured in the same run.
//!
//! [`run`] is the entry; `docs/bench.md` says how to read what it prints.

mod alias;
mod aws;
mod cell;
mod checks;
mod cold;
mod cores;
mod emit;
mod footprint;
mod function;
mod http;
mod lambda;
mod load;
mod loss;
mod machine;
mod nginx;
mod processor_time;
mod queues;
mod registry;
mod report;
mod selection;
mod stream;
mod tls;
mod warm;

pub use function::serve;
pub use lambda::ask;
pub use report::{Report, Row, Target};
pub use selection::{Selection, names};

use cores::Cores;
use machine::Machine;

/// Measures what the selection asks for, telling on the way what it is at.
///
/// # Errors
/// When something could not be measured, such as for want of nginx or of an engine.
///
/// # Panics
/// When a cluster of the run does not come up.
pub async fn run(selection: &Selection) -> anyhow::Result<Report> {
    let cores = Cores::of_this_process()?;
    let mut report = Report::new(Machine::read(&cores));
    // Memory and start-up first, while the machine has done nothing else yet.
    footprint::measure(selection, &mut report).await?;
    warm::measure(selection, &cores, &mut report).await?;
    checks::measure(selection, &cores, &mut report).await?;
    lambda::measure(selection, &cores, &mut report).await?;
    tls::measure(selection, &cores, &mut report).await?;
    aws::measure(selection, &mut report).await?;
    emit::measure(selection, &cores, &mut report).await?;
    queues::measure(selection, &mut report).await?;
    registry::measure(selection, &mut report).await?;
    alias::measure(selection, &mut report).await?;
    cold::measure(selection, &mut report).await?;
    loss::measure(selection, &mut report).await?;
    Ok(report)
}

/// Writes a line about the progress to stderr, so that stdout holds the report only.
fn progress(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "bench: {line}");
}

/// The middle of some figures; of an even number of them, the mean of the two in the middle.
fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn a_median_is_the_middle() {
        assert!(median([]).is_nan());
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
