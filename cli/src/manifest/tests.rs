use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::*;
use crate::failure::Exit;
use crate::template::Language;

const SHORT: &str = "functionId = \"Shop.Orders\"\n";

fn parse(text: &str) -> Result<Manifest, Failure> {
    Manifest::parse(PathBuf::from("/home/ada"), "hearth.toml".to_owned(), text)
}

fn space() -> Space {
    "team".parse().unwrap()
}

/// The record of a file, as it is sent.
fn record(text: &str, runs: Runs<'_>) -> Value {
    let manifest = parse(text).unwrap();
    serde_json::from_slice(&manifest.record(&space(), runs).unwrap()).unwrap()
}

/// Expects that a file is refused, with all of these texts.
#[track_caller]
fn check_bad(text: &str, expected: &[&str]) {
    let failure = parse(text)
        .and_then(|manifest| manifest.check())
        .expect_err(text);
    assert_eq!(failure.exit, Exit::Usage, "{text}");
    let message = failure.to_string();
    assert!(message.contains("hearth.toml: "), "{message}");
    for expected in expected {
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn the_shortest_file_is_an_id() {
    assert_eq!(
        record(SHORT, Runs::Image("hearth/shop-orders:1")),
        json!({
            "space": "team", "functionId": "Shop.Orders", "type": "container",
            "provider": {"image": "hearth/shop-orders:1", "env": {}}, "metadata": {"madeBy": "hearth up"},
        })
    );
    let manifest = parse(SHORT).unwrap();
    assert_eq!(manifest.image_name().unwrap(), "hearth/shop-orders");
    assert_eq!(manifest.dockerfile(), "Dockerfile");
    assert_eq!(manifest.payload().unwrap().get(), "null");
}

const LONG: &str = r#"
functionId = "greet"
contract = "http"
port = 9000
eventFormat = "raw"
payload = { name = "Ada", tags = ["a", 1, 2.5, true] }
secrets = [{ name = "db", env = "DB" }]

[env]
LEVEL = "info"

[image]
name = "registry.example.com:5000/team/greet"
dockerfile = "docker/Dockerfile"

[process]
build = ["make"]
command = ["bin/greet", "--fast"]
env = { HOST = "127.0.0.1", LEVEL = "debug" }

[limits]
memoryMb = 64
rate = { perSecond = 5 }

[scaling]
min = 1

[delivery]
idempotent = true

[sandbox]
readOnlyRoot = true

[metadata]
team = "shop"
"#;

#[test]
fn all_that_a_record_has_can_be_said() {
    let expected = |type_name: &str, provider: Value| {
        json!({
            "space": "team", "functionId": "greet", "type": type_name, "provider": provider, "eventFormat": "raw",
            "limits": {"memoryMb": 64, "rate": {"perSecond": 5}}, "scaling": {"min": 1},
            "delivery": {"idempotent": true}, "sandbox": {"readOnlyRoot": true},
            "metadata": {"team": "shop", "madeBy": "hearth up"},
        })
    };
    let container = json!({
        "image": "i", "contract": "http", "port": 9000, "env": {"LEVEL": "info"}, "secrets": [{"name": "db", "env": "DB"}],
    });
    assert_eq!(
        record(LONG, Runs::Image("i")),
        expected("container", container)
    );
    // A command is run in the directory, whatever directory the node was started in.
    let process = json!({
        "command": ["sh", "-c", "cd \"$0\" && exec \"$@\"", "/home/ada", "bin/greet", "--fast"],
        "contract": "http", "env": {"LEVEL": "debug", "HOST": "127.0.0.1", "FUNCTION_BUILD": "now"},
        "secrets": [{"name": "db", "env": "DB"}],
    });
    let sent = record(LONG, Runs::Process("now"));
    assert_eq!(sent, expected("process", process));
    assert!(is_ours(&sent));
    let manifest = parse(LONG).unwrap();
    let image = manifest.image_name().unwrap();
    assert_eq!(image, "registry.example.com:5000/team/greet");
    assert_eq!(manifest.dockerfile(), "docker/Dockerfile");
    let payload: Value = serde_json::from_str(manifest.payload().unwrap().get()).unwrap();
    assert_eq!(payload, json!({"name": "Ada", "tags": ["a", 1, 2.5, true]}));
}

#[test]
fn those_of_the_templates_run_either_way() {
    for language in Language::value_variants() {
        let files = language.files();
        let file = files
            .iter()
            .find(|file| file.path == "hearth.toml")
            .unwrap();
        let manifest = parse(&file.render(&"hello".parse().unwrap())).unwrap();
        manifest.check().unwrap();
        let process = manifest.process().unwrap();
        let env = &process.env;
        assert_eq!(
            env["HOST"], "127.0.0.1",
            "{language:?}: not for other machines"
        );
        let builds = matches!(language, Language::Rust | Language::Go);
        assert_eq!(!process.build.is_empty(), builds, "{language:?}");
        assert_eq!(manifest.image_name().unwrap(), "hearth/hello");
        assert_eq!(manifest.payload().unwrap().get(), "\"Ada\"");
    }
}

#[test]
fn a_record_that_somebody_else_made_is_known() {
    for other in [
        json!({}),
        json!({"metadata": {"madeBy": "hand"}}),
        json!({"metadata": null}),
    ] {
        assert!(!is_ours(&other), "{other}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let check = |line: &str, expected: &[&str]| check_bad(&format!("{SHORT}{line}"), expected);
    check_bad("", &["missing field `functionId`"]);
    check_bad("functionId = \"a b\"", &["letters, digits", "a b"]);
    check_bad("functionId = 7", &["functionId = 7", "expected"]);
    check("limit = 7", &["unknown field `limit`", "`limits`"]);
    check("[limits", &["line 2"]);
    check(
        "contract = \"grpc\"",
        &["contract: unknown variant `grpc`", "`http`"],
    );
    check("port = 70000", &["port = 70000", "u16"]);
    check("port = 0", &[": port is 0, expected 1 to 65535"]);
    check("env = { A = 1 }", &["A = 1", "expected a string"]);
    check(
        "env = { HEARTH_URL = \"x\" }",
        &[": env has \"HEARTH_URL\""],
    );
    check("limits = 7", &["limits = 7", "expected a map"]);
    check(
        "limits = { memoryMb = 1 }",
        &["limits.memoryMb is 1, expected 6 to"],
    );
    check(
        "limits = { memory = 1 }",
        &["unknown field \"limits.memory\""],
    );
    check("limits = { cpus = inf }", &["limits.cpus is inf, expected"]);
    check(
        "scaling = { max = 0 }",
        &["scaling.max is 0, expected 1 to 10000"],
    );
    check(
        "eventFormat = \"xml\"",
        &["eventFormat: unknown variant `xml`"],
    );
    check(
        "payload = [1979-05-27]",
        &["payload[0] is 1979-05-27, expected"],
    );
    check("payload.a = nan", &["payload.a is nan, expected"]);
    check(
        "image = { name = \"Greet\" }",
        &["image.name is \"Greet\", expected"],
    );
    check("image = { tag = \"1\" }", &["unknown field `tag`"]);
    check(
        "process = { build = [\"make\"] }",
        &["missing field `command`"],
    );
    check(
        "process = { command = [] }",
        &["process.command is empty, expected a program"],
    );
    check(
        "process = { command = \"x\" }",
        &["command = \"x\"", "expected a sequence"],
    );
    check("secrets = [{}]", &["secrets"]);
}

#[test]
fn without_a_command_there_is_no_process() {
    let manifest = parse(SHORT).unwrap();
    manifest.check().unwrap();
    let failure = manifest.process().unwrap_err();
    assert!(failure.message.contains("process is missing"), "{failure}");
}

#[test]
fn images_are_named_as_engines_want() {
    let made = |id: &str, expected: &str| assert_eq!(image_part(id), expected, "{id}");
    made("hello", "hello");
    made("Shop..Orders_", "shop-orders");
    made("-", "function");
    let check = |name: &str, is_valid: bool| assert_eq!(is_image_name(name), is_valid, "{name}");
    check("hello", true);
    check("team/hello.v2_x", true);
    check("localhost:5000/hello", true);
    check("hello:1", false);
    check("localhost:5000", false);
    check("registry:x/hello", false);
    check("team//hello", false);
    check("-hello", false);
    check("team/hello-", false);
    check("Hello", false);
    check("", false);
}
