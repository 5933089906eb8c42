//! The HTTP APIs of a node as a client sees them.

use std::time::Duration;

use protocol::api::{Actors, Cluster, Route};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::node::Node;
use crate::wait::eventually;

/// How long a node may take to list dead letters, outages of its queue included.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// What a client got back for one call.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `x-hearth-node`: where it ran.
    pub node: Option<String>,
    /// `x-hearth-start`: `warm` or `cold`.
    pub start: Option<String>,
    /// `x-hearth-route`: `local` or `forwarded`.
    pub route: Option<String>,
    /// `x-hearth-version`: which version ran, where the call named one.
    pub version: Option<String>,
    /// The code of `x-hearth-error`.
    pub error: Option<String>,
    /// The component of `x-hearth-error`.
    pub component: Option<String>,
    /// `x-hearth-invocation`.
    pub invocation: Option<String>,
    /// `server-timing`.
    pub timing: Option<String>,
    /// `retry-after`, in seconds.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: String,
    /// From the first byte sent to the last one received.
    pub elapsed: Duration,
}

/// A call that got no answer.
#[derive(Debug, Clone)]
pub struct Lost {
    /// The connection was never made, so nothing can have run.
    pub is_refused: bool,
    /// What the client saw.
    pub what: String,
    /// How long it took to fail.
    pub elapsed: Duration,
}

impl Answer {
    /// Whether the function ran and succeeded.
    pub fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body of {self:?}"))
    }

    /// What the function answered.
    ///
    /// # Panics
    /// When the call did not succeed.
    pub fn result(&self) -> Value {
        assert!(self.is_ok(), "the call failed: {self:?}");
        self.json()["result"].clone()
    }

    /// The `instance` an example function says it is.
    ///
    /// # Panics
    /// When the call did not succeed or the function says no instance.
    pub fn instance(&self) -> String {
        let result = self.result();
        result["instance"]
            .as_str()
            .unwrap_or_else(|| panic!("no instance in {result}"))
            .to_owned()
    }

    /// `status code;component`, for messages and counts.
    pub fn summary(&self) -> String {
        let error = self.error.as_deref().unwrap_or("-");
        let component = self.component.as_deref().unwrap_or("-");
        format!("{} {error};{component}", self.status)
    }

    async fn read(response: Response, begun: Instant) -> Result<Self, reqwest::Error> {
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let error = header("x-hearth-error");
        let (error, component) = match error.as_deref().and_then(|error| error.split_once(';')) {
            Some((code, component)) => (Some(code.to_owned()), Some(component.to_owned())),
            None => (error, None),
        };
        Ok(Self {
            status: response.status().as_u16(),
            node: header("x-hearth-node"),
            start: header("x-hearth-start"),
            route: header("x-hearth-route"),
            version: header("x-hearth-version"),
            error,
            component,
            invocation: header("x-hearth-invocation"),
            timing: header("server-timing"),
            retry_after: header("retry-after").and_then(|seconds| seconds.parse().ok()),
            body: response.text().await?,
            elapsed: begun.elapsed(),
        })
    }
}

/// An HTTP client for one sandbox: it belongs to the runtime of its test.
///
/// # Panics
/// When the client can not be built.
pub fn client() -> Client {
    // Fails only where a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(90))
        .build()
        .expect("a client without TLS roots can be built")
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When there is no whole answer.
pub async fn send(request: RequestBuilder) -> Result<Answer, Lost> {
    let begun = Instant::now();
    let lost = |error: reqwest::Error| Lost {
        is_refused: error.is_connect(),
        what: format!("{error:?}"),
        elapsed: begun.elapsed(),
    };
    let response = request.send().await.map_err(lost)?;
    Answer::read(response, begun).await.map_err(lost)
}

impl Node {
    /// Calls a function of the space `default`.
    ///
    /// # Panics
    /// When the node does not answer at all.
    pub async fn invoke(&self, function: &str, payload: Value) -> Answer {
        let called = self.try_invoke(function, payload).await;
        called.unwrap_or_else(|lost| {
            panic!("{} did not answer for {function}: {lost:?}", self.name())
        })
    }

    /// Calls a function of the space `default`.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn try_invoke(&self, function: &str, payload: Value) -> Result<Answer, Lost> {
        let body = json!({ "function_name": function, "payload": payload });
        send(
            self.request(Method::POST, &self.functions_url("/invoke"))
                .json(&body),
        )
        .await
    }

    /// Posts any body to `/invoke`.
    ///
    /// # Panics
    /// When the node does not answer at all.
    pub async fn invoke_raw(&self, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, &self.functions_url("/invoke"));
        let request = request
            .header("content-type", "application/json")
            .body(body);
        send(request)
            .await
            .unwrap_or_else(|lost| panic!("{} did not answer: {lost:?}", self.name()))
    }

    /// A request to the config API.
    ///
    /// # Panics
    /// When the node does not answer at all.
    pub async fn config(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let called = self.try_config(method, path, body).await;
        called.unwrap_or_else(|lost| panic!("{} did not answer {path}: {lost:?}", self.name()))
    }

    /// All dead letters that it lists. A queue that is slow to answer is asked again.
    ///
    /// # Panics
    /// When it does not list them within a minute.
    pub async fn dead_letters(&self) -> Vec<Value> {
        let mut letters = Vec::new();
        let mut after = 0;
        loop {
            let path = format!("/v1/dead-letters?limit=200&after={after}");
            let page = eventually("dead letters are listed", LISTED_WITHIN, || async {
                let page = self.config(Method::GET, &path, None).await;
                match page.status {
                    200 => Ok(page.json()),
                    _ => Err(format!("{page:?}")),
                }
            });
            let page = page.await;
            let listed = page["deadLetters"].as_array();
            letters.extend_from_slice(listed.expect("a page has a list"));
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return letters,
            }
        }
    }

    /// A request to the config API.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn try_config(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Lost> {
        let mut request = self.request(method, &self.config_url(path));
        if let Some(body) = body {
            request = request.json(body);
        }
        send(request).await
    }

    /// Subscribes a function of the space `default`, and returns the path of the subscription in the config API.
    ///
    /// # Panics
    /// When that does not succeed.
    pub async fn subscribe(&self, subscription: &Value) -> String {
        let all = "/v1/spaces/default/subscriptions";
        let answer = self.config(Method::POST, all, Some(subscription)).await;
        assert_eq!(answer.status, 201, "{subscription}: {answer:?}");
        let record = answer.json();
        let id = record["subscriptionId"].as_str();
        format!("{all}/{}", id.expect("a subscription has an id"))
    }

    /// Takes a subscription away, by its path in the config API.
    ///
    /// # Panics
    /// When that does not succeed.
    pub async fn unsubscribe(&self, path: &str) {
        let answer = self.config(Method::DELETE, path, None).await;
        assert_eq!(answer.status, 204, "{path}: {answer:?}");
    }

    /// Sends a request without a body to the events API.
    ///
    /// # Panics
    /// When the node does not answer at all.
    pub async fn http_event(&self, method: Method, path: &str) -> Answer {
        let answer = send(self.request(method, &self.events_url(path))).await;
        answer.unwrap_or_else(|lost| panic!("{} did not answer {path}: {lost:?}", self.name()))
    }

    /// Emits a custom event on the path `/`.
    ///
    /// # Panics
    /// When the node does not answer at all.
    pub async fn emit(&self, event: &str, data: &Value) -> Answer {
        let answer = self.try_emit(event, data).await;
        answer.unwrap_or_else(|lost| panic!("{} did not answer: {lost:?}", self.name()))
    }

    /// Emits a custom event to a node that may not answer.
    ///
    /// # Errors
    /// When the connection is refused or lost.
    pub async fn try_emit(&self, event: &str, data: &Value) -> Result<Answer, Lost> {
        let request = self.request(Method::POST, &self.events_url("/"));
        send(request.header("event", event).json(data)).await
    }

    /// Replaces a function's record.
    ///
    /// # Panics
    /// When that does not succeed.
    pub async fn update(&self, record: &Value) {
        let id = record["functionId"].as_str().expect("a record has an id");
        let answer = self
            .config(Method::PUT, &function_path(id), Some(record))
            .await;
        assert_eq!(answer.status, 200, "update {id}: {answer:?}");
    }

    /// Deletes a function.
    ///
    /// # Panics
    /// When that does not succeed.
    pub async fn delete(&self, id: &str) {
        let answer = self.config(Method::DELETE, &function_path(id), None).await;
        assert_eq!(answer.status, 204, "delete {id}: {answer:?}");
    }

    /// Whether the node's registry has the function, which a node may have read from the store without having heard of it.
    pub async fn knows(&self, id: &str) -> bool {
        self.route(id).await.is_ok()
    }

    /// Whether `/v1/ready` says so.
    pub async fn is_ready(&self) -> bool {
        let answer = self.try_config(Method::GET, "/v1/ready", None).await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// The cluster as the node sees it.
    ///
    /// # Errors
    /// What came back instead.
    pub async fn cluster(&self) -> Result<Cluster, String> {
        self.read("/v1/cluster").await
    }

    /// The node's actors.
    ///
    /// # Errors
    /// What came back instead.
    pub async fn actors(&self) -> Result<Actors, String> {
        self.read("/debug/actors").await
    }

    /// What the node would do with a call of the function now.
    ///
    /// # Errors
    /// What came back instead.
    pub async fn route(&self, function: &str) -> Result<Route, String> {
        self.read(&format!("/debug/route?space=default&function={function}"))
            .await
    }

    /// The sum of a metric over those of its series whose labels hold `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let answer = self.config(Method::GET, "/metrics", None).await;
        let series = answer
            .body
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label));
        series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Names of the nodes this one counts as alive, in order; empty while it does not answer.
    pub async fn alive(&self) -> Vec<String> {
        let Ok(cluster) = self.cluster().await else {
            return Vec::new();
        };
        let alive = cluster
            .nodes
            .into_iter()
            .filter(|node| node.state == "alive");
        let mut names: Vec<_> = alive.map(|node| node.name).collect();
        names.sort();
        names
    }

    /// Invocations in flight on this node, as it counts itself; 0 while it does not answer.
    pub async fn in_flight(&self) -> u32 {
        let Ok(cluster) = self.cluster().await else {
            return 0;
        };
        let own = cluster
            .nodes
            .into_iter()
            .find(|node| node.name == self.name());
        own.map_or(0, |own| own.in_flight)
    }

    /// Ids of the instances this node has up, of all functions.
    ///
    /// # Errors
    /// When it does not answer, or does not list itself.
    pub async fn instance_ids(&self) -> Result<Vec<String>, String> {
        let cluster = self.cluster().await?;
        let own = cluster
            .nodes
            .into_iter()
            .find(|node| node.name == self.name());
        let own = own.ok_or_else(|| format!("{} does not list itself", self.name()))?;
        Ok(own
            .hints
            .into_iter()
            .flat_map(|hint| hint.instance_ids)
            .collect())
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let answer = self
            .try_config(Method::GET, path, None)
            .await
            .map_err(|lost| format!("{lost:?}"))?;
        if answer.status != 200 {
            return Err(format!("{answer:?}"));
        }
        serde_json::from_str(&answer.body)
            .map_err(|error| format!("{path}: {error} in {}", answer.body))
    }
}

/// The path of a function's record in the space `default`.
pub fn function_path(id: &str) -> String {
    format!("/v1/spaces/default/functions/{id}")
}
