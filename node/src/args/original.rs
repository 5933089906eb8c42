//! The command line of the serverless Event Gateway, whose flags `hearth` takes as well.
//!
//! Its flags are Go's: one dash or two, `-flag value` or `-flag=value`, and no subcommands. When the first argument is one of them,
//! the arguments are rewritten for the command line of our own; what is ours already stays as it is.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;

#[cfg(test)]
mod tests;

/// A flag of the original.
#[derive(Debug, Clone, Copy)]
struct Flag {
    name: &'static str,
    /// What its value is; none of a switch.
    value: Option<&'static str>,
    becomes: Becomes,
    /// What is to be known of it, for the table.
    note: &'static str,
}

/// What comes of a flag.
#[derive(Debug, Clone, Copy)]
enum Becomes {
    /// `hearth dev` in place of `hearth node`.
    Dev,
    /// A flag of ours without a value.
    Word(&'static str),
    /// A flag of ours with the same value.
    Flag(&'static str),
    /// The same, and each time it comes counts.
    Each(&'static str),
    /// A flag of ours for an address on loopback; the value is its port.
    Port(&'static str),
    /// The client URLs of etcd, from hosts with their ports.
    Etcd,
    /// A setting.
    Setting(&'static str),
    /// A setting that has one of these values.
    Choice(&'static str, &'static [&'static str]),
    /// Nothing: the note says what to do instead.
    Refused,
}

const NO_LISTENER: &str =
    "refused: the store of a single node is a part of it and listens nowhere; leave it out";

/// All flags of the original.
const FLAGS: [Flag; 18] = [
    switch("version", Becomes::Word("--version"), "prints the version"),
    switch("help", Becomes::Word("--help"), ""),
    switch(
        "dev",
        Becomes::Dev,
        "a store of its own, and local commands are allowed; not with `-db-hosts`",
    ),
    valued(
        "db-hosts",
        "HOST:PORT,..",
        Becomes::Etcd,
        "without it and without `-dev`: `127.0.0.1:2379`",
    ),
    valued(
        "log-level",
        "LEVEL",
        Becomes::Choice("logs.level", &["debug", "info", "warn", "error"]),
        "",
    ),
    valued(
        "log-format",
        "FORMAT",
        Becomes::Choice("logs.format", &["text", "json"]),
        "`text` or `json`; the default is `text`",
    ),
    valued(
        "config-port",
        "PORT",
        Becomes::Port("--config-listen"),
        "on loopback; `--config-listen` takes other addresses, with `--auth required`",
    ),
    valued(
        "events-port",
        "PORT",
        Becomes::Port("--events-listen"),
        "the same",
    ),
    valued(
        "workers",
        "COUNT",
        Becomes::Setting("queue.permits"),
        "events that are delivered at once",
    ),
    valued(
        "workers-backlog",
        "COUNT",
        Becomes::Setting("queue.len_max"),
        "deliveries that may wait; the default is 10,000",
    ),
    valued(
        "embed-data-dir",
        "DIR",
        Becomes::Flag("--data-dir"),
        "a directory of etcd's is not read",
    ),
    valued("embed-peer-addr", "URL", Becomes::Refused, NO_LISTENER),
    valued("embed-cli-addr", "URL", Becomes::Refused, NO_LISTENER),
    valued(
        "config-tls-cert",
        "FILE",
        Becomes::Setting("tls.config.cert_file"),
        "",
    ),
    valued(
        "config-tls-key",
        "FILE",
        Becomes::Setting("tls.config.key_file"),
        "",
    ),
    valued(
        "events-tls-cert",
        "FILE",
        Becomes::Setting("tls.events.cert_file"),
        "",
    ),
    valued(
        "events-tls-key",
        "FILE",
        Becomes::Setting("tls.events.key_file"),
        "",
    ),
    valued(
        "plugin",
        "PATH",
        Becomes::Each("--plugin"),
        "may be repeated; a WebAssembly module, since the original's plugins, Go programs, can not be loaded",
    ),
];

const fn switch(name: &'static str, becomes: Becomes, note: &'static str) -> Flag {
    Flag {
        name,
        value: None,
        becomes,
        note,
    }
}

const fn valued(
    name: &'static str,
    value: &'static str,
    becomes: Becomes,
    note: &'static str,
) -> Flag {
    Flag {
        name,
        value: Some(value),
        becomes,
        note,
    }
}

/// A flag of the original that can not be taken as it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("-{flag}{}: {why}", given.as_deref().map(|given| format!(" {given:?}")).unwrap_or_default())]
pub struct Wrong {
    flag: &'static str,
    given: Option<String>,
    why: String,
}

/// Rewrites arguments that begin with a flag of the original; others are returned as they are. The first one is the program.
///
/// # Errors
/// The first flag that has no counterpart, or whose value is wrong.
pub fn translate(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, Wrong> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments
        .get(1)
        .is_none_or(|first| recognize(first).is_none())
    {
        return Ok(arguments);
    }
    let mut words = arguments.split_off(1).into_iter();
    let mut translated = Translated::default();
    while let Some(word) = words.next() {
        let Some((flag, given)) = recognize(&word) else {
            translated.ours.push(word);
            continue;
        };
        let value = match (flag.value, given) {
            (_, Some(given)) => given,
            (None, None) => "true".to_owned(),
            (Some(name), None) => {
                let next = words.next().and_then(|word| word.into_string().ok());
                next.ok_or_else(|| flag.wrong(None, format!("expected {name} after it")))?
            }
        };
        translated.take(flag, value)?;
    }
    arguments.extend(translated.finish()?);
    Ok(arguments)
}

/// The table of the documentation.
pub fn table() -> String {
    let mut table = String::from("| flag of the Event Gateway | here | |\n|---|---|---|\n");
    for flag in FLAGS {
        let value = flag.value.map(|value| format!(" {value}"));
        let here = match flag.becomes {
            Becomes::Dev => "`hearth dev`".to_owned(),
            Becomes::Word(ours) => format!("`hearth {ours}`"),
            Becomes::Flag(ours) | Becomes::Each(ours) => {
                format!("`{ours}{}`", value.as_deref().unwrap_or(""))
            }
            Becomes::Port(ours) => format!("`{ours} 127.0.0.1:PORT`"),
            Becomes::Etcd => "`--etcd http://HOST:PORT,..`".to_owned(),
            Becomes::Setting(key) | Becomes::Choice(key, _) => {
                format!("`--set {key}={}`", flag.value.unwrap_or(""))
            }
            Becomes::Refused => String::new(),
        };
        let (name, value) = (flag.name, value.unwrap_or_default());
        writeln!(table, "| `-{name}{value}` | {here} | {} |", flag.note)
            .expect("a text can be written to");
    }
    table
}

/// The flag that a word is, and the value after its `=`.
fn recognize(word: &OsStr) -> Option<(&'static Flag, Option<String>)> {
    let word = word.to_str()?.strip_prefix('-')?;
    let word = word.strip_prefix('-').unwrap_or(word);
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    let flag = FLAGS.iter().find(|flag| flag.name == name)?;
    Some((flag, value))
}

impl Flag {
    fn wrong(&self, given: Option<&str>, why: impl Into<String>) -> Wrong {
        Wrong {
            flag: self.name,
            given: given.map(str::to_owned),
            why: why.into(),
        }
    }
}

/// The arguments of our own command line. Of a flag that comes twice the last one counts, as in Go.
#[derive(Debug, Default)]
struct Translated {
    is_dev: bool,
    word: Option<&'static str>,
    etcd: Option<String>,
    /// By the flag or setting.
    values: std::collections::BTreeMap<&'static str, (Becomes, String)>,
    /// What was ours already.
    ours: Vec<OsString>,
}

impl Translated {
    fn take(&mut self, flag: &Flag, value: String) -> Result<(), Wrong> {
        match flag.becomes {
            Becomes::Dev => self.is_dev = truth(flag, &value)?,
            Becomes::Word(ours) => self.word = truth(flag, &value)?.then_some(ours),
            Becomes::Etcd => self.etcd = Some(urls(flag, &value)?),
            Becomes::Port(ours) => {
                let port: Option<u16> = value.parse().ok();
                let port = port.ok_or_else(|| flag.wrong(Some(&value), "expected a port"))?;
                let address = format!("127.0.0.1:{port}");
                self.values.insert(ours, (flag.becomes, address));
            }
            Becomes::Choice(_, known) if !known.contains(&value.as_str()) => {
                let why = format!("expected one of {}", known.join(", "));
                return Err(flag.wrong(Some(&value), why));
            }
            Becomes::Each(ours) => self.ours.extend([ours.into(), value.into()]),
            Becomes::Flag(name) | Becomes::Setting(name) | Becomes::Choice(name, _) => {
                self.values.insert(name, (flag.becomes, value));
            }
            Becomes::Refused => {
                let why = flag.note.strip_prefix("refused: ").unwrap_or(flag.note);
                return Err(flag.wrong(None, why));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<OsString>, Wrong> {
        if let Some(word) = self.word {
            return Ok(vec![word.into()]);
        }
        let names_store = |word: &OsString| {
            let word = word.to_string_lossy();
            ["--etcd", "--settings"]
                .iter()
                .any(|name| word.starts_with(name))
        };
        let etcd = match (self.is_dev, self.etcd) {
            (true, Some(_)) => {
                let why = "-dev has a store of its own: leave out one of the two";
                return Err(Wrong {
                    flag: "db-hosts",
                    given: None,
                    why: why.to_owned(),
                });
            }
            (false, None) if !self.ours.iter().any(names_store) => {
                Some("http://127.0.0.1:2379".to_owned())
            }
            (_, etcd) => etcd,
        };
        let command = if self.is_dev { "dev" } else { "node" };
        let mut words: Vec<OsString> = vec![command.into()];
        if let Some(etcd) = etcd {
            words.extend(["--etcd".into(), etcd.into()]);
        }
        for (name, (becomes, value)) in self.values {
            match becomes {
                Becomes::Setting(_) | Becomes::Choice(..) => {
                    words.extend(["--set".into(), format!("{name}={value}").into()]);
                }
                _ => words.extend([name.into(), value.into()]),
            }
        }
        words.extend(self.ours);
        Ok(words)
    }
}

/// Reads a truth as Go does.
fn truth(flag: &Flag, value: &str) -> Result<bool, Wrong> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(flag.wrong(Some(value), "expected true or false")),
    }
}

/// Client URLs from hosts, each with its port.
fn urls(flag: &Flag, hosts: &str) -> Result<String, Wrong> {
    let hosts = hosts
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty());
    let urls: Vec<String> = hosts
        .map(|host| match host.contains("://") {
            true => host.to_owned(),
            false => format!("http://{host}"),
        })
        .collect();
    match urls.is_empty() {
        true => Err(flag.wrong(Some(""), "expected a host and port of etcd")),
        false => Ok(urls.join(",")),
    }
}
