//! When a schedule is due: its slots, in milliseconds since 1970, each a whole second.

use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::{DEFAULT_ZONE, Invalid};

/// The longest interval: a cron expression says what comes less often.
const EVERY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The longest cron expression.
const CRON_BYTES_MAX: usize = 256;

/// The slots of a schedule.
#[derive(Debug, Clone)]
pub struct Plan(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// Multiples of so many milliseconds since 1970, so that all nodes and all starts agree on them.
    Every(u64),
    Cron {
        cron: Box<Cron>,
        zone: TimeZone,
    },
}

impl Plan {
    pub(super) fn new(
        cron: Option<&str>,
        time_zone: Option<&str>,
        every: Option<Duration>,
    ) -> Result<Self, Invalid> {
        match (cron, every) {
            (Some(expression), None) => {
                if expression.len() > CRON_BYTES_MAX {
                    let bytes = expression.len();
                    let expected = format!("at most {CRON_BYTES_MAX}");
                    return Err(Invalid::new("the length of cron", &bytes, expected));
                }
                let cron: Cron = expression.parse().map_err(|error: croner::errors::CronError| {
                    let expected = "minute, hour, day of month, month, day of week, with seconds before them if you like";
                    Invalid::new("cron", &expression, format!("{expected} ({error})"))
                })?;
                let name = time_zone.unwrap_or(DEFAULT_ZONE);
                let zone = TimeZone::get(name).map_err(|_| {
                    Invalid::new("timeZone", &name, "an IANA name such as Europe/Berlin")
                })?;
                let cron = Box::new(cron);
                Ok(Self(Kind::Cron { cron, zone }))
            }
            (None, Some(every)) => {
                if time_zone.is_some() {
                    let why = "none: only a cron expression is read in a time zone";
                    return Err(Invalid::new("timeZone", &time_zone, why));
                }
                let is_whole = every.subsec_nanos() == 0 && !every.is_zero();
                if !is_whole || every > EVERY_MAX {
                    let shown = humantime::format_duration(every).to_string();
                    let expected = "whole seconds, 1s to 366days, such as 30s or 1h 30m";
                    return Err(Invalid::new("every", &shown, expected));
                }
                Ok(Self(Kind::Every(every.as_secs() * 1000)))
            }
            (Some(_), Some(_)) => Err(Invalid::new(
                "every",
                &every.map(|every| humantime::format_duration(every).to_string()),
                "none beside cron",
            )),
            (None, None) => Err(Invalid::missing(
                "cron",
                "a cron expression, or every, such as 30s",
            )),
        }
    }

    /// The first slot after a moment; none when there is none any more.
    pub fn next_after(&self, moment_ms: u64) -> Option<u64> {
        match &self.0 {
            Kind::Every(step) => (moment_ms / step).checked_add(1)?.checked_mul(*step),
            Kind::Cron { cron, zone } => {
                let next = cron
                    .find_next_occurrence(&zoned(moment_ms, zone)?, false)
                    .ok()?;
                millis(&next)
            }
        }
    }

    /// The last slot up to a moment, that moment included.
    pub fn last_until(&self, moment_ms: u64) -> Option<u64> {
        match &self.0 {
            Kind::Every(step) => Some(moment_ms / step * step),
            Kind::Cron { cron, zone } => {
                let last = cron
                    .find_previous_occurrence(&zoned(moment_ms, zone)?, true)
                    .ok()?;
                millis(&last)
            }
        }
    }

    /// The shortest time between two of the next `count` slots after a moment; none when there are not two.
    pub fn shortest_gap(&self, after_ms: u64, count: usize) -> Option<Duration> {
        let first = self.next_after(after_ms)?;
        let slots = std::iter::successors(Some(first), |slot| self.next_after(*slot));
        let slots: Vec<u64> = slots.take(count).collect();
        let gaps = slots.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.min().map(Duration::from_millis)
    }
}

/// The whole second that a moment is in.
fn zoned(moment_ms: u64, zone: &TimeZone) -> Option<Zoned> {
    let seconds = i64::try_from(moment_ms / 1000).ok()?;
    let timestamp = Timestamp::from_second(seconds).ok()?;
    Some(timestamp.to_zoned(zone.clone()))
}

fn millis(moment: &Zoned) -> Option<u64> {
    u64::try_from(moment.timestamp().as_millisecond()).ok()
}

#[cfg(test)]
mod tests;
