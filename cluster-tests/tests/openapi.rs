//! docs/openapi.json, as others use it: clients that generators make of it, a fuzzer that holds the node to it, and its page in a browser.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::program::{self, library, told};
use cluster_tests::{Does, Sandbox, Webhook, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// How long the fuzzer may take.
const FUZZED: Duration = Duration::from_secs(100);

fn description() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")
}

/// A webhook as the programs want one.
async fn webhook() -> Webhook {
    Webhook::start(Does::Answer(r#"{"answered":true}"#)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_openapi_python_client_generates_works() {
    let sandbox = Sandbox::processes(3).await;
    let hook = webhook().await;
    let package = sandbox.dir().join("hearth_client");
    let mut generate = Command::new(library("venv/bin/openapi-python-client"));
    generate.args(["generate", "--meta", "none", "--path"]);
    generate
        .arg(description())
        .arg("--output-path")
        .arg(&package);
    told("openapi-python-client", generate).await;
    let mut client = Command::new(library("venv/bin/python"));
    client
        .env("PYTHONPATH", sandbox.dir())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    client
        .arg(program::path("openapi_client.py"))
        .arg(program::nodes(&sandbox))
        .arg(hook.url());
    let printed = told("openapi_client.py", client).await;
    assert!(printed.contains("ok: it is removed"), "{printed}");
}

/// The compiler holds each path, parameter and body of the program against the types, before it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_the_types_of_openapi_typescript_works() {
    let sandbox = Sandbox::processes(3).await;
    let hook = webhook().await;
    let dir = sandbox.dir().join("typescript");
    std::fs::create_dir(&dir).expect("make a directory");
    std::fs::copy(program::path("openapi.ts"), dir.join("openapi.ts")).expect("copy the program");
    let libraries = library("node_modules").canonicalize().expect("a path");
    std::os::unix::fs::symlink(&libraries, dir.join("node_modules")).expect("make a link");
    let mut types = program::node(&libraries.join("openapi-typescript/bin/cli.js"));
    types
        .arg(description())
        .arg("-o")
        .arg(dir.join("schema.d.ts"));
    told("openapi-typescript", types).await;
    let mut compile = program::node(&libraries.join("typescript/bin/tsc"));
    compile.args([
        "--strict",
        "--target",
        "es2022",
        "--module",
        "commonjs",
        "--moduleResolution",
        "node",
    ]);
    compile
        .args(["--types", "node", "--skipLibCheck"])
        .arg(dir.join("openapi.ts"));
    compile
        .arg("--typeRoots")
        .arg(dir.join("node_modules/@types"));
    told("tsc", compile).await;
    let mut client = program::node(&dir.join("openapi.js"));
    client.arg(program::nodes(&sandbox)).arg(hook.url());
    let printed = told("openapi.js", client).await;
    assert!(printed.contains("ok: it is removed"), "{printed}");
}

/// Operations that the fuzzer calls last, by themselves: what they do ends the credential that all others need.
const LAST: [&str; 3] = ["logout", "delete_me", "change_password"];

/// No answer of any operation has a status, a media type or a body that the description does not name, and none is a 500.
#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_answer_that_is_not_described() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .auth_required()
        .env("HEARTH_AUTH__LOGIN_FAILURES_MAX", "1000000")
        .start()
        .await;
    let node = sandbox.node(0);
    let user = json!({"email": "ada@example.com", "password": "password123"});
    let sign_up = node.request(Method::POST, &node.functions_url("/api/v1/users"));
    let signed_up = sign_up.json(&user).send().await.expect("it answers");
    assert_eq!(signed_up.status(), 201);
    let login = node.request(Method::POST, &node.functions_url("/api/v1/users/login"));
    let session = login.json(&user).send().await.expect("it answers");
    let session: Value = session.json().await.expect("it is JSON");
    let token = session["token"].as_str().expect("a token").to_owned();
    let admin = std::fs::read_to_string(sandbox.dir().join("token")).expect("a token");
    let run = async |base: String, token: &str, chosen: &[&str]| {
        let mut fuzz = Command::new(library("venv/bin/schemathesis"));
        fuzz.current_dir(sandbox.dir())
            .arg("run")
            .arg(description());
        fuzz.args([
            "--url",
            base.trim_end_matches('/'),
            "--header",
            &format!("Authorization: Bearer {token}"),
        ]);
        fuzz.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"]);
        fuzz.args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "8",
            "--seed",
            "5",
            "--no-color",
        ]);
        fuzz.args(["--suppress-health-check", "all"]);
        fuzz.args(chosen);
        let output = program::output("schemathesis", fuzz, FUZZED).await;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        printed
    };
    let excluded = LAST
        .map(|operation| ["--exclude-operation-id", operation])
        .concat();
    // Logs that are followed have no end.
    let config = [
        "--include-tag",
        "config",
        "--include-tag",
        "spaceless",
        "--exclude-operation-id",
        "read_function_logs",
    ];
    let functions = [
        "--include-tag",
        "functions",
        "--include-tag",
        "executions",
        "--include-tag",
        "users",
    ];
    let functions = [&functions[..], &excluded].concat();
    let last = LAST
        .map(|operation| ["--include-operation-id", operation])
        .concat();
    for (base, token, chosen) in [
        (node.config_url(""), admin.trim(), &config[..]),
        (node.functions_url(""), &token, &functions),
        (
            node.events_url(""),
            admin.trim(),
            &["--include-tag", "events"],
        ),
        (node.functions_url(""), &token, &last),
    ] {
        let printed = run(base, token, chosen).await;
        assert!(printed.contains(" passed"), "{printed}");
    }
    until(
        "the node still answers",
        Duration::from_secs(10),
        || async { node.cluster().await.is_ok() },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_logs_in_and_calls_a_function_in_a_browser() {
    let sandbox = Sandbox::processes(3).await;
    program::run("docs_page.js", &sandbox).await;
}
