//! Three nodes on one store, with clocks of their own, in simulated time: what goes on at once on all of them, wherever it enters.

use config::store::{MemoryStore, WatchEvent};

use super::*;

const KEY: &str = "limits/at-once/f";
const LOST_AFTER: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(250);

struct Cluster {
    store: MemoryStore,
    nodes: Vec<Arc<AtOnce>>,
    real: Duration,
}

impl Cluster {
    fn new(max: u32) -> Self {
        let node = |index: usize| Arc::new(AtOnce::new(KEY.into(), format!("n{index}"), max, None));
        Self {
            store: MemoryStore::new(),
            nodes: (0..3).map(node).collect(),
            real: Duration::ZERO,
        }
    }

    async fn settle(&self, index: usize) -> bool {
        let clock = Duration::from_secs(1_000) * u32::try_from(index).unwrap();
        let now = self.real + clock;
        let settled = self.nodes[index].settle(&self.store, || now, LOST_AFTER);
        settled.await.unwrap()
    }

    /// As many settlements of all as it takes until nobody changes anything.
    async fn settle_all(&mut self) {
        for _ in 0..6 {
            self.real += INTERVAL;
            for index in 0..3 {
                self.settle(index).await;
            }
        }
    }

    fn enter(&self, index: usize, count: usize) -> Vec<Permit> {
        (0..count)
            .map_while(|_| self.nodes[index].try_enter(1))
            .collect()
    }
}

#[tokio::test]
async fn all_of_it_is_there_wherever_it_enters() {
    for index in 0..3 {
        let mut cluster = Cluster::new(20);
        assert!(cluster.enter(index, 1).is_empty(), "it has no share yet");
        cluster.settle_all().await;
        // Nobody has asked for anything, so nobody holds anything.
        cluster.nodes[index].waiting.store(1, Ordering::Relaxed);
        cluster.settle(index).await;
        assert_eq!(cluster.enter(index, 50).len(), 20);
    }
}

#[tokio::test]
async fn together_they_never_let_in_more() {
    let mut cluster = Cluster::new(20);
    for node in &cluster.nodes {
        node.waiting.store(30, Ordering::Relaxed);
    }
    let mut permits: [Vec<Permit>; 3] = Default::default();
    for round in 0..60 {
        cluster.real += INTERVAL;
        let index = round % 3;
        cluster.settle(index).await;
        permits[index].extend(cluster.enter(index, 30));
        let total: usize = permits.iter().map(Vec::len).sum();
        assert!(total <= 20, "{total} in round {round}");
        if round > 6 {
            assert!(total >= 18, "{total} in round {round}");
        }
        // Some end now and then, where the most are.
        let most = permits.iter_mut().max_by_key(|held| held.len()).unwrap();
        if round % 3 == 0 {
            most.pop();
        }
    }
    for held in &permits {
        assert!((4..=9).contains(&held.len()), "{permits:?}");
    }
}

#[tokio::test]
async fn one_at_a_time_passes_from_node_to_node() {
    let cluster = Cluster::new(1);
    let mut last: Option<(usize, Permit)> = None;
    for index in [0, 1, 2, 1, 0, 0, 2] {
        let had = last.take().map(|(had, _)| had);
        cluster.nodes[index].waiting.store(1, Ordering::Relaxed);
        // It says what it needs, whoever has it gives it back, and it takes it: what the watch makes them do at once.
        cluster.settle(index).await;
        if let Some(had) = had.filter(|had| *had != index) {
            cluster.settle(had).await;
            cluster.settle(index).await;
        }
        let permit = cluster.enter(index, 2);
        assert_eq!(permit.len(), 1, "node {index}");
        cluster.nodes[index].waiting.store(0, Ordering::Relaxed);
        last = permit.into_iter().next().map(|permit| (index, permit));
    }
}

#[tokio::test]
async fn what_a_dead_node_had_comes_back_when_it_was_silent_for_long() {
    let mut cluster = Cluster::new(4);
    let dead = Arc::clone(&cluster.nodes[0]);
    dead.waiting.store(1, Ordering::Relaxed);
    cluster.settle(0).await;
    let held = cluster.enter(0, 4);
    assert_eq!(held.len(), 4);
    cluster.settle(0).await;
    cluster.nodes[1].waiting.store(4, Ordering::Relaxed);
    for passed in 0..30 {
        cluster.settle(1).await;
        let entered = cluster.enter(1, 4).len();
        let is_back = INTERVAL * passed > LOST_AFTER;
        assert_eq!(
            entered,
            if is_back { 4 } else { 0 },
            "{:?}",
            INTERVAL * passed
        );
        cluster.real += INTERVAL;
    }
}

#[tokio::test]
async fn a_limit_at_rest_leaves_no_record() {
    let mut cluster = Cluster::new(4);
    cluster.nodes[0].waiting.store(1, Ordering::Relaxed);
    cluster.settle(0).await;
    cluster.nodes[0].waiting.store(0, Ordering::Relaxed);
    let permits = cluster.enter(0, 2);
    cluster.settle(0).await;
    assert!(cluster.store.get(KEY).await.unwrap().is_some());
    drop(permits);
    cluster.settle_all().await;
    assert_eq!(cluster.store.get(KEY).await.unwrap(), None);
    assert!(
        cluster.nodes[0].try_enter(1).is_none(),
        "it has given its share back"
    );
}

#[tokio::test]
async fn a_limit_that_is_lowered_lets_nobody_in_until_it_is_kept() {
    let cluster = Cluster::new(4);
    let node = &cluster.nodes[0];
    node.waiting.store(1, Ordering::Relaxed);
    cluster.settle(0).await;
    let mut permits = cluster.enter(0, 4);
    node.set_max(2);
    cluster.settle(0).await;
    for left in (2..4).rev() {
        permits.pop();
        assert!(node.try_enter(1).is_none(), "{left} are left");
    }
    permits.pop();
    assert!(node.try_enter(1).is_some());
}

#[tokio::test]
async fn who_waits_enters_when_there_is_room_and_not_otherwise() {
    let cluster = Cluster::new(1);
    let node = Arc::clone(&cluster.nodes[0]);
    let soon = || Instant::now() + Duration::from_secs(20);
    let settled = async {
        node.soon.notified().await;
        cluster.settle(0).await;
    };
    let (permit, _) = tokio::join!(node.enter(1, soon(), 10), settled);
    let permit = permit.expect("it had room");
    let until = Instant::now() + Duration::from_millis(20);
    assert!(node.enter(1, until, 10).await.is_none(), "it is full");
    assert!(node.enter(1, soon(), 0).await.is_none(), "too many wait");
    assert!(node.enter(2, soon(), 10).await.is_none(), "never so many");
    drop(permit);
    assert!(node.enter(1, soon(), 10).await.is_some());
}

#[tokio::test]
async fn what_is_queued_besides_counts() {
    let queued = Arc::new(AtomicU64::new(3));
    let count = Arc::clone(&queued);
    let besides: Besides = Arc::new(move || count.load(Ordering::Relaxed));
    let node = Arc::new(AtOnce::new(KEY.into(), "n".into(), 4, Some(besides)));
    let store = MemoryStore::new();
    node.settle(&store, || INTERVAL, LOST_AFTER).await.unwrap();
    let permit = node.try_enter(1).expect("there are three of four");
    assert!(node.try_enter(1).is_none());
    queued.store(4, Ordering::Relaxed);
    drop(permit);
    assert!(node.try_enter(1).is_none());
    queued.store(2, Ordering::Relaxed);
    assert!(node.try_enter(2).is_some());
}

/// The watch is what makes nodes settle before their interval is over.
#[tokio::test]
async fn a_node_that_needs_more_makes_another_give_back() {
    let cluster = Cluster::new(2);
    cluster.nodes[0].waiting.store(1, Ordering::Relaxed);
    cluster.settle(0).await;
    cluster.nodes[0].waiting.store(0, Ordering::Relaxed);
    let mut watch = cluster.store.watch("limits/", Revision::default());
    cluster.nodes[1].waiting.store(1, Ordering::Relaxed);
    cluster.settle(1).await;
    while let Ok(Some(event)) = tokio::time::timeout(INTERVAL, watch.recv()).await {
        let WatchEvent::Changes { changes, .. } = event else {
            continue;
        };
        for change in changes {
            if let config::store::Change::Put(entry) = change {
                cluster.nodes[0].on_change(entry.revision, &entry.value);
            }
        }
    }
    let told = cluster.nodes[0].soon.notified();
    tokio::time::timeout(INTERVAL, told)
        .await
        .expect("it is told");
    cluster.settle(0).await;
    cluster.settle(1).await;
    assert!(cluster.nodes[1].try_enter(1).is_some());
}
