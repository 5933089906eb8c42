use crate::testing::{Server, run_against};

#[test]
fn a_refused_connection_exits_69_and_says_which_url_and_what_to_try() {
    // A port that was free a moment ago: the listener is gone when the command runs.
    let url = format!(
        "http://{}",
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    );
    let outcome = run_against(&url, "cluster", "", false);
    assert_eq!(outcome.code, 69);
    assert!(
        outcome
            .err
            .contains(&format!("cannot reach the config API at {url}")),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("Connection refused"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("hearth dev") && outcome.err.contains("--api URL or HEARTH_API"),
        "{}",
        outcome.err
    );
    let outcome = run_against(&url, "function invoke f", "", false);
    assert_eq!(outcome.code, 69);
    assert!(
        outcome
            .err
            .contains("--functions-api URL or HEARTH_FUNCTIONS_API"),
        "{}",
        outcome.err
    );
}

#[test]
fn silence_exits_69_after_the_timeout() {
    let outcome = Server::raw(vec![String::new()]).run("--timeout 50ms cluster");
    assert_eq!(outcome.code, 69);
    assert!(outcome.err.contains("within 50ms"), "{}", outcome.err);
}

#[test]
fn a_connection_that_breaks_within_the_answer_exits_69() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"clu".to_owned();
    let outcome = Server::raw(vec![half]).run("cluster");
    assert_eq!(outcome.code, 69);
    assert!(
        outcome.err.contains("lost the connection"),
        "{}",
        outcome.err
    );
}

#[test]
fn a_connection_closed_without_an_answer_warns_that_the_request_may_have_happened() {
    let server = Server::raw(vec![" ".to_owned()]);
    let outcome = server.run("function delete hello");
    assert_eq!(outcome.code, 69);
    assert!(
        outcome.err.contains("may have been carried out"),
        "{}",
        outcome.err
    );
    assert_eq!(
        server.requests().len(),
        1,
        "a request that may have happened is not sent again"
    );
}

#[test]
fn missing_and_wrong_credentials_exit_77() {
    let body = r#"{"errors":[{"message":"a bearer token is required"}]}"#;
    let outcome = Server::new(&[("401 Unauthorized", &[], body)]).run("function list");
    assert_eq!(outcome.code, 77);
    assert!(
        outcome.err.contains("a bearer token is required"),
        "{}",
        outcome.err
    );
    assert!(outcome.err.contains("--token-file"), "{}", outcome.err);
    let body = r#"{"errors":[{"message":"the Host \"example\" is no loopback name"}]}"#;
    let outcome = Server::new(&[("403 Forbidden", &[], body)]).run("function list");
    assert_eq!(outcome.code, 77);
    assert!(
        outcome.err.contains("is no loopback name"),
        "{}",
        outcome.err
    );
}

#[test]
fn the_token_is_sent_and_a_bad_token_file_sends_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "sesame\n").unwrap();
    let server = Server::new(&[("200 OK", &[], r#"{"functions":[]}"#)]);
    let outcome = server.run(&format!(
        "function list --token-file {}",
        file.path().display()
    ));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(
        server.request().header("authorization"),
        Some("Bearer sesame")
    );
    let outcome = server.run("--token-file /does/not/exist function list");
    assert_eq!(outcome.code, 64);
    assert!(outcome.err.contains("/does/not/exist"), "{}", outcome.err);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_answer_of_another_server_is_shown_with_a_hint() {
    let outcome = Server::new(&[("404 Not Found", &[], "404 page not found\n")]).run("cluster");
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .err
            .contains("/v1/cluster answered 404 Not Found: 404 page not found\n"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("is this Hearth's config API?"),
        "{}",
        outcome.err
    );
    let outcome = Server::new(&[("200 OK", &[], "<html>")]).run("cluster");
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .err
            .contains("cannot read the answer to GET http://"),
        "{}",
        outcome.err
    );
}

#[test]
fn a_redirect_is_not_followed() {
    let server = Server::new(&[(
        "301 Moved Permanently",
        &["location: http://127.0.0.1:1/"],
        "",
    )]);
    let outcome = server.run("cluster");
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("answered 301"), "{}", outcome.err);
}

#[test]
fn json_passes_an_error_body_on_and_a_retry_hint_is_shown() {
    let body = r#"{"errors":[{"message":"the config store can not be reached"}]}"#;
    let outcome = Server::new(&[("503 Service Unavailable", &["retry-after: 2"], body)])
        .run("function list --json");
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.out, format!("{body}\n"));
    assert!(
        outcome
            .err
            .contains("hearth: the config store can not be reached\n"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("try again after 2 s"),
        "{}",
        outcome.err
    );
}

#[test]
fn a_path_in_the_base_url_is_kept() {
    let server = Server::new(&[("200 OK", &[], r#"{"functions":[]}"#)]);
    let outcome = run_against(
        &format!("{}/hearth/", server.url),
        "function list",
        "",
        false,
    );
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(
        server.request().line,
        "GET /hearth/v1/spaces/default/functions"
    );
}
