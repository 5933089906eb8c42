//! Warm calls, by six ways to functions that do nothing, interleaved: direct, nginx, two nginx, a node, two nodes, an `http` event.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::json;

use super::cell::{COMPARISONS, Cell, Comparison, Load, Payload, Way};
use super::cores::Cores;
use super::function::{self, Upstream};
use super::load::{self, Sample, Shape, Subject};
use super::nginx::Nginx;
use super::report::{Report, Row};
use super::selection::Selection;
use super::{median, progress};
use crate::node::{Node, NodeOptions};
use crate::ports::Ports;
use crate::record::Record;
use crate::sandbox::Sandbox;

/// The ids of the function that is an instance, and of the one that is a webhook.
const FUNCTION: &str = "bench";
const WEBHOOK: &str = "webhook";

/// The path that the webhook is subscribed to.
const PATH: &str = "/hook";

/// Slots of its instance: more than there are callers, so that nothing ever waits for one.
const SLOTS: u32 = 128;

/// A paced load is half of what nginx carries, and at most this many requests a second.
const PACED_RATE_MAX: f64 = 2000.0;

/// How long, and at how many callers, nginx is asked what it carries.
const CALIBRATION: (Duration, usize) = (Duration::from_millis(500), 16);

/// All servers of this part; they end with this value.
#[derive(Debug)]
struct Servers {
    sandbox: Sandbox,
    nginx: Nginx,
    function: Upstream,
    _ports: Ports,
}

/// What a cell measured: for each way, a sample a round.
struct Measured {
    cell: Cell,
    ways: Vec<(Way, Vec<Sample>)>,
}

pub(super) async fn measure(
    selection: &Selection,
    cores: &Cores,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut all: Vec<_> = Cell::all()
        .filter_map(|cell| {
            let ways = ways(selection, cell);
            (!ways.is_empty()).then(|| Measured {
                cell,
                ways: ways.into_iter().map(|way| (way, Vec::new())).collect(),
            })
        })
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    // What this thread starts from here on stays on the servers' core.
    Cores::pin(cores.servers)?;
    progress("starting the function, two nginx, etcd and two nodes");
    let servers = Servers::start().await?;
    let rates = [
        servers.paced_rate(cores, Payload::Small).await?,
        servers.paced_rate(cores, Payload::Large).await?,
    ];
    for round in 0..selection.rounds {
        progress(&format!(
            "warm calls, round {} of {}",
            round + 1,
            selection.rounds
        ));
        for measured in &mut all {
            measured
                .round(selection, cores, &servers, rates, round)
                .await?;
        }
    }
    drop(servers);
    cores.release()?;
    report.note(format!(
        "paced loads: {:.0} requests/s of 100 B, {:.0} of 100 KiB",
        rates[0], rates[1]
    ));
    for comparison in COMPARISONS {
        for measured in &all {
            let name = comparison.name(measured.cell);
            if selection.wants(&name) {
                report.row(measured.row(&name, comparison));
            }
        }
    }
    all.iter().for_each(|measured| measured.detail(report));
    Ok(())
}

/// The ways that the wanted rows of a cell need.
fn ways(selection: &Selection, cell: Cell) -> Vec<Way> {
    let wanted: Vec<_> = COMPARISONS
        .into_iter()
        .filter(|comparison| selection.wants(&comparison.name(cell)))
        .collect();
    let is_needed = |way: &Way| {
        let is_compared = wanted
            .iter()
            .any(|one| one.ours == *way || one.reference == *way);
        is_compared || (*way == Way::Direct && !wanted.is_empty())
    };
    Way::ALL.into_iter().filter(is_needed).collect()
}

impl Measured {
    /// Runs the load once by each way; each round begins with another one.
    async fn round(
        &mut self,
        selection: &Selection,
        cores: &Cores,
        servers: &Servers,
        rates: [f64; 2],
        round: usize,
    ) -> anyhow::Result<()> {
        let shape = match (self.cell.load, self.cell.payload) {
            (Load::Callers(callers), _) => Shape::Closed(callers),
            (Load::Paced, Payload::Small) => Shape::Paced(rates[0]),
            (Load::Paced, Payload::Large) => Shape::Paced(rates[1]),
        };
        let count = self.ways.len();
        for step in 0..count {
            let (way, samples) = &mut self.ways[(round + step) % count];
            let subject = servers.subject(*way, self.cell.payload);
            let sample = load::run(cores, &subject, shape, selection.length).await;
            let what = || format!("{}, {}", self.cell.label(), way.label());
            samples.push(sample.with_context(what)?);
        }
        Ok(())
    }

    fn row(&self, name: &str, comparison: Comparison) -> Row {
        let figure = |way: Way| {
            let (own, direct) = (self.samples(way), self.samples(Way::Direct));
            let rounds = own.iter().zip(direct);
            median(rounds.map(|(own, direct)| match self.cell.load {
                Load::Callers(1) => own.p50_us - direct.p50_us,
                Load::Callers(_) => own.rps,
                Load::Paced => own.p99_us,
            }))
        };
        let unit = match self.cell.load {
            Load::Callers(1) | Load::Paced => "us",
            Load::Callers(_) => "requests/s",
        };
        let (ours, reference) = (figure(comparison.ours), figure(comparison.reference));
        let runs = self.samples(comparison.ours).len();
        Row::compared(
            name,
            ours,
            reference,
            unit,
            comparison.target(self.cell),
            runs,
        )
    }

    fn samples(&self, way: Way) -> &[Sample] {
        let found = self.ways.iter().find(|(one, _)| *one == way);
        found.map_or(&[], |(_, samples)| samples)
    }

    fn detail(&self, report: &mut Report) {
        for (way, samples) in &self.ways {
            let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
            report.detail([
                self.cell.label(),
                way.label().to_owned(),
                format!("{:.1}", of(|sample| sample.p50_us)),
                format!("{:.1}", of(|sample| sample.p99_us)),
                format!("{:.0}", of(|sample| sample.rps)),
                format!("{:.1}", of(|sample| sample.cpu_us)),
                samples.len().to_string(),
            ]);
        }
    }
}

impl Servers {
    async fn start() -> anyhow::Result<Self> {
        let ports = Ports::reserve();
        let nodes = Sandbox::builder()
            .node(NodeOptions::default())
            // The second has no instances of its own, so it forwards every call to the first.
            .node(NodeOptions {
                is_process_denied: true,
                ..NodeOptions::default()
            });
        let sandbox = nodes.start().await;
        let program = function::program()?;
        let function = Upstream::start(sandbox.dir(), &ports).await?;
        let address = function.address();
        let nginx = Nginx::start(sandbox.dir(), &ports, address).await?;
        let record = Record::command(FUNCTION, [program.as_str(), "serve"])
            .concurrency(SLOTS)
            .max(1);
        let (_, home) = sandbox.register_warm(&record, json!({})).await;
        ensure!(
            home.name() == sandbox.node(0).name(),
            "the function runs where no process may"
        );
        sandbox
            .register(&Record::http(WEBHOOK, &format!("http://{address}/")))
            .await;
        let subscription = json!({
            "event": "http",
            "method": "POST",
            "path": PATH,
            "functionId": WEBHOOK,
        });
        sandbox.subscribe(&subscription).await;
        let servers = Self {
            sandbox,
            nginx,
            function,
            _ports: ports,
        };
        servers.check().await?;
        Ok(servers)
    }

    /// Calls once by each way and looks whether the call went that way.
    async fn check(&self) -> anyhow::Result<()> {
        for way in Way::ALL {
            let subject = self.subject(way, Payload::Small);
            let (head, body) = load::once(&subject).await.context(way.label())?;
            ensure!(
                head.status.is_success(),
                "{}: {} {}",
                way.label(),
                head.status,
                String::from_utf8_lossy(&body)
            );
            let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
            let expected = match way {
                Way::Direct | Way::Nginx | Way::Chain => (None, None),
                Way::Local | Way::Event => (Some("local"), Some("warm")),
                Way::Forward => (Some("forwarded"), Some("warm")),
            };
            let seen = (header("x-hearth-route"), header("x-hearth-start"));
            ensure!(
                seen == expected,
                "{}: expected route and start {expected:?}, saw {seen:?}",
                way.label()
            );
        }
        Ok(())
    }

    async fn paced_rate(&self, cores: &Cores, payload: Payload) -> anyhow::Result<f64> {
        let (length, callers) = CALIBRATION;
        let subject = self.subject(Way::Nginx, payload);
        let sample = load::run(cores, &subject, Shape::Closed(callers), length).await?;
        Ok((sample.rps / 2.0).clamp(1.0, PACED_RATE_MAX))
    }

    fn subject(&self, way: Way, payload: Payload) -> Subject {
        let plain = |address| Subject::new(address, "/", payload.bytes());
        let invoke = |node: Node| {
            let address = node.functions_address();
            Subject::new(address, "/invoke", invocation(&payload.bytes()))
        };
        match way {
            Way::Direct => plain(self.function.address()),
            Way::Nginx => plain(self.nginx.single),
            Way::Chain => plain(self.nginx.chain),
            Way::Local => invoke(self.sandbox.node(0)),
            Way::Forward => invoke(self.sandbox.node(1)),
            Way::Event => {
                Subject::new(self.sandbox.node(0).events_address(), PATH, payload.bytes())
            }
        }
    }
}

fn invocation(payload: &[u8]) -> Bytes {
    let mut body = format!(r#"{{"function_name":"{FUNCTION}","payload":"#).into_bytes();
    body.extend_from_slice(payload);
    body.push(b'}');
    body.into()
}
