//! Spawning a command under its guard, and waiting until it listens.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use protocol::function::{Provider, SECRETS_VARIABLE};
use protocol::{InstanceId, Phases};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::guard::report::{KILLED, Report, TERMINATE};
use super::{Process, Up};
use crate::callers::Badge;
use crate::contract::ready::{NotReady, wait_ready};
use crate::contract::stdio::describe_exit;
use crate::contract::{End, HttpInstance};
use crate::output::{Running, Stream, Writer};
use crate::secrets::{Readers, SecretDir};
use crate::{Error, Invoke, LaunchSpec, Launched, Life};

/// A guarded command. Dropping the handle closes its link to the guard, which then kills the command and all its descendants.
#[derive(Debug)]
pub(super) struct Handle {
    link: Mutex<Option<OwnedWriteHalf>>,
    state: watch::Receiver<State>,
    guard: Option<u32>,
}

/// What the guard told.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// The command's process group.
    pub(super) group: Option<i32>,
    /// Why the guard killed it, or why it could not be started.
    pub(super) note: Option<String>,
    /// Whether the guard killed it, or found that the kernel did, for the memory it used.
    pub(super) is_over_memory: bool,
    /// Its exit code, once it and its descendants are gone.
    pub(super) exit_code: Option<i64>,
}

/// A command that was spawned, with its output still to be read.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) handle: Handle,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// Ports tried when another program takes the chosen one first.
const PORTS_MAX: u32 = 3;
/// How long a guard gets to kill its processes before it is killed itself.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);
/// The environment that a command keeps of the node's.
const KEPT_ENV: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// The longest report of a guard.
const REPORT_BYTES_MAX: u64 = 64 * 1024;
const READ_BYTES: usize = 16 * 1024;

pub(super) async fn start(process: &Process, spec: LaunchSpec) -> Result<Launched, Error> {
    let until = Instant::from_std(spec.deadline.moment());
    let mut attempt = 1;
    loop {
        let port = free_port()?;
        match start_at(process, &spec, port, until).await {
            Err(error) if attempt < PORTS_MAX && is_taken(port) => {
                tracing::debug!(port, %error, "another program took the port, trying the next one");
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

async fn start_at(
    process: &Process,
    spec: &LaunchSpec,
    port: u16,
    until: Instant,
) -> Result<Launched, Error> {
    let begun = Begun::new(process, spec, &[("PORT", port.to_string())], until).await?;
    let began = Instant::now();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut state = begun.handle.state();
    let ended = wait(&mut state, |state| state.exit_code.is_some());
    let stream = match wait_ready(address, until, ended).await {
        Ok(stream) => stream,
        Err(NotReady::Ended(end)) => return Err(begun.ended(&end).await),
        Err(NotReady::TimedOut(last)) => {
            let why = format!("nothing listened on 127.0.0.1:$PORT (here {port}) in time ({last})");
            return Err(begun.give_up(why).await);
        }
    };
    let end = Arc::new(End::default());
    let invoke = HttpInstance::new(
        address,
        Some(stream),
        &spec.function,
        process.shared.setup.answer_limits,
        Arc::clone(&begun.running),
        Arc::clone(&end),
    );
    let ready = micros(began);
    Ok(begun.up(process, spec, (Arc::new(invoke), end, None), ready))
}

/// A command that runs, and is not ready yet.
pub(super) struct Begun {
    id: InstanceId,
    pub(super) handle: Handle,
    pub(super) running: Arc<Running>,
    output: JoinHandle<String>,
    badge: Badge,
    secrets: Option<SecretDir>,
    phases: Phases,
}

impl Begun {
    /// Spawns a function's command with further variables, and waits until it runs.
    pub(super) async fn new(
        process: &Process,
        spec: &LaunchSpec,
        variables: &[(&'static str, String)],
        until: Instant,
    ) -> Result<Self, Error> {
        let setup = &process.shared.setup;
        let id = process.next_id();
        let began = Instant::now();
        let badge = setup.callers.admit_process(&spec.function);
        let secrets = setup
            .secrets
            .make(id.as_str(), &spec.secrets.files, Readers::Own)?;
        let Spawned {
            handle,
            stdout,
            stderr,
        } = spawn(process, spec, (&badge, secrets.as_ref()), variables, None)?;
        let running = Arc::new(Running::default());
        let writer = Writer::new(
            &setup.outputs,
            &spec.function,
            id.as_str(),
            Arc::clone(&running),
        );
        let output = setup.tasks.spawn(read_output(stdout, stderr, writer));
        let mut state = handle.state.clone();
        let started = tokio::time::timeout_at(
            until,
            wait(&mut state, |state| {
                state.group.is_some() || state.exit_code.is_some()
            }),
        );
        if started.await.is_err() {
            return Err(Error::StartFailed {
                why: "its guard did not start in time".into(),
            });
        }
        Ok(Self {
            id,
            handle,
            running,
            output,
            badge,
            secrets,
            phases: Phases {
                start: Some(micros(began)),
                ..Phases::default()
            },
        })
    }

    /// What a start comes to whose command has ended.
    pub(super) async fn ended(self, end: &State) -> Error {
        let tail = tail(self.output).await;
        Error::StartFailed {
            why: describe_exit(end.exit_code.unwrap_or(-1), end.note.as_deref(), &tail),
        }
    }

    /// Kills a command that did not become ready.
    pub(super) async fn give_up(self, why: String) -> Error {
        self.handle.kill().await;
        let tail = tail(self.output).await;
        let why = match tail.is_empty() {
            true => why,
            false => format!("{why}; the end of its output: {tail}"),
        };
        Error::StartFailed { why }
    }

    /// Notes an instance that is ready, and attends to its end. `broken` is cancelled when it is to be killed for what it did.
    pub(super) fn up(
        self,
        process: &Process,
        spec: &LaunchSpec,
        (invoke, end, broken): (Arc<dyn Invoke>, Arc<End>, Option<CancellationToken>),
        ready_us: u64,
    ) -> Launched {
        let mut phases = self.phases;
        phases.ready = Some(ready_us);
        let state = self.handle.state();
        let up = Up {
            handle: Arc::new(self.handle),
            space: spec.function.space.clone(),
            function_id: spec.function.function_id.clone(),
            key: spec.key,
            created_at: SystemTime::now(),
            _badge: Arc::new(self.badge),
            _secrets: self.secrets.map(Arc::new),
        };
        let id = self.id;
        let tasks = &process.shared.setup.tasks;
        if let Some(broken) = broken {
            let (handle, end) = (Arc::clone(&up.handle), Arc::clone(&end));
            tasks.spawn(async move {
                tokio::select! {
                    () = broken.cancelled() => handle.kill().await,
                    () = end.told() => {}
                }
            });
        }
        process.instances().insert(id.clone(), up);
        tasks.spawn(attend(process.clone(), id.clone(), state, end));
        Launched { id, invoke, phases }
    }
}

/// Tells of the end of an instance that was up.
async fn attend(
    process: Process,
    id: InstanceId,
    mut state: watch::Receiver<State>,
    end: Arc<End>,
) {
    let state = wait(&mut state, |state| state.exit_code.is_some()).await;
    let code = state.exit_code.unwrap_or(-1);
    let what = describe_exit(code, state.note.as_deref(), "");
    let why = format!("the instance ended with {what}");
    let was_up = process.instances().remove(&id).is_some();
    match was_up {
        true if state.is_over_memory => end.out_of_memory(&why),
        true => end.exited(code, &why),
        // We stopped it.
        false => end.lost(&why),
    }
    if was_up {
        metrics::counter!("hearth_instances_lost_total").increment(1);
        process.shared.watchers.settle();
        process.shared.watchers.tell(Life::Gone(id));
    }
}

/// Spawns a function's command under a guard. With a payload, to be handed over next, the command reads it on stdin; else its
/// stdin is empty.
pub(super) fn spawn(
    process: &Process,
    spec: &LaunchSpec,
    (badge, secrets): (&Badge, Option<&SecretDir>),
    variables: &[(&'static str, String)],
    payload_bytes: Option<usize>,
) -> Result<Spawned, Error> {
    let (setup, function) = (&process.shared.setup, &spec.function);
    let Provider::Process(provider) = &function.provider else {
        return Err(Error::StartFailed {
            why: format!("a function of type {} has no command", function.type_name()),
        });
    };
    let failed = |what: &str, error: &dyn std::fmt::Display| Error::StartFailed {
        why: format!("{what}: {error}"),
    };
    let (program, arguments) = setup
        .guard
        .split_first()
        .ok_or_else(|| failed("starting a guard", &"no program is set"))?;
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| failed("making a link to a guard", &error))?;
    let theirs = theirs
        .into_std()
        .and_then(|theirs| theirs.set_nonblocking(false).map(|()| theirs));
    let theirs = theirs.map_err(|error| failed("making a link to a guard", &error))?;
    let given = spec.secrets.env.iter();
    let given = given.map(|(name, value)| (name, OsStr::from_bytes(value.expose())));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg("--memory-mb")
        .arg(function.limits().memory_mb.to_string())
        .args(
            payload_bytes
                .iter()
                .flat_map(|bytes| ["--payload-bytes".to_owned(), bytes.to_string()]),
        )
        .arg("--")
        .args(&provider.command)
        .env_clear()
        .envs(
            KEPT_ENV
                .iter()
                .filter_map(|name| std::env::var_os(name).map(|value| (name, value))),
        )
        .envs(&provider.env)
        .envs(given)
        .envs(secrets.map(|dir| (SECRETS_VARIABLE, dir.path())))
        .envs(badge.variables())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: the terminal's interrupt is for the node, which then drains.
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| failed(&format!("starting the guard {}", program.display()), &error))?;
    let missing = || failed("starting a guard", &"it has no output");
    let (stdout, stderr) = (
        child.stdout.take().ok_or_else(missing)?,
        child.stderr.take().ok_or_else(missing)?,
    );
    let (reports, link) = ours.into_split();
    let (sender, state) = watch::channel(State::default());
    let guard = child.id();
    setup.tasks.spawn(
        setup
            .stop
            .clone()
            .run_until_cancelled_owned(hear(child, reports, sender)),
    );
    Ok(Spawned {
        handle: Handle {
            link: Mutex::new(Some(link)),
            state,
            guard,
        },
        stdout,
        stderr,
    })
}

impl Handle {
    /// What the guard told last.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Hands the payload over. A command may end without reading it, so a broken link is no error here.
    pub(super) async fn write(&self, payload: &[u8]) {
        if let Some(link) = &mut *self.link.lock().await {
            let _ = link.write_all(payload).await;
        }
    }

    /// Asks the command to end, and kills it after `grace`.
    pub(super) async fn stop(&self, grace: Duration) {
        if let Some(link) = &mut *self.link.lock().await {
            let _ = link.write_all(&[TERMINATE]).await;
        }
        let mut state = self.state();
        let ended = wait(&mut state, |state| state.exit_code.is_some());
        if tokio::time::timeout(grace, ended).await.is_err() {
            self.kill().await;
        }
    }

    /// Kills the command and waits until it is gone.
    pub(super) async fn kill(&self) {
        *self.link.lock().await = None;
        let mut state = self.state();
        let ended = wait(&mut state, |state| state.exit_code.is_some());
        if tokio::time::timeout(KILL_TIMEOUT, ended).await.is_ok() {
            return;
        }
        tracing::warn!("a guard did not kill its instance, killing both");
        let group = self.state.borrow().group;
        kill_all(group, self.guard);
    }
}

fn kill_all(group: Option<i32>, guard: Option<u32>) {
    // Those that are gone already are no error.
    if let Some(group) = group {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    if let Some(guard) = guard.and_then(|guard| i32::try_from(guard).ok()) {
        let _ = kill(Pid::from_raw(guard), Signal::SIGKILL);
    }
}

/// Reads the guard's reports until it is gone.
async fn hear(mut guard: Child, reports: OwnedReadHalf, state: watch::Sender<State>) {
    let mut reports = BufReader::new(reports.take(REPORT_BYTES_MAX)).lines();
    let mut exit_code = None;
    while let Ok(Some(report)) = reports.next_line().await {
        match Report::parse(&report) {
            Some(Report::Started(group)) => {
                state.send_modify(|state| state.group = Some(group));
            }
            Some(Report::Killed(why)) => state.send_modify(|state| {
                state.note = Some(why);
                state.is_over_memory = true;
            }),
            Some(Report::Failed(why)) => state.send_modify(|state| state.note = Some(why)),
            Some(Report::Exited(code)) => exit_code = Some(code),
            None => tracing::warn!(report, "a guard said something that can not be understood"),
        }
    }
    let status = guard.wait().await;
    if exit_code.is_none() {
        // The guard itself was killed, so its work is ours.
        let group = state.borrow().group;
        kill_all(group, None);
        state.send_modify(|state| {
            state.note.get_or_insert_with(|| {
                format!(
                    "its guard died ({})",
                    status.map_or_else(|error| error.to_string(), |status| status.to_string())
                )
            });
        });
    }
    state.send_modify(|state| state.exit_code = Some(exit_code.unwrap_or(KILLED)));
}

async fn read_output(
    mut stdout: ChildStdout,
    mut stderr: ChildStderr,
    mut writer: Writer,
) -> String {
    let (mut out, mut err) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let (mut has_out, mut has_err) = (true, true);
    while has_out || has_err {
        tokio::select! {
            read = stdout.read(&mut out), if has_out => match read {
                Ok(0) | Err(_) => has_out = false,
                Ok(bytes) => writer.write(Stream::Stdout, &out[..bytes], None),
            },
            read = stderr.read(&mut err), if has_err => match read {
                Ok(0) | Err(_) => has_err = false,
                Ok(bytes) => writer.write(Stream::Stderr, &err[..bytes], None),
            },
        }
    }
    writer.flush();
    writer.tail()
}

/// The end of the output of a command that is gone; it comes at once, since no process holds the pipes any more.
async fn tail(output: JoinHandle<String>) -> String {
    match tokio::time::timeout(KILL_TIMEOUT, output).await {
        Ok(Ok(tail)) => tail,
        Ok(Err(_)) | Err(_) => String::new(),
    }
}

/// Waits until the state is such, or the guard is gone without having said so.
pub(super) async fn wait(
    state: &mut watch::Receiver<State>,
    is_such: impl FnMut(&State) -> bool,
) -> State {
    if let Ok(state) = state.wait_for(is_such).await {
        return state.clone();
    }
    state.borrow().clone()
}

/// A port of the loopback interface that is free now; the kernel hands out another one each time.
fn free_port() -> Result<u16, Error> {
    let bound =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound
        .map(|address| address.port())
        .map_err(|error| Error::StartFailed {
            why: format!("choosing a port: {error}"),
        })
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}

pub(super) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
