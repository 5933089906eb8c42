//! Waiting for a condition with a stated bound; the only place of the suite that sleeps.

use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Polls until `probe` yields a value, and returns it.
///
/// # Panics
/// When it has not within `bound`, with what `probe` saw last.
#[track_caller]
pub fn eventually<T, E, P, F>(what: &str, bound: Duration, mut probe: P) -> impl Future<Output = T>
where
    E: Display,
    P: FnMut() -> F,
    F: Future<Output = Result<T, E>>,
{
    let caller = Location::caller();
    async move {
        let give_up = Instant::now() + bound;
        let mut seen = "nothing: the probe itself did not come back".to_owned();
        loop {
            // The probe itself may hang, on a stopped node for instance.
            match tokio::time::timeout_at(give_up, probe()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(now)) => seen = now.to_string(),
                Err(_) => {}
            }
            assert!(
                Instant::now() < give_up,
                "{caller}: not within {bound:?}: {what}; last seen: {seen}"
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Polls until `probe` is true.
///
/// # Panics
/// When it is not within `bound`.
#[track_caller]
pub fn until<P, F>(what: &str, bound: Duration, mut probe: P) -> impl Future<Output = ()>
where
    P: FnMut() -> F,
    F: Future<Output = bool>,
{
    eventually(what, bound, move || {
        let seen = probe();
        async move { if seen.await { Ok(()) } else { Err("false") } }
    })
}

/// Lets an outage that a test made last for a while. Not a way to wait for something: that is [`eventually`].
pub async fn outage(length: Duration) {
    tokio::time::sleep(length).await;
}
