//! Three nodes on one store, with clocks of their own, in simulated time: what they give together, whichever way the calls come.

use std::num::NonZeroU32;

use config::store::{Entry, Listing, MemoryStore, Transaction, Watch};
use protocol::Effect;

use super::*;

const INTERVAL: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_millis(10);
/// How far the nodes' clocks are apart.
const ZEROS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(7),
    Duration::from_secs(3_600),
];

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        per_second: NonZeroU32::new(per_second).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
    }
}

struct Cluster {
    store: MemoryStore,
    nodes: Vec<Option<RateLimit>>,
    real: Duration,
}

impl Cluster {
    fn new(rate: Rate) -> Self {
        let node = || Some(RateLimit::new("limits/caller".into(), rate, INTERVAL, 3));
        Self {
            store: MemoryStore::new(),
            nodes: (0..3).map(|_| node()).collect(),
            real: Duration::ZERO,
        }
    }

    /// Lets time go by with so many calls each tick at each node, and counts what was given. Nodes settle at different moments.
    async fn run(&mut self, how_long: Duration, calls: [usize; 3]) -> u32 {
        let (mut given, end) = (0, self.real + how_long);
        while self.real < end {
            self.real += TICK;
            for (index, node) in self.nodes.iter().enumerate() {
                let Some(limit) = node else { continue };
                let asked = (0..calls[index]).filter(|_| limit.ask() == Verdict::Given);
                given += u32::try_from(asked.count()).unwrap();
                let turn = self.real + Duration::from_millis(80) * u32::try_from(index).unwrap();
                if limit.is_low() || turn.as_millis().is_multiple_of(INTERVAL.as_millis()) {
                    let now = self.real + ZEROS[index];
                    limit.settle(&self.store, || now, 3).await.unwrap();
                }
            }
        }
        given
    }
}

fn assert_within_a_tenth(given: u32, allowed: u32, what: &str) {
    let off = given.abs_diff(allowed);
    assert!(off * 10 <= allowed, "{what}: {given} of {allowed}");
}

#[tokio::test]
async fn a_rate_holds_within_a_tenth_whichever_nodes_the_calls_come_by() {
    for (per_second, burst) in [(100, 20), (100, 100), (1_000, 50), (20, 10)] {
        for calls in [[40, 0, 0], [0, 40, 0], [0, 0, 40], [15, 15, 15], [30, 5, 1]] {
            let mut cluster = Cluster::new(rate(per_second, burst));
            let given = cluster.run(Duration::from_secs(10), calls).await;
            let what = format!("{per_second}/s, burst {burst}, {calls:?}");
            assert_within_a_tenth(given, 10 * per_second + burst, &what);
        }
    }
}

#[tokio::test]
async fn the_death_of_any_node_neither_gives_more_nor_starves_the_others() {
    for dead in 0..3 {
        let mut cluster = Cluster::new(rate(100, 20));
        cluster.run(Duration::from_secs(5), [15; 3]).await;
        cluster.nodes[dead] = None;
        let given = cluster.run(Duration::from_secs(5), [15; 3]).await;
        assert_within_a_tenth(given, 500, &format!("node {dead} died"));
    }
}

#[tokio::test]
async fn who_stays_below_the_rate_is_never_refused() {
    for calls in [[1, 0, 0], [0, 0, 1]] {
        let mut cluster = Cluster::new(rate(120, 40));
        let given = cluster.run(Duration::from_secs(10), calls).await;
        assert_eq!(given, 1_000, "{calls:?}");
    }
}

#[tokio::test]
async fn a_limit_at_rest_leaves_no_record() {
    let mut cluster = Cluster::new(rate(100, 20));
    cluster.run(Duration::from_secs(1), [15; 3]).await;
    assert!(cluster.store.get("limits/caller").await.unwrap().is_some());
    cluster.run(Duration::from_secs(2), [0; 3]).await;
    assert_eq!(cluster.store.get("limits/caller").await.unwrap(), None);
}

#[tokio::test]
async fn without_the_store_the_nodes_share_the_rate() {
    let nodes: Vec<_> = (0..3)
        .map(|_| RateLimit::new("limits/caller".into(), rate(90, 30), INTERVAL, 3))
        .collect();
    let mut given = 0;
    for _ in 0..40 {
        for limit in &nodes {
            limit.go_alone(INTERVAL, 3);
            given += (0..100).filter(|_| limit.ask() == Verdict::Given).count();
        }
    }
    assert_within_a_tenth(u32::try_from(given).unwrap(), 900, "alone");
}

#[tokio::test]
async fn a_record_that_is_no_bucket_is_named_and_kept() {
    let store = MemoryStore::new();
    store.put("limits/caller", "{}".into(), None).await.unwrap();
    let limit = RateLimit::new("limits/caller".into(), rate(1, 1), INTERVAL, 1);
    let error = limit.settle(&store, || INTERVAL, 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the record limits/caller is not a limit's"
    );
    let kept = store.get("limits/caller").await.unwrap().unwrap();
    assert_eq!(&kept.value[..], b"{}");
}

/// A store that writes and then does not answer.
#[derive(Debug, Default)]
struct Mute(MemoryStore);

#[async_trait::async_trait]
impl Store for Mute {
    async fn get(&self, key: &str) -> Result<Option<Entry>, store::Error> {
        self.0.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, store::Error> {
        self.0.list(prefix).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Entry>, store::Error> {
        self.0.list_page(prefix, after, max).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, store::Error> {
        self.0.commit(transaction).await?;
        Err(store::Error::Unavailable {
            why: "no answer".into(),
            effect: Effect::Interrupted,
        })
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.0.watch(prefix, after)
    }

    fn staleness(&self) -> Duration {
        self.0.staleness()
    }
}

#[tokio::test]
async fn what_was_returned_without_an_answer_is_not_given_as_well() {
    let store = Mute::default();
    let limit = RateLimit::new("limits/caller".into(), rate(100, 100), INTERVAL, 1);
    let ask_all = |limit: &RateLimit| (0..100).filter(|_| limit.ask() == Verdict::Given).count();
    // 25 on trust; then what is left is in the hand, is returned as nobody asks, and the answer is lost.
    assert_eq!(ask_all(&limit), 25);
    limit.settle(&store.0, || INTERVAL, 1).await.unwrap();
    let lost = limit.settle(&store, || INTERVAL, 1).await;
    assert!(matches!(lost, Err(Error::Store(_))), "{lost:?}");
    assert_eq!(ask_all(&limit), 0, "it is in the bucket");
    limit.settle(&store.0, || INTERVAL, 1).await.unwrap();
    assert_eq!(ask_all(&limit), 75, "and there it is found again");
}

#[tokio::test]
async fn what_was_taken_without_an_answer_is_not_given() {
    let store = Mute::default();
    let limit = RateLimit::new("limits/caller".into(), rate(100, 100), INTERVAL, 1);
    assert_eq!(
        (0..50).filter(|_| limit.ask() == Verdict::Given).count(),
        25
    );
    limit.settle(&store, || INTERVAL, 1).await.unwrap_err();
    assert_ne!(limit.ask(), Verdict::Given);
}
