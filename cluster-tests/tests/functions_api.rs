//! `/api/v1/functions`: each row of its table, each call to another node than the one before.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_tests::{Node, NodeOptions, Record, Sandbox, eventually, until};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// The bound on every wait of these tests.
const PATIENCE: Duration = Duration::from_secs(30);

const HELLO_WORLD: &str = "hearth-example-hello-world:latest";

/// A user, who calls one node after the other.
struct User<'a> {
    sandbox: &'a Sandbox,
    next: AtomicUsize,
    token: String,
    id: String,
}

/// What a call was answered with.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Answer {
    async fn read(response: Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await.unwrap(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Holds that a run was answered so.
    fn ran(&self, outcome: &str, exit_code: Option<&str>, output: &str) {
        assert_eq!((self.status, self.body.as_str()), (201, output), "{self:?}");
        assert_eq!(self.header("x-hearth-outcome"), Some(outcome), "{self:?}");
        assert_eq!(self.header("x-hearth-exit-code"), exit_code, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        for name in [
            "x-hearth-node",
            "x-hearth-route",
            "x-hearth-start",
            "server-timing",
        ] {
            assert!(self.header(name).is_some(), "{name}: {self:?}");
        }
    }

    /// Holds that it is an error of this API.
    fn refused(&self, status: u16, code: &str, message: &str) {
        let body = self.json();
        assert_eq!(
            (self.status, body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert!(
            body["error"].as_str().unwrap().contains(message),
            "{message}: {self:?}"
        );
    }
}

impl<'a> User<'a> {
    /// One who is logged in, or nobody without a token.
    fn known(sandbox: &'a Sandbox, token: &str, id: &str) -> Self {
        Self {
            sandbox,
            next: AtomicUsize::new(0),
            token: token.to_owned(),
            id: id.to_owned(),
        }
    }

    /// Signs up at one node and logs in at another.
    async fn new(sandbox: &'a Sandbox, email: &str) -> Self {
        let mut user = Self::known(sandbox, "", "");
        let body = json!({ "email": email, "password": "password123" });
        let signed_up = user.call(Method::POST, "users", Some(&body)).await;
        assert_eq!(signed_up.status, 201, "{signed_up:?}");
        let logged_in = user.call(Method::POST, "users/login", Some(&body)).await;
        user.token = logged_in.json()["token"].as_str().unwrap().to_owned();
        let me = user.call(Method::GET, "users/me", None).await;
        user.id = me.json()["userId"].as_str().unwrap().to_owned();
        user
    }

    /// Calls the next node.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        let nodes = self.sandbox.nodes();
        self.call_at(&nodes[place % nodes.len()], method, path, body)
            .await
    }

    async fn call_at(
        &self,
        node: &Node,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let url = node.functions_url(&format!("/api/v1/{path}"));
        let mut request = self.sandbox.client().request(method, url);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    /// Makes a function and tells its id.
    async fn create(&self, body: Value) -> String {
        let created = self.call(Method::POST, "functions", Some(&body)).await;
        assert_eq!(created.status, 201, "{created:?}");
        let told = created.json();
        assert_eq!(told["message"], "Function created successfully.");
        told["functionId"].as_str().unwrap().to_owned()
    }

    async fn run(&self, id: &str) -> Answer {
        self.call(Method::POST, &format!("functions/{id}"), None)
            .await
    }

    /// The executions of a function, newest first, each as status and code of its error.
    async fn executions(&self, id: &str) -> Vec<(String, String)> {
        let listed = self
            .call(Method::GET, &format!("functions/{id}/executions"), None)
            .await;
        assert_eq!(listed.status, 200, "{listed:?}");
        let told = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let listed = listed.json();
        let all = listed["executions"].as_array().unwrap().iter();
        all.map(|one| (told(&one["status"]), told(&one["error"]["code"])))
            .collect()
    }

    fn space(&self) -> String {
        format!("u-{}", self.id)
    }

    /// Registers a command in the user's own space, which the operator may.
    async fn register_process(&self, id: &str, script: &str, timeout_ms: u32) {
        let record = Record::command(id, ["sh", "-c", script])
            .stdio()
            .timeout_ms(timeout_ms);
        let path = format!("/v1/spaces/{}/functions", self.space());
        let answer = self
            .sandbox
            .node(0)
            .config(Method::POST, &path, Some(record.json()))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_makes_runs_lists_and_deletes_functions_each_call_at_another_node() {
    let sandbox = Sandbox::containers(3).await;
    let user = User::new(&sandbox, "ada@example.com").await;
    assert_eq!(
        user.call(Method::GET, "functions/me", None).await.json(),
        json!([])
    );

    let id = user.create(json!({ "image": HELLO_WORLD })).await;
    user.run(&id)
        .await
        .ran("ok", Some("0"), "Hello from Hearth!\n");
    let payload = json!({ "name": "Ada" });
    let path = format!("functions/execute/{id}");
    let ran = user.call(Method::POST, &path, Some(&payload)).await;
    ran.ran(
        "ok",
        Some("0"),
        "Hello from Hearth!\nYou said: {\"name\":\"Ada\"}\n",
    );

    let named = json!({ "image": HELLO_WORLD, "name": "fails", "env": { "EXIT_CODE": "3" } });
    assert_eq!(user.create(named.clone()).await, "fails");
    let mut failed = user.run("fails").await;
    assert_eq!(
        failed.header("x-hearth-error"),
        Some("function_failed;function")
    );
    // It writes to stdout and to stderr at once.
    let mut lines: Vec<_> = failed.body.split_inclusive('\n').collect();
    lines.sort_unstable();
    failed.body = lines.concat();
    failed.ran("failed", Some("3"), "EXIT_CODE is 3\nHello from Hearth!\n");
    let taken = user.call(Method::POST, "functions", Some(&named)).await;
    taken.refused(409, "conflict", "name is \"fails\"");

    let expected = [("failed".to_owned(), "function_failed".to_owned())];
    assert_eq!(user.executions("fails").await, expected);
    let expected = vec![("succeeded".to_owned(), String::new()); 2];
    assert_eq!(user.executions(&id).await, expected);

    let me = user.call(Method::GET, "functions/me", None).await;
    assert_eq!(me.status, 200);
    let mut listed = me.json().as_array().unwrap().clone();
    listed.sort_by_key(|one| one["id"] == "fails");
    let expected =
        json!([{ "id": id, "image": HELLO_WORLD }, { "id": "fails", "image": HELLO_WORLD }]);
    assert_eq!(json!(listed), expected);
    let one = user
        .call(Method::GET, &format!("functions/{id}"), None)
        .await;
    assert_eq!(
        (one.status, one.json()),
        (201, json!({ "functionId": id, "image": HELLO_WORLD }))
    );

    let deleted = user
        .call(Method::DELETE, &format!("functions/{id}"), None)
        .await;
    let expected = json!({ "message": "Function deleted successfully." });
    assert_eq!((deleted.status, deleted.json()), (201, expected));
    user.run(&id)
        .await
        .refused(404, "function_not_found", "Function not found");
    let again = user
        .call(Method::DELETE, &format!("functions/{id}"), None)
        .await;
    again.refused(404, "function_not_found", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_image_is_stopped_when_its_time_is_over() {
    let sandbox = Sandbox::containers(3).await;
    let user = User::new(&sandbox, "ada@example.com").await;
    let body = json!({ "image": "hearth-example-hello:latest", "limits": { "timeoutMs": 1500 } });
    let id = user.create(body).await;
    for _ in 0..2 {
        let stopped = user.run(&id).await;
        assert_eq!(
            stopped.header("x-hearth-error"),
            Some("deadline_exceeded;function")
        );
        stopped.ran("timeout", None, "");
    }
    let expected = vec![("failed".to_owned(), "deadline_exceeded".to_owned()); 2];
    assert_eq!(user.executions(&id).await, expected);
    until("no container is left", PATIENCE, || async {
        sandbox.containers_now().await.is_empty()
    })
    .await;

    // The same image answers by HTTP where it is asked to.
    let body =
        json!({ "image": "hearth-example-hello:latest", "name": "server", "contract": "http" });
    user.create(body).await;
    let path = "functions/server";
    let answered = user
        .call(Method::POST, path, Some(&json!({ "name": "Ada" })))
        .await;
    assert_eq!(answered.status, 201, "{answered:?}");
    assert_eq!(answered.json()["hello"], "Ada");
    assert_eq!(answered.header("x-hearth-outcome"), Some("ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_user_has_is_not_found_and_wrong_calls_say_why() {
    let sandbox = Sandbox::processes(3).await;
    let ada = User::new(&sandbox, "ada@example.com").await;
    let eve = User::new(&sandbox, "eve@example.com").await;
    ada.register_process("f", "cat", 10_000).await;
    ada.run("f").await.ran("ok", Some("0"), "");
    for (method, path) in [
        (Method::GET, "functions/f"),
        (Method::POST, "functions/f"),
        (Method::POST, "functions/execute/f"),
        (Method::GET, "functions/f/executions"),
        (Method::DELETE, "functions/f"),
    ] {
        let refused = eve.call(method.clone(), path, None).await;
        refused.refused(404, "function_not_found", "Function not found");
        let nobody = User::known(&sandbox, "", "");
        let refused = nobody.call(method, path, None).await;
        refused.refused(401, "unauthorized", "");
    }
    assert_eq!(
        eve.call(Method::GET, "functions/me", None).await.json(),
        json!([])
    );
    for (body, expected) in [
        (json!({}), "image is missing"),
        (json!({ "image": 5 }), "image: invalid type"),
        (json!({ "image": "a b" }), "image is \"a b\""),
        (json!({ "image": "i", "name": "me" }), "name is \"me\""),
        (
            json!({ "image": "i", "limits": { "timeoutMs": 0 } }),
            "limits.timeoutMs is 0",
        ),
        (json!({ "image": "i", "x": 0 }), "unknown field \"x\""),
        (json!([]), "no JSON object"),
    ] {
        let refused = ada.call(Method::POST, "functions", Some(&body)).await;
        refused.refused(400, "invalid_request", expected);
    }
    let url = sandbox.node(1).functions_url("/api/v1/functions/f");
    let broken = sandbox.client().post(url).bearer_auth(&ada.token).body("{");
    let broken = Answer::read(broken.send().await.unwrap()).await;
    broken.refused(400, "invalid_request", "the body is no valid JSON");
    let put = ada.call(Method::PUT, "functions/f", None).await;
    put.refused(405, "method_not_allowed", "PUT");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_nowhere_is_not_found_and_nothing_is_stored() {
    let sandbox = Sandbox::containers(3).await;
    let user = User::new(&sandbox, "ada@example.com").await;
    let body = json!({ "image": "127.0.0.1:9/nowhere:latest", "name": "f" });
    let refused = user.call(Method::POST, "functions", Some(&body)).await;
    assert!([404, 503].contains(&refused.status), "{refused:?}");
    assert_eq!(
        user.call(Method::GET, "functions/me", None).await.json(),
        json!([])
    );
}

/// Only n1 runs commands, so that n2 and n3 forward.
async fn with_one_runner() -> Sandbox {
    let denied = || NodeOptions {
        is_process_denied: true,
        ..NodeOptions::default()
    };
    let builder = Sandbox::builder().node(NodeOptions::default());
    let sandbox = builder.node(denied()).node(denied()).start().await;
    for node in [sandbox.node(1), sandbox.node(2)] {
        until("it knows how much room n1 has", PATIENCE, || async {
            let seen = node.cluster().await.unwrap().nodes;
            seen.iter()
                .any(|seen| seen.name == "n1" && seen.memory_max_mb > 0)
        })
        .await;
    }
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn output_outcome_and_exit_code_come_back_over_the_hop() {
    let sandbox = with_one_runner().await;
    let user = User::new(&sandbox, "ada@example.com").await;
    let talk = "echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three";
    user.register_process("fails", &format!("{talk}; exit 7"), 20_000)
        .await;
    user.register_process("stays", &format!("{talk}; sleep 600"), 3_000)
        .await;
    user.register_process("reads", "cat", 20_000).await;
    for node in [sandbox.node(1), sandbox.node(2)] {
        let failed = user
            .call_at(&node, Method::POST, "functions/fails", None)
            .await;
        failed.ran("failed", Some("7"), "one\ntwo\nthree\n");
        let stopped = user
            .call_at(&node, Method::POST, "functions/stays", None)
            .await;
        stopped.ran("timeout", None, "one\ntwo\nthree\n");
        let payload = json!({ "a": [1, 2] });
        let read = user
            .call_at(&node, Method::POST, "functions/reads", Some(&payload))
            .await;
        read.ran("ok", Some("0"), "{\"a\":[1,2]}");
        for answer in [failed, stopped, read] {
            assert_eq!(
                answer.header("x-hearth-route"),
                Some("forwarded"),
                "{answer:?}"
            );
            assert_eq!(answer.header("x-hearth-node"), Some("n1"), "{answer:?}");
        }
    }
    let id = user.call(Method::POST, "functions/fails", None).await;
    let id = id.header("x-hearth-invocation").unwrap().to_owned();
    let path = format!("/v1/spaces/{}/executions/{id}", user.space());
    let execution = sandbox
        .node(2)
        .config(Method::GET, &path, None)
        .await
        .json();
    assert_eq!(execution["status"], "failed", "{execution}");
    assert_eq!(execution["error"]["message"], "exit code 7", "{execution}");
    assert_eq!(
        execution["result"]["value"], "one\ntwo\nthree\n",
        "{execution}"
    );
    assert_eq!(execution["attempts"][0]["node"], "n1", "{execution}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_more_than_an_answer_may_have_is_cut_and_says_how_much() {
    let builder = Sandbox::builder()
        .nodes(3)
        .env("HEARTH_LIMITS__ANSWER_MAX", "1KiB");
    let sandbox = builder.start().await;
    let user = User::new(&sandbox, "ada@example.com").await;
    user.register_process("prints", "head -c 5000 /dev/zero | tr '\\0' x", 20_000)
        .await;
    let ran = user.run("prints").await;
    ran.ran("ok", Some("0"), &"x".repeat(1024));
    assert_eq!(ran.header("x-hearth-output-cut"), Some("3976"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_with_its_caller_and_by_a_cancel_on_another_node() {
    let sandbox = with_one_runner().await;
    let user = User::new(&sandbox, "ada@example.com").await;
    user.register_process("stays", "sleep 600", 600_000).await;
    let node = sandbox.node(1);
    let running = || async {
        let all = user.executions("stays").await;
        match all.first() {
            Some((status, _)) if status == "running" => Ok(()),
            _ => Err(format!("{all:?}")),
        }
    };
    let leaves = user.call_at(&node, Method::POST, "functions/stays", None);
    tokio::select! {
        answer = leaves => panic!("{answer:?}"),
        () = eventually("it runs", PATIENCE, running) => {}
    }
    eventually("it is cancelled", PATIENCE, || async {
        let all = user.executions("stays").await;
        match all.as_slice() {
            [(status, _)] if status == "cancelled" => Ok(()),
            _ => Err(format!("{all:?}")),
        }
    })
    .await;

    let waits = user.call_at(&node, Method::POST, "functions/stays", None);
    let cancels = async {
        eventually("it runs", PATIENCE, running).await;
        let listed = user
            .call(Method::GET, "functions/stays/executions", None)
            .await
            .json();
        let id = listed["executions"][0]["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/spaces/{}/executions/{id}", user.space());
        let cancelled = sandbox.node(2).config(Method::DELETE, &path, None).await;
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
    };
    let (answer, ()) = tokio::join!(waits, cancels);
    answer.refused(502, "cancelled", "the execution was cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_node_that_runs_it_is_told_and_written_down() {
    let sandbox = with_one_runner().await;
    let user = User::new(&sandbox, "ada@example.com").await;
    user.register_process("stays", "echo begun; sleep 600", 600_000)
        .await;
    let node = sandbox.node(1);
    let waits = user.call_at(&node, Method::POST, "functions/stays", None);
    let kills = async {
        until("it runs on n1", PATIENCE, || async {
            sandbox.node(0).in_flight().await > 0
        })
        .await;
        sandbox.node(0).kill9();
    };
    let (answer, ()) = tokio::join!(waits, kills);
    answer.refused(502, "interrupted", "the function may have run");
    let path = "functions/stays/executions";
    let listed = user
        .call_at(&sandbox.node(2), Method::GET, path, None)
        .await
        .json();
    let execution = &listed["executions"][0];
    assert_eq!(execution["status"], "failed", "{execution}");
    assert_eq!(execution["error"]["code"], "interrupted", "{execution}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_knows_runs_while_the_store_is_away_and_leaves_no_execution() {
    let mut sandbox = Sandbox::processes(3).await;
    let user = User::new(&sandbox, "ada@example.com").await;
    user.register_process("f", "echo here", 20_000).await;
    user.run("f").await.ran("ok", Some("0"), "here\n");
    let (token, id) = (user.token, user.id);
    sandbox.etcd().kill9();
    for _ in 0..3 {
        User::known(&sandbox, &token, &id)
            .run("f")
            .await
            .ran("ok", Some("0"), "here\n");
    }
    let body = json!({ "image": HELLO_WORLD });
    let made = User::known(&sandbox, &token, &id)
        .call(Method::POST, "functions", Some(&body))
        .await;
    assert_eq!(made.status, 503, "{made:?}");
    sandbox.etcd_mut().restart().await;
    let user = User::known(&sandbox, &token, &id);
    eventually("executions can be read", PATIENCE, || async {
        let path = "functions/f/executions";
        let listed = user.call(Method::GET, path, None).await;
        let is_one =
            listed.status == 200 && listed.json()["executions"].as_array().unwrap().len() == 1;
        if is_one {
            Ok(())
        } else {
            Err(format!("{listed:?}"))
        }
    })
    .await;
}
