use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::super::QueueBackend;
use super::*;
use crate::settings::Secret;

/// Loads from a file's text, variables and flags.
fn load(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[(&str, serde_json::Value)],
) -> Result<Settings, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.toml");
    std::fs::write(&path, file).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flags = flags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    Settings::merge(Some(&path), variables, &flags)
}

/// The message of a refused file, without the directory it lay in.
fn refused(file: &str, variables: &[(&str, &str)], flags: &[(&str, serde_json::Value)]) -> String {
    let message = load(file, variables, flags).unwrap_err().to_string();
    match (message.find("(file "), message.find("hearth.toml")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}{}", &message[..start + 6], &message[end..])
        }
        _ => message,
    }
}

#[test]
fn credentials_of_aws_have_the_names_that_people_know() {
    let known = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"),
        ("AWS_REGION", "eu-west-1"),
    ];
    let aws = load("[aws]\nsession_token = \"of the file\"", &known, &[])
        .unwrap()
        .aws;
    assert_eq!(aws.access_key_id.as_deref(), Some("AKID"));
    assert_eq!(aws.secret_access_key, Some(Secret::new("hidden")));
    assert_eq!(
        aws.session_token,
        Some(Secret::new("of the file")),
        "an empty one is none"
    );
    assert_eq!(aws.endpoint.as_deref(), Some("http://127.0.0.1:4566"));
    let own = [known[0], known[1], ("HEARTH_AWS__ACCESS_KEY_ID", "AKOWN")];
    let settings = load("", &own, &[]).unwrap();
    assert_eq!(settings.aws.access_key_id.as_deref(), Some("AKOWN"));
    assert!(!settings.to_toml().contains("hidden"));
    let half = refused("", &known[..1], &[]);
    assert_eq!(
        half,
        "setting aws.secret_access_key is not set, expected the key, because aws.access_key_id is set"
    );
    let wrong = refused("", &[("AWS_ENDPOINT_URL", "localhost:4566")], &[]);
    assert_eq!(
        wrong,
        "setting aws.endpoint is localhost:4566 (environment variable AWS_ENDPOINT_URL), expected a URL of http or https, without query"
    );
}

#[test]
fn the_text_of_a_flag_is_read_as_its_setting_is() {
    let flags = [
        ("queue.permits", json!("7")),
        ("process.allow", json!("true")),
        ("logs.format", json!("json")),
        ("auth.origins", json!("http://a, http://b")),
        ("store.etcd.user", json!("1")),
        ("store.etcd.password", json!("1234")),
        ("listen.inner_port", json!("28001")),
    ];
    let settings = load("", &[], &flags).unwrap();
    assert_eq!((settings.queue.permits, settings.process.allow), (7, true));
    assert_eq!(settings.auth.origins, ["http://a", "http://b"]);
    assert_eq!(settings.listen.inner_port, 28_001);
    let wrong = refused("", &[], &[("queue.permits", json!("many"))]);
    assert!(
        wrong.contains("queue.permits") && wrong.contains("flag"),
        "{wrong}"
    );
    let wrong = refused("", &[], &[("listen.inner_port", json!("70000"))]);
    assert!(wrong.contains("listen.inner_port"), "{wrong}");
}

#[test]
fn defaults_are_valid_and_the_advertised_host_follows_the_peer_listener() {
    let settings = load("", &[], &[]).unwrap();
    assert_eq!(settings.node.advertise.as_deref(), Some("127.0.0.1"));
    let settings = load(
        "[cluster]\nsecret_file = \"s\"\n[listen]\npeer = \"[::1]:7400\"",
        &[],
        &[],
    )
    .unwrap();
    assert_eq!(settings.node.advertise.as_deref(), Some("::1"));
}

#[test]
fn events_wait_where_it_fits_the_store_or_where_it_is_said() {
    let backend = |variables: &[(&str, &str)]| {
        let settings = load("", variables, &[]).unwrap();
        let text = settings.to_toml();
        (settings.queue.backend.unwrap(), text)
    };
    let etcd = ("HEARTH_STORE__ETCD__ENDPOINTS", "http://a:1");
    let set = |name| ("HEARTH_QUEUE__BACKEND", name);
    for (variables, expected, shown) in [
        (vec![], QueueBackend::Embedded, "backend = \"embedded\""),
        (vec![etcd], QueueBackend::Etcd, "backend = \"etcd\""),
        (
            vec![etcd, set("memory")],
            QueueBackend::Memory,
            "backend = \"memory\"",
        ),
        (
            vec![set("memory")],
            QueueBackend::Memory,
            "backend = \"memory\"",
        ),
        (
            vec![etcd, set("embedded")],
            QueueBackend::Embedded,
            "backend = \"embedded\"",
        ),
    ] {
        let (backend, text) = backend(&variables);
        assert_eq!(backend, expected, "{variables:?}");
        assert!(text.contains(shown), "{text}");
    }
    for (file, key, expected) in [
        (
            "backend = \"disk\"",
            "queue.backend",
            "embedded, etcd, jetstream, memory",
        ),
        (
            "backend = \"etcd\"",
            "queue.backend",
            "store.etcd.endpoints",
        ),
        (
            "backend = \"jetstream\"",
            "queue.jetstream.servers",
            "at least one server",
        ),
        (
            "session_timeout = \"1500ms\"",
            "queue.session_timeout",
            "whole seconds",
        ),
        ("segment_size = \"1KiB\"", "queue.segment_size", "64KiB"),
        (
            "disk_max = \"1MiB\"",
            "queue.disk_max",
            "queue.segment_size",
        ),
        (
            "retry_backoff_max = \"1ms\"",
            "queue.retry_backoff_max",
            "queue.retry_backoff",
        ),
        ("attempts_max = 0", "queue.attempts_max", "above zero"),
    ] {
        let refused = refused(&format!("[queue]\n{file}"), &[], &[]);
        assert!(
            refused.contains(key) && refused.contains(expected),
            "{refused}"
        );
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = "[node]\nname = \"file\"\ndrain_timeout = \"1s\"\nstart_timeout = \"2s\"\n";
    let variables = [
        ("HEARTH_NODE__NAME", "environment"),
        ("HEARTH_NODE__DRAIN_TIMEOUT", "3s"),
    ];
    let node = load(file, &variables, &[("node.name", json!("flag"))])
        .unwrap()
        .node;
    assert_eq!(
        (
            node.name.as_str(),
            node.drain_timeout.as_secs(),
            node.start_timeout.as_secs()
        ),
        ("flag", 3, 2)
    );
}

#[test]
fn variables_are_read_as_what_their_setting_holds() {
    let settings = load(
        "",
        &[
            ("HEARTH_STORE__ETCD__ENDPOINTS", "http://a:1, http://b:2"),
            ("HEARTH_STORE__ETCD__USER", "true"),
            ("HEARTH_STORE__ETCD__PASSWORD", "0123"),
            ("HEARTH_CLUSTER__SECRET_FILE", "/run/secret"),
            ("HEARTH_CLUSTER__SEEDS", r#"["c:3", "d:4"]"#),
            ("HEARTH_CLUSTER__PHI_THRESHOLD", "4"),
            ("HEARTH_PROCESS__ALLOW", "true"),
            ("HEARTH_LIMITS__BODY_MAX", "1MiB"),
            ("HEARTH_LIMITS__ANSWER_MAX", "1048576"),
            ("HEARTH_LIMITS__IN_FLIGHT_MAX", "7"),
            (
                "HEARTH_DOCKER__REGISTRIES",
                r#"{"r.example.com"={user="u",password="p"}}"#,
            ),
            ("HEARTH_URL", "http://127.0.0.1:1"),
            ("PATH", "/bin"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(settings.store.etcd.endpoints, ["http://a:1", "http://b:2"]);
    assert_eq!(settings.store.etcd.user.as_deref(), Some("true"));
    assert_eq!(settings.store.etcd.password, Some(Secret::new("0123")));
    assert_eq!(settings.cluster.seeds, ["c:3", "d:4"]);
    assert_eq!(settings.cluster.phi_threshold, 4.0);
    assert!(settings.process.allow);
    assert_eq!(
        (settings.limits.body_max.0, settings.limits.answer_max.0),
        (1 << 20, 1 << 20)
    );
    assert_eq!(settings.limits.in_flight_max, 7);
    assert_eq!(
        settings.docker.registries["r.example.com"].password,
        Secret::new("p")
    );
}

#[test]
fn a_refusal_names_key_value_expectation_and_origin() {
    let check = |file: &str, expected: &str| assert_eq!(refused(file, &[], &[]), expected);
    check(
        "[listen]\nfunctions = \"nowhere\"",
        "setting listen.functions is \"nowhere\" (file hearth.toml), expected an address such as 127.0.0.1:3000",
    );
    check(
        "[node]\ndrain_timeout = 3",
        "setting node.drain_timeout is 3 (file hearth.toml), expected a duration such as 250ms",
    );
    check(
        "[limits]\nbody_max = \"6 apples\"",
        "setting limits.body_max is \"6 apples\" (file hearth.toml), expected a size such as 6MiB",
    );
    check(
        "[process]\nallow = \"yes\"",
        "setting process.allow is \"yes\" (file hearth.toml), expected true or false",
    );
    check(
        "[auth]\nmode = 1",
        "setting auth.mode is 1 (file hearth.toml), expected one of: off, required",
    );
    check(
        "[auth]\nmode = \"open\"",
        "setting auth.mode is \"open\" (file hearth.toml), expected one of: off, required",
    );
    check(
        "[limits]\nin_flight_max = -1",
        "setting limits.in_flight_max is -1 (file hearth.toml), expected a whole number, zero or more",
    );
    check(
        "node = 3",
        "setting node is <redacted> (file hearth.toml), expected a table with the keys name, data_dir, advertise, start_timeout, drain_timeout, drain_delay, debug_kill",
    );
    assert_eq!(
        refused("", &[("HEARTH_NODE__START_TIMEOUT", "soon")], &[]),
        "setting node.start_timeout is \"soon\" (environment variable HEARTH_NODE__START_TIMEOUT), expected a duration such as 250ms"
    );
    assert_eq!(
        refused("", &[], &[("auth.mode", json!("maybe"))]),
        "setting auth.mode is \"maybe\" (flag), expected one of: off, required"
    );
    assert!(
        refused("[http]\nfailures_max = 99999999999", &[], &[])
            .contains("http.failures_max is 99999999999")
    );
}

#[test]
fn unknown_keys_are_refused_at_every_level_without_showing_their_value() {
    let check = |file: &str, key: &str| {
        let message = refused(file, &[], &[]);
        assert!(
            message.starts_with(&format!(
                "setting {key} is not known (file hearth.toml), expected one of the keys "
            )),
            "{message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    };
    check("nodes = \"hunter2\"", "nodes");
    check("[node]\nnam = \"hunter2\"", "node.nam");
    check("[store.etcd]\npasswrd = \"hunter2\"", "store.etcd.passwrd");
    check(
        "[docker.registries.\"r.example.com\"]\npasswort = \"hunter2\"",
        "docker.registries.r.example.com.passwort",
    );
    for name in [
        "HEARTH_NODE__NAMEN",
        "HEARTH_NODE_NAME",
        "HEARTH_STORE__ETCD__X",
        "HEARTH_",
    ] {
        let message = refused("", &[(name, "hunter2")], &[]);
        assert!(
            message.contains(name) && message.contains("not known") && !message.contains("hunter2"),
            "{message}"
        );
    }
    assert!(refused("", &[], &[("node.nam", json!(1))]).contains("node.nam is not known (flag)"));
}

#[test]
fn secrets_are_never_shown() {
    let message = refused("[store.etcd]\nuser = \"u\"\npassword = 4711", &[], &[]);
    assert_eq!(
        message,
        "setting store.etcd.password is <redacted> (file hearth.toml), expected a text"
    );
    let message = refused("[store.etcd]\npassword = \"hunter2", &[], &[]);
    assert!(
        message.contains("line 2") && !message.contains("hunter2"),
        "{message}"
    );
    let settings = load(
        "[store.etcd]\nuser = \"u\"\npassword = \"hunter2\"",
        &[],
        &[],
    )
    .unwrap();
    assert!(
        !settings.to_toml().contains("hunter2") && !format!("{settings:?}").contains("hunter2")
    );
}

#[test]
fn a_file_that_can_not_be_read_is_refused() {
    let none = PathBuf::from("/nowhere/hearth.toml");
    let message = Settings::merge(Some(&none), std::iter::empty(), &Flags::new())
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with(
            "settings file /nowhere/hearth.toml can not be used, expected a settings file"
        ),
        "{message}"
    );
    let message = refused("[node]\nname = = 3\n", &[], &[]);
    assert!(message.contains("expected TOML; line 2:"), "{message}");
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (file, key) in [
        ("[limits]\nin_flight_max = 0", "limits.in_flight_max"),
        ("[limits]\nbody_max = \"0B\"", "limits.body_max"),
        ("[executor]\nwaiters_max = 0", "executor.waiters_max"),
        ("[executor]\npack_until = 1.5", "executor.pack_until"),
        ("[queue]\npermits = 0", "queue.permits"),
        ("[executions]\nkeys_max = 0", "executions.keys_max"),
        ("[destinations]\ndepth_max = 0", "destinations.depth_max"),
        (
            "[destinations]\nvalue_max = \"65KiB\"",
            "destinations.value_max",
        ),
        ("[outbound]\nallow = [\"10.0.0.0/64\"]", "outbound.allow"),
        (
            "[executions]\nresult_max = \"2MiB\"",
            "executions.result_max",
        ),
        ("[queue]\nfunction_share = 0", "queue.function_share"),
        ("[queue]\nfunction_share = 1.1", "queue.function_share"),
        ("[telemetry]\nsample_ratio = -0.1", "telemetry.sample_ratio"),
        ("[cluster]\nphi_threshold = 0.5", "cluster.phi_threshold"),
        (
            "[cluster]\ngossip_interval = \"0s\"",
            "cluster.gossip_interval",
        ),
        ("[cluster]\nid = \"a/b\"", "cluster.id"),
        (
            "[cluster]\nsecret_file = \"s\"\nseeds = [\"nohost\"]",
            "cluster.seeds",
        ),
        ("[http]\nfailures_max = 4", "http.failures_max"),
        ("[node]\nname = \"a b\"", "node.name"),
        ("[node]\nname = \"\"", "node.name"),
        ("[node]\nadvertise = \"0.0.0.0\"", "node.advertise"),
        (
            "[store.etcd]\nwatch_silence_max = \"1s\"",
            "store.etcd.watch_silence_max",
        ),
        (
            "[store.etcd]\nendpoints = [\"a:2379\"]",
            "store.etcd.endpoints",
        ),
        (
            "[store.etcd]\nca_file = \"ca\"\nendpoints = [\"http://a:2379\"]",
            "store.etcd.endpoints",
        ),
        (
            "[store.etcd]\nendpoints = [\"https://a:2379\"]",
            "store.etcd.ca_file",
        ),
        ("[store.etcd]\nuser = \"u\"", "store.etcd.password"),
        ("[store.etcd]\ncert_file = \"c\"", "store.etcd.key_file"),
        ("[store.etcd]\nprefix = \"/x\"", "store.etcd.prefix"),
        ("[listen]\nevents = \"127.0.0.1:3000\"", "listen.events"),
        ("[docker]\nhost = \"/var/run/docker.sock\"", "docker.host"),
        ("[docker]\npids_max = 0", "docker.pids_max"),
    ] {
        assert_eq!(load(file, &[], &[]).unwrap_err().key, key, "{file}");
    }
}

#[test]
fn nothing_is_open_to_others_without_a_credential() {
    let message = refused("[listen]\nevents = \"0.0.0.0:4000\"", &[], &[]);
    assert_eq!(
        message,
        "setting auth.mode is off (by default), expected required, because listen.events is 0.0.0.0:4000, which others can reach: \
         start with --auth required, or listen on 127.0.0.1"
    );
    let open = "[listen]\nfunctions = \"0.0.0.0:3000\"\n[auth]\nmode = \"required\"";
    assert!(load(open, &[], &[]).is_ok());
    let message = refused("[cluster]\nseeds = [\"10.0.0.2:7400\"]", &[], &[]);
    assert!(
        message.contains("cluster.secret_file is not set") && message.contains("seeds"),
        "{message}"
    );
    let message = refused("[listen]\npeer = \"10.0.0.1:7400\"", &[], &[]);
    assert!(
        message.contains("cluster.secret_file is not set") && message.contains("10.0.0.1:7400"),
        "{message}"
    );
    let message = refused("[listen]\npeer = \"0.0.0.0:7400\"", &[], &[]);
    assert!(
        message.contains("node.advertise is not set") && message.contains("--advertise HOST"),
        "{message}"
    );
    let spread = "[listen]\npeer = \"0.0.0.0:7400\"\n[node]\nadvertise = \"n1.example.com\"\n[cluster]\nsecret_file = \"s\"";
    assert!(load(spread, &[], &[]).is_ok());
}

#[test]
fn what_is_printed_loads_back_to_the_same() {
    let file = "[limits]\nbody_max = 6300001\n[node]\ndrain_timeout = \"90s\"\n[executor]\nmemory_max = \"1500MiB\"\n\
                [cluster]\nsecret_file = \"s\"\nseeds = [\"a:1\"]\n[docker.registries.\"r.example.com\"]\nuser = \"u\"\n";
    let printed = load(file, &[], &[]).unwrap().to_toml();
    let again = load(&printed, &[], &[]).unwrap();
    assert_eq!(again.to_toml(), printed);
    assert_eq!(again.limits.body_max.0, 6_300_001);
    assert_eq!(again.executor.memory_max.unwrap().0, 1500 << 20);
}

/// Some TOML value, as text.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|truth| truth.to_string()),
        prop_oneof![Just("nan"), Just("-inf"), Just("1e308"), Just("0.5")].prop_map(str::to_owned),
        prop_oneof![
            Just("1979-05-27T07:32:00Z"),
            Just("07:32:00"),
            Just("\"30s\""),
            Just("\"6MiB\"")
        ]
        .prop_map(str::to_owned),
        "[a-z0-9.:/\u{e9}-]{0,12}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..3).prop_map(|pairs| {
                let mut pairs = pairs;
                pairs.sort();
                pairs.dedup_by(|a, b| a.0 == b.0);
                let pairs: Vec<_> = pairs
                    .into_iter()
                    .map(|(key, value)| format!("{key} = {value}"))
                    .collect();
                format!("{{ {} }}", pairs.join(", "))
            }),
        ]
    })
}

/// A key that exists, most of the time.
fn any_key() -> impl Strategy<Value = String> {
    let keys: Vec<String> = crate::settings::table()
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split('`')
                .next()
                .map(|key| key.replace("<HOST>", "h"))
        })
        .chain(
            [
                "x",
                "node",
                "node.x",
                "docker.registries",
                "store.etcd",
                "listen.peer.x",
            ]
            .map(str::to_owned),
        )
        .collect();
    prop::sample::select(keys)
}

proptest! {
    #[test]
    fn any_text_is_loaded_or_refused_but_never_panics(text in "\\PC{0,200}") {
        let _ = load(&text, &[], &[]);
    }

    #[test]
    fn any_toml_is_loaded_or_refused_but_never_panics(key in any_key(), value in any_value()) {
        let _ = load(&format!("{key} = {value}\n"), &[], &[]);
    }

    #[test]
    fn any_variable_is_loaded_or_refused_but_never_panics(key in any_key(), value in "\\PC{0,40}") {
        let name = format!("HEARTH_{}", key.to_ascii_uppercase().replace('.', "__"));
        let _ = load("", &[(name.as_str(), value.as_str())], &[]);
    }
}

#[test]
fn schedules_are_bounded() {
    for (file, key, expected) in [
        (
            "interval_min = \"10ms\"",
            "schedules.interval_min",
            "at least 1s",
        ),
        ("late_max = \"0s\"", "schedules.late_max", "at least 1s"),
        ("per_space_max = 0", "schedules.per_space_max", "above zero"),
        (
            "clock_interval = \"0s\"",
            "schedules.clock_interval",
            "above zero",
        ),
    ] {
        let refused = refused(&format!("[schedules]\n{file}"), &[], &[]);
        assert!(
            refused.contains(key) && refused.contains(expected),
            "{refused}"
        );
    }
}
