//! Streams that are something else, and who may use them: users, tokens, keys, TLS.

use std::path::{Path, PathBuf};

use config::settings::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::*;

async fn works(options: Options) {
    let queue = open(options).await;
    queue
        .enqueue(conformance::deliveries("f", 1))
        .await
        .unwrap();
    assert_eq!(queue.stats().waiting, 1);
}

/// It opens, as NATS may be told of this user later, and takes nothing.
async fn takes_nothing(mut options: Options) {
    options.settings.operation_timeout = Duration::from_millis(500);
    let queue = open(options).await;
    let refused = queue.enqueue(conformance::deliveries("f", 1)).await;
    assert!(refused.is_err(), "{refused:?}");
}

/// Makes a stream by hand.
async fn make(nats: &Nats, config: serde_json::Value) {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let subject = format!("$JS.API.STREAM.CREATE.{}", config["name"].as_str().unwrap());
    let made = client
        .request(subject, config.to_string().into())
        .await
        .unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.payload).unwrap();
    assert!(made["error"].is_null(), "{made}");
}

#[tokio::test]
async fn a_stream_that_is_something_else_is_named_with_its_field() {
    let nats = Nats::start().await;
    let held = serde_json::json!({
        "name": "hearth-c-held", "subjects": ["hearth.c.held.>"], "retention": "limits", "storage": "memory",
        "num_replicas": 1, "max_msgs_per_subject": 1, "discard": "new",
    });
    make(&nats, held).await;
    let error = refused(options(&nats.url(), "c")).await.to_string();
    for part in [
        "hearth-c-held",
        "storage",
        "memory",
        "file",
        "nats stream rm",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

/// Bounds are changed to what the settings say, and what waits stays.
#[tokio::test]
async fn bounds_of_a_stream_are_changed() {
    let nats = Nats::start().await;
    let with_len_max = |len_max| {
        let mut options = patient(options(&nats.url(), "c"));
        options.settings.len_max = len_max;
        options
    };
    let queue = open(with_len_max(1)).await;
    queue
        .enqueue(conformance::deliveries("f", 1))
        .await
        .unwrap();
    queue
        .enqueue(conformance::deliveries("f", 1))
        .await
        .unwrap_err();
    drop(queue);
    let queue = open(with_len_max(10)).await;
    queue
        .enqueue(conformance::deliveries("f", 1))
        .await
        .unwrap();
    assert_eq!(queue.stats().waiting, 2);
}

#[tokio::test]
async fn replicas_that_nats_does_not_keep_are_refused() {
    let nats = Nats::start().await;
    let mut options = options(&nats.url(), "c");
    options.settings.replicas = 3;
    let error = refused(options).await.to_string();
    // An old server for what it does with them, and one alone for what it is.
    assert!(error.contains("replicas"), "{error}");
}

#[tokio::test]
async fn users_and_passwords_work() {
    let nats = Nats::start_with(r#"authorization { user: "hearth", password: "right" }"#).await;
    let with = |password: &str| {
        let mut options = options(&nats.url(), "c");
        options.settings.user = Some("hearth".into());
        options.settings.password = Some(Secret::new(password));
        options
    };
    takes_nothing(with("wrong")).await;
    works(with("right")).await;
}

#[tokio::test]
async fn tokens_work() {
    let nats = Nats::start_with(r#"authorization { token: "right" }"#).await;
    let with = |token: &str| {
        let mut options = options(&nats.url(), "c");
        options.settings.token = Some(Secret::new(token));
        options
    };
    takes_nothing(with("wrong")).await;
    works(with("right")).await;
}

#[tokio::test]
async fn nkeys_work() {
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let user = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let nats = Nats::start_with(&format!("authorization {{ users: [{{ nkey: {user} }}] }}")).await;
    let with = |seed: &str| {
        let mut options = options(&nats.url(), "c");
        options.settings.nkey = Some(Secret::new(seed));
        options
    };
    takes_nothing(with(
        "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY",
    ))
    .await;
    works(with(seed)).await;
}

#[tokio::test]
async fn a_creds_file_that_is_none_is_named() {
    let nats = Nats::start().await;
    let file = nats.dir().join("user.creds");
    let with = || {
        let mut options = options(&nats.url(), "c");
        options.settings.creds_file = Some(file.clone());
        options
    };
    let error = refused(with()).await.to_string();
    assert!(
        error.contains("queue.jetstream.creds_file") && error.contains("No such file"),
        "{error}"
    );
    std::fs::write(&file, "nothing of the kind").unwrap();
    let error = refused(with()).await.to_string();
    assert!(
        error.contains("queue.jetstream.creds_file") && error.contains("user.creds"),
        "{error}"
    );
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, as files.
fn certificate(
    dir: &Path,
    name: &str,
    authority: &CertifiedIssuer<'static, KeyPair>,
) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let certificate = params(name).signed_by(&key, authority).unwrap();
    (
        write(dir, &format!("{name}.crt"), &certificate.pem()),
        write(dir, &format!("{name}.key"), &key.serialize_pem()),
    )
}

#[tokio::test]
async fn tls_works_with_an_authority_and_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority("ours");
    let ca_file = write(dir.path(), "ca.crt", &ours.pem());
    let (server, server_key) = certificate(dir.path(), "server", &ours);
    let (client, client_key) = certificate(dir.path(), "client", &ours);
    let tls = format!(
        "tls {{ cert_file: {server:?}, key_file: {server_key:?}, ca_file: {ca_file:?}, verify: true }}"
    );
    let nats = Nats::start_with(&tls).await;
    let with = |ca_file: &PathBuf, has_certificate: bool| {
        let mut options = options(&nats.url(), "c");
        options.settings.ca_file = Some(ca_file.clone());
        options.settings.cert_file = has_certificate.then(|| client.clone());
        options.settings.key_file = has_certificate.then(|| client_key.clone());
        options
    };
    works(with(&ca_file, true)).await;
    takes_nothing(with(&ca_file, false)).await;
    let other = write(dir.path(), "other.crt", &authority("other").pem());
    takes_nothing(with(&other, true)).await;
    let error = refused(with(&dir.path().join("none"), true))
        .await
        .to_string();
    assert!(
        error.contains("none") && error.contains("No such file"),
        "{error}"
    );
}
