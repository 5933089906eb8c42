use clap::Parser;

use super::each::{self, What};
use crate::api::Api;
use crate::console::Console;
use crate::testing::{Hearth, Server, check_ok, install_provider, parse};

const LETTER: &str = r#"{"id":"d1","position":7,"space":"default","functionId":"f","subscriptionId":"a,f,%2F","eventId":"e","eventType":"a","acceptedAtMs":1,"diedAtMs":2,"attempts":3,"code":"function_failed","message":"status 500","status":500}"#;

fn page(letters: &[&str], next: &str) -> String {
    let letters = letters.join(",");
    format!(r#"{{"node":"n1","deadLetters":[{letters}],"next":{next}}}"#)
}

#[test]
fn dead_letters_are_listed_page_by_page() {
    let (first, second) = (page(&[LETTER], "7"), page(&[], "null"));
    let server = Server::new(&[("200 OK", &[], &first), ("200 OK", &[], &second)]);
    let outcome = server.run("dead-letter list");
    let row = outcome.out.lines().nth(1).unwrap_or_default();
    let cells: Vec<&str> = row.split_whitespace().collect();
    let expected = ["d1", "default", "f", "a", "3", "function_failed", "500"];
    assert_eq!(cells, expected, "{outcome:?}");
    let lines: Vec<_> = server
        .requests()
        .into_iter()
        .map(|sent| sent.line)
        .collect();
    let expected = [0, 7].map(|after| format!("GET /v1/dead-letters?limit=500&after={after}"));
    assert_eq!(lines, expected);
    let server = Server::new(&[("200 OK", &[], &second)]);
    let outcome = server.run("dead-letter list");
    assert!(outcome.err.contains("node n1 has no dead letters"));
}

#[test]
fn those_that_are_named_or_all_are_redriven_and_purged() {
    let server = Server::new(&[("204 No Content", &[], "")]);
    check_ok(&server.run("dead-letter redrive d1"), "redriven: 1\n");
    let line = "POST /v1/dead-letters/d1/redrive";
    assert_eq!(server.request().line, line);
    let (first, second) = (page(&[LETTER; 2], "7"), page(&[LETTER], "null"));
    let done = ("204 No Content", &[][..], "");
    let server = Server::new(&[("200 OK", &[], &first), ("200 OK", &[], &second), done]);
    check_ok(&server.run("dead-letter purge --all"), "purged: 3\n");
    let last = server.requests().pop().unwrap();
    assert_eq!(last.line, "DELETE /v1/dead-letters/d1");
    assert!(parse("dead-letter purge").is_err(), "neither ids nor --all");
    assert!(parse("dead-letter purge d1 --all").is_err(), "both");
}

/// Of all, one that somebody else was quicker with is no failure; one that was named is.
#[test]
fn one_that_is_gone_fails_only_who_named_it() {
    let all = page(&[LETTER; 3], "null");
    let missing = r#"{"errors":[{"message":"node n1 has no dead letter d1"}]}"#;
    let (done, gone) = (
        ("204 No Content", &[][..], ""),
        ("404 Not Found", &[][..], missing),
    );
    let server = Server::new(&[("200 OK", &[], &all), done, gone, done]);
    let outcome = server.run("dead-letter redrive --all");
    check_ok(&outcome, "redriven: 2\n");
    assert_eq!(outcome.err, "gone meanwhile: 1\n");
    let server = Server::new(&[gone]);
    let outcome = server.run("dead-letter redrive d1");
    assert_eq!((outcome.code, outcome.out.as_str()), (1, "redriven: 0\n"));
    assert!(outcome.err.contains("has no dead letter d1"));
}

#[test]
fn what_was_done_before_one_is_refused_is_told() {
    let all = page(&[LETTER; 30], "null");
    let full = r#"{"errors":[{"message":"the queue has no room"}]}"#;
    let server = Server::new(&[
        ("200 OK", &[], &all),
        ("204 No Content", &[], ""),
        ("204 No Content", &[], ""),
        ("503 Service Unavailable", &[], full),
    ]);
    let outcome = server.run("dead-letter redrive --all");
    assert_eq!((outcome.code, outcome.out.as_str()), (1, "redriven: 2\n"));
    assert!(outcome.err.contains("the queue has no room"), "{outcome:?}");
    assert!(outcome.err.contains("are dead letters as before"));
    let asked = server.requests().len() - 1;
    assert!(asked < 30, "{asked} were asked for");
}

/// Those that were asked for end, and no other begins.
#[tokio::test]
async fn ctrl_c_stops_between_two_and_says_how_many_were_done() {
    install_provider();
    let server = Server::new(&[("204 No Content", &[], "")]);
    let line = ["hearth", "--api", &server.url, "ready"];
    let options = Hearth::parse_from(line).options;
    let api = Api::config(&options).unwrap();
    let ids = vec!["d".to_owned(); 20];
    let bar = indicatif::ProgressBar::hidden();
    let tally = each::each(&api, What::Purge, &ids, true, &bar, std::future::ready(()));
    let tally = tally.await;
    let asked = server.requests().len();
    assert!(asked < 20, "{asked} were asked for");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console {
        out: &mut out,
        err: &mut err,
        input: &mut std::io::empty(),
        is_terminal: false,
        is_watched: false,
    };
    let failure = each::tell(What::Purge, ids.len(), tally, &mut console).unwrap_err();
    assert_eq!(failure.exit.code(), 130);
    let said = format!("stopped by Ctrl-C: purged {asked} of 20");
    assert_eq!(failure.message, said);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!("purged: {asked}\n")
    );
}
