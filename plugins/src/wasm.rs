//! Plugins that are core WebAssembly modules, run by wasmtime.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use config::settings::PluginsSettings;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hooks::{Hooks, Refusal, Subject};
use crate::stage::{Mode, Stage};

mod answer;
mod call;
mod imports;
mod lane;
mod limits;
mod module;
mod plugin;
mod reload;

use self::call::Compiler;
use self::plugin::Plugin;

/// A plugin can not be loaded, so the node does not start.
#[derive(Debug, thiserror::Error)]
#[error("setting {key} is {path:?}, expected a plugin that can be loaded: {why}")]
pub struct LoadError {
    /// The setting that names it.
    pub key: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// The plugins of a node, loaded.
pub struct Plugins {
    /// In the order of the settings.
    plugins: Vec<Arc<Plugin>>,
    request_timeout: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Plugins {
    /// Loads the plugins, and starts to tell the async ones and to look for changes of their files. The recorder of metrics must be
    /// installed by then.
    ///
    /// # Errors
    /// The first one that can not be loaded.
    pub async fn start(settings: &PluginsSettings) -> Result<Self, LoadError> {
        let failed = |index: usize, path: &Path, why: String| LoadError {
            key: format!("plugins.load.{index}.path"),
            path: path.to_owned(),
            why,
        };
        let compiler = Compiler::new(settings);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut plugins = Vec::new();
        for (index, of_one) in settings.load.iter().enumerate() {
            let compiler = compiler
                .as_ref()
                .map_err(|error| failed(index, &of_one.path, format!("wasmtime: {error}")))?;
            // Before it is read: what changes meanwhile is a change.
            let print = reload::print(&of_one.path).await;
            let plugin = Plugin::load(compiler, settings, of_one).await;
            let plugin = plugin.map_err(|error| failed(index, &of_one.path, error.to_string()))?;
            plugins.push((Arc::new(plugin), print));
        }
        for (plugin, print) in &plugins {
            tasks.spawn(Arc::clone(plugin).observe());
            let watching = reload::watch(Arc::clone(plugin), *print, settings.reload_interval);
            tasks.spawn(stop.clone().run_until_cancelled_owned(watching));
        }
        Ok(Self {
            plugins: plugins.into_iter().map(|(plugin, _)| plugin).collect(),
            request_timeout: settings.request_timeout,
            tasks,
            stop,
        })
    }

    /// Tells the async plugins what waits for them, at most until the deadline, and stops. Whoever asks and tells must have stopped.
    pub async fn drain(&self, deadline: Instant) {
        self.end();
        self.tasks.close();
        if tokio::time::timeout_at(deadline, self.tasks.wait())
            .await
            .is_err()
        {
            let left: HashMap<_, _> = self
                .plugins
                .iter()
                .map(|plugin| (&*plugin.name, plugin.lane.len()))
                .filter(|(_, left)| *left > 0)
                .collect();
            tracing::warn!(
                ?left,
                "async plugins were not told everything by the end of the drain; node.drain_timeout bounds it"
            );
        }
    }
}

impl Plugins {
    /// Looks for no more changes, and takes nothing more to tell.
    fn end(&self) {
        self.stop.cancel();
        for plugin in &self.plugins {
            plugin.lane.close();
        }
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl Hooks for Plugins {
    fn any(&self, stage: Stage, mode: Mode) -> bool {
        self.plugins
            .iter()
            .any(|plugin| plugin.mode(stage) == Some(mode))
    }

    async fn ask(&self, stage: Stage, subject: &mut dyn Subject) -> Result<(), Refusal> {
        for plugin in &self.plugins {
            if plugin.mode(stage) == Some(Mode::Sync) {
                plugin.ask(stage, subject).await?;
            }
        }
        Ok(())
    }

    fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    fn tell(&self, stage: Stage, about: Bytes) {
        for plugin in &self.plugins {
            if plugin.mode(stage) == Some(Mode::Async) {
                plugin.tell(stage, about.clone());
            }
        }
    }
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.plugins.iter().map(|plugin| &plugin.name);
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests;
