//! The machine the figures are of.

use std::fmt;
use std::fs;

use serde::Serialize;

use super::cores::Cores;

/// What a reader has to know to compare figures of two runs.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    generator_core: usize,
    servers_core: usize,
    /// Runnable processes over the last minute, when the bench began: a machine that did something else measures that too.
    load_before: String,
}

impl Machine {
    pub(super) fn read(cores: &Cores) -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = field(&memory, "MemTotal")
            .and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: field(&processors, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: processors
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            kernel: kernel.trim().to_owned(),
            generator_core: cores.generator,
            servers_core: cores.servers,
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processor,
            cores,
            memory_mib,
            kernel,
            generator_core,
            servers_core,
            load_before,
        } = self;
        write!(
            f,
            "{processor}, {cores} cores, {memory_mib} MiB, Linux {kernel}, load {load_before} before; load generator on core {generator_core}, all servers on core {servers_core}"
        )
    }
}
