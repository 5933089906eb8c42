//! The etcd store: the records of a cluster, shared by its nodes.
//!
//! Every key begins with `<prefix>/<cluster id>/`, which callers never see. Who is asked is in `crate::etcd`, how a write
//! happens once in `commit`, the watch in `watcher`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{GetOptions, KeyValue, ResponseHeader};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::watcher::{Heard, Pace, Watcher};
use super::{Entry, Error, Listing, Revision, Store, Transaction, WATCH_BUFFER, Watch};
use crate::etcd::{Member, Members, range_end};
use crate::settings::EtcdSettings;

mod commit;
mod watcher;

/// Records fetched at once by a listing.
const PAGE: i64 = 500;
/// Where the markers of transactions are, among the cluster's records; no record of a caller begins so.
const MARKERS: &str = ".commits/";

/// A store shared by the nodes of a cluster.
#[derive(Debug)]
pub struct EtcdStore {
    cluster: Arc<Cluster>,
    pace: Pace,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// The records of one cluster, and the members that keep them.
#[derive(Debug)]
struct Cluster {
    members: Members,
    /// What every key begins with.
    root: String,
    /// The newest revision any answer told.
    newest: AtomicI64,
    /// When each running watch last heard its server.
    watches: Mutex<Vec<Weak<Heard>>>,
}

/// What every answer says of its server.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    revision: Revision,
    cluster_id: u64,
    raft_term: u64,
}

impl EtcdStore {
    /// Makes the store of one cluster. Connects when it is first used, so a server that is down does not keep a node from starting.
    ///
    /// # Errors
    /// When there is no endpoint, or a file of the TLS settings can not be read.
    pub async fn connect(settings: &EtcdSettings, cluster_id: &str) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        Ok(Self {
            cluster: Arc::new(Cluster {
                members: Members::new(settings).await?,
                root: format!("{}/{cluster_id}/", settings.prefix),
                newest: AtomicI64::new(0),
                watches: Mutex::default(),
            }),
            pace: Pace {
                progress_interval: settings.watch_progress_interval,
                silence_max: settings.watch_silence_max,
                backoff_max: settings.backoff_max,
            },
            tasks: TaskTracker::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        })
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let cluster = &self.cluster;
        let key = cluster.full(key);
        let get = async |member: Arc<Member>| {
            let response = member.kv().await?.get(key.as_str(), None).await?;
            cluster.heard(response.header());
            Ok(response)
        };
        let mut response = cluster.members.read(get).await?;
        Ok(response
            .take_kvs()
            .pop()
            .and_then(|record| cluster.entry(record)))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.cluster.list(prefix).await.map(|(listing, _)| listing)
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.cluster.list_page(prefix, after, max).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        self.cluster.commit(transaction).await
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        let (sender, receiver) = mpsc::channel(WATCH_BUFFER);
        let heard = self.cluster.new_watch();
        let watcher = Watcher::new(
            Arc::clone(&self.cluster),
            self.pace,
            prefix.to_owned(),
            after,
            sender.clone(),
            heard,
        );
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sender.closed() => {}
                () = watcher.run() => {}
            }
        });
        receiver
    }

    fn staleness(&self) -> Duration {
        self.cluster.staleness()
    }
}

impl Cluster {
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    fn marker(&self, index: u32) -> String {
        format!("{}{MARKERS}{index:04}", self.root)
    }

    /// Whether a key, without the root, is a caller's record; then as a text.
    fn own<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let key = std::str::from_utf8(key)
            .ok()?
            .strip_prefix(self.root.as_str())?;
        (!key.starts_with(MARKERS)).then_some(key)
    }

    fn entry(&self, record: KeyValue) -> Option<Entry> {
        let revision = Revision(u64::try_from(record.mod_revision()).unwrap_or_default());
        let (key, value) = record.into_key_value();
        let key = self.own(&key)?.to_owned();
        Some(Entry {
            key,
            value: Bytes::from(value),
            revision,
        })
    }

    /// Notes what an answer says of its server.
    fn heard(&self, header: Option<&ResponseHeader>) -> Head {
        let Some(header) = header else {
            return Head::default();
        };
        self.newest.fetch_max(header.revision(), Ordering::Relaxed);
        Head {
            revision: Revision(u64::try_from(header.revision()).unwrap_or_default()),
            cluster_id: header.cluster_id(),
            raft_term: header.raft_term(),
        }
    }

    fn new_watch(&self) -> Arc<Heard> {
        let heard = Arc::new(Heard::default());
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|heard| heard.strong_count() > 0);
        watches.push(Arc::downgrade(&heard));
        heard
    }

    /// How long ago the watch that is worst off heard its server; zero without one.
    fn staleness(&self) -> Duration {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches
            .iter()
            .filter_map(Weak::upgrade)
            .map(|heard| heard.ago())
            .max()
            .unwrap_or_default()
    }

    fn export_staleness(&self) {
        metrics::gauge!("hearth_store_staleness_seconds").set(self.staleness().as_secs_f64());
    }

    fn newest(&self) -> i64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// All records under a prefix at one revision, fetched page by page.
    async fn list(&self, prefix: &str) -> Result<(Listing, Head), Error> {
        let list = async |member: Arc<Member>| self.list_from(&member, prefix).await;
        self.members.read(list).await
    }

    async fn list_from(
        &self,
        member: &Member,
        prefix: &str,
    ) -> Result<(Listing, Head), etcd_client::Error> {
        let mut client = member.kv().await?;
        let mut from = self.full(prefix).into_bytes();
        let end = range_end(&from);
        let mut entries = Vec::new();
        let mut head = None;
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            if let Some(Head { revision, .. }) = head {
                options = options.with_revision(i64::try_from(revision.0).unwrap_or(i64::MAX));
            }
            let mut response = client.get(from, Some(options)).await?;
            let page = self.heard(response.header());
            let head = head.get_or_insert(page);
            let more = response.more();
            let records = response.take_kvs();
            let last = records.last().map(|record| record.key().to_vec());
            entries.extend(records.into_iter().filter_map(|record| self.entry(record)));
            match last {
                Some(mut last) if more => {
                    last.push(0);
                    from = last;
                }
                _ => {
                    return Ok((
                        Listing {
                            entries,
                            revision: head.revision,
                        },
                        *head,
                    ));
                }
            }
        }
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        let prefix = self.full(prefix).into_bytes();
        let end = range_end(&prefix);
        let from = match after {
            // The key that follows it.
            Some(after) => format!("{}\0", self.full(after)).into_bytes().max(prefix),
            None => prefix,
        };
        // etcd takes a limit of 0 for none, and a range that ends before it begins for an empty one.
        if max == 0 {
            return Ok(Vec::new());
        }
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(i64::try_from(max).unwrap_or(i64::MAX));
        let list = async |member: Arc<Member>| {
            let mut client = member.kv().await?;
            let mut response = client.get(from.as_slice(), Some(options.clone())).await?;
            self.heard(response.header());
            Ok(response.take_kvs())
        };
        let records = self.members.read(list).await?;
        let entries = records.into_iter().filter_map(|record| self.entry(record));
        Ok(entries.collect())
    }

    /// What the cluster, not only one member, says of itself now.
    async fn head(&self) -> Result<Head, Error> {
        let head = async |member: Arc<Member>| {
            let options = GetOptions::new().with_count_only();
            let response = member
                .kv()
                .await?
                .get(self.root.as_str(), Some(options))
                .await?;
            Ok(self.heard(response.header()))
        };
        self.members.read(head).await
    }
}
