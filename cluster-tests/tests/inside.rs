//! What a function reaches from inside its container, and what it does not: its machine, the engine, other functions.

use cluster_tests::{Record, Sandbox};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What another function knows and nobody else should.
const NEEDLE: &str = "needle-4f1c9a07";

/// How the shell finds the address that its machine has on the containers' network, and the port of its node there.
const GATEWAY: &str = "B=/busybox; A=${HEARTH_URL#http://}; G=${A%:*}; P=${A##*:};";

async fn sandbox(firewall: &str) -> (Sandbox, &'static str) {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .containers()
        .auth_required()
        .env("HEARTH_DOCKER__FIREWALL", firewall)
        .start()
        .await;
    let image = sandbox.engine().shell_image(sandbox.dir()).await;
    (sandbox, image)
}

/// Runs a script as a function, and returns what it printed.
async fn run(sandbox: &Sandbox, image: &str, id: &str, script: &str) -> String {
    let script = format!("{GATEWAY} {script}");
    let record = Record::shell(id, image, &script).timeout_ms(60_000);
    sandbox.register(&record).await;
    let answer = sandbox.node(0).invoke(id, Value::Null).await;
    assert!(answer.is_ok(), "{answer:?}\n{}", sandbox.node(0).log());
    let printed = answer.result().as_str().map(str::to_owned);
    printed.unwrap_or_else(|| panic!("{answer:?} is no text"))
}

/// What the shell prints of a port: `open`, or `closed` after two seconds.
fn look(host: &str, port: &str) -> String {
    format!(
        "$B timeout 2 $B nc {host} {port} </dev/null >/dev/null 2>&1 && echo open || echo closed;"
    )
}

/// Something that listens on every address of this machine, as etcd or a peer may; it takes connections and closes them.
async fn open_port() -> (u16, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { while listener.accept().await.is_ok() {} });
    (port, serving)
}

/// The addresses that this machine has on networks other than loopback, as a function could guess them.
fn addresses() -> Vec<String> {
    let output = std::process::Command::new("ip")
        .args(["-4", "-o", "address"])
        .output();
    let output = output.expect("ip comes with make deps").stdout;
    let lines = String::from_utf8_lossy(&output).into_owned();
    let address = |line: &str| {
        Some(
            line.split_whitespace()
                .nth(3)?
                .split('/')
                .next()?
                .to_owned(),
        )
    };
    let found = lines.lines().filter_map(address);
    found
        .filter(|address| !address.starts_with("127."))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_listens_on_the_machine_is_out_of_reach_but_for_the_node() {
    let (port, _serving) = open_port().await;
    let port = port.to_string();
    for (firewall, expected) in [("false", "open"), ("true", "closed")] {
        let (sandbox, image) = sandbox(firewall).await;
        let script = look("$G", &port);
        let printed = run(&sandbox, image, "gateway", &script).await;
        assert_eq!(printed.trim(), expected, "firewall = {firewall}");
        let own = run(&sandbox, image, "own", &look("$G", "$P")).await;
        assert_eq!(own.trim(), "open", "firewall = {firewall}");
        if firewall == "true" {
            let scripts: String = addresses().iter().map(|host| look(host, &port)).collect();
            let printed = run(&sandbox, image, "others", &scripts).await;
            assert!(
                !printed.is_empty() && !printed.contains("open"),
                "{printed}"
            );
            // It is not only that port: a peer and the config API of the node itself, had they these addresses.
            let log = sandbox.node(0).log();
            assert!(
                log.contains("reach nothing of this machine but the node"),
                "{log}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_the_settings_list_is_in_reach() {
    let (port, _serving) = open_port().await;
    let (other, _other) = open_port().await;
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .containers()
        .env("HEARTH_DOCKER__HOST_PORTS", &port.to_string())
        .start()
        .await;
    let image = sandbox.engine().shell_image(sandbox.dir()).await;
    let scripts = [port, other].map(|port| look("$G", &port.to_string()));
    let printed = run(&sandbox, image, "ports", &scripts.concat()).await;
    assert_eq!(
        printed.split_whitespace().collect::<Vec<_>>(),
        ["open", "closed"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_and_other_functions_are_out_of_reach() {
    let (sandbox, image) = sandbox("true").await;
    let hello = Record::container("hello", "hello")
        .env("SECRET", NEEDLE)
        .min(1);
    sandbox.register_warm(&hello, json!({})).await;
    let containers = sandbox.containers_of("hello").await;
    let network = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let inspect = ["inspect", "--format", network, &containers[0].id];
    let address = sandbox.engine().docker(&inspect).await;
    let address = address.trim();

    let sockets = run(
        &sandbox,
        image,
        "sockets",
        "$B find / -type s 2>/dev/null; echo none",
    )
    .await;
    assert_eq!(sockets.trim(), "none");
    let own = look("$G", "$P");
    let other = run(
        &sandbox,
        image,
        "instance",
        &format!("{own} {}", look(address, "8080")),
    )
    .await;
    assert_eq!(
        other.split_whitespace().collect::<Vec<_>>(),
        ["open", "closed"]
    );
    // The first search finds what its own process has, so the second one would find something too.
    let search = format!(
        "X=SECRET={NEEDLE}- $B sh -c '/busybox grep -rls SECRET={NEEDLE}- /proc/[0-9]*/environ' | $B head -1; echo others:; \
         for DIR in /*; do case $DIR in /proc|/sys|/dev) ;; *) $B grep -rls SECRET={NEEDLE} $DIR;; esac; done; \
         $B grep -ls SECRET={NEEDLE} /proc/[0-9]*/environ; echo end"
    );
    let found = run(&sandbox, image, "search", &search).await;
    let (own, others) = found.split_once("others:").expect("both were searched");
    assert!(own.contains("/environ"), "{found}");
    assert_eq!(others.trim(), "end", "{found}");
    let processes = run(&sandbox, image, "processes", "$B ps -o args").await;
    assert!(!processes.contains("hello"), "{processes}");
    let rights = run(
        &sandbox,
        image,
        "rights",
        "$B grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status",
    )
    .await;
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(rights.contains(line), "{line} in {rights}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_answers_with_the_own_token_only_and_has_no_config_api_there() {
    let (sandbox, image) = sandbox("true").await;
    sandbox.register(&Record::container("hello", "hello")).await;
    let ask = |token: &str, rest: &str| {
        format!("$B wget -S -q -O - {token} {rest} 2>&1 | $B grep -m1 -E 'HTTP/1.1|timed out';")
    };
    let own = r#"--header "authorization: Bearer $HEARTH_TOKEN""#;
    let body = r#"--header 'content-type: application/json' --post-data '{"function_name":"hello"}' $HEARTH_URL/invoke"#;
    let functions = "$HEARTH_URL/v1/spaces/default/functions";
    for (id, script, expected) in [
        ("calls", ask(own, body), "HTTP/1.1 200"),
        ("strange", ask("", body), "HTTP/1.1 401"),
        ("config", ask(own, functions), "HTTP/1.1 404"),
        ("nobody", ask("", functions), "HTTP/1.1 401"),
    ] {
        let printed = run(&sandbox, image, id, &script).await;
        assert!(printed.contains(expected), "{id}: {printed}");
    }
}
