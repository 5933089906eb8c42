//! Holds a slot for as long as the payload says, `{"ms":250}`, and tells how many calls it saw at once.
//!
//! `SLEEP_START_MS` delays the start: the instance listens only after that many milliseconds.

mod http;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, io, process, thread};

static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
static IN_FLIGHT_MAX: AtomicUsize = AtomicUsize::new(0);

fn main() -> io::Result<()> {
    let start_ms = env::var("SLEEP_START_MS")
        .ok()
        .and_then(|ms| ms.parse().ok());
    thread::sleep(Duration::from_millis(start_ms.unwrap_or(0)));
    let pid = process::id();
    let instance = instance();
    http::serve(move |payload, stream| {
        let in_flight = IN_FLIGHT.fetch_add(1, Ordering::SeqCst) + 1;
        IN_FLIGHT_MAX.fetch_max(in_flight, Ordering::SeqCst);
        let ms = ms(&String::from_utf8_lossy(payload)).unwrap_or(0);
        thread::sleep(Duration::from_millis(ms));
        // Before the answer: its caller may send the next call as soon as it has this one.
        IN_FLIGHT.fetch_sub(1, Ordering::SeqCst);
        let in_flight_max = IN_FLIGHT_MAX.load(Ordering::SeqCst);
        let report = format!(
            r#"{{"slept_ms":{ms},"in_flight_max":{in_flight_max},"pid":{pid},"instance":"{instance}"}}"#
        );
        http::answer(stream, 200, &report)
    })
}

/// What tells this instance from others: the container's host name, or the process id outside of one.
fn instance() -> String {
    match env::var("HOSTNAME") {
        Ok(host) if Path::new("/.dockerenv").exists() => host,
        _ => process::id().to_string(),
    }
}

/// The number after the key `ms`. Your own function would use `serde_json`; this one has no dependencies.
fn ms(payload: &str) -> Option<u64> {
    let value = payload.split_once(r#""ms""#)?.1.trim_start();
    let value = value.strip_prefix(':')?.trim_start();
    let end = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    value[..end].parse().ok()
}
