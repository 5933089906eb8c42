//! A module that was loaded: compiled, and asked what it hooks into.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use wasmtime::{InstancePre, Module};

use super::call::{Call, Compiler, Limits, State, What, one_line};
use crate::stage::{Mode, Stage};

/// Why a module can not be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it can not be read: {0}")]
    Read(#[source] std::io::Error),
    #[error("it is larger than plugins.file_max, {0} bytes")]
    TooLarge(u64),
    #[error("it is no WebAssembly module that runs here: {0}")]
    Compile(String),
    #[error("it imports what there is not: {0}; a plugin may import hearth.log and env.abort")]
    Import(String),
    #[error("it lacks the export {0}")]
    Export(&'static str),
    #[error("hearth_hooks: {0}")]
    Hooks(String),
}

/// A module, ready to be called.
pub(super) struct Loaded {
    instance: InstancePre<State>,
    limits: Limits,
    modes: Modes,
}

/// How a module takes part in each stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Modes([Option<Mode>; 4]);

/// One element of what `hearth_hooks` answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hook {
    stage: String,
    mode: HookMode,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum HookMode {
    Sync,
    Async,
}

impl Loaded {
    /// Reads, compiles and asks a module.
    pub(super) async fn load(
        compiler: &Compiler,
        path: &Path,
        bytes_max: u64,
        name: &Arc<str>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let bytes = read(path, bytes_max).await?;
        let (of_task, limits) = (compiler.clone(), compiler.limits);
        let compiling = tokio::task::spawn_blocking(move || compile(&of_task, &bytes));
        let instance = compiling
            .await
            .map_err(|error| Error::Compile(error.to_string()))??;
        let asked = Call {
            instance: instance.clone(),
            limits,
            plugin: Arc::clone(name),
            stage: None,
            what: What::Hooks,
        };
        let answer = asked.run(Instant::now() + timeout).await;
        let answer = answer.map_err(|failure| Error::Hooks(failure.to_string()))?;
        let modes = Modes::parse(&answer).map_err(Error::Hooks)?;
        Ok(Self {
            instance,
            limits,
            modes,
        })
    }

    /// How it takes part in a stage, if it does.
    pub(super) fn mode(&self, stage: Stage) -> Option<Mode> {
        self.modes.0[stage as usize]
    }

    /// A call of it with the parts of a message.
    pub(super) fn call(&self, name: &Arc<str>, stage: Stage, message: [Bytes; 3]) -> Call {
        Call {
            instance: self.instance.clone(),
            limits: self.limits,
            plugin: Arc::clone(name),
            stage: Some(stage),
            what: What::Handle(message),
        }
    }
}

impl Modes {
    fn parse(answer: &[u8]) -> Result<Self, String> {
        let hooks: Vec<Hook> = serde_json::from_slice(answer).map_err(|error| {
            format!(r#"expected a list such as [{{"stage":"gateway.event.received","mode":"sync"}}]: {error}"#)
        })?;
        let mut modes = [None; 4];
        for hook in &hooks {
            let Some(stage) = Stage::named(&hook.stage) else {
                let names = Stage::ALL.map(Stage::name).join(", ");
                return Err(format!("there is no stage {:?}, only {names}", hook.stage));
            };
            let mode = match hook.mode {
                HookMode::Sync if !stage.is_decidable() => {
                    return Err(format!("{stage} can only be observed: its mode is async"));
                }
                HookMode::Sync => Mode::Sync,
                HookMode::Async => Mode::Async,
            };
            if modes[stage as usize].replace(mode).is_some() {
                return Err(format!("{stage} is named twice"));
            }
        }
        if hooks.is_empty() {
            return Err("a plugin has to hook into something, and the list is empty".to_owned());
        }
        Ok(Self(modes))
    }
}

async fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let file = tokio::fs::File::open(path).await.map_err(Error::Read)?;
    let mut bytes = Vec::new();
    let mut limited = file.take(bytes_max.saturating_add(1));
    limited.read_to_end(&mut bytes).await.map_err(Error::Read)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(Error::TooLarge(bytes_max)),
        false => Ok(bytes),
    }
}

fn compile(compiler: &Compiler, bytes: &[u8]) -> Result<InstancePre<State>, Error> {
    let module =
        Module::new(&compiler.engine, bytes).map_err(|error| Error::Compile(one_line(&error)))?;
    for export in ["memory", "hearth_alloc", "hearth_hooks", "hearth_handle"] {
        if module.get_export(export).is_none() {
            return Err(Error::Export(export));
        }
    }
    let linked = compiler.linker.instantiate_pre(&module);
    linked.map_err(|error| Error::Import(one_line(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, expected: Result<[Option<Mode>; 4], &str>) {
        match (Modes::parse(answer.as_bytes()), expected) {
            (Ok(modes), Ok(expected)) => assert_eq!(modes.0, expected, "{answer}"),
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{answer}: {why}"),
            (parsed, _) => panic!("{answer}: {parsed:?}"),
        }
    }

    #[test]
    fn hooks_are_read_and_refused_with_a_reason() {
        let hook = |stage: &str, mode: &str| format!(r#"{{"stage":"{stage}","mode":"{mode}"}}"#);
        let (received, failed) = (Stage::Received.name(), Stage::InvocationFailed.name());
        let both = format!("[{},{}]", hook(received, "sync"), hook(failed, "async"));
        let modes = [Some(Mode::Sync), None, None, Some(Mode::Async)];
        check(&both, Ok(modes));
        check("[]", Err("the list is empty"));
        check("", Err("expected a list such as"));
        check(&hook(received, "sync"), Err("expected a list such as"));
        let one = |stage, mode| format!("[{}]", hook(stage, mode));
        check(
            &one("gateway.info", "sync"),
            Err("no stage \"gateway.info\""),
        );
        check(&one(received, "later"), Err("unknown variant `later`"));
        check(&one(failed, "sync"), Err("can only be observed"));
        let twice = format!("[{},{}]", hook(received, "sync"), hook(received, "async"));
        check(&twice, Err("named twice"));
    }
}
