//! Looks for changes of a plugin's file, and loads it anew.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::MissedTickBehavior;

use super::plugin::Plugin;

/// What tells one content of a file from another.
type Print = Option<(SystemTime, u64)>;

/// Loads the file anew whenever it changed and has stayed as it is for one interval, so that one that is being written is left alone.
/// `loaded` is how it looked when it was loaded.
pub(super) async fn watch(plugin: Arc<Plugin>, mut loaded: Print, interval: Duration) {
    let mut last = loaded;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = print(&plugin.path).await;
        let (has_changed, is_settled) = (now != loaded, now == last);
        last = now;
        if !has_changed || !is_settled {
            continue;
        }
        loaded = now;
        let (name, path) = (&*plugin.name, plugin.path.display());
        let outcome = plugin.reload().await;
        match &outcome {
            Ok(()) => tracing::info!(plugin = name, %path, "plugin loaded anew: its file changed"),
            Err(error) => tracing::error!(
                plugin = name, %path, %error,
                "the file of a plugin changed and can not be loaded; the plugin goes on as it was"
            ),
        }
        let (plugin, outcome) = match outcome {
            Ok(()) => (name.to_owned(), "loaded"),
            Err(_) => (name.to_owned(), "refused"),
        };
        metrics::counter!("hearth_plugin_reloads_total", "plugin" => plugin, "outcome" => outcome)
            .increment(1);
    }
}

/// How a file looks now; nothing when it is not there.
pub(super) async fn print(path: &Path) -> Print {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
