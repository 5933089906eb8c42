//! What checks add to a warm call, of a token and of limits: the same call to a node with them and to one without, in turns.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::header::HeaderValue;
use reqwest::Method;
use serde_json::{Value, json};

use super::cores::Cores;
use super::load::{self, Sample, Shape, Subject};
use super::report::{Report, Row};
use super::selection::Selection;
use super::{function, median, progress};
use crate::record::Record;
use crate::sandbox::Sandbox;

/// What a token adds.
const AUTH: &str = "auth_added_us";

/// What a rate and a limit on calls in flight add.
const LIMITS: &str = "ratelimit_added_us";

/// The rows of this part.
pub(super) const NAMES: [&str; 2] = [AUTH, LIMITS];

/// The most that a token may add at the median.
const AUTH_US_MAX: f64 = 10.0;

/// The most that limits may add at the median.
const LIMITS_US_MAX: f64 = 2.0;

const FUNCTION: &str = "bench";

/// As long as the name of a user's own space, so that both calls have a body of one length.
const OPEN_SPACE: &str = "u-00000000000000000000000000000000";

/// A node and what is called there.
struct Server {
    _sandbox: Sandbox,
    subject: Subject,
    samples: Vec<Sample>,
}

pub(super) async fn measure(
    selection: &Selection,
    cores: &Cores,
    report: &mut Report,
) -> anyhow::Result<()> {
    if selection.wants(AUTH) {
        progress("warm calls with a user's token, and without authentication");
        let servers = async { Ok([Server::open().await?, Server::with_user().await?]) };
        added((AUTH, AUTH_US_MAX), servers, selection, cores, report).await?;
    }
    if selection.wants(LIMITS) {
        progress("warm calls of a function with limits, and of one without");
        let servers = async { Ok([Server::open().await?, Server::with_limits().await?]) };
        added((LIMITS, LIMITS_US_MAX), servers, selection, cores, report).await?;
    }
    Ok(())
}

/// Measures what the second server's calls take longer than the first one's, in turns.
async fn added(
    (name, target): (&'static str, f64),
    servers: impl Future<Output = anyhow::Result<[Server; 2]>>,
    selection: &Selection,
    cores: &Cores,
    report: &mut Report,
) -> anyhow::Result<()> {
    Cores::pin(cores.servers)?;
    let mut servers = servers.await?;
    for round in 0..selection.rounds {
        for step in 0..servers.len() {
            let count = servers.len();
            let server = &mut servers[(round + step) % count];
            let sample = load::run(cores, &server.subject, Shape::Closed(1), selection.length);
            server.samples.push(sample.await.context(name)?);
        }
    }
    cores.release()?;
    let [plain, checked] = &servers;
    let rounds = checked.samples.iter().zip(&plain.samples);
    let added = median(rounds.map(|(checked, plain)| checked.p50_us - plain.p50_us));
    let runs = checked.samples.len();
    report.row(Row::alone(name, added, "us", Some(target), runs));
    Ok(())
}

impl Server {
    async fn open() -> anyhow::Result<Self> {
        let sandbox = Sandbox::builder().nodes(1).start().await;
        Self::serving(sandbox, OPEN_SPACE, None, |record| record).await
    }

    /// As many limits as a call can count for, none of which is reached.
    async fn with_limits() -> anyhow::Result<Self> {
        let sandbox = Sandbox::builder().nodes(1).start().await;
        let rate = json!({ "perSecond": 1_000_000 });
        let set = json!({ "limits": { "rate": rate, "concurrent": 1_000 } });
        let path = format!("/v1/spaces/{OPEN_SPACE}");
        let node = sandbox.node(0);
        let changed = node.config(Method::PATCH, &path, Some(&set)).await;
        ensure!(changed.status == 200, "the limits are not set: {changed:?}");
        let limited = |record: Record| {
            let record = record.limit("rate", rate.clone());
            record.limit("concurrent", json!(1_000))
        };
        Self::serving(sandbox, OPEN_SPACE, None, limited).await
    }

    async fn with_user() -> anyhow::Result<Self> {
        let sandbox = Sandbox::builder().auth_required().nodes(1).start().await;
        let user = json!({ "email": "bench@example.com", "password": "password123" });
        api(&sandbox, Method::POST, "users", None, Some(&user)).await?;
        let told = api(&sandbox, Method::POST, "users/login", None, Some(&user)).await?;
        let token = told["token"].as_str().context("a login gives a token")?;
        let me = api(&sandbox, Method::GET, "users/me", Some(token), None).await?;
        let id = me["userId"].as_str().context("a user has an id")?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        value.set_sensitive(true);
        let space = format!("u-{id}");
        Self::serving(sandbox, &space, Some(value), |record| record).await
    }

    /// Registers the function in a space and calls it once, so that it is warm.
    async fn serving(
        sandbox: Sandbox,
        space: &str,
        authorization: Option<HeaderValue>,
        change: impl FnOnce(Record) -> Record,
    ) -> anyhow::Result<Self> {
        let program = function::program()?;
        let record = change(Record::command(FUNCTION, [program.as_str(), "serve"]).max(1));
        let node = sandbox.node(0);
        let path = format!("/v1/spaces/{space}/functions");
        let record = sandbox.record(&record);
        let made = node.config(Method::POST, &path, Some(&record)).await;
        ensure!(
            made.status == 201,
            "the function is not registered: {made:?}"
        );
        let body = json!({ "function_name": FUNCTION, "space": space, "payload": "x".repeat(100) });
        let body = Bytes::from(serde_json::to_vec(&body)?);
        let subject = Subject {
            authorization,
            ..Subject::new(node.functions_address(), "/invoke", body)
        };
        for expected in ["cold", "warm"] {
            let (head, body) = load::once(&subject).await?;
            let start = head.headers.get("x-hearth-start");
            let is_right = head.status.is_success()
                && start.is_some_and(|start| start.as_bytes() == expected.as_bytes());
            let said = String::from_utf8_lossy(&body);
            ensure!(
                is_right,
                "expected a {expected} start, got {start:?}: {said}"
            );
        }
        Ok(Self {
            _sandbox: sandbox,
            subject,
            samples: Vec::new(),
        })
    }
}

async fn api(
    sandbox: &Sandbox,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let url = sandbox.node(0).functions_url(&format!("/api/v1/{path}"));
    let mut request = sandbox.client().request(method, url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await?.error_for_status()?;
    Ok(response.json().await?)
}
