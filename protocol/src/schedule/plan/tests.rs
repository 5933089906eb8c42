use proptest::prelude::*;

use super::*;

fn ms(text: &str) -> u64 {
    let timestamp: Timestamp = text.parse().unwrap();
    u64::try_from(timestamp.as_millisecond()).unwrap()
}

fn text(ms: u64) -> String {
    Timestamp::from_millisecond(i64::try_from(ms).unwrap())
        .unwrap()
        .to_string()
}

fn cron(zone: &str, expression: &str) -> Plan {
    Plan::new(Some(expression), Some(zone), None).unwrap()
}

/// The slots that follow a moment, and each of them is found from behind as well.
#[track_caller]
fn check(zone: &str, expression: &str, after: &str, expected: &[&str]) {
    let plan = cron(zone, expression);
    let mut at = ms(after);
    for expected in expected {
        let next = plan.next_after(at).unwrap();
        assert_eq!(
            text(next),
            *expected,
            "{zone} {expression} after {}",
            text(at)
        );
        assert_eq!(
            plan.last_until(next),
            Some(next),
            "{zone} {expression} until {expected}"
        );
        at = next;
    }
}

/// A time of day that a change of the clocks leaves out is made up for when they have changed.
#[test]
fn a_slot_in_the_gap_comes_at_its_end() {
    // 02:00 becomes 03:00.
    check(
        "Europe/Berlin",
        "30 2 * * *",
        "2026-03-28T00:00:00Z",
        &[
            "2026-03-28T01:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-30T00:30:00Z",
        ],
    );
    check(
        "America/New_York",
        "30 2 * * *",
        "2026-03-07T00:00:00Z",
        &[
            "2026-03-07T07:30:00Z",
            "2026-03-08T07:00:00Z",
            "2026-03-09T06:30:00Z",
        ],
    );
    // 02:00 becomes 02:30.
    check(
        "Australia/Lord_Howe",
        "15 2 * * *",
        "2026-10-02T00:00:00Z",
        &[
            "2026-10-02T15:45:00Z",
            "2026-10-03T15:30:00Z",
            "2026-10-04T15:15:00Z",
        ],
    );
}

/// A time of day that comes twice is a slot the first time only.
#[test]
fn a_slot_that_comes_twice_is_one() {
    // 03:00 becomes 02:00.
    check(
        "Europe/Berlin",
        "30 2 * * *",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    );
    // 02:00 becomes 01:00.
    check(
        "America/New_York",
        "30 1 * * *",
        "2026-10-31T12:00:00Z",
        &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
    );
    // 02:00 becomes 01:30.
    check(
        "Australia/Lord_Howe",
        "45 1 * * *",
        "2026-04-03T12:00:00Z",
        &[
            "2026-04-03T14:45:00Z",
            "2026-04-04T14:45:00Z",
            "2026-04-05T15:15:00Z",
        ],
    );
}

/// What recurs within the day goes by the time that passes: nothing in the gap, and everything twice where the hour comes twice.
#[test]
fn what_recurs_within_the_day_goes_on_evenly() {
    check(
        "Europe/Berlin",
        "*/30 2 * * *",
        "2026-03-28T00:30:00Z",
        &[
            "2026-03-28T01:00:00Z",
            "2026-03-28T01:30:00Z",
            "2026-03-30T00:00:00Z",
        ],
    );
    check(
        "Europe/Berlin",
        "0,30 2 * * *",
        "2026-10-24T12:00:00Z",
        &[
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-26T01:00:00Z",
        ],
    );
    check(
        "America/New_York",
        "0 * * * *",
        "2026-11-01T04:30:00Z",
        &[
            "2026-11-01T05:00:00Z",
            "2026-11-01T06:00:00Z",
            "2026-11-01T07:00:00Z",
        ],
    );
    check(
        "America/New_York",
        "0 * * * *",
        "2026-03-08T05:30:00Z",
        &[
            "2026-03-08T06:00:00Z",
            "2026-03-08T07:00:00Z",
            "2026-03-08T08:00:00Z",
        ],
    );
    check(
        "Australia/Lord_Howe",
        "*/15 * * * *",
        "2026-04-04T14:29:00Z",
        &[
            "2026-04-04T14:30:00Z",
            "2026-04-04T14:45:00Z",
            "2026-04-04T15:00:00Z",
            "2026-04-04T15:15:00Z",
        ],
    );
    check(
        "Australia/Lord_Howe",
        "*/15 * * * *",
        "2026-10-03T15:14:00Z",
        &[
            "2026-10-03T15:15:00Z",
            "2026-10-03T15:30:00Z",
            "2026-10-03T15:45:00Z",
        ],
    );
}

#[test]
fn seconds_and_names_are_known() {
    check(
        "UTC",
        "* * * * * *",
        "2026-01-01T00:00:00.400Z",
        &["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"],
    );
    check(
        "UTC",
        "@hourly",
        "2026-01-01T00:00:00Z",
        &["2026-01-01T01:00:00Z"],
    );
    check(
        "UTC",
        "0 9 * * MON-FRI",
        "2026-01-02T09:00:00Z",
        &["2026-01-05T09:00:00Z"],
    );
    check(
        "UTC",
        "0 0 29 2 *",
        "2026-01-02T09:00:00Z",
        &["2028-02-29T00:00:00Z"],
    );
}

#[test]
fn an_interval_is_counted_from_1970() {
    let plan = Plan::new(None, None, Some(Duration::from_secs(30))).unwrap();
    assert_eq!(
        text(plan.next_after(ms("2026-01-01T00:00:00Z")).unwrap()),
        "2026-01-01T00:00:30Z"
    );
    assert_eq!(
        text(plan.next_after(ms("2026-01-01T00:00:29.999Z")).unwrap()),
        "2026-01-01T00:00:30Z"
    );
    assert_eq!(
        text(plan.last_until(ms("2026-01-01T00:00:29.999Z")).unwrap()),
        "2026-01-01T00:00:00Z"
    );
    assert_eq!(plan.shortest_gap(0, 5), Some(Duration::from_secs(30)));
    assert_eq!(plan.next_after(u64::MAX), None);
}

#[test]
fn what_never_comes_is_found_out_soon() {
    assert_eq!(
        cron("UTC", "0 0 31 2 *").next_after(ms("2026-01-01T00:00:00Z")),
        None
    );
    assert_eq!(
        cron("Europe/Berlin", "0 0 0 1 1 * 2020").next_after(ms("2026-01-01T00:00:00Z")),
        None
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn slots_only_go_forward_and_none_is_left_out(
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
        expression in prop::sample::select(vec!["*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 2 * * SUN", "45 59 1 * * *"]),
        start in ms("2026-01-01T00:00:00Z")..ms("2027-01-01T00:00:00Z"),
    ) {
        let plan = cron(zone, expression);
        let mut at = start;
        for _ in 0..20 {
            let next = plan.next_after(at).unwrap();
            prop_assert!(next > at);
            prop_assert_eq!(plan.last_until(next), Some(next));
            // Nothing lies between them.
            let before = plan.last_until(next - 1).unwrap();
            prop_assert!(before <= at, "{} between {} and {}", text(before), text(at), text(next));
            at = next;
        }
    }
}
