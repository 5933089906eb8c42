use proptest::prelude::*;
use serde_json::json;

use super::*;

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn target(body: serde_json::Value) -> Target {
    serde_json::from_value(body).unwrap()
}

fn alias(body: &serde_json::Value) -> Result<Alias, Invalid> {
    let (space, id, name) = ("default", "f", "prod");
    let body = serde_json::to_vec(body).unwrap();
    Alias::parse(
        space.parse().unwrap(),
        id.parse().unwrap(),
        name.parse().unwrap(),
        &body,
    )
}

fn check_qualifier(text: &str, expected: Option<Qualifier>) {
    assert_eq!(text.parse().ok(), expected, "{text:?}");
    if let Some(qualifier) = expected {
        assert_eq!(qualifier.to_string(), text);
    }
}

#[test]
fn a_qualifier_is_latest_a_version_or_an_alias() {
    check_qualifier("$LATEST", Some(Qualifier::Latest));
    check_qualifier("7", Some(Qualifier::Version(version(7))));
    check_qualifier("4294967295", Some(Qualifier::Version(version(u32::MAX))));
    check_qualifier(
        "prod-2_a",
        Some(Qualifier::Alias("prod-2_a".parse().unwrap())),
    );
    check_qualifier(
        &"a".repeat(128),
        Some(Qualifier::Alias("a".repeat(128).parse().unwrap())),
    );
    let long = "a".repeat(129);
    for wrong in [
        "",
        "0",
        "07",
        "4294967296",
        "$latest",
        "a.b",
        "a b",
        "a:b",
        "ü",
        &long,
    ] {
        check_qualifier(wrong, None);
    }
}

#[test]
fn a_function_is_named_with_or_without_a_qualifier() {
    let check = |text: &str, expected: Option<(&str, Option<Qualifier>)>| {
        let split = Qualifier::split(text).ok();
        let expected = expected.map(|(id, qualifier)| (id.parse().unwrap(), qualifier));
        assert_eq!(split, expected, "{text:?}");
    };
    check("f", Some(("f", None)));
    check("f:$LATEST", Some(("f", Some(Qualifier::Latest))));
    check("f:3", Some(("f", Some(Qualifier::Version(version(3))))));
    check(
        "f:prod",
        Some(("f", Some(Qualifier::Alias("prod".parse().unwrap())))),
    );
    check("f:", None);
    check(":prod", None);
    check("f:prod:3", None);
}

#[test]
fn an_alias_is_stored_as_it_was_read() {
    let read = alias(&json!({
        "version": 3, "weights": {"4": 0.1, "10": 0.25}, "canary": {"header": "X-Canary", "value": "1", "version": "4"},
        "name": "passed over", "space": 7,
    }));
    let read = read.unwrap();
    let stored = json!({
        "space": "default", "functionId": "f", "name": "prod", "version": 3, "weights": {"4": 0.1, "10": 0.25},
        "canary": {"header": "x-canary", "value": "1", "version": 4},
    });
    assert_eq!(serde_json::to_value(&read).unwrap(), stored);
    assert_eq!(serde_json::from_value::<Alias>(stored).unwrap(), read);
    assert_eq!(
        read.target.versions().collect::<Vec<_>>(),
        [3, 4, 10].map(version)
    );
}

#[test]
fn what_is_wrong_with_an_alias_names_field_value_and_expectation() {
    let refuses = |body: serde_json::Value, expected: &str| {
        let why = alias(&body).unwrap_err().to_string();
        assert!(why.contains(expected), "{body}: {why}");
    };
    refuses(json!({}), "version is missing");
    refuses(
        json!({"version": 0}),
        "version is 0: a version is a whole number",
    );
    refuses(
        json!({"version": "$LATEST"}),
        "version is \"$LATEST\": a version is",
    );
    refuses(
        json!({"version": 1, "weights": {"x": 0.1}}),
        "weights has the key \"x\"",
    );
    refuses(
        json!({"version": 1, "weights": {"2": 1.5}}),
        "weights.2 is 1.5, expected a share",
    );
    refuses(
        json!({"version": 1, "weights": {"2": -0.1}}),
        "weights.2 is -0.1, expected a share",
    );
    refuses(
        json!({"version": 1, "weights": {"1": 0.1}}),
        "weights has version 1",
    );
    refuses(
        json!({"version": 1, "weights": {"2": 0.6, "3": 0.6}}),
        "the sum of weights is 1.2, expected at most 1",
    );
    refuses(
        json!({"version": 1, "weights": {"2": "x"}}),
        "invalid type: string \"x\"",
    );
    refuses(
        json!({"version": 1, "canary": {"header": "a b", "version": 2}}),
        "canary.header is \"a b\"",
    );
    refuses(
        json!({"version": 1, "canary": {"header": "connection", "version": 2}}),
        "canary.header is \"connection\"",
    );
    refuses(
        json!({"version": 1, "canary": {"header": "a", "value": "\n", "version": 2}}),
        "canary.value is \"\\n\"",
    );
    refuses(
        json!({"version": 1, "canary": {"header": "a", "version": 2.5}}),
        "canary.version is 2.5",
    );
    refuses(
        json!({"version": 1, "wieghts": {}}),
        "unknown field `wieghts`",
    );
    refuses(
        json!({"version": 1, "description": "x".repeat(1025)}),
        "description is 1025 bytes long, expected at most 1024 bytes",
    );
    let many: serde_json::Map<_, _> = (2..11)
        .map(|number| (number.to_string(), json!(0.01)))
        .collect();
    refuses(
        json!({"version": 1, "weights": many}),
        "weights is of 9 versions, expected at most 8",
    );
    assert!(alias(&json!({"version": 1, "weights": {"2": 0.7, "3": 0.2, "4": 0.1}})).is_ok());
}

#[test]
fn a_roll_back_returns_to_what_had_all_calls() {
    let mut alias = alias(&json!({"version": 1})).unwrap();
    assert!(!alias.roll_back(), "nothing was before");
    let canary = |share: f64| target(json!({"version": 1, "weights": {"2": share}}));
    for share in [0.1, 0.5] {
        alias.set_target(canary(share));
        assert_eq!(alias.previous, Some(Target::all_to(version(1))));
    }
    alias.set_target(Target::all_to(version(2)));
    alias.set_target(Target::all_to(version(2)));
    assert!(alias.roll_back());
    assert_eq!(alias.target, Target::all_to(version(1)));
    assert!(alias.roll_back());
    assert_eq!(
        alias.target,
        Target::all_to(version(2)),
        "a second one undoes the first"
    );
    alias.set_target(target(
        json!({"version": 2, "canary": {"header": "x", "version": 3}}),
    ));
    assert!(alias.roll_back());
    assert_eq!(
        alias.target,
        Target::all_to(version(2)),
        "also from the middle of a canary"
    );
    // One that was made in the middle of one.
    let mut alias = self::alias(&json!({"version": 1, "weights": {"2": 0.5}})).unwrap();
    assert!(alias.roll_back());
    assert_eq!(alias.target, Target::all_to(version(1)));
}

#[test]
fn a_header_goes_before_the_weights() {
    let any = target(
        json!({"version": 1, "weights": {"2": 1.0}, "canary": {"header": "x-canary", "version": 3}}),
    );
    let one = target(
        json!({"version": 1, "canary": {"header": "x-canary", "value": "yes", "version": 3}}),
    );
    let with = |value: &'static [u8]| move |name: &str| (name == "x-canary").then_some(value);
    assert_eq!(any.choose(with(b"no"), 0.0), version(3));
    assert_eq!(any.choose(|_| None, 0.0), version(2));
    assert_eq!(one.choose(with(b"yes"), 0.0), version(3));
    assert_eq!(one.choose(with(b"no"), 0.0), version(1));
}

#[test]
fn versions_have_instances_of_their_own() {
    let mut function: Function = serde_json::from_value(json!({
        "space": "default", "functionId": "f", "type": "process", "provider": {"command": ["a"]},
    }))
    .unwrap();
    let latest = function.instance_key(|_| None);
    let digest = function.code_digest();
    function.version = Some(version(1));
    let first = function.instance_key(|_| None);
    function.version = Some(version(2));
    let second = function.instance_key(|_| None);
    assert!(latest != first && first != second && latest != second);
    assert_eq!(function.code_digest(), digest);
    assert!(digest.starts_with("sha256:") && digest.len() == 71);
    let text = serde_json::to_string(&function).unwrap();
    assert_eq!(serde_json::from_str::<Function>(&text).unwrap(), function);
}

proptest! {
    /// Over all values of the dice each version has just its share.
    #[test]
    fn shares_are_as_they_were_set(shares in proptest::collection::vec(0.0..0.125_f64, 0..=8)) {
        let weights = (2u32..).map(version).zip(shares.iter().copied()).collect();
        let target = Target { weights, ..Target::all_to(version(1)) };
        target.check().unwrap();
        let steps = 10_000;
        let mut counts: BTreeMap<Version, u32> = BTreeMap::new();
        for step in 0..steps {
            let chosen = target.choose(|_| None, f64::from(step) / f64::from(steps));
            *counts.entry(chosen).or_default() += 1;
        }
        let own = 1.0 - shares.iter().sum::<f64>();
        let shares = std::iter::once(own).chain(shares).zip(1u32..);
        for (share, number) in shares {
            let count = counts.get(&version(number)).copied().unwrap_or(0);
            prop_assert!((f64::from(count) / f64::from(steps) - share).abs() < 0.001, "{number}: {count} of {share}");
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text: String) {
        if let Ok((id, Some(qualifier))) = Qualifier::split(&text) {
            prop_assert_eq!(format!("{}:{}", id, qualifier), text.clone());
        }
        let _ = description(text.as_bytes());
        let _ = alias(&serde_json::Value::String(text));
    }
}
