//! One call of a plugin, in an instance that is made for it and gone with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use config::settings::PluginsSettings;
use tokio::time::{Instant, timeout_at};
use wasmtime::{Config, Engine, Instance, InstancePre, Linker, Store, Trap, UpdateDeadline};

use super::imports::{self, Log, slice};
use super::limits::Limiter;
use crate::stage::Stage;

/// Why a call of a plugin came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// It ran out of time.
    #[error("it took longer than plugins.timeout")]
    TimedOut,
    /// It wanted more memory, and then failed.
    #[error("it needs more than plugins.memory_max: {0}")]
    Memory(String),
    /// It trapped, or gave up.
    #[error("{0}")]
    Trapped(String),
    /// It does not do what a plugin has to.
    #[error("{0}")]
    Malformed(String),
}

/// What makes modules ready to be called, and the limits of calls.
#[derive(Clone)]
pub(super) struct Compiler {
    pub(super) engine: Engine,
    pub(super) linker: Linker<State>,
    pub(super) limits: Limits,
}

/// The limits of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    memory_bytes_max: usize,
    answer_bytes_max: usize,
    log_bytes_max: usize,
}

/// What belongs to one call.
pub(super) struct State {
    limiter: Limiter,
    is_over: Arc<AtomicBool>,
    pub(super) log: Log,
}

/// Ends the call when it is dropped: nobody waits for it any more.
struct Ending {
    engine: Engine,
    is_over: Arc<AtomicBool>,
}

/// One call, ready to be made.
pub(super) struct Call {
    pub(super) instance: InstancePre<State>,
    pub(super) limits: Limits,
    pub(super) plugin: Arc<str>,
    /// The stage it is called for; none while it is loaded.
    pub(super) stage: Option<Stage>,
    pub(super) what: What,
}

/// What is called.
pub(super) enum What {
    /// `hearth_hooks`, which says what the plugin hooks into.
    Hooks,
    /// `hearth_handle`, with the parts of a message.
    Handle([Bytes; 3]),
}

impl Compiler {
    /// Makes one with the limits of these settings.
    ///
    /// # Errors
    /// When wasmtime does not run on this machine.
    pub(super) fn new(settings: &PluginsSettings) -> wasmtime::Result<Self> {
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config)?;
        let linker = imports::linker(&engine)?;
        Ok(Self {
            engine,
            linker,
            limits: Limits {
                memory_bytes_max: bytes(settings.memory_max),
                answer_bytes_max: bytes(settings.answer_max),
                log_bytes_max: bytes(settings.log_max),
            },
        })
    }
}

impl Call {
    /// Makes the call on a thread of its own and waits for its end.
    ///
    /// # Errors
    /// Why it came to nothing; at the deadline it is ended.
    ///
    /// # Cancel safety
    /// Dropping the future ends the call.
    pub(super) async fn run(self, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let is_over = Arc::new(AtomicBool::new(false));
        let ending = Ending {
            engine: self.instance.module().engine().clone(),
            is_over: Arc::clone(&is_over),
        };
        let running = tokio::task::spawn_blocking(move || self.run_here(is_over));
        let outcome = timeout_at(deadline, running).await;
        drop(ending);
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(Failure::Trapped(format!("its call broke off: {error}"))),
            Err(_) => Err(Failure::TimedOut),
        }
    }

    fn run_here(self, is_over: Arc<AtomicBool>) -> Result<Vec<u8>, Failure> {
        let Limits {
            memory_bytes_max,
            log_bytes_max,
            ..
        } = self.limits;
        let state = State {
            limiter: Limiter::new(memory_bytes_max),
            is_over,
            log: Log {
                plugin: Arc::clone(&self.plugin),
                stage: self.stage,
                bytes_left: log_bytes_max,
                left_out: 0,
            },
        };
        let mut store = Store::new(self.instance.module().engine(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            // The epoch is the engine's: another call may be meant.
            Ok(match context.data().is_over.load(Ordering::Acquire) {
                true => UpdateDeadline::Interrupt,
                false => UpdateDeadline::Continue(1),
            })
        });
        // It may have been given up before the epoch of its store was set.
        if store.data().is_over.load(Ordering::Acquire) {
            return Err(Failure::TimedOut);
        }
        let outcome = self.talk(&mut store);
        store.data().log.finish();
        outcome.map_err(|failure| match failure {
            Failure::Trapped(why) if store.data().limiter.has_denied() => Failure::Memory(why),
            failure => failure,
        })
    }

    /// Hands over the message and takes the answer.
    fn talk(&self, store: &mut Store<State>) -> Result<Vec<u8>, Failure> {
        let instance = self.instance.instantiate(&mut *store).map_err(trapped)?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, "_initialize") {
            initialize.call(&mut *store, ()).map_err(trapped)?;
        }
        let packed = match &self.what {
            What::Hooks => {
                let hooks = instance.get_typed_func::<(), u64>(&mut *store, "hearth_hooks");
                let hooks = hooks.map_err(|_| wrong("hearth_hooks() -> i64"))?;
                hooks.call(&mut *store, ()).map_err(trapped)?
            }
            What::Handle(parts) => {
                let (pointer, length) = hand_over(&instance, store, parts)?;
                let handle =
                    instance.get_typed_func::<(u32, u32), u64>(&mut *store, "hearth_handle");
                let handle = handle.map_err(|_| wrong("hearth_handle(i32, i32) -> i64"))?;
                handle
                    .call(&mut *store, (pointer, length))
                    .map_err(trapped)?
            }
        };
        let length = u32::try_from(packed & u64::from(u32::MAX)).unwrap_or_default();
        let pointer = u32::try_from(packed >> 32).unwrap_or_default();
        let answer_bytes_max = self.limits.answer_bytes_max;
        if usize::try_from(length).unwrap_or(usize::MAX) > answer_bytes_max {
            let why = format!(
                "its answer is {length} bytes, and plugins.answer_max is {answer_bytes_max}"
            );
            return Err(Failure::Malformed(why));
        }
        let memory = instance
            .get_memory(&mut *store, "memory")
            .ok_or_else(|| wrong("memory"))?;
        match slice(memory.data(&*store), pointer, length) {
            Some(answer) => Ok(answer.to_vec()),
            None => Err(Failure::Malformed(format!(
                "its answer, {length} bytes at {pointer}, is not in its memory"
            ))),
        }
    }
}

/// Writes a message into the memory of an instance.
fn hand_over(
    instance: &Instance,
    store: &mut Store<State>,
    parts: &[Bytes],
) -> Result<(u32, u32), Failure> {
    let bytes = parts.iter().map(Bytes::len).sum();
    let length = u32::try_from(bytes)
        .map_err(|_| Failure::Malformed("the message is larger than a memory".to_owned()))?;
    let alloc = instance.get_typed_func::<u32, u32>(&mut *store, "hearth_alloc");
    let alloc = alloc.map_err(|_| wrong("hearth_alloc(i32) -> i32"))?;
    let pointer = alloc.call(&mut *store, length).map_err(trapped)?;
    let memory = instance
        .get_memory(&mut *store, "memory")
        .ok_or_else(|| wrong("memory"))?;
    let start = usize::try_from(pointer).unwrap_or(usize::MAX);
    let room = memory
        .data_mut(&mut *store)
        .get_mut(start..)
        .and_then(|rest| rest.get_mut(..bytes));
    // A null pointer is how an allocator says that there is no room.
    let Some(mut room) = room.filter(|_| pointer != 0) else {
        let why = format!("hearth_alloc has no room for a message of {length} bytes");
        return Err(Failure::Trapped(why));
    };
    for part in parts {
        let (place, rest) = room.split_at_mut(part.len());
        place.copy_from_slice(part);
        room = rest;
    }
    Ok((pointer, length))
}

fn wrong(export: &str) -> Failure {
    Failure::Malformed(format!("it does not export {export}"))
}

fn trapped(error: wasmtime::Error) -> Failure {
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return Failure::TimedOut;
    }
    Failure::Trapped(one_line(&error))
}

/// The cause of an error in one line: wasmtime writes some over many.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    let cause = error.root_cause().to_string();
    cause.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.engine.increment_epoch();
    }
}
