//! Tells the time as server-sent events: `data: {"tick":1,"instance":"…"}`, and the next one a second later, until its caller
//! hangs up.
//!
//! `TICKER_MS` is the time between two events in milliseconds, `TICKER_COUNT` how many there are; without it there is no end.

mod streaming;

use std::path::Path;
use std::time::Duration;
use std::{env, io, process, thread};

fn main() -> io::Result<()> {
    let interval = Duration::from_millis(number("TICKER_MS").unwrap_or(1000));
    let count = number("TICKER_COUNT").unwrap_or(u64::MAX);
    let instance = instance();
    streaming::serve(move |_payload, stream| {
        streaming::begin(stream, "text/event-stream")?;
        for tick in 1..=count {
            let data = format!(r#"{{"tick":{tick},"instance":"{instance}"}}"#);
            streaming::chunk(stream, &format!("data: {data}\n\n"))?;
            if tick < count {
                thread::sleep(interval);
            }
        }
        streaming::end(stream)
    })
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// What tells this instance from others: the container's host name, or the process id outside of one.
fn instance() -> String {
    match env::var("HOSTNAME") {
        Ok(host) if Path::new("/.dockerenv").exists() => host,
        _ => process::id().to_string(),
    }
}
