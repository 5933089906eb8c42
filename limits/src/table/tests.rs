use std::num::NonZeroU32;

use config::store::MemoryStore;
use futures_util::future::join_all;

use super::*;

fn limits(store: &Arc<MemoryStore>, settings: QuotasSettings) -> Limits {
    Limits::start(Args {
        store: Arc::clone(store) as Arc<dyn Store>,
        settings,
        nodes: Arc::new(|| 3),
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
    })
}

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        per_second: NonZeroU32::new(per_second).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
    }
}

fn subject(name: &str) -> Subject {
    Subject::Caller(name.to_owned())
}

/// The node's own part of an interval would be one call.
#[tokio::test(start_paused = true)]
async fn a_burst_that_is_there_is_given_to_the_node_that_is_asked() {
    let limits = limits(&Arc::default(), QuotasSettings::default());
    let ada = subject("ada");
    let calls = (0..50).map(|_| limits.take(&ada, rate(10, 50)));
    let served = join_all(calls).await;
    assert!(served.iter().all(Result::is_ok), "{served:?}");
    let refused = limits.take(&ada, rate(10, 50)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "user ada may have 10 calls a second and 50 at once after a pause (limits.rate)"
    );
    let standing = refused.standing.unwrap();
    assert_eq!((standing.limit.get(), standing.remaining), (50, 0));
    assert!(standing.reset_seconds > 0 && refused.retry_after > Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_on_one_node_is_not_in_flight_on_another() {
    let store = Arc::default();
    let nodes = [(); 3].map(|()| limits(&store, QuotasSettings::default()));
    let ada = subject("ada");
    let mut permits = Vec::new();
    for node in nodes.iter().cycle().take(4) {
        permits.push(node.enter(&ada, 4).await.unwrap());
    }
    let begun = Instant::now();
    let refused = nodes[1].enter(&ada, 4).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "user ada may have 4 calls in flight (limits.concurrent)"
    );
    assert_eq!(begun.elapsed(), QuotasSettings::default().wait);
    permits.remove(2);
    assert!(nodes[0].enter(&ada, 4).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn further_limits_than_a_node_may_apply_refuse() {
    let settings = QuotasSettings {
        limits_max: 2,
        ..QuotasSettings::default()
    };
    let limits = limits(&Arc::default(), settings);
    for name in ["a", "b"] {
        assert!(limits.take(&subject(name), rate(1, 1)).await.is_ok());
        drop(limits.enter(&subject(name), 1).await.unwrap());
    }
    assert!(limits.take(&subject("c"), rate(1, 1)).await.is_err());
    assert!(limits.enter(&subject("c"), 1).await.is_err());
    // They are forgotten when they are at rest, which is when the bucket is full again.
    sleep(Duration::from_secs(10)).await;
    assert!(limits.take(&subject("c"), rate(1, 1)).await.is_ok());
    assert!(limits.enter(&subject("c"), 1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_is_set_anew_holds_from_then_on() {
    let limits = limits(&Arc::default(), QuotasSettings::default());
    let ada = subject("ada");
    let served = join_all((0..20).map(|_| limits.take(&ada, rate(1, 10)))).await;
    let count = served.iter().filter(|served| served.is_ok()).count();
    assert_eq!(count, 10);
    let served = join_all((0..200).map(|_| limits.take(&ada, rate(100, 100)))).await;
    let count = served.iter().filter(|served| served.is_ok()).count();
    assert!(count <= 100, "{count}");
    sleep(Duration::from_secs(2)).await;
    assert!(limits.take(&ada, rate(100, 100)).await.is_ok());
}
