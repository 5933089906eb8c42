//! Users, their logins, and what ends them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use accounts::{Denied, Error, Scope, UserState};
use config::settings::{AuthSettings, Secret};

use crate::{
    EMAIL, HERE, PASSWORD, check, login, new_key, node, refused, settings, sign_up, store,
};

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
