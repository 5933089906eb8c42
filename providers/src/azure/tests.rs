use protocol::{Effect, ErrorCode};
use serde_json::json;

use super::*;
use crate::Remote;
use crate::http::tests::{answer, invocation, limits, nobody, server};

fn webhook() -> Webhook {
    // A second test of the process finds it installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = (&HttpSettings::default(), &CloudSettings::default());
    functions(settings, limits(), None).unwrap()
}

fn function(url: &str, key: Option<&str>) -> Function {
    let record = json!({
        "functionId": "f", "type": "azurefunction", "provider": {"url": url, "functionKey": key},
    });
    Function::parse("default", None, record.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn the_key_is_sent_to_the_function_and_to_nobody_that_it_redirects_to() {
    let (other, mut others) = server(vec![answer("200 OK", "", "there")]).await;
    let away = format!("location: http://{other}/x\r\n");
    let answers = vec![answer("200 OK", "", "done"), answer("307 Away", &away, "")];
    let (address, mut requests) = server(answers).await;
    let function = function(&format!("http://{address}/api/f"), Some("the-key"));
    let webhook = webhook();
    let reply = webhook.invoke(&function, &invocation()).await.unwrap();
    assert_eq!(reply.body.whole(), "done");
    let sent = requests.recv().await.unwrap();
    assert!(sent.starts_with("POST /api/f HTTP/1.1"), "{sent}");
    assert!(sent.contains("x-functions-key: the-key\r\n"), "{sent}");
    assert!(sent.contains("ce-type: hearth.invocation\r\n"), "{sent}");
    let reply = webhook.invoke(&function, &invocation()).await.unwrap();
    assert_eq!(reply.body.whole(), "there");
    let sent = others.recv().await.unwrap();
    assert!(!sent.contains("the-key"), "{sent}");
}

#[tokio::test]
async fn a_function_that_has_answered_is_not_called_again() {
    let away = format!("location: http://{}/x\r\n", nobody().await);
    let (address, mut requests) = server(vec![answer("303 See", &away, "")]).await;
    let function = function(&format!("http://{address}/api/f"), None);
    let error = webhook().invoke(&function, &invocation()).await;
    let error = error.unwrap_err();
    let told = (error.code(), error.effect());
    assert_eq!(
        told,
        (ErrorCode::FunctionFailed, Effect::Finished),
        "{error}"
    );
    assert!(requests.recv().await.is_some());
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_wrong_key_is_told_apart_from_a_function_that_refuses() {
    let (address, _requests) = server(vec![
        answer("401 Unauthorized", "", ""),
        answer("401 Unauthorized", "", "not you"),
    ])
    .await;
    let function = function(&format!("http://{address}/api/f"), None);
    let webhook = webhook();
    let error = webhook.invoke(&function, &invocation()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::Unreachable, Effect::Refused)
    );
    assert!(
        error.to_string().contains("no provider.functionKey"),
        "{error}"
    );
    let error = webhook.invoke(&function, &invocation()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::FunctionFailed, Effect::Finished)
    );
}
