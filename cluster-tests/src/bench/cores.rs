//! Which processor core does what: the load generator has one, all servers share another.

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of a run. A thread's cores are those of every process it starts.
#[derive(Debug, Clone)]
pub(super) struct Cores {
    /// The load generator's.
    pub(super) generator: usize,
    /// The one that functions, nginx and nodes share.
    pub(super) servers: usize,
    all: CpuSet,
}

impl Cores {
    /// Divides the cores that this process may use.
    ///
    /// # Errors
    /// When there is only one: the load generator would measure itself.
    pub(super) fn of_this_process() -> anyhow::Result<Self> {
        let all = sched_getaffinity(current()).context("read which cores this process may use")?;
        let mut usable = (0..CpuSet::count()).filter(|core| all.is_set(*core).unwrap_or(false));
        let (generator, servers) = (usable.next(), usable.next());
        let (Some(generator), Some(servers)) = (generator, servers) else {
            anyhow::bail!(
                "the load generator and the servers need a core each, and there is one core only"
            );
        };
        Ok(Self {
            generator,
            servers,
            all,
        })
    }

    /// Keeps the calling thread, and what it starts from now on, on one core.
    pub(super) fn pin(core: usize) -> anyhow::Result<()> {
        let mut set = CpuSet::new();
        set.set(core)?;
        sched_setaffinity(current(), &set).with_context(|| format!("keep to core {core}"))
    }

    /// Gives the calling thread all cores back.
    pub(super) fn release(&self) -> anyhow::Result<()> {
        sched_setaffinity(current(), &self.all).context("use all cores again")
    }
}

/// The calling thread, to the calls that take a thread's id.
fn current() -> Pid {
    Pid::from_raw(0)
}
