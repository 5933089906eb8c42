//! TLS with an authority and certificates of the test's own.

use std::path::{Path, PathBuf};

use config::Store;
use config::etcd::server::{Etcd, settings};
use config::settings::EtcdSettings;
use config::store::EtcdStore;
use config::store::conformance::Told;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::until;

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
    let etcd = Etcd::start_with_tls(&ca_file, &server, &server_key);

    let right = EtcdSettings {
        ca_file: Some(ca_file),
        cert_file: Some(client),
        key_file: Some(client_key),
        ..settings([etcd.url.clone()])
    };
    let store = EtcdStore::connect(&right, "test").await.unwrap();
    until("the server answers", async || store.list("").await.is_ok()).await;
    let mut told = Told::new(store.list("").await.unwrap());
    let mut watch = store.watch("", told.revision);
    store.put("a", "1".into(), None).await.unwrap();
    told.until(&mut watch, &["a"]).await;

    let no_certificate = EtcdSettings {
        cert_file: None,
        key_file: None,
        ..right.clone()
    };
    let short = std::time::Duration::from_millis(500);
    let refused = EtcdStore::connect(
        &EtcdSettings {
            operation_timeout: short,
            ..no_certificate
        },
        "test",
    )
    .await
    .unwrap();
    refused.get("a").await.unwrap_err();
    let other = write(dir.path(), "other.crt", &authority("other").pem());
    let wrong = EtcdSettings {
        ca_file: Some(other),
        operation_timeout: short,
        ..right.clone()
    };
    let refused = EtcdStore::connect(&wrong, "test").await.unwrap();
    refused.get("a").await.unwrap_err();
    let missing = EtcdSettings {
        ca_file: Some(dir.path().join("none")),
        ..right
    };
    let error = EtcdStore::connect(&missing, "test").await.unwrap_err();
    assert!(error.to_string().contains("none: No such file"), "{error}");
}
