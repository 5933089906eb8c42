//! Moments as RFC 3339 writes them.

use std::time::{Duration, UNIX_EPOCH};

/// A moment in milliseconds since 1970, such as `2023-11-14T22:13:20.123Z`.
pub fn rfc3339(since_1970_ms: u64) -> String {
    // What a clock can say ends with the year 9999, and so does the format.
    const LAST_MS: u64 = 253_402_300_799_999;
    let moment = UNIX_EPOCH + Duration::from_millis(since_1970_ms.min(LAST_MS));
    humantime::format_rfc3339_millis(moment).to_string()
}

/// Whether a text is a moment as RFC 3339 writes them, with any offset from UTC.
pub(super) fn is_rfc3339(text: &str) -> bool {
    let (date_time, rest) = match text.get(..19) {
        Some(date_time) => (date_time, &text[19..]),
        None => return false,
    };
    let fraction = rest.strip_prefix('.').map_or(0, |digits| {
        1 + digits.bytes().take_while(u8::is_ascii_digit).count()
    });
    if fraction == 1 {
        return false;
    }
    let is_offset = match &rest.as_bytes()[fraction..] {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h @ .., b':', m1, m2] => {
            number(h).is_some_and(|hours| h.len() == 2 && hours < 24)
                && number(&[*m1, *m2]).is_some_and(|minutes| minutes < 60)
        }
        _ => false,
    };
    // The library knows the days of months and only UTC; a leap second counts as the one before it.
    let bytes = date_time.as_bytes();
    let leap = bytes.ends_with(b":60");
    let plain = if leap {
        format!("{}:59Z", &date_time[..16])
    } else {
        format!("{date_time}Z")
    };
    is_offset && humantime::parse_rfc3339(&plain.replace('t', "T")).is_ok()
}

fn number(digits: &[u8]) -> Option<u32> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_told_as_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    fn check(text: &str, expected: bool) {
        assert_eq!(is_rfc3339(text), expected, "{text:?}");
    }

    #[test]
    fn times_with_offsets_and_fractions_are_known() {
        check("2018-04-05T17:31:00Z", true);
        check("2018-04-05t17:31:00z", true);
        check("2018-04-05T17:31:00.123456789+01:30", true);
        check("2016-12-31T23:59:60Z", true);
        check("2018-04-05T17:31:00", false);
        check("2018-04-05T17:31:00.Z", false);
        check("2018-04-05 17:31:00Z", false);
        check("2018-02-30T17:31:00Z", false);
        check("2018-04-05T17:31:00+1:00", false);
        check("2018-04-05T17:31:00+24:00", false);
        check("yesterday", false);
        check("", false);
        check("2018-04-05T17:31:0é", false);
    }
}
