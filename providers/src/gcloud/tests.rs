use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::{Effect, ErrorCode};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use serde_json::{Value, json};

use super::*;
use crate::Remote;
use crate::http::tests::{answer, invocation, limits, nobody, server};

/// Made for these tests.
const KEY: &str = include_str!("tests/key.pem");

fn webhook() -> Webhook {
    // A second test of the process finds it installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cloud = CloudSettings {
        backoff: Duration::from_millis(1),
        ..CloudSettings::default()
    };
    functions((&HttpSettings::default(), &cloud), limits(), None).unwrap()
}

fn function(url: &str, token_uri: &str, private_key: &str) -> Function {
    let key = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k1",
        "private_key": private_key, "client_email": "a@p.iam.gserviceaccount.com", "token_uri": token_uri,
    });
    let record = json!({
        "functionId": "f", "type": "gcloudfunction", "provider": {"url": url, "serviceAccountKey": key},
    });
    Function::parse("default", None, record.to_string().as_bytes()).unwrap()
}

/// An ID token that says when it ends. Only who is called looks at its signature.
fn token(name: &str, lasts: Duration) -> String {
    let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + lasts;
    let claims = json!({"exp": ends.as_secs(), "jti": name}).to_string();
    format!("e30.{}.{name}", URL_SAFE_NO_PAD.encode(claims))
}

fn given(token: &str) -> String {
    answer("200 OK", "", &json!({"id_token": token}).to_string())
}

/// Checks the assertion of a request for a token and returns its claims.
fn claims(request: &str) -> Value {
    let (_, form) = request.split_once("\r\n\r\n").unwrap();
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect();
    assert_eq!(fields[0].1, "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let (signed, signature) = fields[1].1.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let der: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(der).unwrap()).unwrap();
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
    public
        .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
        .expect("it is signed with the key");
    let (header, claims) = signed.split_once('.').unwrap();
    let read =
        |part| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    assert_eq!(
        read(header),
        json!({"alg": "RS256", "typ": "JWT", "kid": "k1"})
    );
    read(claims)
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_shown_until_it_ends() {
    let (one, two) = (
        token("one", Duration::from_secs(3600)),
        token("two", Duration::from_secs(30)),
    );
    let (tokens, mut asked) = server(vec![given(&two), given(&one)]).await;
    let (address, mut requests) = server(vec![answer("200 OK", "", "done")]).await;
    let (url, token_uri) = (
        format!("http://{address}/f?a=1"),
        format!("http://{tokens}/token"),
    );
    let function = function(&url, &token_uri, KEY);
    let webhook = webhook();
    // The first one ends within the minute, so it is not shown twice.
    for shown in [&two, &one, &one] {
        let reply = webhook.invoke(&function, &invocation()).await.unwrap();
        assert_eq!(reply.body.whole(), "done");
        let sent = requests.recv().await.unwrap();
        assert!(sent.starts_with("POST /f?a=1 HTTP/1.1"), "{sent}");
        assert!(
            sent.contains(&format!("authorization: Bearer {shown}\r\n")),
            "{sent}"
        );
    }
    let claims = claims(&asked.recv().await.unwrap());
    assert_eq!(claims["target_audience"], format!("http://{address}/f"));
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!("a@p.iam.gserviceaccount.com"), &json!(token_uri))
    );
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        3600
    );
    assert!(asked.recv().await.is_some());
    assert!(asked.try_recv().is_err(), "it was kept");
}

#[tokio::test]
async fn calls_at_once_wait_for_one_token_and_another_record_gets_another() {
    let hour = Duration::from_secs(3600);
    let (one, two) = (token("one", hour), token("two", hour));
    let (tokens, mut asked) = server(vec![given(&one), given(&two)]).await;
    let (address, mut requests) = server(vec![answer("200 OK", "", "done")]).await;
    let (url, token_uri) = (
        format!("http://{address}/f"),
        format!("http://{tokens}/token"),
    );
    let webhook = webhook();
    let first = function(&url, &token_uri, KEY);
    let invocation = invocation();
    let calls = (0..5).map(|_| webhook.invoke(&first, &invocation));
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.unwrap().body.whole(), "done");
        assert!(requests.recv().await.unwrap().contains(&one));
    }
    assert!(asked.recv().await.is_some() && asked.try_recv().is_err());
    // Changed, and not forgotten in between.
    let mut second = first.clone();
    if let Provider::GcloudFunction(provider) = &mut second.provider {
        provider.audience = Some("https://other".to_owned());
    }
    webhook.invoke(&second, &invocation).await.unwrap();
    assert!(requests.recv().await.unwrap().contains(&two));
    assert_eq!(
        claims(&asked.recv().await.unwrap())["target_audience"],
        "https://other"
    );
}

#[tokio::test]
async fn what_went_wrong_is_told_apart() {
    let hour = Duration::from_secs(3600);
    let challenge = "www-authenticate: Bearer error=\"invalid_token\"\r\n";
    let check =
        async |tokens: String, function_says: String, private_key: &str, code, said: &str| {
            let (tokens, _asked) = server(vec![tokens]).await;
            let (address, _requests) = server(vec![function_says]).await;
            let (url, token_uri) = (
                format!("http://{address}/f"),
                format!("http://{tokens}/token"),
            );
            let function = function(&url, &token_uri, private_key);
            let error = webhook()
                .invoke(&function, &invocation())
                .await
                .unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(said), "{error}");
            let is_of_function = code == ErrorCode::FunctionFailed;
            assert_eq!(
                error.effect() == Effect::Finished,
                is_of_function,
                "{error}"
            );
        };
    let good = || given(&token("good", hour));
    let done = || answer("200 OK", "", "done");
    let (elsewhere, failed) = (ErrorCode::Unreachable, ErrorCode::FunctionFailed);
    let grant = r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#;
    check(
        answer("400 Bad Request", "", grant),
        done(),
        KEY,
        elsewhere,
        "Invalid JWT Signature.",
    )
    .await;
    check(
        answer("503 Later", "", ""),
        done(),
        KEY,
        elsewhere,
        "status 503",
    )
    .await;
    check(
        answer("200 OK", "", "{}"),
        done(),
        KEY,
        elsewhere,
        "no id_token",
    )
    .await;
    let refused = answer("401 Unauthorized", challenge, "");
    check(
        good(),
        refused,
        KEY,
        elsewhere,
        "as a@p.iam.gserviceaccount.com: status 401: Bearer error",
    )
    .await;
    check(
        good(),
        answer("401 Unauthorized", "", "not you"),
        KEY,
        failed,
        "status 401: not you",
    )
    .await;
    check(
        good(),
        answer("500 Oh", "", "broken"),
        KEY,
        failed,
        "status 500: broken",
    )
    .await;
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
    check(
        good(),
        done(),
        no_key,
        elsewhere,
        "provider.serviceAccountKey.private_key",
    )
    .await;
}

#[tokio::test]
async fn who_gives_no_tokens_is_named() {
    let token_uri = format!("http://{}/token", nobody().await);
    let function = function("http://127.0.0.1:1/f", &token_uri, KEY);
    let error = webhook()
        .invoke(&function, &invocation())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::Unreachable, Effect::Refused)
    );
    assert!(error.to_string().contains(&token_uri), "{error}");
}
