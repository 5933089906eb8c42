use proptest::prelude::*;

use super::*;

const ALL: Bounds = Bounds {
    hints_max: 100,
    images_max: 100,
};

fn state() -> LocalState {
    LocalState {
        name: "n1".into(),
        version: "0.1.0".into(),
        protocol_version: 1,
        functions_address: ([127, 0, 0, 1], 3000).into(),
        config_address: ([127, 0, 0, 1], 4001).into(),
        is_draining: true,
        has_engine: true,
        allows_processes: false,
        secrets: vec!["0123456789abcdef".into()],
        load: Load {
            in_flight: 3,
            instances: 2,
            instances_max: 64,
            memory_used_mb: 256,
            memory_max_mb: 4096,
        },
        hints: vec![Hint::new(key(1), 5, 2)],
        images: vec!["sha256:aa".into(), "sha256:bb".into()],
    }
}

fn key(n: u8) -> InstanceKey {
    InstanceKey::hash([[n].as_slice()])
}

fn reread(entries: &BTreeMap<String, String>) -> Option<(LocalState, Fingerprint)> {
    read(
        entries
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )
}

#[test]
fn a_state_survives_the_wire() {
    let entries = write(&state(), Fingerprint([7; 32]), ALL);
    assert_eq!(reread(&entries), Some((state(), Fingerprint([7; 32]))));
}

#[test]
fn hints_and_images_are_bounded_to_the_first() {
    let mut state = state();
    state.hints = (0..10).map(|n| Hint::new(key(n), 1, 1)).collect();
    state.images = (0..10).map(|n| format!("sha256:{n}")).collect();
    let (read, _) = reread(&write(
        &state,
        Fingerprint([0; 32]),
        Bounds {
            hints_max: 3,
            images_max: 2,
        },
    ))
    .unwrap();
    let mut keys: Vec<_> = read.hints.iter().map(|hint| hint.key).collect();
    let mut expected = vec![key(0), key(1), key(2)];
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected);
    assert_eq!(read.images, ["sha256:0", "sha256:1"]);
}

#[test]
fn a_call_more_changes_only_the_load() {
    let before = write(&state(), Fingerprint([7; 32]), ALL);
    let mut busier = state();
    busier.load.in_flight += 1;
    busier.hints[0].free_slots = 4; // 5 was said as 4
    let after = write(&busier, Fingerprint([7; 32]), ALL);
    let changed: Vec<_> = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(changed, ["load"]);
}

#[test]
fn a_malformed_value_costs_only_itself() {
    let check = |key: &str, value: &str, is_read: bool| {
        let mut entries = write(&state(), Fingerprint([7; 32]), ALL);
        entries.insert(key.into(), value.into());
        assert_eq!(reread(&entries).is_some(), is_read, "{key} = {value}");
    };
    check("about", "{", false);
    check(
        "about",
        r#"{"name":"a b","protocol":1,"fingerprint":"00"}"#,
        false,
    );
    check(
        "addresses",
        r#"{"functions":"nowhere","config":"127.0.0.1:1"}"#,
        false,
    );
    check("status", "[]", true);
    check("load", r#"{"in_flight":-1}"#, true);
    check("hint:xyz", "1/1", true);
    check(&format!("hint:{}", key(9)), "1", true);
    check("img:", "", true);
    check("img:a b", "", true);
    check("tomorrow", "whatever", true);
}

#[test]
fn fields_of_a_later_version_are_passed_over_and_missing_ones_have_defaults() {
    let mut entries = write(&state(), Fingerprint([7; 32]), ALL);
    entries.insert(
        "status".into(),
        r#"{"draining":true,"hibernating":true}"#.into(),
    );
    entries.remove("load");
    let (read, _) = reread(&entries).unwrap();
    assert!(read.is_draining && !read.has_engine);
    assert_eq!(read.load, Load::default());
}

proptest! {
    #[test]
    fn any_keys_and_values_are_read_without_a_panic(pairs in proptest::collection::vec(
        (prop_oneof![
            Just("about".to_owned()), Just("addresses".to_owned()), Just("status".to_owned()), Just("load".to_owned()),
            "hint:[0-9a-f]{0,40}", "img:.{0,20}", any::<String>(),
        ], prop_oneof![any::<String>(), r#"\{"[a-z]{0,10}":[0-9"\-]{0,12}\}"#, "[0-9]{0,12}/[0-9]{0,12}"]),
        0..20,
    )) {
        let _ = read(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    }
}
