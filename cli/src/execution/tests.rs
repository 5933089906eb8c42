use crate::testing::{Server, check_ok, parse};

const ID: &str = "01935b9e-7c1a-7000-8000-000000000001";

fn execution(status: &str, more: &str) -> String {
    format!(
        r#"{{"id":"{ID}","space":"default","functionId":"f","status":"{status}","acceptedAtMs":0,"acceptedBy":"n1","attemptsMade":2,"attempts":[{{"node":"n2","startedAtMs":1}}]{more}}}"#
    )
}

fn failed() -> String {
    let error =
        r#","error":{"code":"function_failed","component":"function","message":"exit code 1"}"#;
    execution("failed", error)
}

fn succeeded() -> String {
    let result = r#","result":{"status":200,"bytes":3,"value":"six"},"logs":"/x""#;
    execution("succeeded", result)
}

#[test]
fn an_invocation_is_queued_and_its_execution_named() {
    let accepted = format!(r#"{{"execution":"{ID}","status":"queued"}}"#);
    let server = Server::new(&[("202 Accepted", &[], &accepted)]);
    let line = "function invoke f --async --idempotency-key a␣b --delay 90s --callback http://h/";
    check_ok(&server.run(line), &format!("{ID}\n"));
    let request = server.request();
    assert_eq!(request.header("idempotency-key"), Some("a b"));
    let body = r#"{"function_name":"f","payload":null,"space":"default","async":true,"delay_seconds":90.0,"callback":"http://h/"}"#;
    assert_eq!(request.body, body);
    for line in ["--delay 1s", "--idempotency-key k", "--callback http://h/"] {
        let parsed = parse(&format!("function invoke f {line}"));
        assert!(parsed.is_err(), "{line} is of queued invocations");
    }
}

#[test]
fn wait_looks_again_until_the_end_and_prints_the_result() {
    let (running, succeeded) = (execution("running", ""), succeeded());
    let server = Server::new(&[("200 OK", &[], &running), ("200 OK", &[], &succeeded)]);
    check_ok(&server.run(&format!("execution wait {ID}")), "six\n");
    let lines = server.requests().into_iter().map(|sent| sent.line);
    let expected = format!("GET /v1/spaces/default/executions/{ID}");
    assert_eq!(lines.collect::<Vec<_>>(), [&*expected, &*expected]);
    let server = Server::new(&[("200 OK", &[], &failed())]);
    let outcome = server.run(&format!("execution wait {ID}"));
    let told = format!("hearth: execution {ID} is failed: exit code 1 (function_failed)\n");
    assert_eq!((outcome.code, outcome.err), (1, told));
    let server = Server::new(&[("200 OK", &[], &running)]);
    let outcome = server.run(&format!("execution wait {ID} --within 60ms"));
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("is running still"), "{}", outcome.err);
}

#[test]
fn executions_are_listed_page_by_page_up_to_the_limit() {
    let page = |status: &str, next: &str| {
        let one = execution(status, "");
        format!(r#"{{"executions":[{one}],"next":{next}}}"#)
    };
    let (first, last) = (page("queued", &format!("\"{ID}\"")), page("failed", "null"));
    let server = Server::new(&[("200 OK", &[], &first), ("200 OK", &[], &last)]);
    let outcome = server.run("execution list --function f --status failed --limit 3");
    let rows: Vec<_> = outcome.out.lines().skip(1).collect();
    assert_eq!(rows.len(), 2, "{outcome:?}");
    let cells: Vec<_> = rows[0].split_whitespace().collect();
    let expected = [ID, "f", "queued", "1970-01-01T00:00:00Z", "2", "n2", "-"];
    assert_eq!(cells, expected);
    let lines = server.requests().into_iter().map(|sent| sent.line);
    let path = "GET /v1/spaces/default/executions";
    let expected = [
        format!("{path}?limit=3&function=f&status=failed"),
        format!("{path}?limit=2&function=f&status=failed&after={ID}"),
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    assert!(parse("execution list --status done").is_err());
}

#[test]
fn an_execution_is_cancelled_by_its_id() {
    let cancelled = execution("cancelled", "");
    let server = Server::new(&[("200 OK", &[], &cancelled)]);
    let told = format!("cancelled {ID}\n");
    check_ok(&server.run(&format!("execution cancel {ID}")), &told);
    let line = format!("DELETE /v1/spaces/default/executions/{ID}");
    assert_eq!(server.request().line, line);
    let ended = r#"{"errors":[{"message":"execution x is failed already"}]}"#;
    let server = Server::new(&[("409 Conflict", &[], ended)]);
    let outcome = server.run(&format!("execution cancel {ID}"));
    assert_eq!(outcome.code, 1);
    assert!(parse("execution get x").is_err(), "that is no id");
}
