use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::testing::{Outcome, Request, Server};

const MISSING: &str = r#"{"errors":[{"message":"Function \"greet\" not found."}]}"#;
const OURS: &str = r#"{"functionId":"greet","metadata":{"madeBy":"hearth up"}}"#;
const ANSWER: &str = r#"{"result":{"hello":"Ada"}}"#;
const HEADERS: &[&str] = &["x-hearth-node: n2", "x-hearth-start: cold"];

/// A function's directory, and a program that does as an engine's does.
struct Work {
    dir: TempDir,
}

impl Work {
    fn new(manifest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hearth.toml"), manifest).unwrap();
        let work = Self { dir };
        let id = "0123456789abcdef".repeat(4);
        work.program(
            "engine",
            &format!(
                "echo \"$@\" >> '{}'\n\
                 [ \"$1\" != build ] || while [ $# -gt 0 ]; do [ \"$1\" != --iidfile ] || echo sha256:{id} > \"$2\"; shift; done",
                work.path("said").display()
            ),
        );
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the engine's program was asked, without the paths of temporary files.
    fn asked(&self) -> Vec<String> {
        let said = fs::read_to_string(self.path("said")).unwrap_or_default();
        said.lines()
            .map(|line| {
                let words = line.split(' ').filter(|word| !word.starts_with('/'));
                words.collect::<Vec<_>>().join(" ")
            })
            .collect()
    }

    /// Runs a subcommand on the directory, with the engine's program where that is asked.
    fn run(&self, server: &Server, subcommand: &str, options: &str) -> Outcome {
        server.run(&format!(
            "{subcommand} {} {options}",
            self.dir.path().display()
        ))
    }

    fn with_engine(&self, server: &Server, subcommand: &str, options: &str) -> Outcome {
        let engine = self.path("engine");
        self.run(
            server,
            subcommand,
            &format!("--engine {} {options}", engine.display()),
        )
    }
}

const SHORT: &str =
    "functionId = \"greet\"\npayload = \"Ada\"\n[process]\ncommand = [\"./greet\"]\n";

fn lines(requests: &[Request]) -> Vec<&str> {
    requests
        .iter()
        .map(|request| request.line.as_str())
        .collect()
}

fn body(request: &Request) -> Value {
    serde_json::from_str(&request.body).unwrap()
}

const FUNCTION: &str = "/v1/spaces/default/functions/greet";

#[test]
fn what_is_new_is_built_registered_and_invoked() {
    let work = Work::new(SHORT);
    let server = Server::new(&[
        ("404 Not Found", &[], MISSING),
        ("201 Created", &[], OURS),
        ("200 OK", HEADERS, ANSWER),
    ]);
    let outcome = work.with_engine(&server, "up", "");
    assert_eq!(
        (outcome.code, outcome.out.as_str()),
        (0, "{\"hello\":\"Ada\"}\n"),
        "{}",
        outcome.err
    );
    for told in [
        "built hearth/greet:0123456789ab in ",
        "registered greet in space default\n",
        "ran on n2, with a new instance, in ",
    ] {
        assert!(outcome.err.contains(told), "{}", outcome.err);
    }
    let requests = server.requests();
    let asked = [
        &format!("GET {FUNCTION}"),
        "POST /v1/spaces/default/functions",
        "POST /invoke",
    ];
    assert_eq!(lines(&requests), asked);
    assert_eq!(
        body(&requests[1])["provider"]["image"],
        "hearth/greet:0123456789ab"
    );
    assert_eq!(body(&requests[2])["payload"], "Ada");
    assert_eq!(
        work.asked(),
        [
            "version",
            "build --file Dockerfile --tag hearth/greet:latest --iidfile .",
            "tag hearth/greet:latest hearth/greet:0123456789ab",
        ]
    );
}

#[test]
fn what_is_there_is_replaced_as_it_was_before_the_build() {
    let work = Work::new(SHORT);
    let server = Server::new(&[
        ("200 OK", &["etag: \"41\""], OURS),
        ("200 OK", &["etag: \"42\""], OURS),
        ("200 OK", HEADERS, ANSWER),
    ]);
    let outcome = work.run(&server, "up", "--process --payload [7] --json");
    assert_eq!(
        (outcome.code, outcome.out.trim_end()),
        (0, ANSWER),
        "{}",
        outcome.err
    );
    assert!(outcome.err.contains("updated greet"), "{}", outcome.err);
    let requests = server.requests();
    let asked = [
        &format!("GET {FUNCTION}"),
        &format!("PUT {FUNCTION}"),
        "POST /invoke",
    ];
    assert_eq!(lines(&requests), asked);
    assert_eq!(requests[1].header("if-match"), Some("\"41\""));
    assert_eq!(body(&requests[1])["type"], "process");
    assert_eq!(body(&requests[2])["payload"][0], 7);
    assert!(work.asked().is_empty(), "no engine is needed");
}

#[test]
fn each_time_a_command_is_brought_up_its_instances_are_new() {
    let work = Work::new(SHORT);
    let build = || {
        let server = Server::new(&[("200 OK", &["etag: \"41\""], OURS)]);
        let outcome = work.run(&server, "up", "--process --no-invoke");
        assert_eq!(
            (outcome.code, outcome.out.as_str()),
            (0, ""),
            "{}",
            outcome.err
        );
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "{requests:?}");
        body(&requests[1])["provider"]["env"]["FUNCTION_BUILD"].to_string()
    };
    assert_ne!(build(), build());
}

#[test]
fn what_somebody_else_registered_is_replaced_only_when_told() {
    let work = Work::new(SHORT);
    let foreign = r#"{"functionId":"greet","type":"http","provider":{"url":"http://x"}}"#;
    let server = || Server::new(&[("200 OK", &["etag: \"41\""], foreign)]);
    let asked = server();
    let outcome = work.run(&asked, "up", "--process");
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    assert!(
        outcome.err.contains("not by `hearth up`"),
        "{}",
        outcome.err
    );
    assert!(outcome.err.contains("--replace"), "{}", outcome.err);
    assert_eq!(asked.requests().len(), 1);
    let outcome = work.run(&server(), "up", "--process --replace --no-invoke");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
}

#[test]
fn a_change_by_somebody_else_meanwhile_is_kept() {
    let work = Work::new(SHORT);
    let changed = r#"{"errors":[{"message":"Function \"greet\" changed meanwhile."}]}"#;
    let server = Server::new(&[
        ("200 OK", &["etag: \"41\""], OURS),
        ("412 Precondition Failed", &[], changed),
    ]);
    let outcome = work.run(&server, "up", "--process");
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    assert!(outcome.err.contains("changed meanwhile"), "{}", outcome.err);
    assert!(outcome.err.contains("run this again"), "{}", outcome.err);
    assert_eq!(server.requests().len(), 2, "it is not invoked");
}

#[test]
fn an_image_that_no_node_has_is_to_be_pushed() {
    let work = Work::new(SHORT);
    let missing = r#"{"errors":[{"message":"image \"hearth/greet:0123456789ab\" not found"}]}"#;
    let server = Server::new(&[
        ("404 Not Found", &[], MISSING),
        ("404 Not Found", &[], missing),
    ]);
    let outcome = work.with_engine(&server, "up", "");
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    assert!(
        outcome.err.contains("--push REGISTRY/NAME"),
        "{}",
        outcome.err
    );
}

#[test]
fn a_function_that_the_node_has_not_heard_of_yet_is_asked_again() {
    let work = Work::new(SHORT);
    let unknown = r#"{"error":"no such function","code":"function_not_found","component":"gateway","node":"n2","invocation":"i"}"#;
    let server = Server::new(&[
        ("404 Not Found", &[], MISSING),
        ("201 Created", &[], OURS),
        (
            "404 Not Found",
            &["x-hearth-error: function_not_found;gateway"],
            unknown,
        ),
        ("200 OK", HEADERS, ANSWER),
    ]);
    let outcome = work.run(&server, "up", "--process");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_failed_build_ends_it() {
    let manifest = SHORT.replace("[process]", "[process]\nbuild = [\"./make\", \"all\"]");
    let work = Work::new(&manifest);
    let run = |expected: &str| {
        let server = Server::new(&[("404 Not Found", &[], MISSING)]);
        let outcome = work.run(&server, "up", "--process --build-timeout 200ms");
        assert_eq!(outcome.code, 1, "{}", outcome.err);
        assert!(outcome.err.contains(expected), "{}", outcome.err);
        assert_eq!(server.requests().len(), 1, "nothing is registered");
    };
    run("cannot run `./make all`: there is no program ./make");
    work.program("make", "[ \"$1\" = all ] && exit 3");
    run("`./make all` failed: exit status: 3");
    work.program("make", "exec sleep 60");
    run("`./make all` did not end within 200ms\nhint: --build-timeout waits longer");
}

#[test]
fn what_is_pushed_is_what_is_named() {
    let work = Work::new(SHORT);
    let server = Server::new(&[("200 OK", &[], "{}")]);
    let outcome = work.with_engine(&server, "build", "--push registry.example.com/team/greet");
    let pushed = "registry.example.com/team/greet:0123456789ab";
    assert_eq!(
        (outcome.code, outcome.out.trim_end()),
        (0, pushed),
        "{}",
        outcome.err
    );
    assert!(server.requests().is_empty(), "a build asks no node");
    let asked = work.asked();
    let last = [
        format!("tag hearth/greet:0123456789ab {pushed}"),
        format!("push {pushed}"),
    ];
    assert_eq!(asked[asked.len() - 2..], last);
}

#[test]
fn an_engine_that_does_not_answer_is_told_of_with_what_it_said() {
    let work = Work::new(SHORT);
    work.program("engine", "echo 'Cannot connect to the daemon' >&2; exit 1");
    let server = Server::new(&[("404 Not Found", &[], MISSING)]);
    for subcommand in ["up", "build"] {
        let outcome = work.with_engine(&server, subcommand, "");
        assert_eq!(outcome.code, 69, "{}", outcome.err);
        for expected in [
            "Cannot connect to the daemon",
            "hearth up --process",
            "--engine PROGRAM",
        ] {
            assert!(outcome.err.contains(expected), "{}", outcome.err);
        }
    }
    let nothing = work.path("nothing");
    let outcome = work.run(&server, "build", &format!("--engine {}", nothing.display()));
    assert_eq!(outcome.code, 69, "{}", outcome.err);
}

#[test]
fn bad_input_is_refused_before_anything_is_asked() {
    let server = Server::new(&[("404 Not Found", &[], MISSING)]);
    let work = Work::new(SHORT);
    let outcome = work.run(&server, "up", "--process --payload {");
    assert_eq!(outcome.code, 64, "{}", outcome.err);
    assert!(
        outcome.err.contains("the payload is not JSON"),
        "{}",
        outcome.err
    );
    let outcome = Work::new("functionId = \"greet\"").run(&server, "up", "--process");
    assert_eq!(outcome.code, 64, "{}", outcome.err);
    assert!(
        outcome.err.contains("process is missing"),
        "{}",
        outcome.err
    );
    let outcome = server.run(&format!("up {}", Path::new("/does/not/exist").display()));
    assert_eq!(outcome.code, 64, "{}", outcome.err);
    assert!(outcome.err.contains("hearth new"), "{}", outcome.err);
    assert!(server.requests().is_empty());
}
