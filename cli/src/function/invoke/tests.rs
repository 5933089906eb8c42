use crate::testing::{Server, check_ok, run_against};

const ANSWER: &str =
    r#"{"message":"Function invoked successfully","result":{"b":12345678901234567890123,"a":"x"}}"#;

#[test]
fn it_sends_the_payload_as_it_was_written() {
    let check = |options: &str, input: &str, body: &str| {
        let server = Server::new(&[("200 OK", &[], ANSWER)]);
        let outcome = run_against(
            &server.url,
            &format!("function invoke hello {options}"),
            input,
            false,
        );
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        let request = server.request();
        assert_eq!(request.line, "POST /invoke");
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.body, body);
    };
    check(
        "",
        "",
        r#"{"function_name":"hello","payload":null,"space":"default"}"#,
    );
    check(
        "--payload -1.50e3",
        "",
        r#"{"function_name":"hello","payload":-1.50e3,"space":"default"}"#,
    );
    check(
        "--payload-file -",
        "{\"b\":1,\n\"a\":2}\n",
        "{\"function_name\":\"hello\",\"payload\":{\"b\":1,\n\"a\":2},\"space\":\"default\"}",
    );
    check(
        "--space team --payload \"a␣b\"",
        "",
        r#"{"function_name":"hello","payload":"a b","space":"team"}"#,
    );
}

#[test]
fn it_prints_the_result_as_json_and_a_text_as_it_is() {
    let server = Server::new(&[("200 OK", &[], ANSWER)]);
    check_ok(
        &server.run("function invoke f"),
        "{\"b\":12345678901234567890123,\"a\":\"x\"}\n",
    );
    let outcome = run_against(&server.url, "function invoke f", "", true);
    check_ok(
        &outcome,
        "{\n  \"b\": 12345678901234567890123,\n  \"a\": \"x\"\n}\n",
    );
    check_ok(
        &server.run("function invoke f --json"),
        &format!("{ANSWER}\n"),
    );
    let check = |result: &str, out: &str| {
        let body = format!(r#"{{"message":"Function invoked successfully","result":{result}}}"#);
        check_ok(
            &Server::new(&[("200 OK", &[], &body)]).run("function invoke f"),
            out,
        );
    };
    check(r#""two words\n""#, "two words\n");
    check(r#""two\nlines""#, "two\nlines\n");
    check("\"\"", "");
    check("null", "null\n");
    check("7", "7\n");
}

#[test]
fn a_payload_that_is_no_json_is_not_sent() {
    let server = Server::new(&[("200 OK", &[], ANSWER)]);
    let outcome = server.run("function invoke f --payload hello");
    assert_eq!(outcome.code, 64);
    assert!(
        outcome.err.contains("the payload is not JSON"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains(r#"--payload '"text"'"#),
        "{}",
        outcome.err
    );
    assert_eq!(
        server
            .run("function invoke f --payload-file /does/not/exist")
            .code,
        64
    );
    assert!(server.requests().is_empty());
}

#[test]
fn verbose_says_where_and_how_it_ran() {
    let headers = [
        "x-hearth-node: n2",
        "x-hearth-start: cold",
        "x-hearth-route: forwarded",
        "x-hearth-invocation: 0b5e",
        "server-timing: queue;dur=0.1, run;dur=3.2",
    ];
    let outcome = Server::new(&[("200 OK", &headers, ANSWER)]).run("function invoke f -v");
    assert_eq!(outcome.code, 0);
    let details = "node: n2\nstart: cold\nroute: forwarded\nserver-timing: queue;dur=0.1, run;dur=3.2\ninvocation: 0b5e\n";
    assert_eq!(outcome.err, details);
}

#[test]
fn a_failure_names_code_component_node_and_invocation() {
    let body = r#"{"error":"exit code 3","code":"function_failed","component":"function","node":"n1","invocation":"0b5e"}"#;
    let headers = ["x-hearth-error: function_failed;function"];
    let outcome = Server::new(&[("502 Bad Gateway", &headers, body)]).run("function invoke f");
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    let message = "hearth: exit code 3 (code function_failed, component function, node n1, invocation 0b5e)\n";
    assert!(outcome.err.starts_with(message), "{}", outcome.err);
    assert!(
        outcome.err.contains("hearth function logs f"),
        "{}",
        outcome.err
    );
}

#[test]
fn an_unknown_function_and_an_interrupted_run_come_with_a_hint() {
    let check = |status: &str, header: &str, body: &str, expected: &str| {
        let outcome =
            Server::new(&[(status, &[header], body)]).run("--space team function invoke f");
        assert_eq!(outcome.code, 1);
        assert!(outcome.err.contains(expected), "{}", outcome.err);
    };
    let not_found = (
        "404 Not Found",
        "x-hearth-error: function_not_found;gateway",
    );
    check(
        not_found.0,
        not_found.1,
        r#"{"error":"Function not found"}"#,
        "hearth: Function not found\n",
    );
    check(
        not_found.0,
        not_found.1,
        r#"{"error":"Function not found"}"#,
        "hearth function list --space team",
    );
    check(
        not_found.0,
        "x-hearth-error: not_found;gateway",
        r#"{"error":"function f in space team has no alias prod","code":"not_found"}"#,
        "`hearth alias list f --space team`",
    );
    let body = r#"{"error":"node n2 was lost; the function may have run","code":"interrupted","component":"peer","node":"n1","invocation":"x"}"#;
    check(
        "502 Bad Gateway",
        "x-hearth-error: interrupted;peer",
        body,
        "hint: only a function registered with --idempotent",
    );
}
