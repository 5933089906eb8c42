//! The container engine's own program, `docker` or `podman`, which builds, tags and pushes images.
//!
//! The program knows where the engine is, by its contexts and variables, and how to log in to a registry; this command would
//! have to learn all of that again to speak to the engine itself.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::failure::{Exit, Failure};
use crate::program;

/// The programs that are looked for, in this order.
const PROGRAMS: [&str; 2] = ["docker", "podman"];

/// How long an engine may take to tell its version: one that takes longer does not work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A program that an engine answered.
#[derive(Debug)]
pub(crate) struct Engine {
    program: OsString,
}

impl Engine {
    /// Finds the program, the given one or the first on `PATH`, and asks it for its engine.
    ///
    /// # Errors
    /// When there is none, or no engine answers.
    pub(crate) async fn find(program: Option<&OsStr>) -> Result<Self, Failure> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => PROGRAMS
                .into_iter()
                .find(|name| program::is_on_path(name))
                .ok_or_else(none)?
                .into(),
        };
        let engine = Self { program };
        engine.answers().await?;
        Ok(engine)
    }

    async fn answers(&self) -> Result<(), Failure> {
        let name = self.program.display();
        let mut command = Command::new(&self.program);
        // Asks the engine for its version, which the program's own does not tell.
        command
            .arg("version")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let why = match tokio::time::timeout(ANSWER_TIMEOUT, command.output()).await {
            Ok(Ok(output)) if output.status.success() => return Ok(()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim().lines().last().unwrap_or_default().to_owned();
                format!("`{name} version` failed: {said}")
            }
            Ok(Err(error)) => format!("cannot run {name}: {error}"),
            Err(_) => format!("`{name} version` did not end within {ANSWER_TIMEOUT:?}"),
        };
        Err(without_engine(format!(
            "no container engine answers: {why}"
        )))
    }

    /// Builds the image of a directory, names it `name:latest` and by its content, and returns the latter name.
    ///
    /// # Errors
    /// When the build fails, or does not end within `limit`.
    pub(crate) async fn build(
        &self,
        dir: &Path,
        dockerfile: &str,
        name: &str,
        limit: Duration,
    ) -> Result<String, Failure> {
        let failed = |error| Failure::new(Exit::Failed, format!("cannot make a file: {error}"));
        let id_file = tempfile::NamedTempFile::new().map_err(failed)?;
        let latest = format!("{name}:latest");
        let mut build = Command::new(&self.program);
        build
            .args(["build", "--file", dockerfile, "--tag", &latest])
            .arg("--iidfile")
            .arg(id_file.path())
            .arg(".")
            .current_dir(dir);
        program::run(build, limit).await?;
        let id = std::fs::read_to_string(id_file.path()).map_err(failed)?;
        let image = format!("{name}:{}", content_tag(&id)?);
        self.tag(&latest, &image).await?;
        Ok(image)
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// When the engine takes no such name.
    pub(crate) async fn tag(&self, image: &str, name: &str) -> Result<(), Failure> {
        let mut tag = Command::new(&self.program);
        tag.args(["tag", image, name]);
        program::run(tag, ANSWER_TIMEOUT).await
    }

    /// Pushes an image to the registry that its name begins with.
    ///
    /// # Errors
    /// When the registry does not take it, or not within `limit`.
    pub(crate) async fn push(&self, image: &str, limit: Duration) -> Result<(), Failure> {
        let mut push = Command::new(&self.program);
        push.args(["push", image]);
        program::run(push, limit).await
    }
}

/// The first 12 digits of an image's id, as engines show it: another content has another tag, and the same has the same.
fn content_tag(id: &str) -> Result<&str, Failure> {
    let id = id.trim();
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.get(..12).filter(|_| is_digest).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!("the engine named the image it built \"{id}\", expected sha256: and 64 digits"),
        )
    })
}

fn none() -> Failure {
    without_engine("no container engine: neither docker nor podman is on PATH".to_owned())
}

fn without_engine(message: String) -> Failure {
    Failure::new(Exit::Unreachable, message)
        .hint("`hearth up --process` runs the function as a command, without an image")
        .hint("--engine PROGRAM names the engine's program, and DOCKER_HOST tells docker where the engine is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_tagged_by_their_content() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(
            content_tag(&format!("sha256:{digits}\n")).unwrap(),
            "0123456789ab"
        );
        assert_eq!(content_tag(&digits).unwrap(), "0123456789ab");
        for wrong in ["", "sha256:", "sha256:0123", &"ü".repeat(32)] {
            assert!(content_tag(wrong).is_err(), "{wrong}");
        }
    }
}
