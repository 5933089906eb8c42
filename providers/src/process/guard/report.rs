//! What a guard tells its node: a line each.

use std::fmt;

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The command runs, in this process group.
    Started(i32),
    /// It could not be run.
    Failed(String),
    /// The guard kills it, or found that the kernel did, for this reason.
    Killed(String),
    /// It is gone with all its descendants; this was its exit code, 128 and more for a signal.
    Exited(i64),
}

/// The node's command to ask the process group to end.
pub const TERMINATE: u8 = b'T';
/// The exit code of what was killed with SIGKILL.
pub(crate) const KILLED: i64 = 128 + 9;

impl Report {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        Some(match word {
            "started" => Self::Started(rest.parse().ok()?),
            "failed" => Self::Failed(rest.to_owned()),
            "killed" => Self::Killed(rest.to_owned()),
            "exited" => Self::Exited(rest.parse().ok()?),
            _ => return None,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line end within a reason would begin a report of its own.
        match self {
            Self::Started(group) => write!(f, "started {group}"),
            Self::Failed(why) => write!(f, "failed {}", why.replace('\n', " ")),
            Self::Killed(why) => write!(f, "killed {}", why.replace('\n', " ")),
            Self::Exited(code) => write!(f, "exited {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_way_to_the_node() {
        for report in [
            Report::Started(7),
            Report::Failed("no such file".into()),
            Report::Killed("x".into()),
            Report::Exited(-1),
        ] {
            assert_eq!(Report::parse(&report.to_string()), Some(report));
        }
        assert_eq!(Report::parse("gossip 1"), None);
        assert_eq!(Report::parse("started x"), None);
        assert_eq!(Report::parse(""), None);
    }
}
