//! The stages of an event that plugins hook into.

use std::fmt;

/// A stage of an event. Its name is that of the system event which tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// An event was received, and goes to nobody yet.
    Received,
    /// A function is about to be called for it.
    Invoking,
    /// A function was called and has answered.
    Invoked,
    /// A call failed.
    InvocationFailed,
}

/// How a plugin takes part in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The event waits for it, and goes on as it says.
    Sync,
    /// It is told, and nobody waits.
    Async,
}

impl Stage {
    /// All of them, in the order in which they happen.
    pub const ALL: [Self; 4] = [
        Self::Received,
        Self::Invoking,
        Self::Invoked,
        Self::InvocationFailed,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "gateway.event.received",
            Self::Invoking => "gateway.function.invoking",
            Self::Invoked => "gateway.function.invoked",
            Self::InvocationFailed => "gateway.function.invocationFailed",
        }
    }

    /// The stage of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Whether it still has something to decide: what has happened can only be told.
    pub fn is_decidable(self) -> bool {
        matches!(self, Self::Received | Self::Invoking)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
