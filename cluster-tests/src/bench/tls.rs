//! What TLS 1.3 adds to a warm call over a connection that is kept: to a node, and to nginx before the same function, in turns.

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use super::cores::Cores;
use super::function::Upstream;
use super::load::{self, Sample, Shape, Subject};
use super::nginx::{Certificate, Nginx};
use super::report::{Report, Row, Target};
use super::selection::Selection;
use super::stream::Tls;
use super::{median, progress};
use crate::ports::Ports;
use crate::record::Record;
use crate::sandbox::Sandbox;

const ADDED: &str = "tls_added";
const CPU_ADDED: &str = "tls_c16_cpu_added";

/// The rows of this part.
pub(super) const NAMES: [&str; 2] = [ADDED, CPU_ADDED];

/// The most that TLS may add at the median of one caller, of what it adds to nginx.
const ADDED_MAX: f64 = 1.2;

/// How many call at once where the servers' processor time is measured.
const CALLERS: usize = 16;

const FUNCTION: &str = "bench";

/// One way to the function, and what was measured of it.
struct Way {
    label: &'static str,
    subject: Subject,
    /// Of one caller, and of many.
    alone: Vec<Sample>,
    many: Vec<Sample>,
}

/// All that the calls go to.
struct Servers {
    _sandboxes: [Sandbox; 2],
    _nginx: Nginx,
    _function: Upstream,
    _certificate: TempDir,
    _ports: Ports,
}

pub(super) async fn measure(
    selection: &Selection,
    cores: &Cores,
    report: &mut Report,
) -> anyhow::Result<()> {
    if !selection.wants_any(&NAMES) {
        return Ok(());
    }
    Cores::pin(cores.servers)?;
    progress("warm calls with TLS and without, to a node and to nginx");
    let (servers, mut ways) = start().await?;
    let length = selection.length;
    for round in 0..selection.rounds {
        for step in 0..ways.len() {
            let count = ways.len();
            let way = &mut ways[(round + step) % count];
            let alone = load::run(cores, &way.subject, Shape::Closed(1), length).await;
            way.alone.push(alone.context(way.label)?);
            if selection.wants(CPU_ADDED) {
                let many = load::run(cores, &way.subject, Shape::Closed(CALLERS), length).await;
                way.many.push(many.context(way.label)?);
            }
        }
    }
    drop(servers);
    cores.release()?;
    let [node, node_tls, nginx, nginx_tls] = &ways;
    let alone = |with: &Way, without: &Way| {
        added(&with.alone, &without.alone, |sample: &Sample| sample.p50_us)
    };
    let many = |with: &Way, without: &Way| {
        added(&with.many, &without.many, |sample: &Sample| sample.cpu_us)
    };
    let target = Some(Target::RatioAtMost(ADDED_MAX));
    for (name, ours, reference, target) in [
        (
            ADDED,
            alone(node_tls, node),
            alone(nginx_tls, nginx),
            target,
        ),
        (
            CPU_ADDED,
            many(node_tls, node),
            many(nginx_tls, nginx),
            None,
        ),
    ] {
        if selection.wants(name) {
            let runs = selection.rounds;
            report.row(Row::compared(name, ours, reference, "us", target, runs));
        }
    }
    ways.iter().for_each(|way| way.detail(report));
    Ok(())
}

/// The median of what a round had more of.
fn added(with: &[Sample], without: &[Sample], figure: fn(&Sample) -> f64) -> f64 {
    let rounds = with.iter().zip(without);
    median(rounds.map(|(with, without)| figure(with) - figure(without)))
}

impl Way {
    fn new(label: &'static str, subject: Subject) -> Self {
        Self {
            label,
            subject,
            alone: Vec::new(),
            many: Vec::new(),
        }
    }

    fn detail(&self, report: &mut Report) {
        for (callers, samples) in [(1, &self.alone), (CALLERS, &self.many)] {
            if samples.is_empty() {
                continue;
            }
            let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
            report.detail([
                format!("100 B, {callers} at once"),
                self.label.to_owned(),
                format!("{:.1}", of(|sample| sample.p50_us)),
                format!("{:.1}", of(|sample| sample.p99_us)),
                format!("{:.0}", of(|sample| sample.rps)),
                format!("{:.1}", of(|sample| sample.cpu_us)),
                samples.len().to_string(),
            ]);
        }
    }
}

/// Starts a node without TLS, one with, and nginx with both, all before the same program, and calls each way.
async fn start() -> anyhow::Result<(Servers, [Way; 4])> {
    let dir = tempfile::tempdir().context("make a directory")?;
    let certificate = Certificate::write(dir.path())?;
    let plain = Sandbox::builder().nodes(1).start().await;
    let path = |file: &std::path::Path| file.display().to_string();
    let secure = Sandbox::builder()
        .nodes(1)
        .env(
            "HEARTH_TLS__FUNCTIONS__CERT_FILE",
            &path(&certificate.chain),
        )
        .env("HEARTH_TLS__FUNCTIONS__KEY_FILE", &path(&certificate.key));
    let secure = secure.start().await;
    let ports = Ports::reserve();
    let function = Upstream::start(plain.dir(), &ports).await?;
    let nginx = Nginx::start(plain.dir(), &ports, function.address()).await?;
    let tls = Tls::new()?;
    let payload = Bytes::from(json!({"text": "x".repeat(89)}).to_string());
    let ways = [
        Way::new("node", serving(&plain, None).await?),
        Way::new("TLS, node", serving(&secure, Some(tls.clone())).await?),
        Way::new("nginx", Subject::new(nginx.single, "/", payload.clone())),
        Way::new(
            "TLS, nginx",
            Subject {
                tls: Some(tls),
                ..Subject::new(nginx.tls, "/", payload)
            },
        ),
    ];
    for way in &ways {
        let (head, body) = load::once(&way.subject).await.context(way.label)?;
        let said = String::from_utf8_lossy(&body);
        ensure!(head.status.is_success(), "{}: {said}", way.label);
        let start = head.headers.get("x-hearth-start");
        let is_warm = start.is_none_or(|start| start.as_bytes() == b"warm");
        ensure!(is_warm, "{}: a start that is not warm", way.label);
    }
    let servers = Servers {
        _sandboxes: [plain, secure],
        _nginx: nginx,
        _function: function,
        _certificate: dir,
        _ports: ports,
    };
    Ok((servers, ways))
}

/// Registers the function and calls it once, so that it is warm.
async fn serving(sandbox: &Sandbox, tls: Option<Tls>) -> anyhow::Result<Subject> {
    let program = super::function::program()?;
    let record = Record::command(FUNCTION, [program.as_str(), "serve"])
        .concurrency(128)
        .max(1);
    sandbox.register(&record).await;
    let body = json!({ "function_name": FUNCTION, "payload": {"text": "x".repeat(89)} });
    let subject = Subject {
        tls,
        ..Subject::new(
            sandbox.node(0).functions_address(),
            "/invoke",
            Bytes::from(body.to_string()),
        )
    };
    let (head, body) = load::once(&subject).await?;
    let said = String::from_utf8_lossy(&body);
    ensure!(head.status.is_success(), "the first call: {said}");
    Ok(subject)
}
