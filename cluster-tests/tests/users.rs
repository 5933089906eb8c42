//! Users, sessions and API keys: each row of their tables, each call to another node than the one before.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_tests::node::hearth;
use cluster_tests::{Node, Record, Sandbox, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The bound on every wait of these tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls one node after the other.
struct Round<'a> {
    sandbox: &'a Sandbox,
    next: AtomicUsize,
}

/// Which API a call is for.
#[derive(Clone, Copy)]
enum Api {
    Functions,
    Config,
}

impl<'a> Round<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        Self {
            sandbox,
            next: AtomicUsize::new(0),
        }
    }

    async fn call(&self, api: Api, line: &str, token: &str, body: Value) -> (u16, Value) {
        let (method, path) = line.split_once(' ').unwrap();
        let nodes = self.sandbox.nodes();
        let node = &nodes[self.next.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        let url = match api {
            Api::Functions => node.functions_url(&format!("/api/v1/{path}")),
            Api::Config => node.config_url(&format!("/v1/{path}")),
        };
        let method: Method = method.parse().unwrap();
        let mut request = self.sandbox.client().request(method, url);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Holds what a call is answered with.
    async fn check(&self, line: &str, token: &str, body: Value, expected: (u16, Value)) {
        let answered = self.call(Api::Functions, line, token, body.clone()).await;
        assert_eq!(answered, expected, "{line} {body}");
    }

    /// Holds that a call is refused, and why.
    async fn refused(&self, line: &str, token: &str, body: Value, status: u16, why: &str) {
        let (found, told) = self.call(Api::Functions, line, token, body.clone()).await;
        assert_eq!(found, status, "{line} {body}: {told}");
        let error = told["error"].as_str().unwrap_or_default();
        assert!(error.contains(why), "{line} {body}: {told}");
    }

    async fn sign_up(&self, email: &str) {
        let expected = json!({ "message": "User created successfully." });
        let body = credentials(email, "password123");
        self.check("POST users", "", body, (201, expected)).await;
    }

    /// The token and the refresh token.
    async fn login(&self, email: &str, password: &str) -> (String, String) {
        let body = credentials(email, password);
        let answered = self.call(Api::Functions, "POST users/login", "", body);
        tokens(answered.await, "User logged successfully.")
    }

    /// Signs a user up and logs it in: its token, and the path of its own space.
    async fn user(&self, email: &str) -> (String, String) {
        self.sign_up(email).await;
        let (token, _) = self.login(email, "password123").await;
        let me = self.call(Api::Functions, "GET users/me", &token, Value::Null);
        let (_, me) = me.await;
        let space = format!("spaces/u-{}", me["userId"].as_str().unwrap());
        (token, space)
    }

    async fn is_refused(&self, token: &str) {
        self.refused("GET users/me", token, Value::Null, 401, "")
            .await;
    }
}

fn credentials(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password })
}

fn tokens((status, told): (u16, Value), message: &str) -> (String, String) {
    assert_eq!((status, &told["message"]), (201, &json!(message)), "{told}");
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    (text("token"), text("refreshToken"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_up_and_login_row_by_row() {
    let sandbox = Sandbox::processes(3).await;
    let round = Round::new(&sandbox);
    round.sign_up("ada@example.com").await;
    for taken in ["ada@example.com", "ADA@example.com"] {
        let body = credentials(taken, "password123");
        round.refused("POST users", "", body, 409, "already").await;
    }
    for (body, why) in [
        (credentials("ada", "password123"), "email is"),
        (credentials("", "password123"), "email is"),
        (credentials("eve@example.com", "short12"), "password"),
        (credentials("eve@example.com", ""), "password"),
        (json!({ "email": "eve@example.com" }), "missing field"),
        (json!({ "password": "password123" }), "missing field"),
        (json!([]), "expected"),
        (Value::Null, "can not be read"),
    ] {
        round.refused("POST users", "", body, 400, why).await;
    }

    let (token, _) = round.login("ada@example.com", "password123").await;
    let line = "POST users/login";
    let wrong = credentials("ada@example.com", "password124");
    let unknown = credentials("eve@example.com", "password123");
    for body in [wrong, unknown] {
        let why = "email or password is wrong";
        round.refused(line, "", body, 401, why).await;
    }
    round
        .refused(line, "", json!({}), 400, "missing field")
        .await;

    let (status, me) = round
        .call(Api::Functions, "GET users/me", &token, Value::Null)
        .await;
    assert_eq!((status, &me["email"]), (200, &json!("ada@example.com")));
    assert_eq!(me["userId"].as_str().unwrap().len(), 32, "{me}");
    assert_eq!(me.as_object().unwrap().len(), 2, "{me}");
    for token in ["", "x", "a.b.c", "hk_x"] {
        round.is_refused(token).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_logout_and_password_end_what_they_should() {
    let sandbox = Sandbox::processes(3).await;
    let round = Round::new(&sandbox);
    round.sign_up("ada@example.com").await;
    let (_, first) = round.login("ada@example.com", "password123").await;
    let line = "POST users/refresh";
    let body = |token: &str| json!({ "refreshToken": token });
    let answered = round.call(Api::Functions, line, "", body(&first)).await;
    let (token, second) = tokens(answered, "Token refreshed successfully.");
    let me = round.call(Api::Functions, "GET users/me", &token, Value::Null);
    assert_eq!(me.await.0, 200);
    // Used a second time it ends the session, on every node.
    let ended = "the session has ended";
    round.refused(line, "", body(&first), 401, ended).await;
    round.refused(line, "", body(&second), 401, ended).await;
    round.refused(line, "", body("hr_x"), 401, ended).await;
    until_refused(&round, &token).await;

    let (token, _) = round.login("ada@example.com", "password123").await;
    let (other, _) = round.login("ada@example.com", "password123").await;
    let expected = json!({ "message": "User logged out successfully." });
    let line = "POST users/logout";
    round
        .check(line, &token, Value::Null, (200, expected))
        .await;
    until_refused(&round, &token).await;
    let me = round.call(Api::Functions, "GET users/me", &other, Value::Null);
    assert_eq!(me.await.0, 200, "the other session goes on");

    let line = "POST users/me/password";
    let change = |old: &str, new: &str| json!({ "password": old, "newPassword": new });
    round
        .refused(line, &other, change("wrong1234", "password456"), 401, "")
        .await;
    round
        .refused(
            line,
            &other,
            change("password123", "short"),
            400,
            "password",
        )
        .await;
    let changed = change("password123", "password456");
    let (status, told) = round.call(Api::Functions, line, &other, changed).await;
    assert_eq!(status, 200, "{told}");
    until_refused(&round, &other).await;
    let old = credentials("ada@example.com", "password123");
    round.refused("POST users/login", "", old, 401, "").await;
    round.login("ada@example.com", "password456").await;
}

/// Waits until each node refuses a token.
async fn until_refused(round: &Round<'_>, token: &str) {
    until("the token is refused everywhere", PATIENCE, || async {
        let mut refused = 0;
        for _ in 0..round.sandbox.nodes().len() {
            let me = round.call(Api::Functions, "GET users/me", token, Value::Null);
            refused += usize::from(me.await.0 == 401);
        }
        refused == round.sandbox.nodes().len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_and_may_what_it_says_until_it_is_revoked() {
    let sandbox = Sandbox::processes(3).await;
    let round = Round::new(&sandbox);
    round.sign_up("ada@example.com").await;
    let (token, _) = round.login("ada@example.com", "password123").await;
    let body = json!({ "name": "ci", "scopes": ["read"] });
    let (status, made) = round
        .call(Api::Functions, "POST keys", &token, body.clone())
        .await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("hk_"), "{made}");
    let (status, listed) = round
        .call(Api::Functions, "GET keys", &token, Value::Null)
        .await;
    assert_eq!(
        (status, &listed["keys"][0]["name"]),
        (200, &json!("ci")),
        "{listed}"
    );
    assert!(!listed.to_string().contains("hk_"), "{listed}");

    let functions = "GET functions/me";
    round
        .check(functions, key, Value::Null, (200, json!([])))
        .await;
    let image = json!({ "image": "hello-world" });
    let why = "the scope write";
    round.refused("POST functions", key, image, 403, why).await;
    for line in ["GET keys", "POST keys", "DELETE users/me"] {
        let why = "the token of a user";
        round.refused(line, key, body.clone(), 403, why).await;
    }
    for (wrong, why) in [
        (json!({ "name": "", "scopes": ["read"] }), "name"),
        (json!({ "name": "a", "scopes": [] }), "scopes"),
        (json!({ "name": "a", "scopes": ["fly"] }), "fly"),
        (json!({ "scopes": ["read"] }), "missing field"),
    ] {
        round.refused("POST keys", &token, wrong, 400, why).await;
    }

    let line = format!("DELETE keys/{}", made["id"].as_str().unwrap());
    let expected = json!({ "message": "Key revoked successfully." });
    round
        .check(&line, &token, Value::Null, (200, expected))
        .await;
    until_refused(&round, key).await;
    round
        .refused(&line, &token, Value::Null, 404, "no key")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_refused_everywhere_and_leaves_nothing() {
    let sandbox = Sandbox::processes(3).await;
    let round = Round::new(&sandbox);
    let (token, space) = round.user("ada@example.com").await;
    let body = json!({ "name": "ci", "scopes": ["read"] });
    let (_, key) = round.call(Api::Functions, "POST keys", &token, body).await;
    let record = Record::command("f", ["sh", "-c", "cat"]).stdio();
    let functions = format!("{space}/functions");
    let line = format!("POST {functions}");
    let made = round
        .call(Api::Config, &line, "", record.json().clone())
        .await;
    assert_eq!(made.0, 201, "{made:?}");

    let secrets = format!("{space}/secrets");
    let body = json!({ "value": "a secret of ada" });
    let made = round
        .call(Api::Config, &format!("PUT {secrets}/db"), "", body)
        .await;
    assert_eq!(made.0, 201, "{made:?}");

    let message = "User email ada@example.com deleted successfully.";
    let expected = (200, json!({ "message": message }));
    let line = "DELETE users/me";
    round.check(line, &token, Value::Null, expected).await;
    until_refused(&round, &token).await;
    until_refused(&round, key["key"].as_str().unwrap()).await;
    let login = credentials("ada@example.com", "password123");
    let line = "POST users/login";
    round.refused(line, "", login, 401, "is wrong").await;
    until("its functions are gone", PATIENCE, || async {
        let line = format!("GET {functions}");
        let (status, listed) = round.call(Api::Config, &line, "", Value::Null).await;
        status == 200 && listed["functions"] == json!([])
    })
    .await;
    until("its secrets are gone", PATIENCE, || async {
        let line = format!("GET {secrets}");
        let (status, listed) = round.call(Api::Config, &line, "", Value::Null).await;
        status == 200 && listed["secrets"] == json!([])
    })
    .await;
    until("the email is free", PATIENCE, || async {
        let body = credentials("ada@example.com", "password123");
        let made = round.call(Api::Functions, "POST users", "", body);
        made.await.0 == 201
    })
    .await;
}

/// The node that was asked is killed while it removes what the user had.
#[tokio::test(flavor = "multi_thread")]
async fn another_node_finishes_the_deletion_of_a_user() {
    let sandbox = Sandbox::processes(3).await;
    let round = Round::new(&sandbox);
    let (token, space) = round.user("ada@example.com").await;
    let functions = format!("{space}/functions");
    let line = format!("POST {functions}");
    for place in 0..100 {
        let record = Record::command(&format!("f{place}"), ["cat"]).stdio();
        let made = round.call(Api::Config, &line, "", record.json().clone());
        assert_eq!(made.await.0, 201);
    }
    let first = sandbox.node(0);
    let url = first.functions_url("/api/v1/users/me");
    let delete = sandbox.client().delete(url).bearer_auth(&token);
    assert_eq!(delete.send().await.unwrap().status(), 200);
    first.kill9();
    let second = sandbox.node(1);
    let listed = async || {
        let url = second.config_url(&format!("/v1/{functions}"));
        let listed = sandbox.client().get(url).send().await.unwrap();
        let listed: Value = listed.json().await.unwrap();
        listed["functions"].as_array().unwrap().len()
    };
    assert!(
        listed().await > 0,
        "the node was killed too late to leave anything"
    );
    let sign_up = async || {
        let url = second.functions_url("/api/v1/users");
        let body = credentials("ada@example.com", "password123");
        let made = sandbox.client().post(url).json(&body).send().await;
        made.unwrap().status().as_u16()
    };
    assert_eq!(sign_up().await, 409, "the user is still being deleted");
    until("the others finish it", PATIENCE, || async {
        listed().await == 0 && sign_up().await == 201
    })
    .await;
}

/// A call that a node let in before the deletion, and whose body is slow to come, makes a function when nobody looks for any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_user_makes_late_is_removed_too() {
    let sandbox = Sandbox::processes(2).await;
    let round = Round::new(&sandbox);
    let (token, space) = round.user("ada@example.com").await;
    let functions = format!("{space}/functions");
    let node = sandbox.node(0);
    let authority = node.config_url("").replace("http://", "");
    let body = Record::command("late", ["cat"]).stdio().json().to_string();
    let (begun, rest) = body.split_at(10);
    let length = body.len();
    let mut stream = TcpStream::connect(&authority).await.unwrap();
    let head = format!(
        "POST /v1/{functions} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{begun}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();

    let deleted = round.call(Api::Functions, "DELETE users/me", &token, Value::Null);
    assert_eq!(deleted.await.0, 200);
    until("the user is gone", PATIENCE, || async {
        let body = credentials("ada@example.com", "password123");
        let made = round.call(Api::Functions, "POST users", "", body);
        made.await.0 == 201
    })
    .await;

    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    until("what it made is removed", PATIENCE, || async {
        let line = format!("GET {functions}");
        let (_, listed) = round.call(Api::Config, &line, "", Value::Null).await;
        listed["functions"] == json!([])
    })
    .await;
}

/// Runs the command line against one node, with what it is given on its input.
fn command(node: &Node, home: &Path, line: &str, input: &str) -> Output {
    let mut command = hearth();
    command
        .args(["--api", &node.config_url("")])
        .args(["--functions-api", &node.functions_url("")])
        .args(line.split(' '))
        .env("XDG_CONFIG_HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads nothing may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// On a cluster that lets nobody in without a credential.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_walks_through_an_account() {
    let sandbox = Sandbox::builder().nodes(3).auth_required().start().await;
    let (node, home) = (sandbox.node(1), sandbox.dir().join("home"));
    let check = |line: &str, code: i32, said: &str| {
        let output = command(&node, &home, line, "password123\n");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let all = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {all}");
        assert!(all.contains(said), "{line}: {all}");
        text(&output.stdout).trim_end().to_owned()
    };
    check("user me", 77, "hearth login EMAIL");
    let email = "ada@example.com --password-file -";
    check(&format!("user sign-up {email}"), 0, "User created");
    check(&format!("user sign-up {email}"), 1, "already");
    check(&format!("login {email}"), 0, "logged in as ada@example.com");
    let me = check("user me", 0, "ada@example.com");
    let id = me.rsplit(' ').next().unwrap();
    check(
        &format!("--space u-{id} function list"),
        0,
        "no function is registered",
    );
    check("function list", 77, "");
    check("cluster", 77, "admin");
    let key = check("key create ci --scope read", 0, "hk_");
    let key_file = sandbox.dir().join("key");
    std::fs::write(&key_file, &key).unwrap();
    let with_key = format!("--token-file {}", key_file.display());
    check(&format!("{with_key} user me"), 0, id);
    let pair = check(
        "key create sdk --scope invoke --aws",
        0,
        "AWS_ACCESS_KEY_ID=HKIA",
    );
    assert!(pair.contains("\nAWS_SECRET_ACCESS_KEY="), "{pair}");
    let listed = check("key list", 0, "ci");
    let key_id = listed.lines().nth(1).unwrap().split(' ').next().unwrap();
    check(&format!("key revoke {key_id}"), 0, "revoked");
    check(&format!("{with_key} user me"), 77, "ended");
    check("logout", 0, "logged out ada@example.com");
    check("user me", 77, "hearth login EMAIL");
    check(&format!("login {email}"), 0, "logged in");
    check("user delete", 0, "ada@example.com deleted");
    check(&format!("login {email}"), 77, "email or password is wrong");
    for node in sandbox.nodes() {
        assert!(!node.log().contains("password123"), "{}", node.name());
        assert!(!node.log().contains(&key), "{}", node.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_see_to_users_members_and_spaces() {
    let sandbox = Sandbox::processes(3).await;
    let round = Round::new(&sandbox);
    let of = async |line: &str, body: Value| round.call(Api::Config, line, "", body).await;
    let mut body = credentials("ada@example.com", "password123");
    body["role"] = json!("admin");
    let (status, ada) = of("POST users", body.clone()).await;
    assert_eq!((status, &ada["role"]), (201, &json!("admin")), "{ada}");
    assert_eq!(of("POST users", body).await.0, 409);
    let id = ada["id"].as_str().unwrap();
    let one = format!("users/{id}");
    let (status, read) = of(&format!("GET {one}"), Value::Null).await;
    assert_eq!((status, &read), (200, &ada));
    assert!(!read.to_string().contains("argon2"), "{read}");
    let (status, listed) = of("GET users?limit=1", Value::Null).await;
    assert_eq!((status, &listed["users"]), (200, &json!([ada])));
    let change = json!({ "role": "member", "password": "password456" });
    let (status, changed) = of(&format!("PATCH {one}"), change).await;
    assert_eq!((status, &changed["role"]), (200, &json!("member")));
    round.login("ada@example.com", "password456").await;

    let member = format!("spaces/team/members/{id}");
    let (status, joined) = of(&format!("PUT {member}"), Value::Null).await;
    assert_eq!((status, &joined["spaces"]), (200, &json!(["team"])));
    assert_eq!(of(&format!("DELETE {member}"), Value::Null).await.0, 204);

    let (status, space) = of("GET spaces/team", Value::Null).await;
    let expected = json!({ "space": "team", "events": "authenticated" });
    assert_eq!((status, space), (200, expected));
    let open = json!({ "events": "open" });
    let (status, space) = of("PATCH spaces/team", open).await;
    assert_eq!((status, &space["events"]), (200, &json!("open")));
    let (_, space) = of("GET spaces/team", Value::Null).await;
    assert_eq!(space["events"], "open");

    assert_eq!(of(&format!("DELETE {one}"), Value::Null).await.0, 204);
    until("the user is gone", PATIENCE, || async {
        of(&format!("GET {one}"), Value::Null).await.0 == 404
    })
    .await;
    let nobody = format!("users/{}", "0".repeat(32));
    for (line, body, status) in [
        (format!("GET {nobody}"), Value::Null, 404),
        (format!("DELETE {nobody}"), Value::Null, 404),
        (format!("PATCH {nobody}"), json!({ "role": "admin" }), 404),
        (format!("PATCH {nobody}"), json!({ "role": "king" }), 400),
        ("GET users/x".to_owned(), Value::Null, 400),
        ("GET users?limit=0".to_owned(), Value::Null, 400),
        ("PATCH spaces/team".to_owned(), json!({}), 400),
        (
            "PATCH spaces/team".to_owned(),
            json!({ "events": "ajar" }),
            400,
        ),
    ] {
        let (found, told) = of(&line, body).await;
        assert_eq!(found, status, "{line}: {told}");
    }
}
