use crate::testing::{Server, check_ok, parse};

const LINES: &str = concat!(
    r#"{"at_ms":1700000000123,"node":"n1","stream":"stdout","instance":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","invocations":["x"],"text":"hello"}"#,
    "\n",
    r#"{"at_ms":1700000000124,"node":"n1","stream":"stderr","instance":"42","invocations":[],"text":"  ü"}"#,
    "\n",
);

#[test]
fn each_line_comes_with_its_time_node_instance_and_stream() {
    let server = Server::new(&[("200 OK", &[], LINES)]);
    check_ok(
        &server.run("function logs hello"),
        "2023-11-14T22:13:20.123Z n1 0123456789ab stdout: hello\n2023-11-14T22:13:20.124Z n1 42 stderr:   ü\n",
    );
    assert_eq!(
        server.request().line,
        "GET /v1/spaces/default/functions/hello/logs"
    );
    check_ok(&server.run("function logs hello --json"), LINES);
}

#[test]
fn follow_asks_for_it_and_prints_until_the_end_whatever_the_pieces() {
    let (first, rest) = LINES.split_at(30);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let answer = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
        chunk(first),
        chunk(rest)
    );
    let server = Server::raw(vec![answer]);
    check_ok(&server.run("function logs hello --follow --json"), LINES);
    assert_eq!(
        server.request().line,
        "GET /v1/spaces/default/functions/hello/logs?follow=true"
    );
}

#[test]
fn lines_before_a_broken_connection_are_printed() {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n{LINES}{{\"at");
    let outcome = Server::raw(vec![answer]).run("function logs hello --json");
    assert_eq!(
        (outcome.code, outcome.out.as_str()),
        (69, LINES),
        "{}",
        outcome.err
    );
}

#[test]
fn what_is_not_understood_is_shown_as_it_came() {
    let far =
        r#"{"at_ms":18446744073709551615,"node":"n","stream":"stdout","instance":"i","text":"x"}"#;
    let server = Server::new(&[("200 OK", &[], &format!("no json\n{far}"))]);
    check_ok(
        &server.run("function logs hello"),
        "no json\n18446744073709551615 n i stdout: x\n",
    );
}

#[test]
fn an_unknown_function_fails() {
    let missing = r#"{"errors":[{"message":"Function \"hello\" not found."}]}"#;
    let outcome =
        Server::new(&[("404 Not Found", &[], missing)]).run("function logs hello --follow");
    assert_eq!(
        (outcome.code, outcome.err.as_str()),
        (1, "hearth: Function \"hello\" not found.\n")
    );
}

#[test]
fn those_of_one_invocation_are_asked_for() {
    let path = "GET /v1/spaces/default/functions/hello/logs";
    for (options, query) in [
        ("--invocation x-1", "?invocation=x-1"),
        ("--invocation x-1 --follow", "?follow=true&invocation=x-1"),
    ] {
        let server = Server::new(&[("200 OK", &[], LINES)]);
        server.run(&format!("function logs hello {options}"));
        assert_eq!(server.request().line, format!("{path}{query}"));
    }
    assert!(parse("function logs hello --invocation a/b").is_err());
}
