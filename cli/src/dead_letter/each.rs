//! Redrives or purges dead letters, several at once, until all are done, one is refused, or Ctrl-C.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Method, StatusCode};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::{ChosenArgs, PAGE_LEN, pages};
use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::options::Options;

pub(super) const EXIT_CODES: &str = "\
With more than 500 there is a progress bar, if standard error is a terminal. Ctrl-C waits for those that were asked for already, and ends \
it; the number of those that were done is printed in any case.

Exit codes:
  0 done, 1 refused, 64 bad usage, 69 no answer, 77 not authorised, 130 stopped by Ctrl-C";

/// Requests in flight at once: each waits for the node's disk, or for etcd or NATS, which take several together.
const AT_ONCE: usize = 8;

/// How long answers are waited for after Ctrl-C.
const STOP_TIME: Duration = Duration::from_secs(5);

/// What is done to each.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Redrive,
    Purge,
}

/// How far it came.
#[derive(Default)]
pub(super) struct Tally {
    done: usize,
    /// Those that somebody else redrove or purged, or that expired, since they were listed.
    gone: usize,
    /// Asked for, and no answer came before the end.
    open: usize,
    /// The first failure; nothing is begun after it.
    failure: Option<Failure>,
    is_stopped: bool,
}

/// Does it to those that the arguments name.
///
/// # Errors
/// When not all was done: one was refused, or it was stopped. What was done is printed all the same.
pub(super) async fn run(
    options: &Options,
    what: What,
    args: &ChosenArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let api = Api::config(options)?;
    let ids = chosen(&api, args).await?;
    let bar = bar(what, ids.len(), console.is_watched);
    // Taken before the first is asked for, since one that comes before that would end the process without a word.
    let interrupts = signal(SignalKind::interrupt());
    let stop = async {
        match interrupts {
            Ok(mut interrupts) => drop(interrupts.recv().await),
            // Where no handler can be installed Ctrl-C ends the process, as ever.
            Err(_) => std::future::pending().await,
        }
    };
    let tally = each(&api, what, &ids, args.all, &bar, stop).await;
    bar.finish_and_clear();
    tell(what, ids.len(), tally, console)
}

/// The ids that are named, or of all that the node has. All of them before the first one is redriven: it may be back at the end.
async fn chosen(api: &Api, args: &ChosenArgs) -> Result<Vec<String>, Failure> {
    if !args.all {
        return Ok(args.ids.clone());
    }
    let mut ids = Vec::new();
    pages(api, |page| {
        ids.extend(page.into_iter().map(|letter| letter.id));
    })
    .await?;
    Ok(ids)
}

/// Does it to each, in order, and stops to begin when `stop` resolves.
pub(super) async fn each(
    api: &Api,
    what: What,
    ids: &[String],
    may_be_gone: bool,
    bar: &ProgressBar,
    stop: impl Future<Output = ()>,
) -> Tally {
    let mut tally = Tally::default();
    let mut stop = pin!(stop);
    let mut over = None;
    let mut waiting = ids.iter();
    let mut asked = FuturesOrdered::new();
    loop {
        while asked.len() < AT_ONCE && over.is_none() {
            let Some(id) = waiting.next() else { break };
            asked.push_back(what.call(api, id, may_be_gone));
        }
        if asked.is_empty() {
            return tally;
        }
        tokio::select! {
            biased;
            Some(ended) = asked.next() => {
                bar.inc(1);
                match ended {
                    Ok(true) => tally.done += 1,
                    Ok(false) => tally.gone += 1,
                    Err(failure) => {
                        tally.failure.get_or_insert(failure);
                        over.get_or_insert_with(|| Instant::now() + STOP_TIME);
                    }
                }
            }
            () = &mut stop, if !tally.is_stopped => {
                tally.is_stopped = true;
                over.get_or_insert_with(|| Instant::now() + STOP_TIME);
            }
            () = sleep_until(over.unwrap_or_else(Instant::now)), if over.is_some() => {
                tally.open = asked.len();
                return tally;
            }
        }
    }
}

/// Says what was done, and why not all.
pub(super) fn tell(
    what: What,
    count: usize,
    tally: Tally,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let (done, name) = (tally.done, what.name());
    console.text(&format!("{name}: {done}"))?;
    if tally.gone > 0 {
        writeln!(console.err, "gone meanwhile: {}", tally.gone)?;
    }
    let failure = match (tally.failure, tally.is_stopped) {
        (Some(failure), _) => failure,
        (None, true) if done + tally.gone < count => {
            let message = format!("stopped by Ctrl-C: {name} {done} of {count}");
            Failure::new(Exit::Interrupted, message)
        }
        _ => return Ok(()),
    };
    let failure = match tally.open {
        0 => failure,
        open => failure.hint(format!(
            "{open} more were asked for and not answered: they may be {name} as well"
        )),
    };
    Err(match count {
        1 => failure,
        _ => failure.hint("those that are left are dead letters as before"),
    })
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Redrive => "redriven",
            Self::Purge => "purged",
        }
    }

    /// Does it to one; false when that is gone, if it may be.
    async fn call(self, api: &Api, id: &str, may_be_gone: bool) -> Result<bool, Failure> {
        let path = ["v1", "dead-letters", id, "redrive"];
        let call = match self {
            Self::Redrive => Call::new(Method::POST, &path, None),
            Self::Purge => Call::new(Method::DELETE, &path[..3], None),
        };
        let answer = api.call(call).await?;
        if may_be_gone && answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        answer.accept()?;
        Ok(true)
    }
}

/// A bar for more than a page, where somebody watches.
fn bar(what: What, count: usize, is_watched: bool) -> ProgressBar {
    if !is_watched || count <= PAGE_LEN {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg}: {pos} of {len} [{bar:40}] {eta} left");
    let style = style.expect("the template has only keys that there are");
    ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stderr())
        .with_style(style.progress_chars("=> "))
        .with_message(what.name())
}
