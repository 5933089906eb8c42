//! Kills nodes for some minutes while clients call, and checks promises 1, 2, 4 and 6 of the guarantees from outside. Then runs the
//! scenarios of `cluster_tests::history`, which check promise 3.
//!
//! The seed decides what is done to which node and when; how the machine schedules the rest is its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use cluster_tests::chaos::{Outage, Report, Rng, WarmWindow};
use cluster_tests::history::{self, Ledger, Scenario, Size, scenario};
use cluster_tests::{Load, Node, NodeOptions, Record, Sandbox, Targets, example, outage};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

const USAGE: &str = "chaos [--minutes N] [--scenarios all|NAME,...] [--seed N] | chaos --judge FILE

--minutes N    starts four nodes on an etcd, kills them for N minutes under load, and reports.
               Containers are used too when HEARTH_TEST_DOCKER names an engine.
--scenarios X  emits 10,000 events in each scenario while nodes, stores, links, disks or functions
               fail, and reports whether each was delivered or is a dead letter. Needs root.
--seed N       decides the same again.
--judge FILE   judges a record that was kept, or made by hand, and starts nothing.

Without either both are done: 5 minutes, and all scenarios. Exits with 1 when a promise broke.
";

/// How soon after a restart only instances are left, and how soon every node knows of the warm ones.
const CLEANED: Duration = Duration::from_secs(30);

/// Nodes that run functions; at most two of them are killed at a time, or all.
const WORKERS: usize = 3;

/// A function under load.
struct Subject {
    id: &'static str,
    is_idempotent: bool,
    load: Load,
}

/// One run.
struct Run {
    sandbox: Sandbox,
    has_engine: bool,
    subjects: Vec<Subject>,
    outages: Vec<Outage>,
    windows: Vec<WarmWindow>,
    report: Report,
    rng: Rng,
}

/// What was asked for.
struct Asked {
    minutes: Option<u64>,
    scenarios: Vec<Scenario>,
    record: Option<PathBuf>,
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Some(asked) = arguments()? else {
        say(USAGE);
        return Ok(ExitCode::SUCCESS);
    };
    let seed = asked.seed;
    let mut is_kept = true;
    if let Some(record) = &asked.record {
        let report = judge(record)?;
        say(&report.to_string());
        is_kept &= report.is_kept();
    }
    if let Some(minutes) = asked.minutes {
        say(&format!(
            "chaos for {minutes} minutes, seed {seed} (--seed {seed} decides the same again)\n"
        ));
        let mut run = Run::start(seed).await;
        let end = Instant::now() + Duration::from_secs(minutes * 60);
        while Instant::now() < end {
            run.round().await;
        }
        let report = run.finish().await;
        say(&report.to_string());
        is_kept &= report.is_kept();
    }
    if !asked.scenarios.is_empty() {
        let report = run_scenarios(&asked.scenarios, seed).await;
        say(&report.to_string());
        is_kept &= report.is_kept();
    }
    Ok(if is_kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Judges a record of a run that is over.
fn judge(record: &Path) -> anyhow::Result<history::Report> {
    let found = record.is_file();
    anyhow::ensure!(found, "--judge {}: no such file", record.display());
    let findings = Ledger::open(record).read().judge();
    let kept = (!findings.broken.is_empty()).then(|| record.to_owned());
    let outcome = history::Outcome {
        name: "record",
        seed: 0,
        findings,
        took: Duration::ZERO,
        kept,
    };
    let mut report = history::Report::default();
    report.add("record", 0, Ok(outcome));
    Ok(report)
}

/// Runs one after the other; one that breaks off is told in the report and keeps no other from running.
async fn run_scenarios(scenarios: &[Scenario], seed: u64) -> history::Report {
    let tasks = TaskTracker::new();
    let mut report = history::Report::default();
    for scenario in scenarios.iter().copied() {
        let name = scenario.name;
        say(&format!("{name}, seed {seed}: "));
        let run = tasks.spawn(async move { history::run(&scenario, Size::FULL, seed).await });
        let outcome = run.await.map_err(|error| error.to_string());
        let word = match &outcome {
            Ok(outcome) if outcome.is_kept() => "kept",
            Ok(_) => "BROKEN",
            Err(_) => "broke off",
        };
        say(&format!("{word}\n"));
        report.add(name, seed, outcome);
    }
    report
}

impl Run {
    async fn start(seed: u64) -> Self {
        let has_engine = std::env::var_os("HEARTH_TEST_DOCKER").is_some();
        // The fourth runs no function itself, so each of its calls is a forward that a kill may hit.
        let front = NodeOptions {
            is_process_denied: true,
            docker_host: Some("unix:///nonexistent/docker.sock".to_owned()),
            ..NodeOptions::default()
        };
        let builder = Sandbox::builder().nodes(WORKERS).node(front);
        let sandbox = if has_engine {
            builder.containers()
        } else {
            builder
        }
        .start()
        .await;
        // More slots than there are clients: once one instance is up, nothing needs a cold start.
        let mut records = vec![
            (Record::process("plain", "sleep").concurrency(64), false),
            (
                Record::process("idempotent", "sleep")
                    .concurrency(64)
                    .idempotent(),
                true,
            ),
        ];
        if has_engine {
            // An adopted container takes work once its timeout has passed.
            records.push((
                Record::container("contained", "sleep")
                    .concurrency(64)
                    .timeout_ms(1_000),
                false,
            ));
        }
        let mut subjects = Vec::new();
        for (record, is_idempotent) in records {
            sandbox.register_warm(&record, json!({ "ms": 1 })).await;
            let id = ["plain", "idempotent", "contained"][subjects.len()];
            let targets = Targets::Each(sandbox.nodes());
            let load = Load::start(targets, 8, id, |number| json!({ "ms": 5 + number % 40 }));
            subjects.push(Subject {
                id,
                is_idempotent,
                load,
            });
        }
        Self {
            sandbox,
            has_engine,
            subjects,
            outages: Vec::new(),
            windows: Vec::new(),
            report: Report::new(seed),
            rng: Rng::new(seed),
        }
    }

    /// Hurts some nodes, brings them back, and looks at what is left.
    async fn round(&mut self) {
        let calm = self
            .rng
            .between(Duration::from_millis(500), Duration::from_secs(3));
        if let Some(warm_since) = self.wait_warm().await {
            outage(calm).await;
            self.windows.push(WarmWindow {
                begun: warm_since,
                ended: Instant::now(),
            });
        }
        let down = self.hurt().await;
        let length = self
            .rng
            .between(Duration::from_millis(100), Duration::from_secs(4));
        outage(length).await;
        for node in &down {
            node.restart();
        }
        let count = self.sandbox.nodes().len();
        let ready = join_all(down.iter().map(|node| is_back(node, count))).await;
        let now = Instant::now();
        for (node, is_ready) in down.iter().zip(ready) {
            if is_ready {
                self.end_outages(node, now);
            } else {
                self.report.breaks(
                    1,
                    format!("{} did not come back:\n{}", node.name(), node.log_tail(30)),
                );
            }
        }
        self.check_all_answer().await;
        self.check_no_orphans().await;
        self.judge_calls();
    }

    async fn hurt(&mut self) -> Vec<Node> {
        let nodes = self.sandbox.nodes();
        let first = self.rng.below(nodes.len());
        let (action, count) = match self.rng.below(20) {
            0..=11 => ("kill -9 of one node", 1),
            12..=14 => ("kill -9 of two nodes", 2),
            15 => ("kill -9 of all nodes", nodes.len()),
            _ => ("SIGTERM to one node", 1),
        };
        self.report.acted(action);
        let down: Vec<_> = (0..count)
            .map(|step| nodes[(first + step) % nodes.len()].clone())
            .collect();
        let begun = Instant::now();
        self.outages.extend(down.iter().map(|node| Outage {
            node: node.name().to_owned(),
            begun,
            ended: None,
        }));
        for node in &down {
            if action.starts_with("SIGTERM") {
                node.term();
                let status = node.exited(Duration::from_secs(40)).await;
                if !status.success() {
                    self.report
                        .breaks(4, format!("{} did not drain well: {status}", node.name()));
                }
            } else {
                node.kill9();
            }
        }
        down
    }

    fn end_outages(&mut self, node: &Node, now: Instant) {
        let open = self
            .outages
            .iter_mut()
            .filter(|outage| outage.node == node.name());
        open.filter(|outage| outage.ended.is_none())
            .for_each(|outage| outage.ended = Some(now));
    }

    /// Waits until every node would send every function to a warm slot; since when, or nothing if that did not come about.
    async fn wait_warm(&mut self) -> Option<Instant> {
        let give_up = Instant::now() + CLEANED;
        loop {
            let mut missing = Vec::new();
            for node in self.sandbox.nodes() {
                for subject in &self.subjects {
                    let route = node.route(subject.id).await;
                    if !route
                        .as_ref()
                        .is_ok_and(|route| matches!(route.choice.as_str(), "local" | "peer"))
                    {
                        missing.push(format!("{} for {}: {route:?}", node.name(), subject.id));
                    }
                }
            }
            if missing.is_empty() {
                return Some(Instant::now());
            }
            if Instant::now() > give_up {
                self.report.breaks(
                    2,
                    format!("no node comes to know of a warm slot: {missing:?}"),
                );
                return None;
            }
            outage(Duration::from_millis(100)).await;
        }
    }

    /// Promise 1: each node answers for each function, whoever was just killed.
    async fn check_all_answer(&mut self) {
        for node in self.sandbox.nodes() {
            for subject in &self.subjects {
                let answer = node.try_invoke(subject.id, json!({ "ms": 1 })).await;
                if !answer.as_ref().is_ok_and(cluster_tests::Answer::is_ok) {
                    self.report
                        .breaks(1, format!("{} for {}: {answer:?}", node.name(), subject.id));
                }
            }
        }
    }

    /// Promise 6: what exists are instances, and nothing else.
    async fn check_no_orphans(&mut self) {
        let give_up = Instant::now() + CLEANED;
        loop {
            let instances = join_all(self.sandbox.nodes().iter().map(Node::instance_ids)).await;
            let instances = instances.into_iter().flatten().flatten().count();
            // Guards and processes inside containers have other command lines.
            let command = format!(" {}", example("sleep"));
            let mut found = self.sandbox.processes_left();
            found.retain(|process| {
                process.ends_with(&command) && !process.contains("instance-guard")
            });
            if self.has_engine {
                let containers = self.sandbox.containers_now().await;
                found.extend(
                    containers
                        .into_iter()
                        .map(|container| format!("{container:?}")),
                );
            }
            if found.len() == instances {
                return;
            }
            if Instant::now() > give_up {
                self.report.orphans += found.len().abs_diff(instances);
                self.report
                    .breaks(6, format!("{instances} instances, but {found:#?}"));
                return;
            }
            outage(Duration::from_millis(200)).await;
        }
    }

    fn judge_calls(&mut self) {
        for subject in &self.subjects {
            let calls = subject.load.take();
            self.report
                .add(&calls, subject.is_idempotent, &self.outages, &self.windows);
        }
        // Calls end within their deadline of a minute, so older outages and windows can not concern a later one.
        let Some(old) = Instant::now().checked_sub(Duration::from_secs(120)) else {
            return;
        };
        self.outages
            .retain(|outage| outage.ended.is_none_or(|ended| ended > old));
        self.windows.retain(|window| window.ended > old);
    }

    /// Stops the load, ends the nodes as an operator would, and looks for what they left.
    async fn finish(mut self) -> Report {
        for subject in std::mem::take(&mut self.subjects) {
            let calls = subject.load.stop().await;
            self.report
                .add(&calls, subject.is_idempotent, &self.outages, &self.windows);
        }
        for node in self.sandbox.nodes() {
            node.term();
        }
        for node in self.sandbox.nodes() {
            node.exited(Duration::from_secs(40)).await;
        }
        let give_up = Instant::now() + Duration::from_secs(5);
        loop {
            let mut left = self.sandbox.processes_left();
            if self.has_engine {
                let containers = self.sandbox.containers_now().await;
                left.extend(
                    containers
                        .into_iter()
                        .map(|container| format!("{container:?}")),
                );
            }
            if left.is_empty() {
                break;
            }
            if Instant::now() > give_up {
                self.report.orphans += left.len();
                self.report
                    .breaks(6, format!("left after all nodes had ended: {left:#?}"));
                break;
            }
            outage(Duration::from_millis(100)).await;
        }
        if !self.report.is_kept() {
            self.sandbox.keep();
            let dir = self.sandbox.dir().display();
            say(&format!("all logs and data stay in {dir}\n"));
        }
        self.report
    }
}

/// Waits until a node is ready and has heard of all others: ready alone waits for no peer, and a node that runs nothing itself
/// has nowhere to send a call before.
async fn is_back(node: &Node, count: usize) -> bool {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !node.is_ready().await || node.alive().await.len() < count {
        if Instant::now() > give_up || !node.is_running() {
            return false;
        }
        outage(Duration::from_millis(20)).await;
    }
    true
}

/// What was asked for; nothing when that was help.
fn arguments() -> anyhow::Result<Option<Asked>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let (mut minutes, mut scenarios, mut seed) = (None, None, now.as_secs());
    let mut record = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        if flag == "--help" {
            return Ok(None);
        }
        let value = arguments
            .next()
            .with_context(|| format!("{flag} needs a value\n{USAGE}"))?;
        let number = || {
            let number = value.parse();
            number.with_context(|| format!("{flag} {value} is no number"))
        };
        match flag.as_str() {
            "--minutes" => minutes = Some(number()?),
            "--seed" => seed = number()?,
            "--judge" => record = Some(PathBuf::from(&value)),
            "--scenarios" => scenarios = Some(selected(&value)?),
            _ => bail!("unknown flag {flag}\n{USAGE}"),
        }
    }
    if minutes.is_none() && scenarios.is_none() && record.is_none() {
        (minutes, scenarios) = (Some(5), Some(scenario::ALL.to_vec()));
    }
    Ok(Some(Asked {
        minutes,
        scenarios: scenarios.unwrap_or_default(),
        record,
        seed,
    }))
}

/// The scenarios of these names.
fn selected(names: &str) -> anyhow::Result<Vec<Scenario>> {
    if names == "all" {
        return Ok(scenario::ALL.to_vec());
    }
    let known = || -> Vec<_> { scenario::ALL.iter().map(|scenario| scenario.name).collect() };
    let named = |name: &str| {
        let found = scenario::named(name);
        found.with_context(|| format!("no scenario {name}; there are {}", known().join(", ")))
    };
    names.split(',').map(named).collect()
}

fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
