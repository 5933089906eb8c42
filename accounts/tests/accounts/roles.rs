//! Who is an admin, who is a member of which space, and what is set for a space.

use std::sync::Arc;
use std::time::Duration;

use accounts::{Caller, Error, Events, Role, Scope, SpaceSettings};
use config::Store;
use config::settings::{AuthMode, AuthSettings, Secret, SignUp};

use crate::{EMAIL, PASSWORD, check, login, node, settings, sign_up, store};

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
