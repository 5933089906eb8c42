use serde_json::json;

use super::*;
use crate::Function;

fn parse(secrets: &serde_json::Value) -> Result<Function, Invalid> {
    let record = json!({
        "functionId": "f",
        "type": "process",
        "provider": {"command": ["x"], "env": {"TAKEN": "1"}, "secrets": secrets},
    });
    Function::parse("default", None, record.to_string().as_bytes())
}

#[test]
fn a_secret_is_a_variable_or_a_file() {
    let function = parse(&json!([
        {"name": "db-password", "env": "DB_PASSWORD"},
        {"name": "tls-key", "file": "tls.key"},
        {"name": "tls-key"},
    ]))
    .unwrap();
    let targets: Vec<_> = function.secrets().iter().map(SecretUse::target).collect();
    assert_eq!(
        targets,
        [
            Target::Env("DB_PASSWORD"),
            Target::File("tls.key"),
            Target::File("tls-key")
        ]
    );
}

#[test]
fn what_can_not_be_given_is_refused_by_its_path() {
    let many: Vec<_> = (0..65).map(|n| json!({"name": format!("s{n}")})).collect();
    for (secrets, expected) in [
        (
            json!([{"name": "a/b"}]),
            "provider.secrets[0].name: a secret's name",
        ),
        (
            json!([{"name": ".."}]),
            "provider.secrets[0].name: a secret's name",
        ),
        (json!([{"env": "A"}]), "missing field `name`"),
        (
            json!([{"name": "a", "mode": 1}]),
            "unknown field \"provider.secrets.0.mode\"",
        ),
        (
            json!([{"name": "a", "env": "A", "file": "a"}]),
            "provider.secrets[0].env is \"A\", expected either env or file",
        ),
        (
            json!([{"name": "a", "env": "TAKEN"}]),
            "expected a name that provider.env does not have",
        ),
        (
            json!([{"name": "a", "env": "HEARTH_TOKEN"}]),
            "the node itself sets",
        ),
        (
            json!([{"name": "a", "env": "PORT"}]),
            "the node itself sets",
        ),
        (json!([{"name": "a", "env": "1A"}]), "no digit first"),
        (json!([{"name": "a", "env": ""}]), "no digit first"),
        (json!([{"name": "a", "file": "x/y"}]), "the name of a file"),
        (json!([{"name": "a", "file": ".."}]), "the name of a file"),
        (
            json!([{"name": "a", "file": "x"}, {"name": "x"}]),
            "provider.secrets[1].file is \"x\", expected a name that no other",
        ),
        (
            json!([{"name": "a", "env": "A"}, {"name": "b", "env": "A"}]),
            "provider.secrets[1].env is \"A\"",
        ),
        (json!(many), "provider.secrets has 65 entries"),
    ] {
        let refused = parse(&secrets).unwrap_err().to_string();
        assert!(refused.contains(expected), "{secrets}: {refused}");
    }
    let reserved = r#"{"functionId":"f","type":"process","provider":{"command":["x"],"env":{"HEARTH_SECRETS":"/"}}}"#;
    let refused = Function::parse("default", None, reserved.as_bytes()).unwrap_err();
    assert!(refused.to_string().contains("the node itself sets"));
}

#[test]
fn the_instance_key_follows_names_targets_and_versions() {
    let of = |secrets: serde_json::Value, version: Option<&'static str>| {
        parse(&secrets).unwrap().instance_key(|_| version)
    };
    let one = || json!([{"name": "a", "env": "A"}]);
    assert_eq!(of(one(), Some("1")), of(one(), Some("1")));
    assert_ne!(of(one(), Some("1")), of(one(), Some("2")));
    assert_ne!(of(one(), Some("1")), of(one(), None));
    assert_ne!(
        of(one(), Some("1")),
        of(json!([{"name": "a", "env": "B"}]), Some("1"))
    );
    assert_ne!(
        of(one(), Some("1")),
        of(json!([{"name": "b", "env": "A"}]), Some("1"))
    );
    assert_eq!(of(json!([]), Some("1")), of(json!([]), Some("2")));
}

#[test]
fn a_record_shows_nothing_of_its_value() {
    let mut record = SecretRecord {
        space: Space::default_space(),
        name: "a".parse().unwrap(),
        version: "v".to_owned(),
        sealed: String::new(),
        created_at_ms: 1,
        updated_at_ms: 2,
    };
    record.set_sealed(b"sealed bytes");
    assert_eq!(record.sealed().as_deref(), Some(&b"sealed bytes"[..]));
    let shown = format!("{record:?}");
    assert!(!shown.contains(&record.sealed), "{shown}");
}
