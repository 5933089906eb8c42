//! `hearth cluster rotate-secret`: replaces the cluster's secret without a restart.
//!
//! The file of secrets goes through `old`, `old new`, `new old`, `new`: in each of them the first one seals and all open. The next one is
//! written only when all nodes have the one before, so that no node is sealed to with a secret that it does not know.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use protocol::api::Cluster;
use protocol::secret_id;
use tokio::time::{Instant, sleep};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::options::{Options, duration};

#[cfg(test)]
mod tests;

/// How often the nodes are looked at while they read the file.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A secret that was made since is not replaced: the run before this one made it.
const FRESH: Duration = Duration::from_secs(60 * 60);

pub(super) const AFTER_HELP: &str = "\
The file has the secrets of cluster.secret_file, one a line: nodes seal gossip with the first one and open it with all. This command adds a \
new one, then moves it to the front, then removes the old one, each when all nodes have read what it wrote before; it changes FILE only. \
Where the nodes have copies of it, it ends after --wait and says who still needs the file: copy it there, and run the same again until it \
says that the secret was replaced.";

/// Arguments of `hearth cluster rotate-secret`.
#[derive(Debug, Clone, Args)]
pub(super) struct RotateSecretArgs {
    /// The file with the cluster's secrets, as the nodes have it
    #[arg(
        long,
        value_name = "FILE",
        env = "HEARTH_CLUSTER__SECRET_FILE",
        hide_env_values = true
    )]
    secret_file: PathBuf,

    /// How long to wait until all nodes have read the file
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    wait: Duration,

    /// Replace the secret also if it was made within the last hour
    #[arg(long)]
    again: bool,
}

/// What is done next with a file that all nodes have read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A new secret opens.
    Add,
    /// The new secret seals.
    Seal(Vec<String>),
    /// The old secrets are gone.
    Drop(Vec<String>),
    /// The secret was replaced a moment ago.
    Done,
}

/// Goes through the steps, as far as the nodes follow.
///
/// # Errors
/// When the file can not be used or written, or nodes do not have what stands in it.
pub(super) async fn run(
    options: &Options,
    args: &RotateSecretArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let api = Api::config(options)?;
    let file = &args.secret_file;
    let mut is_begun = false;
    loop {
        let secrets = read(file)?;
        let dead = agree(&api, args, &secrets).await?;
        let may_add = args.again && !is_begun;
        let (secrets, said) = match next(&secrets, may_add, SystemTime::now())? {
            Step::Add => {
                let mut secrets = secrets;
                secrets.push(fresh());
                (secrets, "a new secret was added: nodes open with it")
            }
            Step::Seal(secrets) => (
                secrets,
                "the new secret was moved to the front: nodes seal with it",
            ),
            Step::Drop(secrets) => (
                secrets,
                "the old secret was removed: nothing sealed with it is opened",
            ),
            Step::Done => {
                console.text("the cluster's secret was replaced on all nodes")?;
                if !dead.is_empty() {
                    let dead = dead.join(", ");
                    console.text(&format!(
                        "these are dead, and need the file before they start again: {dead}"
                    ))?;
                }
                return Ok(());
            }
        };
        write(file, &secrets)?;
        is_begun = true;
        console.text(&format!("{}: {said}", file.display()))?;
    }
}

/// What comes after a file that all nodes have read.
fn next(secrets: &[String], may_add: bool, now: SystemTime) -> Result<Step, Failure> {
    if let [only] = secrets {
        let age = made_at(only).map(|at| now.duration_since(at).unwrap_or_default());
        let is_fresh = age.is_some_and(|age| age < FRESH);
        return Ok(match is_fresh && !may_add {
            true => Step::Done,
            false => Step::Add,
        });
    }
    let newest = (0..secrets.len()).max_by_key(|index| made_at(&secrets[*index]));
    let newest = newest.filter(|index| made_at(&secrets[*index]).is_some());
    match newest {
        Some(0) => Ok(Step::Drop(secrets[..1].to_vec())),
        Some(index) => {
            let mut secrets = secrets.to_vec();
            let newest = secrets.remove(index);
            secrets.insert(0, newest);
            Ok(Step::Seal(secrets))
        }
        None => Err(Failure::usage(
            "which of the secrets is the newest can not be told, as none was made by this command: leave one in the file, on all nodes",
        )),
    }
}

/// Waits until all nodes have these secrets, in this order, and returns who is dead.
async fn agree(
    api: &Api,
    args: &RotateSecretArgs,
    secrets: &[String],
) -> Result<Vec<String>, Failure> {
    let until = Instant::now() + args.wait;
    loop {
        let answer = api.call(Call::get(&["v1", "cluster"])).await?.accept()?;
        let cluster: Cluster = answer.json()?;
        let ids: Vec<String> = secrets
            .iter()
            .map(|secret| secret_id(&cluster.cluster, secret.as_bytes()))
            .collect();
        let (dead, there): (Vec<_>, Vec<_>) =
            cluster.nodes.iter().partition(|node| node.state == "dead");
        let behind: Vec<&str> = there
            .iter()
            .filter(|node| node.secrets != ids)
            .map(|node| node.name.as_str())
            .collect();
        if behind.is_empty() {
            return Ok(dead.iter().map(|node| node.name.clone()).collect());
        }
        if Instant::now() >= until {
            let file = args.secret_file.display();
            let behind = behind.join(", ");
            let message = format!("these nodes do not have what stands in {file}: {behind}");
            return Err(Failure::new(Exit::Failed, message)
                .hint("copy it to their cluster.secret_file, and run the same again"));
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// A secret that says when it was made, such as `2026-01-31T12:00:00Z-` and 64 hex digits.
fn fresh() -> String {
    let bytes: [u8; 32] = rand::random();
    let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    format!("{now}-{random}")
}

/// When this command made a secret.
fn made_at(secret: &str) -> Option<SystemTime> {
    let (at, random) = secret.rsplit_once('-')?;
    let is_random = random.len() == 64 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    humantime::parse_rfc3339(at).ok().filter(|_| is_random)
}

fn read(file: &Path) -> Result<Vec<String>, Failure> {
    let shown = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Vec<String> = lines.map(str::to_owned).collect();
    match secrets.is_empty() {
        true => Err(Failure::usage(format!(
            "{shown} has no secret, expected those of cluster.secret_file, one a line"
        ))),
        false => Ok(secrets),
    }
}

/// Replaces the file at once, with the permissions that it had, so that no node reads half of it.
fn write(file: &Path, secrets: &[String]) -> Result<(), Failure> {
    let replace = || {
        let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        for secret in secrets {
            writeln!(new, "{secret}")?;
        }
        new.as_file()
            .set_permissions(fs::metadata(file)?.permissions())?;
        new.as_file().sync_all()?;
        new.persist(file).map_err(|error| error.error)?;
        Ok(())
    };
    replace().map_err(|error: std::io::Error| {
        let shown = file.display();
        Failure::new(Exit::Failed, format!("cannot write {shown}: {error}"))
    })
}
