//! API keys: what they may, how long, and how many there are.

use std::collections::BTreeSet;

use accounts::{Denied, Error, NewKey, Scope};
use config::settings::AuthSettings;
use protocol::ErrorCode;

use crate::{EMAIL, check, login, new_key, node, refused, settings, sign_up, store};

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
