use clap::Parser;

use super::*;
use crate::args::Arguments;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Holds what a line becomes, and that our own command line takes it.
fn check(line: &str, expected: &str) {
    let translated = translate(words(line)).expect(line);
    assert_eq!(translated, words(expected), "{line}");
    if let Err(error) = Arguments::try_parse_from(translated) {
        assert_eq!(error.exit_code(), 0, "{line}: {error}");
    }
}

fn refuses(line: &str, expected: &str) {
    let error = translate(words(line)).expect_err(line).to_string();
    assert!(
        error.starts_with(expected),
        "{line}\n got {error}\nnot {expected}"
    );
}

#[test]
fn what_is_ours_stays_as_it_is() {
    for line in [
        "hearth",
        "hearth node --config-listen 127.0.0.1:1",
        "hearth dev",
        "hearth --help",
        "hearth -h",
        "hearth function invoke f -dev",
        "hearth dev -dev",
        "hearth -developer",
        "hearth ---dev",
    ] {
        assert_eq!(translate(words(line)), Ok(words(line)), "{line}");
    }
}

#[test]
fn flags_of_the_original_become_ours() {
    let node = "hearth node --etcd http://127.0.0.1:2379";
    for (line, expected) in [
        ("hearth -dev", "hearth dev".to_owned()),
        ("hearth --dev", "hearth dev".to_owned()),
        ("hearth -dev=true", "hearth dev".to_owned()),
        ("hearth -dev=F", node.to_owned()),
        (
            "hearth -db-hosts a:2379",
            "hearth node --etcd http://a:2379".to_owned(),
        ),
        (
            "hearth --db-hosts=a:2379,b:2379,",
            "hearth node --etcd http://a:2379,http://b:2379".to_owned(),
        ),
        (
            "hearth -db-hosts=https://a:2379",
            "hearth node --etcd https://a:2379".to_owned(),
        ),
        (
            "hearth -config-port 5001 -events-port=5000",
            format!("{node} --config-listen 127.0.0.1:5001 --events-listen 127.0.0.1:5000"),
        ),
        (
            "hearth -plugin a.wasm --plugin=b.wasm",
            format!("{node} --plugin a.wasm --plugin b.wasm"),
        ),
        (
            "hearth -config-port 5001 -config-port 5002",
            format!("{node} --config-listen 127.0.0.1:5002"),
        ),
        (
            "hearth -dev -log-level debug -log-format=json",
            "hearth dev --set logs.format=json --set logs.level=debug".to_owned(),
        ),
        (
            "hearth -workers 7 -workers-backlog 9",
            format!("{node} --set queue.len_max=9 --set queue.permits=7"),
        ),
        (
            "hearth -dev -embed-data-dir default.etcd",
            "hearth dev --data-dir default.etcd".to_owned(),
        ),
        ("hearth -version", "hearth --version".to_owned()),
        ("hearth -version -dev", "hearth --version".to_owned()),
        ("hearth -help", "hearth --help".to_owned()),
        // With flags of ours beside them.
        ("hearth -dev --nodes 3", "hearth dev --nodes 3".to_owned()),
        (
            "hearth -workers 7 --etcd http://b:1",
            "hearth node --set queue.permits=7 --etcd http://b:1".to_owned(),
        ),
        (
            "hearth -dev -config-tls-cert=c -config-tls-key k -events-tls-cert c2 -events-tls-key k2",
            "hearth dev --set tls.config.cert_file=c --set tls.config.key_file=k \
             --set tls.events.cert_file=c2 --set tls.events.key_file=k2"
                .to_owned(),
        ),
        (
            "hearth -workers 7 --settings f",
            "hearth node --set queue.permits=7 --settings f".to_owned(),
        ),
    ] {
        check(line, &expected);
    }
}

#[test]
fn what_has_no_counterpart_is_refused_with_the_way_out() {
    refuses(
        "hearth -dev -embed-peer-addr u",
        "-embed-peer-addr: the store of a single node",
    );
    refuses(
        "hearth -embed-cli-addr=u",
        "-embed-cli-addr: the store of a single node",
    );
    refuses(
        "hearth -dev -db-hosts a:1",
        "-db-hosts: -dev has a store of its own",
    );
    refuses(
        "hearth -config-port http",
        "-config-port \"http\": expected a port",
    );
    refuses(
        "hearth -config-port 65536",
        "-config-port \"65536\": expected a port",
    );
    refuses(
        "hearth -config-port",
        "-config-port: expected PORT after it",
    );
    refuses("hearth -db-hosts ,", "-db-hosts \"\": expected a host");
    refuses(
        "hearth -log-level loud",
        "-log-level \"loud\": expected one of debug, info, warn, error",
    );
    refuses(
        "hearth -dev=maybe",
        "-dev \"maybe\": expected true or false",
    );
}

/// Section 1 of the reference: all flags of the original are known.
#[test]
fn no_flag_is_forgotten() {
    let all = "version log-level log-format dev db-hosts embed-peer-addr embed-cli-addr embed-data-dir config-port config-tls-cert \
               config-tls-key events-port events-tls-cert events-tls-key workers workers-backlog plugin";
    for name in all.split_whitespace() {
        assert!(
            recognize(OsStr::new(&format!("-{name}"))).is_some(),
            "{name}"
        );
        assert!(table().contains(&format!("| `-{name}")), "{name}");
    }
}
