use std::net::SocketAddr;

use super::super::tests::{answer, nobody, server};
use super::*;

fn poster(guard: Option<Arc<Outbound>>) -> Poster {
    // A second test of the process finds it installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let timeout = Duration::from_millis(300);
    Poster::new(&HttpSettings::default(), timeout, guard).unwrap()
}

async fn post(poster: &Poster, url: &str) -> Result<(), Failure> {
    let posted = Posted {
        headers: vec![("ce-type".to_owned(), Bytes::from_static(b"a.b"))],
        content_type: "application/json".to_owned(),
        body: Bytes::from_static(b"{}"),
    };
    poster.post(url, posted).await
}

async fn post_to(answers: &[&str]) -> Result<(), Failure> {
    let answers = answers.iter().map(|&answer| answer.to_owned()).collect();
    let (address, _requests) = server(answers).await;
    post(&poster(None), &format!("http://{address}/hook")).await
}

#[tokio::test]
async fn what_is_told_is_posted_as_an_event() {
    let (address, mut requests) = server(vec![answer("204 No Content", "", "")]).await;
    post(&poster(None), &format!("http://{address}/hook?a=b"))
        .await
        .unwrap();
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /hook?a=b HTTP/1.1"), "{request}");
    for line in ["ce-type: a.b", "content-type: application/json"] {
        assert!(request.contains(line), "{line}: {request}");
    }
}

#[tokio::test]
async fn only_2xx_is_a_success_and_all_else_says_what_it_was() {
    let busy = answer("503 Busy", "retry-after: 7\r\n", "come back");
    let failure = post_to(&[&busy]).await.unwrap_err();
    let answered = failure.answered.as_deref().unwrap();
    assert_eq!(
        (answered.status, answered.said.as_str()),
        (503, "come back")
    );
    assert_eq!(answered.retry_after_ms, Some(7_000));
    assert!(
        failure
            .message
            .contains("/hook answered with status 503: come back")
    );
    let elsewhere = answer("307 Go", "location: http://elsewhere/\r\n", "");
    let failure = post_to(&[&elsewhere]).await.unwrap_err();
    assert_eq!(failure.answered.unwrap().status, 307, "it is not followed");
    let silent = post_to(&[""]).await.unwrap_err();
    let told = (silent.code, silent.effect, silent.answered);
    let expected = (ErrorCode::DeadlineExceeded, Effect::Interrupted, None);
    assert_eq!(told, expected);
    let gone = format!("http://me:secret@{}/", nobody().await);
    let failure = post(&poster(None), &gone).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unreachable);
    assert!(!failure.message.contains("secret"), "{failure}");
}

#[tokio::test]
async fn a_guard_keeps_it_from_this_machine() {
    let (address, mut requests) = server(vec![answer("200 OK", "", "")]).await;
    let port = SocketAddr::port(&address);
    let guard = |allowed: &[&str]| {
        let allowed: Vec<_> = allowed.iter().map(|&entry| entry.to_owned()).collect();
        Some(Arc::new(Outbound::new(&allowed, Arc::new(Vec::new))))
    };
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{port}/");
        let refused = post(&poster(guard(&[])), &url).await.unwrap_err();
        let told = (refused.code, refused.effect);
        assert_eq!(told, (ErrorCode::Forbidden, Effect::Refused), "{refused}");
        assert!(refused.message.contains("outbound.allow"), "{refused}");
        assert!(requests.try_recv().is_err(), "{host}");
        post(&poster(guard(&[host])), &url).await.unwrap();
        assert!(requests.recv().await.is_some());
    }
}
