//! Accounts as two nodes have them that share a store.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

mod keys;
mod logins;
mod roles;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use accounts::{Accounts, Args, Caller, Denied, Error, NewKey, Scope, User, Verdict};
use config::settings::{AuthSettings, Secret};
use config::store::MemoryStore;
use config::{Keyring, Store};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use vault::Vault;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "password123";

struct Node {
    accounts: Accounts,
    data_dir: tempfile::TempDir,
    _stops: DropGuard,
}

/// Settings that slow nothing, so that tests of other things are not slowed.
fn settings() -> AuthSettings {
    AuthSettings {
        login_failures_max: 1_000,
        ..AuthSettings::default()
    }
}

async fn node(store: &Arc<dyn Store>, settings: AuthSettings) -> Node {
    let data_dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let accounts = start(store, settings, &data_dir, &stop).await;
    Node {
        accounts,
        data_dir,
        _stops: stop.drop_guard(),
    }
}

async fn start(
    store: &Arc<dyn Store>,
    settings: AuthSettings,
    data_dir: &tempfile::TempDir,
    stop: &CancellationToken,
) -> Accounts {
    let keyring = watch::Sender::new(Keyring::with(&["a secret of sixteen bytes"]));
    let started = Accounts::start(Args {
        store: Arc::clone(store),
        vault: Vault::new(Arc::clone(store), "test", keyring.subscribe()),
        settings,
        cluster_id: "test".into(),
        node: "n1".into(),
        data_dir: data_dir.path().to_owned(),
        tracker: TaskTracker::new(),
        stop: stop.clone(),
    });
    let accounts = started.await;
    // The first login finds a key to sign with.
    let has_key = async {
        while store.list("signing/").await.unwrap().entries.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), has_key)
        .await
        .unwrap();
    accounts
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

async fn sign_up(accounts: &Accounts, email: &str) -> User {
    let password = Secret::new(PASSWORD);
    accounts.sign_up(None, email, &password).await.unwrap()
}

/// A login, tried again while the node does not know its signing key yet.
async fn login(accounts: &Accounts, email: &str) -> accounts::Tokens {
    let tried = async {
        loop {
            match accounts.login(email, &Secret::new(PASSWORD), HERE).await {
                Err(Error::NoSigningKey) => tokio::task::yield_now().await,
                tokens => return tokens.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), tried)
        .await
        .unwrap()
}

/// Whose a credential is, as the gateway finds out.
async fn check(accounts: &Accounts, credential: &Secret) -> Result<Caller, Denied> {
    let credential = credential.expose().as_bytes();
    match accounts.verify(credential) {
        Verdict::Known(caller) => Ok(caller),
        Verdict::Unknown => accounts.ask(credential).await,
        Verdict::Denied(denied) => Err(denied),
    }
}

/// Waits until a node refuses a credential, which takes no longer than the watch.
async fn refused(accounts: &Accounts, credential: &Secret) -> Denied {
    let refused = async {
        loop {
            match check(accounts, credential).await {
                Err(denied) => return denied,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(1), refused)
        .await
        .unwrap()
}

fn new_key(scopes: &[Scope]) -> NewKey {
    NewKey {
        name: "build".to_owned(),
        scopes: scopes.iter().copied().collect(),
        spaces: None,
        expires_in_seconds: None,
        aws: false,
    }
}
