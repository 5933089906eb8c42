//! The container engine, through the `docker` command.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait::until;

/// A container engine: the suite's, or one of a test's own.
#[derive(Debug, Clone)]
pub struct Engine {
    host: String,
}

/// One container as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its full id.
    pub id: String,
    /// `running`, `exited`, `created`, `paused`, …
    pub state: String,
    /// Its image, as the engine shows it.
    pub image: String,
    /// The label `hearth.node`.
    pub node: String,
    /// The label `hearth.function`.
    pub function: String,
}

impl Engine {
    /// The suite's engine.
    ///
    /// # Panics
    /// When the suite was started without one.
    pub fn suite() -> Self {
        let host = std::env::var("HEARTH_TEST_DOCKER").expect(
            "HEARTH_TEST_DOCKER must name the suite's container engine, as unix:///path: make test starts one and sets it",
        );
        Self { host }
    }

    /// The engine's URL.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// All containers of a cluster, in any state.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub async fn containers(&self, cluster: &str) -> Vec<Container> {
        let filter = format!("label=hearth.cluster={cluster}");
        let lines = self
            .docker(&[
                "ps",
                "--all",
                "--no-trunc",
                "--filter",
                &filter,
                "--format",
                "{{json .}}",
            ])
            .await;
        lines.lines().map(Container::parse).collect()
    }

    /// An environment variable of a container, as its configuration has it; `None` when the container is gone.
    pub async fn variable(&self, id: &str, name: &str) -> Option<String> {
        let output = self
            .try_docker(&["inspect", "--format", "{{json .Config.Env}}", id])
            .await
            .ok()?;
        let variables: Vec<String> = serde_json::from_str(&output).ok()?;
        let prefix = format!("{name}=");
        variables
            .into_iter()
            .find_map(|variable| Some(variable.strip_prefix(&prefix)?.to_owned()))
    }

    /// Runs the docker command and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn docker(&self, arguments: &[&str]) -> String {
        let output = self.try_docker(arguments).await;
        output.unwrap_or_else(|error| panic!("docker {arguments:?} at {}: {error}", self.host))
    }

    /// Runs the docker command and returns what it printed.
    ///
    /// # Errors
    /// What it complained of.
    pub async fn try_docker(&self, arguments: &[&str]) -> Result<String, String> {
        let command = tokio::process::Command::new("docker")
            .args(["-H", &self.host])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), command)
            .await
            .map_err(|_| "no answer within 60 s".to_owned())?
            .map_err(|error| format!("{error}; the docker command comes with make deps"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Makes an image of the machine's busybox, a shell with small tools in one static file, and returns its name.
    ///
    /// # Panics
    /// When there is no such busybox.
    pub async fn shell_image(&self, dir: &Path) -> &'static str {
        const NAME: &str = "hearth-test-shell:latest";
        let archive = dir.join("shell.tar");
        let busybox = found("busybox").expect("make deps installs busybox-static");
        let packed = Command::new("tar")
            .args(["--create", "--dereference", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(busybox.parent().expect("a file is in a directory"))
            .arg("busybox")
            .status();
        assert!(packed.is_ok_and(|status| status.success()), "tar failed");
        let archive = archive.to_str().expect("temporary directories are UTF-8");
        self.docker(&["import", archive, NAME]).await;
        NAME
    }

    /// Makes an image of a program of this machine and the libraries it is linked with, which is found on the image's `PATH`;
    /// also of those of the other paths that are here.
    ///
    /// # Panics
    /// When there is no such program.
    pub async fn program_image(&self, dir: &Path, program: &str, others: &[&str], image: &str) {
        let found = found(program).unwrap_or_else(|| panic!("make deps installs {program}"));
        let linked = Command::new("ldd").arg(&found).output().expect("run ldd");
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        // `libc.so.6 => /lib/… (0x…)`, or the path alone.
        let words = linked.split_whitespace();
        let libraries = words.filter(|word| word.starts_with('/'));
        let others = others.iter().copied().filter(|it| Path::new(it).exists());
        let archive = dir.join(format!("{program}.tar"));
        let packed = Command::new("tar")
            .args(["--create", "--dereference", "--absolute-names", "--file"])
            .arg(&archive)
            .arg(&found)
            .args(libraries.chain(others))
            .status();
        assert!(packed.is_ok_and(|status| status.success()), "tar failed");
        let archive = archive.to_str().expect("temporary directories are UTF-8");
        let home = found.parent().expect("a file is in a directory");
        let path = format!("ENV PATH={}", home.display());
        self.docker(&["import", "--change", &path, archive, image])
            .await;
    }

    /// Removes all containers and networks of a cluster; for the end of a test, so it complains of nothing.
    pub fn remove_all(&self, cluster: &str) {
        let label = format!("label=hearth.cluster={cluster}");
        let containers = self.list(&["ps", "--all", "--quiet", "--filter", &label]);
        self.run(&["rm", "--force"], &containers);
        let networks = self.list(&[
            "network",
            "ls",
            "--quiet",
            "--filter",
            &format!("name={cluster}$"),
        ]);
        self.run(&["network", "rm"], &networks);
    }

    fn list(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.bounded().args(arguments).output();
        let output = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn run(&self, arguments: &[&str], subjects: &[String]) {
        if !subjects.is_empty() {
            let _ = self.bounded().args(arguments).args(subjects).output();
        }
    }

    /// The docker command under a time limit: a test that failed may have left its engine stopped.
    fn bounded(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", "30", "docker", "-H", &self.host]);
        command
    }
}

impl Container {
    fn parse(line: &str) -> Self {
        let line: Value =
            serde_json::from_str(line).expect("docker --format '{{json .}}' writes JSON");
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let labels = text("Labels");
        let label = |name: &str| {
            let mut pairs = labels.split(',').filter_map(|label| label.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
                .unwrap_or_default()
        };
        Self {
            id: text("ID"),
            state: text("State"),
            image: text("Image"),
            node: label("hearth.node"),
            function: label("hearth.function"),
        }
    }
}

/// An engine of a test's own, which may be restarted and stopped.
#[derive(Debug)]
pub struct PrivateEngine {
    engine: Engine,
    work: PathBuf,
}

impl PrivateEngine {
    /// Starts an engine in `work` and loads images of the suite's engine into it.
    ///
    /// # Panics
    /// When it can not be started, for want of root for instance.
    pub async fn start(work: &Path, images: &[&str]) -> Self {
        std::fs::create_dir_all(work).expect("make the engine's directory");
        script(work, "start");
        let host = format!("unix://{}", socket(work).display());
        let private = Self {
            engine: Engine { host },
            work: work.to_owned(),
        };
        private.wait_up().await;
        let archive = work.join("images.tar");
        let archive = archive.to_str().expect("temporary directories are UTF-8");
        let save: Vec<_> = ["save", "--output", archive]
            .iter()
            .chain(images)
            .copied()
            .collect();
        Engine::suite().docker(&save).await;
        private.engine.docker(&["load", "--input", archive]).await;
        private
    }

    /// A handle for sandboxes.
    pub fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// Ends the engine, and with it its containers.
    pub fn end(&self) {
        script(&self.work, "stop");
    }

    /// Starts the engine again after [`PrivateEngine::end`].
    pub async fn begin(&self) {
        script(&self.work, "start");
        self.wait_up().await;
    }

    /// Stops the engine with SIGSTOP: it takes connections and answers nothing.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }

    async fn wait_up(&self) {
        until(
            "the private engine answers",
            Duration::from_secs(60),
            || async { self.engine.try_docker(&["version"]).await.is_ok() },
        )
        .await;
    }

    fn signal(&self, signal: Signal) {
        let text =
            std::fs::read_to_string(pid_file(&self.work)).expect("a running engine has a pid file");
        let id: i32 = text.trim().parse().expect("a pid file holds a number");
        kill(Pid::from_raw(id), signal).expect("signal the engine of our own");
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        // A test that failed must not fail again here; the script says itself what is wrong.
        let _ = command(&self.work, "remove").status();
    }
}

/// A program of this machine, as a shell finds it.
fn found(program: &str) -> Option<PathBuf> {
    let paths = std::env::var("PATH").unwrap_or_default();
    let mut files = paths.split(':').map(|dir| Path::new(dir).join(program));
    files.find(|file| file.is_file())
}

fn socket(work: &Path) -> PathBuf {
    work.join("docker.sock")
}

fn pid_file(work: &Path) -> PathBuf {
    work.join("docker.pid")
}

fn script(work: &Path, verb: &str) {
    // Engines that start at once in one network namespace trip over each other's firewall chains.
    let lock = std::env::temp_dir().join("hearth-test-engines.lock");
    let lock = File::create(lock).expect("open the lock of engines");
    lock.lock().expect("wait for other tests' engines");
    let mut command = command(work, verb);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} (an engine needs root): {errors}"
    );
}

fn command(work: &Path, verb: &str) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/engine.sh"));
    command
        .arg(verb)
        .env("HEARTH_WORK", work)
        .stdin(Stdio::null());
    command
}
