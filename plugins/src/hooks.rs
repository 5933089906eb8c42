//! What the gateway asks of plugins, whatever they are made of.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::stage::{Mode, Stage};

/// The plugins of a node.
#[async_trait]
pub trait Hooks: Send + Sync + fmt::Debug + 'static {
    /// Whether any plugin hooks into a stage in that way, so that nothing is written for nobody. Asked for every event, so it must be
    /// cheap.
    fn any(&self, stage: Stage, mode: Mode) -> bool;

    /// Asks the sync plugins of a stage in turn; each sees what those before it changed.
    ///
    /// # Errors
    /// The first plugin that does not let it pass.
    ///
    /// # Cancel safety
    /// Dropping the future ends the plugin that runs, and asks no other.
    async fn ask(&self, stage: Stage, subject: &mut dyn Subject) -> Result<(), Refusal>;

    /// How long all that is asked about one request may take.
    fn request_timeout(&self) -> Duration;

    /// Tells the async plugins of a stage, as far as there is room; never waits. `about` is a JSON object.
    fn tell(&self, stage: Stage, about: Bytes);
}

/// What a stage is about, and what a plugin may change of it.
pub trait Subject: Send {
    /// What it is now, as a JSON object.
    fn about(&self) -> Bytes;

    /// Puts other data in place of the event's.
    ///
    /// # Errors
    /// Why that can not be; nothing is changed then.
    fn change(&mut self, data: &RawValue) -> Result<(), String>;
}

/// A plugin did not let something pass. The text is for whoever sent it, the cause is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It said no, with these words.
    #[error("{text}")]
    Vetoed {
        /// The plugin's name.
        plugin: String,
        /// Its own words.
        text: String,
    },
    /// It failed or took too long, and may not be passed over.
    #[error("plugin {plugin} failed at {stage}. Please check logs.")]
    Failed {
        /// The plugin's name.
        plugin: String,
        /// Where it failed.
        stage: Stage,
    },
    /// All of them took too long over the events of one request.
    #[error("the plugins did not get through this request in time")]
    TooSlow,
    /// It had no turn in time, and may not be passed over.
    #[error("plugin {plugin} has too much to do at {stage}")]
    Busy {
        /// The plugin's name.
        plugin: String,
        /// Where it was asked.
        stage: Stage,
    },
}
