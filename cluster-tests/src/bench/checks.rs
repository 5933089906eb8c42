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

/// What a rate adds.
const RATE: &str = "ratelimit_added_us";

/// What all limits add that a call can count for.
const LIMITS: &str = "limits_added_us";

/// The rows of this part.
pub(super) const NAMES: [&str; 3] = [AUTH, RATE, LIMITS];

/// The most that a token may add at the median.
const AUTH_US_MAX: f64 = 10.0;

/// The most that a rate may add at the median.
const RATE_US_MAX: f64 = 2.0;

const FUNCTION: &str = "bench";

/// As long as the name of a user's own space, so that both calls have a body of one length.
const OPEN_SPACE: &str = "u-00000000000000000000000000000000";

/// A node whose function is called.
struct Server {
    sandbox: Sandbox,
}

pub(super) async fn measure(
    selection: &Selection,
    cores: &Cores,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rate = json!({ "perSecond": 1_000_000 });
    let rate_alone = [json!({ "rate": rate }), json!({})];
    let all = json!({ "rate": rate, "concurrent": 1_000 });
    if selection.wants(AUTH) {
        progress("warm calls with a user's token, and without authentication");
        let added = token_adds(selection, cores).await.context(AUTH)?;
        report.row(added);
    }
    if selection.wants(RATE) {
        progress("warm calls of a function with a rate, and without");
        let row = (RATE, Some(RATE_US_MAX));
        let added = limits_add(row, &rate_alone, selection, cores).await;
        report.row(added.context(RATE)?);
    }
    if selection.wants(LIMITS) {
        progress("warm calls of a function with all limits, and without");
        let added = limits_add((LIMITS, None), &[all.clone(), all], selection, cores).await;
        report.row(added.context(LIMITS)?);
    }
    Ok(())
}

async fn token_adds(selection: &Selection, cores: &Cores) -> anyhow::Result<Row> {
    Cores::pin(cores.servers)?;
    let (open, locked) = (Server::open().await?, Server::locked().await?);
    let plain = open.function(OPEN_SPACE, None).await?;
    let (space, token) = locked.user().await?;
    let checked = locked.function(&space, Some(token)).await?;
    let prepare = async |_| Ok(());
    added(
        (AUTH, Some(AUTH_US_MAX)),
        [&plain, &checked],
        prepare,
        selection,
        cores,
    )
    .await
}

/// What limits of a function and of its space add. They are set and taken away between rounds, so that the same processes are called:
/// two of one program differ by more than a limit costs.
async fn limits_add(
    row: (&'static str, Option<f64>),
    [of_function, of_space]: &[Value; 2],
    selection: &Selection,
    cores: &Cores,
) -> anyhow::Result<Row> {
    Cores::pin(cores.servers)?;
    let server = Server::open().await?;
    let called = server.function(OPEN_SPACE, None).await?;
    let none = json!({ "rate": null, "concurrent": null });
    let nothing = json!({});
    let prepare = async |which| {
        let (of_function, of_space) = match which {
            0 => (&nothing, &none),
            _ => (of_function, of_space),
        };
        server.limit_space(OPEN_SPACE, of_space).await?;
        server.limit_function(OPEN_SPACE, of_function).await?;
        let (head, _) = load::once(&called).await?;
        let is_limited = head.headers.contains_key("ratelimit-limit");
        ensure!(
            is_limited == (which == 1),
            "the limits are not in force: {head:?}"
        );
        Ok(())
    };
    added(row, [&called, &called], prepare, selection, cores).await
}

/// Measures what calls of the second kind take longer than those of the first one, in turns.
async fn added(
    (name, target): (&'static str, Option<f64>),
    subjects: [&Subject; 2],
    prepare: impl AsyncFn(usize) -> anyhow::Result<()>,
    selection: &Selection,
    cores: &Cores,
) -> anyhow::Result<Row> {
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    for round in 0..selection.rounds {
        for step in 0..2 {
            let which = (round + step) % 2;
            prepare(which).await?;
            let sample = load::run(cores, subjects[which], Shape::Closed(1), selection.length);
            samples[which].push(sample.await?);
        }
    }
    cores.release()?;
    let [plain, checked] = &samples;
    let rounds = checked.iter().zip(plain);
    let added = median(rounds.map(|(checked, plain)| checked.p50_us - plain.p50_us));
    Ok(Row::alone(name, added, "us", target, checked.len()))
}

impl Server {
    async fn open() -> anyhow::Result<Self> {
        let sandbox = Sandbox::builder().nodes(1).start().await;
        Ok(Self { sandbox })
    }

    async fn locked() -> anyhow::Result<Self> {
        let sandbox = Sandbox::builder().auth_required().nodes(1).start().await;
        Ok(Self { sandbox })
    }

    /// Signs a user up and in: its space, and its token as a header.
    async fn user(&self) -> anyhow::Result<(String, HeaderValue)> {
        let sandbox = &self.sandbox;
        let user = json!({ "email": "bench@example.com", "password": "password123" });
        api(sandbox, Method::POST, "users", None, Some(&user)).await?;
        let told = api(sandbox, Method::POST, "users/login", None, Some(&user)).await?;
        let token = told["token"].as_str().context("a login gives a token")?;
        let me = api(sandbox, Method::GET, "users/me", Some(token), None).await?;
        let id = me["userId"].as_str().context("a user has an id")?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        value.set_sensitive(true);
        Ok((format!("u-{id}"), value))
    }

    async fn limit_space(&self, space: &str, limits: &Value) -> anyhow::Result<()> {
        let set = json!({ "limits": limits });
        let path = format!("/v1/spaces/{space}");
        let node = self.sandbox.node(0);
        let changed = node.config(Method::PATCH, &path, Some(&set)).await;
        ensure!(changed.status == 200, "the limits are not set: {changed:?}");
        Ok(())
    }

    /// Changes the limits of the function; its instance stays.
    async fn limit_function(&self, space: &str, limits: &Value) -> anyhow::Result<()> {
        let limits = limits.as_object().into_iter().flatten();
        let record = limits.fold(record()?, |record, (field, value)| {
            record.limit(field, value.clone())
        });
        let path = format!("/v1/spaces/{space}/functions/{FUNCTION}");
        let (node, record) = (self.sandbox.node(0), self.sandbox.record(&record));
        let changed = node.config(Method::PUT, &path, Some(&record)).await;
        ensure!(changed.status == 200, "the limits are not set: {changed:?}");
        Ok(())
    }

    /// Registers the function in a space and calls it once, so that it is warm.
    async fn function(
        &self,
        space: &str,
        authorization: Option<HeaderValue>,
    ) -> anyhow::Result<Subject> {
        let node = self.sandbox.node(0);
        let path = format!("/v1/spaces/{space}/functions");
        let record = self.sandbox.record(&record()?);
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
        Ok(subject)
    }
}

fn record() -> anyhow::Result<Record> {
    let program = function::program()?;
    Ok(Record::command(FUNCTION, [program.as_str(), "serve"]).max(1))
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
