//! Users and keys at the three ports: who may do what to which space.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use accounts::{Accounts, Args, Error, Events, NewKey, Role, Scope, SpaceSettings, Tokens, User};
use config::settings::{AuthMode, AuthSettings, Secret};
use config::store::MemoryStore;
use config::{Keyring, Store};
use protocol::Space;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vault::Vault;

use crate::support::{Answer, Call, PATIENCE, Sandbox};

const PASSWORD: &str = "password123";
const OPERATOR: &str = "0123456789abcdef";

/// An edge with auth and three users: an admin, a member of the space `team`, and one who is in no space but its own.
struct Scene {
    sandbox: Sandbox,
    accounts: Accounts,
    member: (User, Tokens),
    stranger: (User, Tokens),
    admin: (User, Tokens),
    _data_dir: tempfile::TempDir,
}

fn space(name: &str) -> Space {
    name.parse().unwrap()
}

async fn accounts(settings: &AuthSettings, data_dir: &tempfile::TempDir) -> Accounts {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let keyring = watch::Sender::new(Keyring::with(&["a secret of sixteen bytes"]));
    let args = Args {
        vault: Vault::new(Arc::clone(&store), "test", keyring.subscribe()),
        store,
        settings: settings.clone(),
        cluster_id: "test".into(),
        node: "n1".into(),
        data_dir: data_dir.path().to_owned(),
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    Accounts::start(args).await
}

async fn user(accounts: &Accounts, email: &str) -> (User, Tokens) {
    let password = Secret::new(PASSWORD);
    let user = accounts.sign_up(None, email, &password).await.unwrap();
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let tried = async {
        loop {
            match accounts.login(email, &password, here).await {
                // It is made in the first moment of the node.
                Err(Error::NoSigningKey) => tokio::task::yield_now().await,
                tokens => return tokens.unwrap(),
            }
        }
    };
    let tokens = tokio::time::timeout(PATIENCE, tried).await.unwrap();
    (user, tokens)
}

impl Scene {
    async fn start(mode: AuthMode) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let settings = AuthSettings {
            mode,
            ..AuthSettings::default()
        };
        let accounts = accounts(&settings, &data_dir).await;
        let (member, stranger, admin) = (
            user(&accounts, "member@example.com").await,
            user(&accounts, "stranger@example.com").await,
            user(&accounts, "admin@example.com").await,
        );
        accounts
            .join_space(&member.0.id, &space("team"))
            .await
            .unwrap();
        accounts.set_role(&admin.0.id, Role::Admin).await.unwrap();
        let sandbox = Sandbox::with_accounts(|all| all.auth.mode = mode, accounts.clone());
        Self {
            sandbox,
            accounts,
            member,
            stranger,
            admin,
            _data_dir: data_dir,
        }
    }

    async fn key(&self, scopes: &[Scope]) -> String {
        let caller = match self
            .accounts
            .verify(self.member.1.token.expose().as_bytes())
        {
            accounts::Verdict::Known(caller) => caller,
            other => panic!("{other:?}"),
        };
        let new = NewKey {
            name: "k".to_owned(),
            scopes: scopes.iter().copied().collect(),
            spaces: None,
            expires_in_seconds: None,
            aws: false,
        };
        let (_, secret) = self.accounts.create_key(&caller, new).await.unwrap();
        secret.expose().to_owned()
    }
}

fn with(call: Call, token: &str) -> Call {
    match token {
        "" => call,
        token => call.header("authorization", &format!("Bearer {token}")),
    }
}

async fn check(address: SocketAddr, call: Call, token: &str, expected: u16, what: &str) -> Answer {
    let answer = with(call, token).send(address).await;
    assert_eq!(answer.status, expected, "{what}: {}", answer.text());
    answer.has_common_headers();
    answer
}

#[tokio::test]
async fn a_space_is_its_members_and_everything_else_the_admins() {
    let scene = Scene::start(AuthMode::Required).await;
    let config = scene.sandbox.addresses.config;
    let member = scene.member.1.token.expose();
    let stranger = scene.stranger.1.token.expose();
    let admin = scene.admin.1.token.expose();
    let own = format!("/v1/spaces/{}/functions", scene.member.0.id.own_space());
    for (path, of_member, of_stranger) in [
        ("/v1/spaces/team/functions", 200, 403),
        ("/v1/spaces/team/subscriptions", 200, 403),
        ("/v1/spaces/team/schedules", 200, 403),
        (own.as_str(), 200, 403),
        ("/v1/spaces/default/functions", 403, 403),
        ("/v1/functions", 403, 403),
        ("/v1/spaces/%74eam/functions", 403, 403),
        ("/v1/cluster", 403, 403),
        ("/metrics", 403, 403),
        ("/debug/actors", 403, 403),
        ("/v1/dead-letters", 403, 403),
        ("/v1/spaces", 200, 200),
        ("/v1/status", 200, 200),
    ] {
        check(config, Call::get(path), member, of_member, path).await;
        check(config, Call::get(path), stranger, of_stranger, path).await;
        check(config, Call::get(path), admin, 200, path).await;
        check(config, Call::get(path), OPERATOR, 200, path).await;
        let open = if path == "/v1/status" { 200 } else { 401 };
        let answer = check(config, Call::get(path), "", open, path).await;
        let challenge = (open == 401).then_some("Bearer");
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
}

#[tokio::test]
async fn what_is_no_credential_of_this_cluster_is_refused_at_every_port() {
    let scene = Scene::start(AuthMode::Required).await;
    let good = scene.member.1.token.expose();
    let (_, claims_and_signature) = good.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwia2lkIjoiMSJ9";
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = scene.stranger.1.token.expose().rsplit_once('.').unwrap().1;
    let deleted = user(&scene.accounts, "gone@example.com").await;
    scene.accounts.begin_delete(&deleted.0.id).await.unwrap();
    let refresh = scene.member.1.refresh_token.expose();
    for wrong in [
        "x",
        "a.b.c",
        "hk_a_b_c",
        refresh,
        &format!("{none}.{claims_and_signature}"),
        &format!("{none}.{}.", signed.split_once('.').unwrap().1),
        &format!("{signed}.{other}"),
        deleted.1.token.expose(),
        &"x".repeat(6_000),
    ] {
        let addresses = scene.sandbox.addresses;
        for (address, call) in [
            (
                addresses.functions,
                Call::post("/invoke", r#"{"function_name":"f","space":"team"}"#),
            ),
            (addresses.functions, Call::get("/api/v1/functions/me")),
            (addresses.events, Call::post("/", "1").header("event", "a")),
            (addresses.config, Call::get("/v1/spaces/team/functions")),
        ] {
            let what = wrong.get(..40).unwrap_or(wrong);
            check(address, call, wrong, 401, what).await;
        }
    }
}

#[tokio::test]
async fn functions_are_called_by_members_and_by_keys_with_the_scope() {
    let scene = Scene::start(AuthMode::Required).await;
    let functions = scene.sandbox.addresses.functions;
    let call = |space: &str| {
        let body = json!({ "function_name": "hello", "space": space });
        Call::post("/invoke", body.to_string())
    };
    let member = scene.member.1.token.expose();
    check(functions, call("team"), member, 200, "its space").await;
    check(functions, call("default"), member, 403, "another space").await;
    check(
        functions,
        call("team"),
        scene.stranger.1.token.expose(),
        403,
        "no member",
    )
    .await;
    check(
        functions,
        call("default"),
        scene.admin.1.token.expose(),
        200,
        "an admin",
    )
    .await;
    check(functions, call("default"), OPERATOR, 200, "the operator").await;
    let (invoker, reader) = (
        scene.key(&[Scope::Invoke]).await,
        scene.key(&[Scope::Read]).await,
    );
    check(functions, call("team"), &invoker, 200, "a key for it").await;
    check(functions, call("default"), &invoker, 403, "a key elsewhere").await;
    check(
        functions,
        call("team"),
        &reader,
        403,
        "a key for something else",
    )
    .await;
    let config = scene.sandbox.addresses.config;
    let list = || Call::get("/v1/spaces/team/functions");
    check(config, list(), &reader, 200, "a key for it").await;
    check(config, list(), &invoker, 403, "a key for something else").await;
    let id = scene.accounts.keys(&scene.member.0.id).await.unwrap();
    for key in id {
        scene
            .accounts
            .revoke_key(&scene.member.0.id, &key.id)
            .await
            .unwrap();
    }
    check(functions, call("team"), &invoker, 401, "a revoked key").await;
    check(config, list(), &reader, 401, "a revoked key").await;
}

#[tokio::test]
async fn events_are_for_the_space_they_name_and_for_everybody_where_it_is_open() {
    let scene = Scene::start(AuthMode::Required).await;
    let events = scene.sandbox.addresses.events;
    let emit = |space: &str| {
        Call::post("/", "1")
            .header("event", "a")
            .header("space", space)
    };
    let member = scene.member.1.token.expose();
    check(events, emit("team"), member, 202, "its space").await;
    check(events, emit("other"), member, 403, "another space").await;
    check(events, emit("a b"), member, 400, "no space").await;
    check(events, emit("team"), "", 401, "nobody").await;
    let unnamed = Call::post("/", "1").header("event", "a");
    check(
        events,
        unnamed,
        member,
        403,
        "none named is the default one",
    )
    .await;
    let emitter = scene.key(&[Scope::Emit]).await;
    check(events, emit("team"), &emitter, 202, "a key for it").await;
    let reader = scene.key(&[Scope::Read]).await;
    check(
        events,
        emit("team"),
        &reader,
        403,
        "a key for something else",
    )
    .await;
    let open = SpaceSettings {
        events: Events::Open,
        ..SpaceSettings::default()
    };
    scene
        .accounts
        .set_space(&space("team"), open)
        .await
        .unwrap();
    check(events, emit("team"), "", 202, "an open space").await;
    check(events, emit("other"), "", 401, "another is not").await;
}

#[tokio::test]
async fn what_runs_as_the_node_itself_is_registered_by_admins() {
    let scene = Scene::start(AuthMode::Required).await;
    let config = scene.sandbox.addresses.config;
    let body = json!({ "functionId": "f", "type": "process", "provider": { "command": ["true"] } });
    let create = || Call::post("/v1/spaces/team/functions", body.to_string());
    let member = scene.member.1.token.expose();
    let refused = check(config, create(), member, 403, "a member").await;
    assert!(refused.text().contains("process"), "{}", refused.text());
    // The scripted node has them off, which is what an admin is told.
    let of_admin = scene.admin.1.token.expose();
    let off = check(config, create(), of_admin, 403, "an admin").await;
    assert!(off.text().contains("--allow-process"), "{}", off.text());
    let replace = Call::new("PUT", "/v1/spaces/team/functions/f").body(body.to_string());
    check(config, replace, member, 403, "a member").await;
    let http =
        json!({ "functionId": "g", "type": "http", "provider": { "url": "http://a.example" } });
    let create = Call::post("/v1/spaces/team/functions", http.to_string());
    check(config, create, member, 201, "another type").await;
}

#[tokio::test]
async fn without_auth_the_token_still_says_whose_things_a_call_is_about() {
    let scene = Scene::start(AuthMode::Off).await;
    let addresses = scene.sandbox.addresses;
    let own = || Call::get("/api/v1/functions/nothing");
    check(addresses.functions, own(), "", 401, "nobody").await;
    check(addresses.functions, own(), "x", 401, "a wrong token").await;
    check(addresses.functions, own(), OPERATOR, 403, "no account").await;
    check(
        addresses.functions,
        own(),
        scene.member.1.token.expose(),
        404,
        "a user",
    )
    .await;
    check(
        addresses.config,
        Call::get("/v1/spaces/team/functions"),
        "",
        200,
        "all else",
    )
    .await;
    let call = Call::post("/invoke", r#"{"function_name":"hello"}"#);
    check(addresses.functions, call, "", 200, "all else").await;
}

#[tokio::test]
async fn a_token_is_good_for_as_long_as_the_settings_say() {
    let data_dir = tempfile::tempdir().unwrap();
    let settings = AuthSettings {
        mode: AuthMode::Required,
        token_ttl: Duration::from_secs(1),
        ..AuthSettings::default()
    };
    let accounts = accounts(&settings, &data_dir).await;
    let (_, tokens) = user(&accounts, "a@b.example").await;
    let required = |all: &mut config::Settings| all.auth.mode = AuthMode::Required;
    let sandbox = Sandbox::with_accounts(required, accounts.clone());
    let expired = async {
        loop {
            let call = with(Call::get("/v1/spaces"), tokens.token.expose());
            let answer = call.send(sandbox.addresses.config).await;
            match answer.status {
                200 => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return answer,
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, expired).await.unwrap();
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("expired"), "{}", answer.text());
    let next = accounts.refresh(&tokens.refresh_token).await.unwrap();
    let call = Call::get("/v1/spaces");
    check(
        sandbox.addresses.config,
        call,
        next.token.expose(),
        200,
        "refreshed",
    )
    .await;
}
