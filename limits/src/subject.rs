//! What is limited, by what, and what is said when it is.

use std::fmt;
use std::time::Duration;

use protocol::{Component, Effect, ErrorCode, Failure, FunctionId, Space};

use crate::bucket::Rate;
use crate::rate::Standing;

/// Whose limit it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// All that one user calls.
    Caller(String),
    /// All calls of one function.
    Function(Space, FunctionId),
    /// All of one space.
    Space(Space),
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Calls a second.
    Rate(Rate),
    /// Calls at once.
    Concurrent(u32),
    /// Deliveries that wait or run.
    Queued(u32),
}

/// A call that was one too many. Nothing ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose limit.
    pub subject: Subject,
    /// Which limit.
    pub what: What,
    /// How a rate stands.
    pub standing: Option<Standing>,
    /// When to come again, at the earliest.
    pub retry_after: Duration,
}

impl Subject {
    /// Its name in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Caller(_) => "caller",
            Self::Function(..) => "function",
            Self::Space(_) => "space",
        }
    }

    /// Whose record has a key with this end.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        let (kind, name) = key.split_once('/')?;
        match kind {
            "caller" => Some(Self::Caller(name.to_owned())),
            "function" => {
                let (space, id) = name.split_once('/')?;
                Some(Self::Function(space.parse().ok()?, id.parse().ok()?))
            }
            "space" => Some(Self::Space(name.parse().ok()?)),
            _ => None,
        }
    }

    /// The end of its records' keys.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Caller(id) => format!("caller/{id}"),
            Self::Function(space, id) => format!("function/{space}/{id}"),
            Self::Space(space) => format!("space/{space}"),
        }
    }
}

impl What {
    /// Its name in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rate(_) => "rate",
            Self::Concurrent(_) => "concurrent",
            Self::Queued(_) => "queued",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(id) => write!(f, "user {id}"),
            Self::Function(space, id) => write!(f, "function {id} in space {space}"),
            Self::Space(space) => write!(f, "space {space}"),
        }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match self.what {
            What::Rate(Rate { per_second, burst }) => write!(
                f,
                "{subject} may have {per_second} calls a second and {burst} at once after a pause (limits.rate)"
            ),
            What::Concurrent(max) => write!(
                f,
                "{subject} may have {max} calls in flight (limits.concurrent)"
            ),
            What::Queued(max) => write!(
                f,
                "{subject} may have {max} deliveries queued (limits.queued)"
            ),
        }
    }
}

impl std::error::Error for Exceeded {}

impl From<&Exceeded> for Failure {
    fn from(exceeded: &Exceeded) -> Self {
        let (limited, gateway) = (ErrorCode::RateLimited, Component::Gateway);
        let retry_after = exceeded.retry_after.as_millis();
        Self::new(limited, gateway, Effect::Refused, exceeded.to_string())
            .retry_after_ms(u64::try_from(retry_after).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_whose_it_is() {
        let (space, id) = ("team".parse::<Space>().unwrap(), "f-1".parse().unwrap());
        for subject in [
            Subject::Caller("ada".to_owned()),
            Subject::Function(space.clone(), id),
            Subject::Space(space),
        ] {
            assert_eq!(Subject::of_key(&subject.key()), Some(subject));
        }
        for other in ["", "caller", "function/team", "space/a b", "node/x"] {
            assert_eq!(Subject::of_key(other), None, "{other}");
        }
    }
}
