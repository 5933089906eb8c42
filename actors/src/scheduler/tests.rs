//! Several schedulers on one store, on a paused clock.

use std::cell::Cell;
use std::sync::Mutex;

use config::Revision;
use config::store::{MemoryStore, Precondition, Transaction};
use serde_json::json;

use super::*;
use crate::fixtures::{member, members, node_id, until};
use crate::registry_cache::state::read_schedule;
use crate::snapshot::Publisher;

const HOUR_MS: u64 = 3_600_000;
/// What the clocks show when the first test of a thread begins.
const BEGUN_MS: u64 = 1_700_000_000_400;

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A clock that goes by tokio's.
fn right() -> u64 {
    let now = Instant::now();
    let begun = BEGUN.get().unwrap_or_else(|| {
        BEGUN.set(Some(now));
        now
    });
    BEGUN_MS + u64::try_from(now.duration_since(begun).as_millis()).unwrap()
}

fn ahead() -> u64 {
    right() + HOUR_MS
}

fn behind() -> u64 {
    right() - HOUR_MS
}

/// A node: its name, its clock, and whether its queue is full.
type Launch = (&'static str, fn() -> u64, bool);

/// What was fired: by whom, which slot, and when by the right clock.
type Fires = Arc<Mutex<Vec<(&'static str, u64, u64)>>>;

#[derive(Debug)]
struct Noted {
    node: &'static str,
    fires: Fires,
    refuses: bool,
}

#[async_trait]
impl Fire for Noted {
    async fn fire(&self, slot: &Slot) -> Result<(), Failure> {
        if self.refuses {
            let code = protocol::ErrorCode::Overloaded;
            let component = protocol::Component::Queue;
            return Err(Failure::new(
                code,
                component,
                protocol::Effect::Refused,
                "full",
            ));
        }
        self.fires
            .lock()
            .unwrap()
            .push((self.node, slot.slot_ms, right()));
        Ok(())
    }
}

/// Nodes on one store that know each other.
struct Cluster {
    store: Arc<MemoryStore>,
    registry: Publisher<Registry>,
    fires: Fires,
    nodes: Vec<Scheduler>,
}

impl Cluster {
    async fn start(clocks: &[Launch]) -> Self {
        let registry = Publisher::new(Registry {
            is_loaded: true,
            ..Registry::default()
        });
        let mut cluster = Self {
            store: Arc::new(MemoryStore::new()),
            registry,
            fires: Fires::default(),
            nodes: Vec::new(),
        };
        cluster
            .create(&json!({"scheduleId": "a", "every": "1s", "eventType": "tick"}))
            .await;
        for launch in clocks {
            let others = clocks.iter().map(|(other, ..)| *other);
            let others: Vec<_> = others.filter(|other| *other != launch.0).collect();
            let store = Arc::clone(&cluster.store);
            cluster.launch(*launch, &others, store);
        }
        cluster
    }

    fn launch(&mut self, (name, clock, refuses): Launch, others: &[&str], store: Arc<dyn Store>) {
        let others = members(others.iter().map(|other| member(other, &[])));
        let (sender, receiver) = watch::channel(others);
        // Nothing of gossip changes here.
        std::mem::forget(sender);
        self.nodes.push(Scheduler::start(Args {
            settings: SchedulesSettings::default(),
            node_id: node_id(name),
            node_name: name.into(),
            generation: Generation(1),
            store,
            registry: self.registry.reader(),
            members: receiver,
            fire: Arc::new(Noted {
                node: name,
                fires: Arc::clone(&self.fires),
                refuses,
            }),
            clock,
        }));
    }

    /// Stores a schedule, and lets every node know it.
    async fn create(&self, record: &serde_json::Value) {
        let schedule =
            ScheduleRecord::parse("default", None, record.to_string().as_bytes()).unwrap();
        let key = format!("schedules/default/{}", schedule.schedule_id);
        let value = serde_json::to_vec(&schedule).unwrap();
        self.store
            .put(&key, value.into(), Some(Precondition::Absent))
            .await
            .unwrap();
        let entry = self.store.get(&key).await.unwrap().unwrap();
        let registered = Arc::new(read_schedule(&entry).unwrap());
        let mut registry = Registry::clone(&self.registry.reader().get());
        let space = registry
            .schedules
            .entry(schedule.space.clone())
            .or_default();
        Arc::make_mut(space).insert(schedule.schedule_id.clone(), registered);
        self.registry.store(Arc::new(registry));
    }

    /// Waits for so many fires, and checks that they are slots one after the other, each soon after it was due by the right clock.
    async fn fires_evenly(&self, count: usize) -> Vec<(&'static str, u64, u64)> {
        until("the slots were fired", || {
            self.fires.lock().unwrap().len() >= count
        })
        .await;
        let fires = self.fires.lock().unwrap().clone();
        for pair in fires.windows(2) {
            assert_eq!(pair[1].1, pair[0].1 + 1000, "{fires:?}");
        }
        fires
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop(Instant::now() + Duration::from_secs(5)).await;
        }
    }
}

fn in_time(fires: &[(&'static str, u64, u64)]) {
    for (node, slot_ms, at_ms) in fires {
        let late = i128::from(*at_ms) - i128::from(*slot_ms);
        assert!(
            (0..1000).contains(&late),
            "{node} fired {slot_ms} at {at_ms}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn three_nodes_fire_each_slot_once() {
    let cluster = Cluster::start(&[
        ("n1", right, false),
        ("n2", right, false),
        ("n3", right, false),
    ])
    .await;
    let fires = cluster.fires_evenly(10).await;
    in_time(&fires);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_alone_fires_at_once() {
    let cluster = Cluster::start(&[("n1", right, false)]).await;
    in_time(&cluster.fires_evenly(3).await);
    let told = cluster.store.list(CLOCKS_PREFIX).await.unwrap();
    cluster.fires_evenly(20).await;
    let later = cluster.store.list(CLOCKS_PREFIX).await.unwrap();
    assert_eq!(
        told.entries, later.entries,
        "nobody wants its clock any more"
    );
    cluster.stop().await;
}

/// Whichever node is the first one for the schedule, it goes by the middle clock.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_by_an_hour_fires_nothing_early_or_twice() {
    for wrong in [ahead, behind] {
        for place in 0..3 {
            let mut clocks: Vec<Launch> = vec![
                ("n1", right, false),
                ("n2", right, false),
                ("n3", right, false),
            ];
            clocks[place].1 = wrong;
            let cluster = Cluster::start(&clocks).await;
            in_time(&cluster.fires_evenly(5).await);
            cluster.stop().await;
        }
    }
}

/// Of two that disagree the earlier one counts, wherever the schedule is first.
#[tokio::test(start_paused = true)]
async fn of_two_clocks_the_earlier_one_counts() {
    for clocks in [
        [("n1", right as fn() -> u64, false), ("n2", ahead, false)],
        [("n1", ahead, false), ("n2", right, false)],
    ] {
        let cluster = Cluster::start(&clocks).await;
        in_time(&cluster.fires_evenly(5).await);
        cluster.stop().await;
    }
}

/// A node whose queue is full leaves the slot to the next one.
#[tokio::test(start_paused = true)]
async fn a_slot_that_one_node_can_not_queue_is_fired_by_another() {
    for full in 0..2 {
        let mut nodes = [("n1", right as fn() -> u64, false), ("n2", right, false)];
        nodes[full].2 = true;
        let cluster = Cluster::start(&nodes).await;
        let fires = cluster.fires_evenly(5).await;
        assert!(fires.iter().all(|(node, ..)| *node != nodes[full].0));
        cluster.stop().await;
    }
}

/// Waits before it commits.
#[derive(Debug)]
struct Slow {
    store: Arc<MemoryStore>,
    commits_in: Duration,
}

#[async_trait]
impl Store for Slow {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list(prefix).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.list_page(prefix, after, max).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        tokio::time::sleep(self.commits_in).await;
        self.store.commit(transaction).await
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.store.watch(prefix, after)
    }

    fn staleness(&self) -> Duration {
        self.store.staleness()
    }
}

/// It claims again what it took long to claim, as it may have been stopped in between, and then fires: nothing is left out or fired twice.
#[tokio::test(start_paused = true)]
async fn a_slow_store_makes_slots_late_and_loses_none() {
    let mut cluster = Cluster::start(&[]).await;
    let store = Slow {
        store: Arc::clone(&cluster.store),
        commits_in: Duration::from_millis(1100),
    };
    cluster.launch(("n1", right, false), &[], Arc::new(store));
    cluster.fires_evenly(5).await;
    cluster.stop().await;
}

/// A node that stops takes its clock with it, and what it has claimed is noted.
#[tokio::test(start_paused = true)]
async fn a_node_that_stops_leaves_no_claim_and_no_clock() {
    let cluster = Cluster::start(&[("n1", right, false), ("n2", right, false)]).await;
    cluster.fires_evenly(3).await;
    let store = Arc::clone(&cluster.store);
    cluster.stop().await;
    let clocks = store.list(CLOCKS_PREFIX).await.unwrap();
    assert!(clocks.entries.is_empty(), "{clocks:?}");
    let progress = store.list(PROGRESS_PREFIX).await.unwrap();
    let progress = Progress::read(&progress.entries[0].value).unwrap();
    assert_eq!(progress.claim, None);
    assert_eq!(progress.fired.unwrap().slot_ms, progress.until_ms);
}

/// Somebody notes something on the schedule while its slot is being queued.
#[derive(Debug)]
struct Edits(Arc<MemoryStore>);

#[async_trait]
impl Fire for Edits {
    async fn fire(&self, slot: &Slot) -> Result<(), Failure> {
        let mut edited = ScheduleRecord::clone(&slot.schedule);
        edited.metadata = Some([("a".to_owned(), "b".to_owned())].into());
        let value = serde_json::to_vec(&edited).unwrap();
        let put = self.0.put("schedules/default/a", value.into(), None);
        put.await.unwrap();
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_is_noted_though_the_record_changed_meanwhile() {
    let cluster = Cluster::start(&[]).await;
    let firing = Firing {
        store: Arc::clone(&cluster.store) as Arc<dyn Store>,
        fire: Arc::new(Edits(Arc::clone(&cluster.store))),
        node: node_id("n1"),
        node_name: "n1".into(),
        generation: Generation(1),
        queue_timeout: Duration::from_secs(10),
        counted_max: 10,
        meters: Meters::new(),
        trouble: Mutex::default(),
    };
    let registry = cluster.registry.reader().get();
    let registered = registry.schedules.values().flat_map(|all| all.values());
    let mut attempt = state::Attempt {
        key: "default/a".into(),
        registered: Arc::clone(registered.into_iter().next().unwrap()),
        before: None,
        what: state::What::Begin(0),
        now_ms: 1500,
    };
    let Ended::Stored(begun) = firing.attempt(&attempt).await else {
        panic!("it has not begun");
    };
    attempt.before = Some(begun);
    attempt.what = state::What::Fire { slot_ms: 1000 };
    let ended = firing.attempt(&attempt).await;
    let Ended::Stored(settled) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(settled.progress.claim, None);
    assert_eq!(
        settled.progress.fired.map(|fired| fired.slot_ms),
        Some(1000)
    );
    // What it knows of the schedule is old now, so it claims nothing more.
    attempt.what = state::What::Fire { slot_ms: 2000 };
    assert!(matches!(firing.attempt(&attempt).await, Ended::Lost));
}
