//! The watch of an etcd cluster: one task that outlives servers, connections and compactions.
//!
//! It goes on after the last revision it told. When etcd can not tell what came after that one (it was compacted away, or the
//! cluster's history is not the one we knew), everything is read anew and told as a [`WatchEvent::Reset`]. A server that says
//! nothing is asked for a sign of life; without one the watch moves on to the next member.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{WatchOptions, WatchResponse, WatchResponseStream, WatchStream};
use tokio::sync::mpsc;
use tokio::time::{
    Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout, timeout_at,
};

use super::{Cluster, Head};
use crate::etcd::{Fault, FaultKind, Member, range_end};
use crate::recurring::{Due, Recurring};
use crate::store::{Change, Entry, Revision, WatchEvent};

/// The first pause after a failure; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// How patient a watch is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How often a quiet server is asked for a sign of life.
    pub(super) progress_interval: Duration,
    /// After how long without one it counts as gone.
    pub(super) silence_max: Duration,
    /// The longest pause between two attempts.
    pub(super) backoff_max: Duration,
}

/// When a watch last heard its server.
#[derive(Debug)]
pub(super) struct Heard(Mutex<Instant>);

impl Default for Heard {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Heard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago that was.
    pub(super) fn ago(&self) -> Duration {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

/// One watch.
pub(super) struct Watcher {
    cluster: Arc<Cluster>,
    pace: Pace,
    prefix: String,
    /// Everything up to here has been told.
    after: Revision,
    sender: mpsc::Sender<WatchEvent>,
    heard: Arc<Heard>,
    /// What the cluster last said of itself.
    known: Head,
    failures: u32,
    outage: Recurring,
}

/// Why a stream of events ended.
enum Ended {
    /// Nobody listens any more.
    Unheard,
    /// What comes next can not be told one by one.
    Gap(String),
    /// The server failed, went silent or refused.
    Server(String),
}

impl Watcher {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        pace: Pace,
        prefix: String,
        after: Revision,
        sender: mpsc::Sender<WatchEvent>,
        heard: Arc<Heard>,
    ) -> Self {
        Self {
            cluster,
            pace,
            prefix,
            after,
            sender,
            heard,
            known: Head::default(),
            failures: 0,
            outage: Recurring::default(),
        }
    }

    /// Follows the cluster until nobody listens any more.
    pub(super) async fn run(mut self) {
        let cluster = Arc::clone(&self.cluster);
        let mut place = cluster.members.preferred();
        loop {
            let member = cluster.members.at(place);
            match self.follow(member).await {
                Ended::Unheard => return,
                Ended::Gap(why) => {
                    tracing::info!(
                        why,
                        prefix = self.prefix,
                        "reading all records of the config store anew"
                    );
                    if self.relist().await.is_err() {
                        return;
                    }
                }
                Ended::Server(why) => {
                    place += 1;
                    self.pause(&member.url, &why).await;
                }
            }
            metrics::counter!("hearth_store_watch_reconnects_total").increment(1);
        }
    }

    /// Follows one member as long as it answers.
    async fn follow(&mut self, member: &Member) -> Ended {
        let silence_max = self.pace.silence_max;
        let stream = match timeout(silence_max, self.open(member)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let fault = Fault::of(&error);
                if fault.kind == FaultKind::Token {
                    member.forget_token().await;
                }
                return Ended::Server(fault.why);
            }
            Err(_) => return Ended::Server(format!("no answer within {silence_max:?}")),
        };
        let (mut requests, mut responses) = stream.split();
        let mut assembly = Assembly::default();
        let mut deadline = Instant::now() + silence_max;
        let mut progress = interval_at(
            Instant::now() + self.pace.progress_interval,
            self.pace.progress_interval,
        );
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let response = tokio::select! {
                response = message(&mut responses) => match response {
                    Ok(response) => response,
                    Err(why) => return Ended::Server(why),
                },
                _ = progress.tick() => {
                    self.cluster.export_staleness();
                    match timeout_at(deadline, requests.request_progress()).await {
                        Ok(Err(error)) => return Ended::Server(error.to_string()),
                        Ok(Ok(())) | Err(_) => continue,
                    }
                }
                () = sleep_until(deadline) => return Ended::Server(format!("silent for {silence_max:?}")),
            };
            self.heard.now();
            self.cluster.export_staleness();
            if let Err(ended) = self.take(member, response, &mut assembly).await {
                return ended;
            }
            // Counted from here: the receiver may have been slow, which is not the server's silence.
            deadline = Instant::now() + silence_max;
        }
    }

    async fn open(&self, member: &Member) -> Result<WatchStream, etcd_client::Error> {
        let start = i64::try_from(self.after.0)
            .unwrap_or(i64::MAX)
            .saturating_add(1);
        let key = self.cluster.full(&self.prefix);
        let options = WatchOptions::new()
            .with_range(range_end(key.as_bytes()))
            .with_start_revision(start)
            .with_fragment();
        member.watches().await?.watch(key, Some(options)).await
    }

    /// Takes in one message and tells what it completes.
    async fn take(
        &mut self,
        member: &Member,
        response: WatchResponse,
        assembly: &mut Assembly,
    ) -> Result<(), Ended> {
        if response.canceled() {
            if response.compact_revision() > 0 {
                return Err(Ended::Gap(format!(
                    "etcd compacted everything up to revision {}",
                    response.compact_revision()
                )));
            }
            // A token that is no longer good ends a watch in this way.
            member.forget_token().await;
            return Err(Ended::Server(format!(
                "the watch was refused: {}",
                response.cancel_reason()
            )));
        }
        let head = self.cluster.heard(response.header());
        self.check_history(head).await?;
        if let Some(seconds) = self.outage.end(Instant::now()) {
            tracing::info!(
                member = member.url,
                prefix = self.prefix,
                seconds,
                "the config store answers again"
            );
        }
        self.failures = 0;
        let events = response.events().iter().filter_map(|event| {
            let record = event.kv()?;
            let key = self.cluster.own(record.key())?.to_owned();
            let revision = Revision(u64::try_from(record.mod_revision()).unwrap_or_default());
            let value = || bytes::Bytes::copy_from_slice(record.value());
            // Compared as a number: the client's own accessor panics on a kind it does not know.
            let change = match event.0.r#type {
                0 => Change::Put(Entry {
                    key,
                    value: value(),
                    revision,
                }),
                _ => Change::Deleted(key),
            };
            Some((revision, change))
        });
        let commits = assembly.add(events, response.0.fragment);
        for (revision, changes) in commits {
            // A commit told before is not told again, whatever the server thinks.
            if revision > self.after {
                self.tell(WatchEvent::Changes { revision, changes }).await?;
                self.after = revision;
            }
        }
        Ok(())
    }

    /// Whether the server's history is still the one whose revisions we know. A member that lags behind shows an old revision
    /// too, so the cluster itself is asked before anything is concluded.
    async fn check_history(&mut self, head: Head) -> Result<(), Ended> {
        if !self.is_other_history(head) {
            self.known = head;
            return Ok(());
        }
        let head = self
            .cluster
            .head()
            .await
            .map_err(|error| Ended::Server(error.to_string()))?;
        if self.is_other_history(head) {
            return Err(Ended::Gap(format!(
                "the history of etcd changed: revision {} after {}, cluster {:x} after {:x}",
                head.revision.0, self.after.0, head.cluster_id, self.known.cluster_id
            )));
        }
        Ok(())
    }

    fn is_other_history(&self, head: Head) -> bool {
        let known = self.known.cluster_id != 0;
        head.revision < self.after
            || (known
                && (head.cluster_id != self.known.cluster_id
                    || head.raft_term < self.known.raft_term))
    }

    /// Reads all records and tells them; waits until that succeeds.
    async fn relist(&mut self) -> Result<(), Ended> {
        metrics::counter!("hearth_store_watch_relists_total").increment(1);
        loop {
            match self.cluster.list(&self.prefix).await {
                Ok((listing, head)) => {
                    self.heard.now();
                    self.known = head;
                    self.after = listing.revision;
                    return self.tell(WatchEvent::Reset(listing)).await;
                }
                Err(error) => self.pause("all members", &error.to_string()).await,
            }
        }
    }

    async fn tell(&self, event: WatchEvent) -> Result<(), Ended> {
        self.sender.send(event).await.map_err(|_| Ended::Unheard)
    }

    /// Waits a while after a failure, at random, so that the nodes of a cluster do not come back all at once.
    async fn pause(&mut self, member: &str, why: &str) {
        self.cluster.export_staleness();
        if let Some(Due { times, seconds }) = self.outage.note(Instant::now()) {
            tracing::warn!(
                member,
                why,
                prefix = self.prefix,
                times,
                seconds,
                "the config store does not answer; this node goes on with what it knows and keeps asking"
            );
        }
        let longest = BACKOFF_MIN
            .saturating_mul(1 << self.failures.min(10))
            .min(self.pace.backoff_max);
        self.failures = self.failures.saturating_add(1);
        sleep(longest.mul_f64(rand::random::<f64>())).await;
        self.cluster.export_staleness();
    }
}

async fn message(responses: &mut WatchResponseStream) -> Result<WatchResponse, String> {
    match responses.message().await {
        Ok(Some(response)) => Ok(response),
        Ok(None) => Err("the server ended the watch".to_owned()),
        Err(error) => Err(Fault::of(&error).why),
    }
}

/// Puts together the commits that events belong to. A message holds whole commits, except that a fragment may end within one.
#[derive(Debug, Default)]
struct Assembly {
    /// The commit that the last fragment ended in.
    unfinished: Option<(Revision, Vec<Change>)>,
}

impl Assembly {
    fn add(
        &mut self,
        events: impl Iterator<Item = (Revision, Change)>,
        is_fragment: bool,
    ) -> Vec<(Revision, Vec<Change>)> {
        let mut commits: Vec<_> = self.unfinished.take().into_iter().collect();
        for (revision, change) in events {
            match commits.last_mut() {
                Some((last, changes)) if *last == revision => changes.push(change),
                _ => commits.push((revision, vec![change])),
            }
        }
        if is_fragment {
            self.unfinished = commits.pop();
        }
        for (_, changes) in &mut commits {
            changes.sort_by(|a, b| a.key().cmp(b.key()));
        }
        commits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deleted(revision: u64, key: &str) -> (Revision, Change) {
        (Revision(revision), Change::Deleted(key.into()))
    }

    fn keys(commits: &[(Revision, Vec<Change>)]) -> Vec<(u64, Vec<&str>)> {
        commits
            .iter()
            .map(|(revision, changes)| (revision.0, changes.iter().map(Change::key).collect()))
            .collect()
    }

    #[test]
    fn events_of_one_revision_are_one_commit_in_the_order_of_the_keys() {
        let mut assembly = Assembly::default();
        let commits = assembly.add(
            [deleted(3, "b"), deleted(3, "a"), deleted(4, "a")].into_iter(),
            false,
        );
        assert_eq!(keys(&commits), [(3, vec!["a", "b"]), (4, vec!["a"])]);
        assert!(assembly.add(std::iter::empty(), false).is_empty());
    }

    #[test]
    fn a_commit_split_over_fragments_is_told_whole() {
        let mut assembly = Assembly::default();
        let commits = assembly.add([deleted(3, "a"), deleted(4, "c")].into_iter(), true);
        assert_eq!(keys(&commits), [(3, vec!["a"])]);
        assert!(assembly.add([deleted(4, "b")].into_iter(), true).is_empty());
        let commits = assembly.add([deleted(4, "a"), deleted(5, "a")].into_iter(), false);
        assert_eq!(keys(&commits), [(4, vec!["a", "b", "c"]), (5, vec!["a"])]);
    }

    #[test]
    fn a_commit_that_ends_with_its_fragment_is_told_with_the_next_message() {
        let mut assembly = Assembly::default();
        assert!(assembly.add([deleted(3, "a")].into_iter(), true).is_empty());
        let commits = assembly.add([deleted(4, "a")].into_iter(), false);
        assert_eq!(keys(&commits), [(3, vec!["a"]), (4, vec!["a"])]);
    }
}
