//! Every operation of docs/openapi.json without a credential, and with each that is not good: all are refused, on all ports. A route that is
//! added is in the file, or it is not routed at all, so this forgets none.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cluster_tests::{Node, NodeOptions, Sandbox, eventually};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// How long the tokens of one node are good: one is made there to be waited out. Those of the other nodes outlast the test.
const SHORT_TTL: &str = "1s";

const PATIENCE: Duration = Duration::from_secs(30);

/// One operation of the description.
#[derive(Debug)]
struct Operation {
    name: String,
    method: Method,
    path: String,
    tag: String,
    /// Who has no credential may call it.
    is_open: bool,
    has_body: bool,
}

fn operations() -> Vec<Operation> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let text = std::fs::read_to_string(file).expect("docs/openapi.json");
    let document: Value = serde_json::from_str(&text).expect("it is JSON");
    let paths = document["paths"].as_object().expect("it has paths");
    let mut found = Vec::new();
    for (path, item) in paths {
        let methods = item.as_object().expect("a path has methods");
        for (method, operation) in methods
            .iter()
            .filter(|(_, it)| it["operationId"].is_string())
        {
            let security = operation["security"].as_array();
            found.push(Operation {
                name: operation["operationId"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                method: method.to_uppercase().parse().expect("a method"),
                path: path.clone(),
                tag: operation["tags"][0].as_str().unwrap_or_default().to_owned(),
                is_open: security.is_some_and(|all| all.contains(&json!({}))),
                has_body: operation["requestBody"].is_object(),
            });
        }
    }
    assert!(found.len() > 60, "{}", found.len());
    found
}

impl Operation {
    /// Where it is, each place in its path filled with what belongs to somebody else than the caller.
    fn url(&self, node: &Node, other: &Other) -> String {
        let path = self
            .path
            .replace("{space}", &other.space)
            .replace("functions/{id}", &format!("functions/{}", other.function))
            .replace("execute/{id}", &format!("execute/{}", other.function))
            .replace("{id}", &other.user)
            .replace("{arn}", &other.function)
            .replace("{alias}", "nobody")
            .replace("{name}", "nobody")
            .replace("{path}", "nowhere");
        match self.tag.as_str() {
            "functions" | "executions" | "users" | "aws" => node.functions_url(&path),
            "events" => node.events_url(&path),
            _ => node.config_url(&path),
        }
    }

    /// A body that names what is somebody else's.
    fn body(&self, other: &Other) -> Value {
        match self.name.as_str() {
            "invoke" => json!({"function_name": other.function, "space": other.space}),
            _ => json!({}),
        }
    }

    /// What who has no good credential is told: AWS's clients know no 401.
    fn of_nobody(&self) -> u16 {
        match self.tag.as_str() {
            "aws" => 403,
            _ => 401,
        }
    }

    /// What a user is told who has a good credential and nothing to do with what the path or the body names; `None` where the operation is
    /// about the caller itself.
    fn of_another(&self) -> Option<u16> {
        if self.is_open {
            return None;
        }
        match self.tag.as_str() {
            "config" | "spaceless" | "executions" | "events" => match self.name.as_str() {
                "list_spaces" => None,
                _ => Some(403),
            },
            "users" if self.path.contains("/functions") && self.path.contains("{id}") => Some(404),
            "functions" if self.name == "invoke" => Some(403),
            _ => None,
        }
    }
}

/// What belongs to somebody else.
struct Other {
    user: String,
    space: String,
    function: String,
}

/// Calls as a person would.
struct Person<'a> {
    client: &'a Client,
    node: &'a Node,
}

impl Person<'_> {
    async fn call(&self, method: Method, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request = self.client.request(method, self.node.functions_url(path));
        let answer = request
            .bearer_auth(token)
            .json(body)
            .send()
            .await
            .expect("it answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// Makes an account and returns a token and the user's id.
    async fn sign_up(&self, email: &str) -> (String, String) {
        let body = json!({"email": email, "password": "password123"});
        let (status, told) = self.call(Method::POST, "/api/v1/users", "", &body).await;
        assert_eq!(status, 201, "{told}");
        let token = self.log_in(email).await;
        let (_, me) = self.me(&token).await;
        (token, me["userId"].as_str().expect("an id").to_owned())
    }

    async fn log_in(&self, email: &str) -> String {
        let body = json!({"email": email, "password": "password123"});
        let (status, told) = self
            .call(Method::POST, "/api/v1/users/login", "", &body)
            .await;
        assert_eq!(status, 201, "{told}");
        told["token"].as_str().expect("a token").to_owned()
    }

    async fn me(&self, token: &str) -> (u16, Value) {
        self.call(Method::GET, "/api/v1/users/me", token, &Value::Null)
            .await
    }

    /// Makes an API key that may all that its user may.
    async fn key(&self, token: &str) -> (String, String) {
        let body = json!({"name": "all", "scopes": ["invoke", "emit", "read", "write"]});
        let (status, told) = self.call(Method::POST, "/api/v1/keys", token, &body).await;
        assert_eq!(status, 201, "{told}");
        let text = |name: &str| told[name].as_str().expect(name).to_owned();
        (text("key"), text("id"))
    }
}

/// A token like this one, whose header names another algorithm and is the same otherwise.
fn with_algorithm(token: &str, algorithm: &str) -> String {
    let (header, rest) = token.split_once('.').expect("a token has three parts");
    let header = URL_SAFE_NO_PAD.decode(header).expect("it is base64");
    let mut header: Value = serde_json::from_slice(&header).expect("it is JSON");
    assert!(header["kid"].is_string(), "{header}");
    header["alg"] = algorithm.into();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

/// A token like this one, whose signature is another one.
fn with_signature(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').expect("a token has three parts");
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("it is base64");
    bytes[7] ^= 1;
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_takes_a_credential_that_is_not_good() {
    let sandbox = Sandbox::builder()
        .nodes(2)
        .node(NodeOptions {
            env: vec![("HEARTH_AUTH__TOKEN_TTL".to_owned(), SHORT_TTL.to_owned())],
            ..NodeOptions::default()
        })
        .auth_required()
        .start()
        .await;
    let (first, last) = (sandbox.node(0), sandbox.node(2));
    let at = |node| Person {
        client: sandbox.client(),
        node,
    };
    let person = at(&first);
    let (_, user) = person.sign_up("other@example.com").await;
    let expired = at(&last).log_in("other@example.com").await;
    let other = Other {
        space: format!("u-{user}"),
        user,
        function: "f".to_owned(),
    };
    let (good, _) = person.sign_up("ada@example.com").await;
    let (stranger, _) = person.key(&good).await;
    let (revoked, id) = person.key(&good).await;
    let revoke = format!("/api/v1/keys/{id}");
    let (status, _) = person
        .call(Method::DELETE, &revoke, &good, &Value::Null)
        .await;
    assert_eq!(status, 200);
    let (deleted, _) = person.sign_up("gone@example.com").await;
    let (deleted_key, _) = person.key(&deleted).await;
    let (status, _) = person
        .call(Method::DELETE, "/api/v1/users/me", &deleted, &Value::Null)
        .await;
    assert_eq!(status, 200);
    let refused = [
        ("no credential", String::new()),
        ("expired", expired.clone()),
        ("wrong signature", with_signature(&good)),
        ("alg none", {
            let none = with_algorithm(&good, "none");
            let (signed, _) = none.rsplit_once('.').expect("a token has three parts");
            format!("{signed}.")
        }),
        ("alg HS256", with_algorithm(&good, "HS256")),
        ("deleted user", deleted),
        ("deleted user's key", deleted_key),
        ("revoked key", revoked),
        ("no token at all", "hello".to_owned()),
    ];
    eventually("the token has expired", PATIENCE, || async {
        let (status, _) = person.me(&expired).await;
        (status == 401).then_some(()).ok_or(status)
    })
    .await;

    let mut tried: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for operation in operations() {
        let url = operation.url(&last, &other);
        let cases = refused
            .iter()
            .map(|(case, credential)| (*case, credential.as_str(), Some(operation.of_nobody())));
        let cases = cases.chain([("another user's", stranger.as_str(), operation.of_another())]);
        for (case, credential, expected) in cases {
            let mut request = sandbox.client().request(operation.method.clone(), &url);
            if !credential.is_empty() {
                request = request.bearer_auth(credential);
            }
            if operation.tag == "events" {
                request = request.header("space", &other.space);
            }
            if operation.has_body {
                request = request.json(&operation.body(&other));
            }
            let status = request.send().await.expect("it answers").status().as_u16();
            let name = &operation.name;
            let is_right = match expected {
                // Nobody needs a credential here, so none is looked at.
                Some(401) if operation.is_open => {
                    status != 401 && status != 403
                        || name == "login"
                        || name == "refresh"
                        || name == "init_admin"
                }
                Some(expected) => status == expected,
                // It is about the caller, and of no other user.
                None => true,
            };
            if !is_right {
                wrong.push(format!(
                    "{name} ({} {url}), {case}: {status}, expected {expected:?}",
                    operation.method
                ));
            }
            let outcome = match (expected, operation.is_open) {
                (Some(_), true) => "open".to_owned(),
                (Some(_), false) => status.to_string(),
                (None, _) => "own".to_owned(),
            };
            *tried.entry((case, outcome)).or_default() += 1;
        }
    }
    for ((case, outcome), count) in &tried {
        println!("{case:>20}: {outcome:>4} x {count}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What those refused were made from is good to the end, so it is not its age that they were refused for.
    let (status, told) = at(&last).me(&good).await;
    assert_eq!(status, 200, "{told}");
}
