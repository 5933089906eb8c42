//! What the `lambda` contract adds to a warm call beside what the `http` contract does: the same call of two functions that do
//! nothing on one node, and of one directly, in turns.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::cores::Cores;
use super::function::{self, ANSWER, Upstream};
use super::http::Client;
use super::load::{self, Sample, Shape, Subject};
use super::report::{Report, Row, Target};
use super::selection::Selection;
use super::{median, progress};
use crate::ports::Ports;
use crate::record::Record;
use crate::sandbox::Sandbox;

/// What the contract adds.
const ADDED: &str = "lambda_contract_added";

/// The rows of this part.
pub(super) const NAMES: [&str; 1] = [ADDED];

/// What it adds beside the `http` contract.
const TARGET: Target = Target::RatioAtMost(1.5);

/// The function on loopback.
const HTTP: &str = "bench-http";
/// The one that asks for its invocations; the names are of one length, so that the calls are.
const LAMBDA: &str = "bench-lmbd";

/// The ways, in this order.
const WAYS: [&str; 3] = ["direct", "http", "lambda"];

pub(super) async fn measure(
    selection: &Selection,
    cores: &Cores,
    report: &mut Report,
) -> anyhow::Result<()> {
    if !selection.wants(ADDED) {
        return Ok(());
    }
    progress(
        "warm calls of a function of the lambda contract, of one of the http contract, and of one directly",
    );
    Cores::pin(cores.servers)?;
    let sandbox = Sandbox::builder().nodes(1).start().await;
    let ports = Ports::reserve();
    let upstream = Upstream::start(sandbox.dir(), &ports).await?;
    let program = function::program()?;
    let http = Record::command(HTTP, [program.as_str(), "serve"]).max(1);
    let lambda = Record::command(LAMBDA, [program.as_str(), "ask"])
        .max(1)
        .lambda();
    let subjects = [
        Subject::new(upstream.address(), "/", payload().to_string().into()),
        warm(&sandbox, &http).await?,
        warm(&sandbox, &lambda).await?,
    ];
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for round in 0..selection.rounds {
        for step in 0..subjects.len() {
            let way = (round + step) % subjects.len();
            let sample = load::run(cores, &subjects[way], Shape::Closed(1), selection.length);
            samples[way].push(sample.await.context(WAYS[way])?);
        }
    }
    cores.release()?;
    let [direct, http, lambda] = &samples;
    let added = |own: &[Sample]| {
        let rounds = own.iter().zip(direct);
        median(rounds.map(|(own, direct)| own.p50_us - direct.p50_us))
    };
    let (ours, reference) = (added(lambda), added(http));
    let runs = lambda.len();
    report.row(Row::compared(
        ADDED,
        ours,
        reference,
        "us",
        Some(TARGET),
        runs,
    ));
    Ok(())
}

fn payload() -> Value {
    json!({ "text": "x".repeat(89) })
}

/// Registers a function and calls it twice, so that it is warm.
async fn warm(sandbox: &Sandbox, record: &Record) -> anyhow::Result<Subject> {
    sandbox.register(record).await;
    let body = json!({ "function_name": record.id(), "payload": payload() });
    let address = sandbox.node(0).functions_address();
    let subject = Subject::new(address, "/invoke", Bytes::from(serde_json::to_vec(&body)?));
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

/// The function of the `lambda` contract: asks for an invocation, answers it with a few bytes of JSON, and asks for the next, until the
/// process ends.
///
/// # Errors
/// When there is no Runtime API, or it answers something else than it should.
pub async fn ask() -> anyhow::Result<()> {
    let api = std::env::var("AWS_LAMBDA_RUNTIME_API").context("$AWS_LAMBDA_RUNTIME_API is set")?;
    let address = api.parse().context(api.clone())?;
    let mut client = Client::connect(address, None).await?;
    let root = "/2018-06-01/runtime/invocation";
    loop {
        let next = Request::get(format!("{root}/next")).header(HOST, &api);
        let (head, _) = client.call(next.body(Full::default())?).await?;
        let id = head.headers.get("lambda-runtime-aws-request-id");
        let id = id.context("an invocation has an id")?.to_str()?;
        let response = Request::post(format!("{root}/{id}/response"))
            .header(HOST, &api)
            .header(CONTENT_TYPE, "application/json");
        let answer = Full::new(Bytes::from_static(ANSWER));
        let (head, said) = client.call(response.body(answer)?).await?;
        if head.status != StatusCode::ACCEPTED {
            bail!("{}: {}", head.status, String::from_utf8_lossy(&said));
        }
    }
}
