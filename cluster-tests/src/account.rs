//! Somebody with an account on a cluster that asks for credentials, and access keys of theirs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::node::Node;
use crate::sandbox::Sandbox;

/// The space that their access keys are of.
pub const SPACE: &str = "team";

/// Somebody with an account, who is a member of [`SPACE`].
#[derive(Debug)]
pub struct Person {
    node: Node,
    token: String,
}

/// An access key for AWS's clients.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// The key's id, to revoke it by.
    pub id: String,
    /// The id that a client has.
    pub access_key_id: String,
    /// The secret that it signs with.
    pub secret_access_key: String,
}

impl Person {
    /// Makes an account, and a member of it.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn sign_up(sandbox: &Sandbox) -> Self {
        let mut person = Self {
            node: sandbox.node(0),
            token: String::new(),
        };
        let account = json!({"email": "ada@example.com", "password": "password123"});
        person.call(Method::POST, "/api/v1/users", &account).await;
        let tokens = person.call(Method::POST, "/api/v1/users/login", &account);
        person.token = text(&tokens.await, "token");
        let me = person.call(Method::GET, "/api/v1/users/me", &Value::Null);
        let path = format!("/v1/spaces/{SPACE}/members/{}", text(&me.await, "userId"));
        let joined = person
            .node
            .config(Method::PUT, &path, Some(&json!({})))
            .await;
        assert!(joined.is_ok(), "{}", joined.summary());
        person
    }

    /// Makes an access key of [`SPACE`].
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn access_key(&self, scopes: &[&str]) -> AccessKey {
        let wanted = json!({"name": "sdk", "scopes": scopes, "spaces": [SPACE], "aws": true});
        let made = self.call(Method::POST, "/api/v1/keys", &wanted).await;
        assert_eq!(made["key"], Value::Null, "an access key is no bearer token");
        AccessKey {
            id: text(&made, "id"),
            access_key_id: text(&made, "accessKeyId"),
            secret_access_key: text(&made, "secretAccessKey"),
        }
    }

    /// Ends an access key.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn revoke(&self, key: &AccessKey) {
        let path = format!("/api/v1/keys/{}", key.id);
        self.call(Method::DELETE, &path, &Value::Null).await;
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = crate::client().request(method, self.node.functions_url(path));
        let answer = request.bearer_auth(&self.token).json(body).send().await;
        let answer = answer.expect("it answers");
        let status = answer.status();
        let told: Value = answer.json().await.expect("it is JSON");
        assert!(status.is_success(), "{path}: {status} {told}");
        told
    }
}

impl AccessKey {
    /// The pair, as the SDK for JavaScript takes it.
    pub fn json(&self) -> Value {
        json!({"accessKeyId": self.access_key_id, "secretAccessKey": self.secret_access_key})
    }
}

fn text(of: &Value, name: &str) -> String {
    of[name].as_str().expect(name).to_owned()
}
