use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use protocol::invocation::{Call as HttpCall, TraceContext};
use protocol::{Deadline, Effect, ErrorCode, Hop, InvocationId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::*;

pub(crate) fn limits() -> AnswerLimits {
    AnswerLimits {
        whole: 1_000,
        stream: 200_000,
        stream_idle_timeout: Duration::from_secs(10),
    }
}

pub(crate) fn webhook() -> Webhook {
    webhook_with(limits())
}

pub(crate) fn webhook_with(limits: AnswerLimits) -> Webhook {
    // A second test of the process finds it installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = HttpSettings {
        ejection: Duration::from_secs(60),
        ..HttpSettings::default()
    };
    Webhook::new(&settings, limits, None).unwrap()
}

pub(crate) fn function(id: &str, address: SocketAddr, limits: &str) -> Function {
    function_at(id, &format!("http://{address}/hook"), limits)
}

pub(crate) fn function_at(id: &str, url: &str, limits: &str) -> Function {
    let record = format!(
        r#"{{"space":"default","functionId":"{id}","type":"http","provider":{{"url":"{url}"}},"limits":{limits}}}"#
    );
    serde_json::from_str(&record).unwrap()
}

/// The same function by a connection of this crate's and by that of a library, which URLs with a password and of `https` take.
pub(crate) fn both_ways(address: SocketAddr, limits: &str) -> [Function; 2] {
    ["", "me:secret@"].map(|user| function_at("f", &format!("http://{user}{address}/hook"), limits))
}

pub(crate) fn invocation() -> Invocation {
    Invocation {
        id: InvocationId::random(),
        space: Space::default_space(),
        function_id: "f".parse().unwrap(),
        payload: Bytes::from_static(b"{\"a\":1}"),
        content_type: "application/json".into(),
        call: None,
        deadline: Deadline::at((Instant::now() + Duration::from_secs(20)).into_std()),
        hop: Hop::Direct,
        trace: TraceContext::default(),
    }
}

/// Answers the n-th connection's request with the n-th text, the last one for all later ones; returns requests by a channel.
pub(crate) async fn server(
    answers: Vec<String>,
) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    server_at("127.0.0.1", answers).await
}

async fn server_at(
    host: &str,
    answers: Vec<String>,
) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(100);
    TaskTracker::new().spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let _ = sender.try_send(String::from_utf8_lossy(&request[..read]).into_owned());
            let answer = answers.get(number).or_else(|| answers.last()).unwrap();
            if answer.is_empty() {
                // Never answers, and keeps the connection.
                std::mem::forget(stream);
                continue;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, receiver)
}

pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn posts_the_payload_with_the_headers_of_an_event() {
    let created = answer("201 Created", "content-type: text/x\r\n", "done");
    let (address, mut requests) = server(vec![created]).await;
    for function in both_ways(address, "{}") {
        let invocation = invocation();
        let reply = webhook().invoke(&function, &invocation).await.unwrap();
        let told = (reply.status, reply.content_type.as_deref());
        assert_eq!(told, (201, Some("text/x")));
        assert_eq!(reply.body.whole(), "done");
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with("POST /hook HTTP/1.1"), "{request}");
        assert!(request.ends_with("{\"a\":1}"), "{request}");
        for expected in [
            "content-type: application/json",
            "ce-type: hearth.invocation",
            &format!("ce-id: {}", invocation.id),
            &format!("host: {address}"),
        ] {
            assert!(
                request.contains(expected),
                "{expected} is missing in {request}"
            );
        }
    }
}

/// Whoever tries again later must know the status, what was said, and the pause that was asked for.
#[tokio::test]
async fn a_failed_answer_is_told_with_its_status_and_retry_after() {
    let date = SystemTime::now() + Duration::from_secs(90);
    let date = format!("retry-after: {}\r\n", httpdate::fmt_http_date(date));
    for (fields, pause) in [
        ("", None),
        ("retry-after: 7\r\n", Some(7_000..=7_000)),
        (date.as_str(), Some(60_000..=90_000)),
        ("retry-after: soon\r\n", None),
    ] {
        let (address, _requests) = server(vec![answer("503 x", fields, "later")]).await;
        for function in both_ways(address, "{}") {
            let failed = webhook().invoke(&function, &invocation()).await;
            let failed = protocol::Failure::from(&failed.unwrap_err());
            let answered = failed.answered.unwrap();
            assert_eq!((answered.status, answered.said.as_str()), (503, "later"));
            let is_right = match (answered.retry_after_ms, pause.clone()) {
                (Some(asked), Some(pause)) => pause.contains(&asked),
                (asked, pause) => asked.is_none() && pause.is_none(),
            };
            assert!(is_right, "{fields}: {:?}", answered.retry_after_ms);
            assert_eq!(failed.retry_after_ms, None, "that is the node's own");
        }
    }
}

#[tokio::test]
async fn other_statuses_are_failures_and_redirects_are_followed() {
    let (target, mut requests) = server(vec![answer("200 OK", "", "there")]).await;
    let location = format!("location: http://{target}/other\r\n");
    for (status, method, body) in [
        ("307 Temporary Redirect", "POST", "{\"a\":1}"),
        ("302 Found", "GET", ""),
    ] {
        for way in 0..2 {
            let (address, _first) = server(vec![
                answer("503 Service Unavailable", "", "later"),
                answer(status, &location, ""),
            ])
            .await;
            let (webhook, function) = (webhook(), &both_ways(address, "{}")[way]);
            let failed = webhook.invoke(function, &invocation()).await.unwrap_err();
            assert_eq!(failed.to_string(), "the function failed: status 503: later");
            let reply = webhook.invoke(function, &invocation()).await.unwrap();
            assert_eq!(&reply.body.whole()[..], b"there");
            let request = requests.recv().await.unwrap();
            let (head, sent) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("{method} /other ")), "{request}");
            assert_eq!(sent, body, "{request}");
            assert_eq!(head.contains("content-type"), !body.is_empty(), "{request}");
        }
    }
}

/// It has answered, so it may have run: nobody may call it again by himself.
#[tokio::test]
async fn an_endpoint_that_redirects_to_what_is_down_has_failed() {
    let (address, mut requests) = server(vec![answer(
        "303 See Other",
        "location: http://127.0.0.1:9/\r\n",
        "",
    )])
    .await;
    for way in 0..2 {
        let function = &both_ways(address, "{}")[way];
        let failed = webhook().invoke(function, &invocation()).await.unwrap_err();
        let why = "the function failed: it redirects to what can not be reached: ";
        assert!(failed.to_string().starts_with(why), "{failed}");
        assert!(matches!(failed, Error::Failed { .. }), "{failed:?}");
        requests.try_recv().unwrap();
        assert!(requests.try_recv().is_err(), "it was called once");
    }
}

#[tokio::test]
async fn an_endless_redirect_and_a_large_answer_are_bounded() {
    let (endless, mut requests) =
        server(vec![answer("302 Found", "location: /hook\r\n", "")]).await;
    let (large, _requests) = server(vec![answer("200 OK", "", &"x".repeat(1_001))]).await;
    for way in 0..2 {
        let function = &both_ways(endless, "{}")[way];
        let failed = webhook().invoke(function, &invocation()).await.unwrap_err();
        let why = failed.to_string();
        assert!(
            why.contains("too many redirects: 10 were followed"),
            "{why}"
        );
        for _ in 0..11 {
            requests.try_recv().unwrap();
        }
        assert!(requests.try_recv().is_err(), "that was the last one");
        let function = &both_ways(large, "{}")[way];
        let failed = webhook().invoke(function, &invocation()).await.unwrap_err();
        assert!(
            matches!(failed, Error::AnswerTooLarge { bytes_max: 1_000 }),
            "{failed:?}"
        );
    }
}

/// What a webhook does with a connection that is kept for later calls.
#[tokio::test]
async fn a_connection_is_kept_for_a_while_and_closed_after_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = HttpSettings {
        idle_timeout: Duration::from_millis(200),
        ..HttpSettings::default()
    };
    let webhook = Webhook::new(&settings, limits(), None).unwrap();
    let webhook = webhook.sweeping(&TaskTracker::new(), CancellationToken::new());
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(whole).await.unwrap();
        }
        // The end, which nothing but the time brings.
        let mut rest = [0; 16];
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut rest));
        assert_eq!(end.await.expect("it is closed").unwrap(), 0);
    };
    let calling = async {
        for function in ["f", "g"].map(|id| function(id, address, "{}")) {
            let reply = webhook.invoke(&function, &invocation()).await.unwrap();
            assert_eq!(reply.body.whole(), "ok");
        }
    };
    tokio::join!(serving, calling);
}

#[tokio::test]
async fn connection_failures_in_a_row_eject_one_function_and_not_its_host() {
    let (webhook, address) = (webhook(), nobody().await);
    let ejected = function("f", address, "{}");
    for _ in 0..5 {
        let failed = webhook.invoke(&ejected, &invocation()).await.unwrap_err();
        assert!(
            matches!(
                failed,
                Error::Unreachable {
                    retry_after_ms: None,
                    ..
                }
            ),
            "{failed:?}"
        );
        assert_eq!(failed.effect(), Effect::Refused);
    }
    let refused = webhook.invoke(&ejected, &invocation()).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Unreachable {
                retry_after_ms: Some(50_000..=60_000),
                ..
            }
        ),
        "{refused:?}"
    );
    let other = webhook
        .invoke(&function("g", address, "{}"), &invocation())
        .await
        .unwrap_err();
    assert!(
        matches!(
            other,
            Error::Unreachable {
                retry_after_ms: None,
                ..
            }
        ),
        "{other:?}"
    );
}

#[tokio::test]
async fn failures_of_the_function_itself_never_eject() {
    let (address, _requests) = server(vec![answer("500 Internal Server Error", "", "")]).await;
    let (webhook, function) = (webhook(), function("f", address, "{}"));
    for _ in 0..10 {
        let failed = webhook.invoke(&function, &invocation()).await.unwrap_err();
        assert!(matches!(failed, Error::Failed { .. }), "{failed:?}");
    }
}

#[tokio::test]
async fn a_timeout_is_told_and_calls_over_the_concurrency_are_busy() {
    let (address, _requests) = server(vec![String::new()]).await;
    for function in both_ways(address, r#"{"timeoutMs":200,"concurrency":1}"#) {
        let webhook = webhook();
        let (one, two) = (invocation(), invocation());
        let (first, second) = tokio::join!(
            webhook.invoke(&function, &one),
            webhook.invoke(&function, &two)
        );
        assert!(
            matches!(first, Err(Error::TimedOut { timeout_ms: 200 })),
            "{first:?}"
        );
        let busy = second.unwrap_err();
        assert!(matches!(busy, Error::Busy { calls_max: 1 }), "{busy:?}");
        assert_eq!(
            (busy.code(), busy.effect()),
            (protocol::ErrorCode::FunctionBusy, Effect::Refused)
        );
    }
}

/// What answers, but not in HTTP, or goes before it answered, is not what could not be reached.
#[tokio::test]
async fn garbage_and_a_cut_answer_are_told_apart() {
    for (answer, expected) in [
        ("ice cream\r\n\r\n", protocol::ErrorCode::MalformedAnswer),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nice",
            protocol::ErrorCode::Interrupted,
        ),
    ] {
        let (address, _requests) = server(vec![answer.to_owned()]).await;
        for function in both_ways(address, "{}") {
            let failed = webhook()
                .invoke(&function, &invocation())
                .await
                .unwrap_err();
            assert_eq!(failed.code(), expected, "{failed}");
        }
    }
}

#[tokio::test]
async fn a_function_that_is_forgotten_is_not_ejected_any_more() {
    let (webhook, function) = (webhook(), function("f", nobody().await, "{}"));
    let is_ejected = async || {
        let error = webhook.invoke(&function, &invocation()).await.unwrap_err();
        matches!(
            error,
            Error::Unreachable {
                retry_after_ms: Some(_),
                ..
            }
        )
    };
    for _ in 0..5 {
        assert!(!is_ejected().await);
    }
    assert!(is_ejected().await);
    webhook.forget(&function.space, &function.function_id);
    assert!(!is_ejected().await);
}

fn call(method: &str, target: &str, answer: AnswerRule) -> Option<Arc<HttpCall>> {
    let header = |name: &str, value: &'static str| (name.to_owned(), Bytes::from(value));
    Some(Arc::new(HttpCall {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: vec![header("x-mine", "1"), header("host", "client.example")],
        answer,
        may_stream: false,
    }))
}

/// What a webhook that answers so comes to, and the request that it got.
async fn called(
    call: Option<Arc<HttpCall>>,
    answer: String,
) -> [(Result<Reply, Error>, String); 2] {
    let (address, mut requests) = server(vec![answer]).await;
    let invocation = Invocation {
        call,
        ..invocation()
    };
    let [one, other] = both_ways(address, "{}");
    let mut called = async |function| {
        let outcome = webhook().invoke(function, &invocation).await;
        (outcome, requests.recv().await.unwrap())
    };
    [called(&one).await, called(&other).await]
}

#[tokio::test]
async fn a_call_has_a_method_a_query_and_headers_and_is_told_whole() {
    let headers = "set-cookie: a=1\r\nset-cookie: b=2\r\nx-hop: 1\r\nkeep-alive: x\r\n";
    let answer = answer("404 Not Found", headers, "no");
    let call = call("PUT", "/else?a=b", AnswerRule::Whole);
    for (reply, request) in called(call, answer).await {
        let reply = reply.unwrap();
        assert_eq!(
            (reply.status, &reply.body.whole()[..]),
            (404, b"no".as_slice())
        );
        let names: Vec<_> = reply
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["set-cookie", "set-cookie", "x-hop"]);
        assert!(request.starts_with("PUT /hook?a=b HTTP/1.1"), "{request}");
        assert!(request.contains("x-mine: 1"), "{request}");
        assert!(
            !request.contains("client.example"),
            "the URL names the host: {request}"
        );
        assert!(!request.contains("ce-id"), "{request}");
    }
}

/// Section 7 of Event Gateway's behaviour: any status but 500 is a success.
#[tokio::test]
async fn with_an_envelope_only_500_is_a_failure() {
    let with = || call("POST", "/", AnswerRule::Envelope);
    for (status, is_success) in [
        ("201 x", true),
        ("404 x", true),
        ("503 x", true),
        ("500 x", false),
    ] {
        for (outcome, _) in called(with(), answer(status, "x-a: 1\r\n", "{}")).await {
            assert_eq!(outcome.is_ok(), is_success, "{status}");
            assert!(outcome.is_ok_and(|reply| reply.headers.is_empty()) == is_success);
        }
    }
}

/// A provider that calls what is listed, and nothing else of this machine.
fn guarded(allowed: &[&str]) -> Webhook {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let allowed: Vec<_> = allowed.iter().map(|&entry| entry.to_owned()).collect();
    let guard = Outbound::new(&allowed, Arc::new(Vec::new));
    Webhook::new(&HttpSettings::default(), limits(), Some(Arc::new(guard))).unwrap()
}

#[tokio::test]
async fn a_guard_keeps_webhooks_from_this_machine() {
    let (address, mut requests) = server(vec![answer("200 OK", "", "{}")]).await;
    let port = address.port();
    for host in ["127.0.0.1", "localhost"] {
        for user in ["", "me:secret@"] {
            let url = format!("http://{user}{host}:{port}/");
            let function = function_at("f", &url, "{}");
            let refused = guarded(&[]).invoke(&function, &invocation()).await;
            let refused = refused.unwrap_err();
            let told = (refused.code(), refused.effect());
            assert_eq!(told, (ErrorCode::Forbidden, Effect::Refused), "{refused}");
            assert!(refused.to_string().contains("outbound.allow"), "{refused}");
            assert!(requests.try_recv().is_err(), "{url} was called");
            let allowed = guarded(&[host]);
            allowed.invoke(&function, &invocation()).await.unwrap();
            assert!(requests.recv().await.is_some(), "{url}");
        }
    }
}

#[tokio::test]
async fn a_guard_keeps_redirects_from_this_machine() {
    let (inside, mut reached) = server(vec![answer("200 OK", "", "{}")]).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
        let location = format!("http://{host}:{}/", inside.port());
        let redirect = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        );
        // It stands for a host of somebody else: it is the one address that is listed.
        let (outside, _requests) = server_at("127.0.0.2", vec![redirect]).await;
        let function = function("f", outside, "{}");
        let refused = guarded(&["127.0.0.2"])
            .invoke(&function, &invocation())
            .await
            .unwrap_err();
        assert_eq!(
            refused.code(),
            ErrorCode::Forbidden,
            "{location}: {refused}"
        );
        assert!(reached.try_recv().is_err(), "{location} was called");
    }
}
