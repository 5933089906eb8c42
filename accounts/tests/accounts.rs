//! Accounts as two nodes have them that share a store.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use accounts::{
    Accounts, Args, Caller, Denied, Error, Events, NewKey, Role, Scope, SpaceSettings, User,
    UserState, Verdict,
};
use config::settings::{AuthMode, AuthSettings, Secret, SignUp};
use config::store::MemoryStore;
use config::{Keyring, Store};
use protocol::ErrorCode;
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

#[tokio::test]
async fn a_token_of_one_node_is_good_at_another_at_once_and_no_more_after_logout() {
    let store = store();
    let (one, other) = (
        node(&store, settings()).await,
        node(&store, settings()).await,
    );
    let user = sign_up(&one.accounts, EMAIL).await;
    let tokens = login(&other.accounts, "Ada@EXAMPLE.com").await;
    for node in [&one, &other] {
        let caller = check(&node.accounts, &tokens.token).await.unwrap();
        assert_eq!(caller.user_id(), Some(&user.id));
        assert_eq!(caller.email(), Some(EMAIL));
        assert!(!caller.is_admin());
    }
    let caller = check(&one.accounts, &tokens.token).await.unwrap();
    one.accounts.logout(&caller).await.unwrap();
    // At the node that ended it without any delay, at the other one as soon as the watch says so.
    assert_eq!(refused(&one.accounts, &tokens.token).await, Denied::Ended);
    assert_eq!(refused(&other.accounts, &tokens.token).await, Denied::Ended);
    let refreshed = other.accounts.refresh(&tokens.refresh_token).await;
    assert!(matches!(refreshed, Err(Error::SessionEnded)));
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_second_use_ends_the_session() {
    let store = store();
    let node = node(&store, settings()).await;
    let accounts = &node.accounts;
    sign_up(accounts, EMAIL).await;
    let first = login(accounts, EMAIL).await;
    let second = accounts.refresh(&first.refresh_token).await.unwrap();
    assert!(check(accounts, &second.token).await.is_ok());
    assert!(
        check(accounts, &first.token).await.is_ok(),
        "until it expires"
    );
    let stolen = accounts.refresh(&first.refresh_token).await;
    assert!(matches!(stolen, Err(Error::SessionEnded)));
    assert_eq!(refused(accounts, &second.token).await, Denied::Ended);
    let next = accounts.refresh(&second.refresh_token).await;
    assert!(matches!(next, Err(Error::SessionEnded)));
}

#[tokio::test]
async fn a_new_password_ends_every_session() {
    let store = store();
    let node = node(&store, settings()).await;
    let accounts = &node.accounts;
    sign_up(accounts, EMAIL).await;
    let (one, other) = (login(accounts, EMAIL).await, login(accounts, EMAIL).await);
    let caller = check(accounts, &one.token).await.unwrap();
    let (old, new) = (Secret::new(PASSWORD), Secret::new("another-password"));
    let wrong = accounts.change_password(&caller, &new, &new, HERE).await;
    assert!(matches!(wrong, Err(Error::WrongCredentials)));
    accounts
        .change_password(&caller, &old, &new, HERE)
        .await
        .unwrap();
    for tokens in [one, other] {
        assert_eq!(refused(accounts, &tokens.token).await, Denied::Ended);
    }
    let before = accounts.login(EMAIL, &old, HERE).await;
    assert!(matches!(before, Err(Error::WrongCredentials)));
    assert!(accounts.login(EMAIL, &new, HERE).await.is_ok());
}

#[tokio::test]
async fn a_deleted_user_is_refused_everywhere_and_its_email_is_free_again() {
    let store = store();
    let (one, other) = (
        node(&store, settings()).await,
        node(&store, settings()).await,
    );
    let user = sign_up(&one.accounts, EMAIL).await;
    let tokens = login(&one.accounts, EMAIL).await;
    let caller = check(&other.accounts, &tokens.token).await.unwrap();
    let (_, key) = one
        .accounts
        .create_key(&caller, new_key(&[Scope::Read]))
        .await
        .unwrap();
    let deleting = one.accounts.begin_delete(&user.id).await.unwrap();
    assert_eq!(deleting.state, UserState::Deleting);
    for node in [&one, &other] {
        refused(&node.accounts, &tokens.token).await;
        refused(&node.accounts, &key).await;
        let again = node
            .accounts
            .login(EMAIL, &Secret::new(PASSWORD), HERE)
            .await;
        assert!(matches!(again, Err(Error::WrongCredentials)));
    }
    assert_eq!(one.accounts.deleting(), std::slice::from_ref(&user.id));
    let taken = one
        .accounts
        .sign_up(None, EMAIL, &Secret::new(PASSWORD))
        .await;
    assert!(matches!(taken, Err(Error::Taken { .. })));
    one.accounts.finish_delete(&user.id).await.unwrap();
    one.accounts.finish_delete(&user.id).await.unwrap();
    assert!(matches!(
        other.accounts.user(&user.id).await,
        Err(Error::NoUser { .. })
    ));
    assert_ne!(sign_up(&other.accounts, EMAIL).await.id, user.id);
}

#[tokio::test]
async fn of_two_that_sign_up_with_one_email_at_once_one_is_told_that_it_is_taken() {
    let store = store();
    let (one, other) = (
        node(&store, settings()).await,
        node(&store, settings()).await,
    );
    let password = Secret::new(PASSWORD);
    let (first, second) = tokio::join!(
        one.accounts.sign_up(None, EMAIL, &password),
        other.accounts.sign_up(None, "ADA@example.com", &password),
    );
    let results = [first, second];
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .any(|result| matches!(result, Err(Error::Taken { .. })))
    );
    assert_eq!(one.accounts.users(None, 10).await.unwrap().len(), 1);
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

#[tokio::test]
async fn an_access_key_has_one_secret_on_all_nodes_until_it_is_revoked() {
    let store = store();
    let (one, other) = (
        node(&store, settings()).await,
        node(&store, settings()).await,
    );
    let user = sign_up(&one.accounts, EMAIL).await;
    let token = login(&one.accounts, EMAIL).await.token;
    let owner = check(&one.accounts, &token).await.unwrap();
    let new = |spaces: &[&str]| NewKey {
        aws: true,
        spaces: (!spaces.is_empty())
            .then(|| spaces.iter().map(|space| space.parse().unwrap()).collect()),
        ..new_key(&[Scope::Invoke])
    };
    let (key, secret) = one.accounts.create_key(&owner, new(&[])).await.unwrap();
    let id = key.access_key_id.clone().unwrap();
    assert_eq!(secret.expose().len(), 40);
    for accounts in [&one.accounts, &other.accounts] {
        let (caller, found) = accounts.access_key(&id).await.unwrap();
        assert_eq!(found.expose(), secret.expose());
        assert_eq!(caller.home_space(), user.id.own_space());
        assert!(caller.may(&user.id.own_space(), Scope::Invoke));
        assert!(!caller.may(&user.id.own_space(), Scope::Write));
    }
    refused(&one.accounts, &secret).await;
    let (second, other_secret) = one
        .accounts
        .create_key(&owner, new(&["team"]))
        .await
        .unwrap();
    assert_ne!(other_secret.expose(), secret.expose());
    let second_id = second.access_key_id.unwrap();
    let (caller, _) = one.accounts.access_key(&second_id).await.unwrap();
    assert_eq!(caller.home_space().as_str(), "team");
    assert!(
        !caller.may(&caller.home_space(), Scope::Invoke),
        "it is no member"
    );
    let two = one
        .accounts
        .create_key(&owner, new(&["team", "other"]))
        .await;
    let error = two.unwrap_err();
    assert!(
        error.to_string().starts_with("spaces is 2 spaces"),
        "{error}"
    );
    // A key that is none of them has no such id.
    let (plain, _) = one
        .accounts
        .create_key(&owner, new_key(&[Scope::Invoke]))
        .await
        .unwrap();
    assert_eq!(plain.access_key_id, None);
    let of_plain = format!("HKIA{}{}", user.id, plain.id).to_uppercase();
    let denied = one.accounts.access_key(&of_plain).await.unwrap_err();
    assert_eq!(denied, Denied::Invalid);
    one.accounts.revoke_key(&user.id, &key.id).await.unwrap();
    for accounts in [&one.accounts, &other.accounts] {
        let denied = accounts.access_key(&id).await.unwrap_err();
        assert_eq!(denied, Denied::Ended);
    }
}

#[tokio::test]
async fn a_key_may_what_it_names_until_it_is_revoked() {
    let store = store();
    let (one, other) = (
        node(&store, settings()).await,
        node(&store, settings()).await,
    );
    let user = sign_up(&one.accounts, EMAIL).await;
    let token = login(&one.accounts, EMAIL).await.token;
    let owner = check(&one.accounts, &token).await.unwrap();
    let (key, secret) = one
        .accounts
        .create_key(&owner, new_key(&[Scope::Invoke]))
        .await
        .unwrap();
    let caller = check(&other.accounts, &secret).await.unwrap();
    let own = user.id.own_space();
    assert!(caller.may(&own, Scope::Invoke));
    assert!(!caller.may(&own, Scope::Write));
    assert!(matches!(
        one.accounts
            .create_key(&caller, new_key(&[Scope::Read]))
            .await,
        Err(Error::NoSession)
    ));
    assert!(matches!(
        one.accounts.logout(&caller).await,
        Err(Error::NoSession)
    ));
    assert_eq!(
        other.accounts.keys(&user.id).await.unwrap(),
        std::slice::from_ref(&key)
    );
    one.accounts.revoke_key(&user.id, &key.id).await.unwrap();
    refused(&one.accounts, &secret).await;
    refused(&other.accounts, &secret).await;
    for id in [key.id.as_str(), "nothing", "../../users"] {
        let again = one.accounts.revoke_key(&user.id, id).await;
        assert!(matches!(again, Err(Error::NoKey { .. })), "{id}");
    }
    for (wrong, field) in [
        (
            NewKey {
                name: String::new(),
                ..new_key(&[Scope::Read])
            },
            "name",
        ),
        (new_key(&[]), "scopes"),
        (
            NewKey {
                spaces: Some(BTreeSet::new()),
                ..new_key(&[Scope::Read])
            },
            "spaces",
        ),
        (
            NewKey {
                expires_in_seconds: Some(0),
                ..new_key(&[Scope::Read])
            },
            "expiresInSeconds",
        ),
    ] {
        let error = one.accounts.create_key(&owner, wrong).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest);
        assert!(error.to_string().starts_with(field), "{error}");
    }
    let admins = one
        .accounts
        .create_key(&owner, new_key(&[Scope::Admin]))
        .await;
    assert!(matches!(admins, Err(Error::NotAdmin { .. })));
}

#[tokio::test]
async fn a_user_has_only_so_many_keys_and_sessions() {
    let store = store();
    let settings = AuthSettings {
        keys_per_user_max: 3,
        sessions_per_user_max: 2,
        ..settings()
    };
    let node = node(&store, settings).await;
    let accounts = &node.accounts;
    let user = sign_up(accounts, EMAIL).await;
    let first = login(accounts, EMAIL).await;
    let owner = check(accounts, &first.token).await.unwrap();
    let made = futures_util::future::join_all(
        (0..6).map(|_| accounts.create_key(&owner, new_key(&[Scope::Read]))),
    );
    let made = made.await;
    assert_eq!(
        made.iter().filter(|made| made.is_ok()).count(),
        3,
        "{made:?}"
    );
    assert_eq!(accounts.keys(&user.id).await.unwrap().len(), 3);
    let second = login(accounts, EMAIL).await;
    login(accounts, EMAIL).await;
    refused(accounts, &first.token).await;
    assert!(check(accounts, &second.token).await.is_ok());
}

#[tokio::test]
async fn a_role_and_spaces_count_from_the_next_call_on() {
    let store = store();
    let (one, other) = (
        node(&store, settings()).await,
        node(&store, settings()).await,
    );
    let user = sign_up(&one.accounts, EMAIL).await;
    let token = login(&one.accounts, EMAIL).await.token;
    let team = "team".parse().unwrap();
    assert!(
        !check(&one.accounts, &token)
            .await
            .unwrap()
            .may(&team, Scope::Read)
    );
    let joined = one.accounts.join_space(&user.id, &team).await.unwrap();
    assert!(joined.spaces.contains(&team));
    assert!(
        check(&one.accounts, &token)
            .await
            .unwrap()
            .may(&team, Scope::Read)
    );
    one.accounts.leave_space(&user.id, &team).await.unwrap();
    assert!(
        !check(&one.accounts, &token)
            .await
            .unwrap()
            .may(&team, Scope::Read)
    );
    other
        .accounts
        .set_role(&user.id, Role::Admin)
        .await
        .unwrap();
    assert!(check(&other.accounts, &token).await.unwrap().is_admin());
}

#[tokio::test]
async fn failed_logins_slow_the_next_and_are_refused_without_a_write() {
    let store = store();
    let settings = AuthSettings {
        login_delay: Duration::from_secs(30),
        ..AuthSettings::default()
    };
    let (one, other) = (
        node(&store, settings.clone()).await,
        node(&store, settings).await,
    );
    sign_up(&one.accounts, EMAIL).await;
    let wrong = Secret::new("a wrong password");
    let address = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
    for last in 0..5 {
        let failed = one.accounts.login(EMAIL, &wrong, address(last)).await;
        assert!(matches!(failed, Err(Error::WrongCredentials)));
    }
    let before = store.list("logins/").await.unwrap().revision;
    for node in [&one, &other] {
        // The account is slowed from any address, with the right password too.
        let slowed = async {
            loop {
                match node
                    .accounts
                    .login(EMAIL, &Secret::new(PASSWORD), address(9))
                    .await
                {
                    Err(Error::Slowed { retry_after }) => return retry_after,
                    Err(Error::NoSigningKey) => tokio::task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
        };
        let retry_after = tokio::time::timeout(Duration::from_secs(1), slowed)
            .await
            .unwrap();
        assert!(retry_after <= Duration::from_secs(30) && retry_after > Duration::from_secs(20));
    }
    for _ in 0..1_000 {
        let slowed = one.accounts.login(EMAIL, &wrong, address(8)).await;
        assert!(matches!(slowed, Err(Error::Slowed { .. })));
    }
    assert_eq!(store.list("logins/").await.unwrap().revision, before);
    // One address is slowed for any account, whether it exists or not.
    for number in 0..5 {
        let email = format!("nobody{number}@example.com");
        let failed = one.accounts.login(&email, &wrong, address(7)).await;
        assert!(matches!(failed, Err(Error::WrongCredentials)), "{failed:?}");
    }
    let slowed = one
        .accounts
        .login("nobody9@example.com", &wrong, address(7))
        .await;
    assert!(matches!(slowed, Err(Error::Slowed { .. })));
}

#[tokio::test]
async fn a_new_signing_key_logs_nobody_out() {
    let store = store();
    let (one, other) = (
        node(&store, settings()).await,
        node(&store, settings()).await,
    );
    sign_up(&one.accounts, EMAIL).await;
    let token = login(&one.accounts, EMAIL).await.token;
    one.accounts.rotate_signing_key().await.unwrap();
    one.accounts.rotate_signing_key().await.unwrap();
    assert_eq!(store.list("signing/").await.unwrap().entries.len(), 3);
    let after = login(&other.accounts, EMAIL).await.token;
    for node in [&one, &other] {
        assert!(check(&node.accounts, &token).await.is_ok());
        assert!(check(&node.accounts, &after).await.is_ok());
    }
    let sealed = store.list("signing/").await.unwrap();
    for entry in sealed.entries {
        let record: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
        assert!(record["sealed"].as_str().unwrap().len() > 90, "{record}");
    }
}

/// Waits until there is a one-time token.
async fn offered(store: &Arc<dyn Store>) {
    let offered = async {
        while store.get("admin/init").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), offered)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cluster_whose_last_admin_is_one_no_more_gets_a_new_one_time_token() {
    let store = store();
    let settings = AuthSettings {
        mode: AuthMode::Required,
        sweep_interval: Duration::from_millis(1),
        ..settings()
    };
    let node = node(&store, settings).await;
    offered(&store).await;
    let user = sign_up(&node.accounts, EMAIL).await;
    store.delete("admin/init", None).await.unwrap();
    let offered_again = async {
        // The node has to see that there is an admin before there is none again, and it looks when it likes.
        while store.get("admin/init").await.unwrap().is_none() {
            for role in [Role::Admin, Role::Member] {
                node.accounts.set_role(&user.id, role).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), offered_again)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_first_admin_is_made_with_the_one_time_token_and_no_other() {
    let store = store();
    let settings = AuthSettings {
        mode: AuthMode::Required,
        sign_up: SignUp::Admin,
        ..settings()
    };
    let node = node(&store, settings).await;
    let accounts = &node.accounts;
    offered(&store).await;
    let (password, wrong) = (Secret::new(PASSWORD), Secret::new("guessed"));
    let closed = accounts.sign_up(None, EMAIL, &password).await;
    assert!(matches!(closed, Err(Error::SignUpClosed)));
    let guessed = accounts.init_admin(&wrong, EMAIL, &password).await;
    assert!(matches!(guessed, Err(Error::OneTimeToken)));
    assert!(
        accounts
            .sign_up(Some(&Caller::operator()), EMAIL, &password)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_space_is_open_to_events_when_it_is_set_so() {
    let store = store();
    let (one, other) = (
        node(&store, settings()).await,
        node(&store, settings()).await,
    );
    let space = "team".parse().unwrap();
    assert!(!one.accounts.events_are_open(&space));
    let mut settings = SpaceSettings {
        events: Events::Open,
        ..SpaceSettings::default()
    };
    settings
        .rest
        .insert("later".to_owned(), serde_json::json!({"version": 5}));
    one.accounts
        .set_space(&space, settings.clone())
        .await
        .unwrap();
    assert!(one.accounts.events_are_open(&space));
    assert_eq!(other.accounts.space(&space).await.unwrap(), settings);
    one.accounts
        .set_space(&space, SpaceSettings::default())
        .await
        .unwrap();
    assert!(!one.accounts.events_are_open(&space));
    assert!(store.list("spaces/").await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn what_is_on_disk_has_no_password_no_refresh_token_and_belongs_to_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let store = store();
    let node = node(&store, settings()).await;
    sign_up(&node.accounts, EMAIL).await;
    let tokens = login(&node.accounts, EMAIL).await;
    let session = store.list("sessions/").await.unwrap().entries.remove(0);
    let id = session.key.rsplit_once('/').unwrap().1.to_owned();
    let path = node.data_dir.path().join("accounts.snapshot");
    let written = async {
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if text.contains(&id) => return text,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(10), written)
        .await
        .unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(text.contains(EMAIL));
    assert!(!text.contains("argon2") && !text.contains("refresh"));
    assert!(!text.contains(tokens.token.expose()));
}
