//! A line of the record: words with a space between them, so that it can be read and searched by people as well.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};

/// A line of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A function that gets all events.
    Subscriber(String),
    /// A writer was answered, or not.
    Emit {
        /// The event, named by its writer.
        id: String,
        /// What the writer was told.
        told: Told,
    },
    /// A function was called.
    Call {
        /// The function.
        subscriber: String,
        /// The event.
        id: String,
        /// What it did.
        did: Did,
        /// When.
        at_ms: u64,
    },
    /// A dead letter was listed.
    Dead {
        /// The function.
        subscriber: String,
        /// The event.
        id: String,
        /// The delivery that died.
        delivery: String,
    },
    /// Something was done to a node or a store that may have kept successes from the queue.
    Trouble {
        /// When it began.
        from_ms: u64,
        /// When it was over.
        until_ms: u64,
        /// What it was.
        cause: Cause,
    },
}

/// What may keep a success from the queue, so that it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A node was killed.
    Killed,
    /// A node was stopped, and went on.
    Stopped,
    /// The store or the servers of the queue were killed or stopped.
    Store,
    /// A link was cut.
    Cut,
    /// No byte could be written.
    Disk,
    /// A node lost its session or its leases by itself, as its log says: the machine was too busy for the timeouts of the run.
    Session,
}

/// What a writer was told about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// 202.
    Accepted,
    /// That it may be delivered or not, or nothing at all.
    Unknown,
    /// That it was not taken.
    Refused,
}

/// What a function did with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// It answered 200.
    Took,
    /// It answers 200, after its deadline.
    Late,
    /// It answered 404, for good.
    Refused,
    /// It answered 500.
    Failed,
    /// It never answers.
    Hung,
}

const TOLD: [(Told, &str); 3] = [
    (Told::Accepted, "accepted"),
    (Told::Unknown, "unknown"),
    (Told::Refused, "refused"),
];

const DID: [(Did, &str); 5] = [
    (Did::Took, "took"),
    (Did::Late, "late"),
    (Did::Refused, "refused"),
    (Did::Failed, "failed"),
    (Did::Hung, "hung"),
];

const CAUSE: [(Cause, &str); 6] = [
    (Cause::Killed, "killed"),
    (Cause::Stopped, "stopped"),
    (Cause::Store, "store"),
    (Cause::Cut, "cut"),
    (Cause::Disk, "disk"),
    (Cause::Session, "session"),
];

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&CAUSE, *self))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscriber(name) => write!(f, "subscriber {name}"),
            Self::Emit { id, told } => write!(f, "emit {id} {}", word(&TOLD, *told)),
            Self::Call {
                subscriber,
                id,
                did,
                at_ms,
            } => write!(f, "call {subscriber} {id} {} {at_ms}", word(&DID, *did)),
            Self::Dead {
                subscriber,
                id,
                delivery,
            } => write!(f, "dead {subscriber} {id} {delivery}"),
            Self::Trouble {
                from_ms,
                until_ms,
                cause,
            } => write!(f, "trouble {from_ms} {until_ms} {cause}"),
        }
    }
}

impl FromStr for Line {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let words: Vec<_> = line.split(' ').collect();
        Ok(match words[..] {
            ["subscriber", name] => Self::Subscriber(name.into()),
            ["emit", id, told] => Self::Emit {
                id: id.into(),
                told: meant(&TOLD, told)?,
            },
            ["call", subscriber, id, did, at_ms] => Self::Call {
                subscriber: subscriber.into(),
                id: id.into(),
                did: meant(&DID, did)?,
                at_ms: at_ms.parse()?,
            },
            ["dead", subscriber, id, delivery] => Self::Dead {
                subscriber: subscriber.into(),
                id: id.into(),
                delivery: delivery.into(),
            },
            ["trouble", from_ms, until_ms, cause] => Self::Trouble {
                from_ms: from_ms.parse()?,
                until_ms: until_ms.parse()?,
                cause: meant(&CAUSE, cause)?,
            },
            _ => bail!("no line of a record: {line:?}"),
        })
    }
}

fn word<T: PartialEq>(words: &[(T, &'static str)], meant: T) -> &'static str {
    let found = words.iter().find(|(meaning, _)| *meaning == meant);
    found.expect("each meaning has a word").1
}

fn meant<T: Copy>(words: &[(T, &str)], word: &str) -> anyhow::Result<T> {
    let found = words.iter().find(|(_, known)| *known == word);
    Ok(found.with_context(|| format!("no such word: {word:?}"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for line in [
            "subscriber steady",
            "emit e-1 accepted",
            "emit e-1 unknown",
            "emit e-1 refused",
            "call steady e-1 took 17",
            "call steady e-1 late 17",
            "call steady e-1 refused 17",
            "call steady e-1 failed 17",
            "call steady e-1 hung 17",
            "dead steady e-1 0190",
            "trouble 17 18 killed",
        ] {
            assert_eq!(line.parse::<Line>().unwrap().to_string(), line);
        }
        for line in [
            "",
            "emit e-1",
            "emit e-1 lost",
            "call a e-1 took x",
            "trouble 1 2",
            "trouble 1 2 bored",
        ] {
            assert!(line.parse::<Line>().is_err(), "{line:?}");
        }
    }
}
