//! The `stdio` contract: one process for one invocation.

use std::sync::Arc;

use protocol::{Invocation, Phases, Reply};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::Instant;

use super::Process;
use super::launch::{self, Spawned, State, micros, wait};
use crate::contract::stdio;
use crate::output::{Running, Writer};
use crate::secrets::Readers;
use crate::{Error, LaunchSpec};

const READ_BYTES: usize = 16 * 1024;

pub(super) async fn run(
    process: &Process,
    spec: &LaunchSpec,
    invocation: &Invocation,
) -> (Phases, Result<Reply, Error>) {
    let mut phases = Phases::default();
    let began = Instant::now();
    let badge = process.shared.setup.callers.admit_process(&spec.function);
    let setup = &process.shared.setup;
    let id = process.next_id();
    // Its files go with the run.
    let secrets = match setup
        .secrets
        .make(id.as_str(), &spec.secrets.files, Readers::Own)
    {
        Ok(secrets) => secrets,
        Err(error) => return (phases, Err(error)),
    };
    let spawned = match launch::spawn(
        process,
        spec,
        (&badge, secrets.as_ref()),
        &[],
        Some(invocation.payload.len()),
    ) {
        Ok(spawned) => spawned,
        Err(error) => return (phases, Err(error)),
    };
    phases.start = Some(micros(began));
    let began = Instant::now();
    let until = (began + spec.function.limits().timeout)
        .min(Instant::from_std(invocation.deadline.moment()));
    let running = Arc::new(Running::default());
    let _run = running.enter(&invocation.id);
    let writer = Writer::new(
        &setup.outputs,
        &spec.function,
        id.as_str(),
        Arc::clone(&running),
    );
    let mut run = stdio::Run::new(invocation, setup.answer_limits.whole, writer);
    // The handle is dropped with the future, and the command is then killed.
    let converse = converse(invocation, spawned, &mut run);
    let outcome = match tokio::time::timeout_at(until, converse).await {
        Ok(ended) => {
            ended.and_then(|end| run.finish(end.exit_code.unwrap_or(-1), end.note.as_deref()))
        }
        Err(_) => run.stop(until - began),
    };
    phases.run = Some(micros(began));
    (phases, outcome)
}

/// Hands the payload over and reads what is printed, until the end; says how that was.
async fn converse(
    invocation: &Invocation,
    spawned: Spawned,
    run: &mut stdio::Run,
) -> Result<State, Error> {
    let Spawned {
        handle,
        stdout,
        stderr,
    } = spawned;
    let ((), read) = tokio::join!(handle.write(&invocation.payload), read(stdout, stderr, run));
    read?;
    let end = wait(&mut handle.state(), |state| state.exit_code.is_some()).await;
    if let (None, Some(why)) = (end.group, &end.note) {
        return Err(Error::StartFailed { why: why.clone() });
    }
    Ok(end)
}

async fn read(
    mut stdout: ChildStdout,
    mut stderr: ChildStderr,
    run: &mut stdio::Run,
) -> Result<(), Error> {
    let (mut out, mut err) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let (mut has_out, mut has_err) = (true, true);
    while has_out || has_err {
        tokio::select! {
            read = stdout.read(&mut out), if has_out => match read {
                Ok(0) | Err(_) => has_out = false,
                Ok(bytes) => run.stdout(&out[..bytes])?,
            },
            read = stderr.read(&mut err), if has_err => match read {
                Ok(0) | Err(_) => has_err = false,
                Ok(bytes) => run.stderr(&err[..bytes]),
            },
        }
    }
    Ok(())
}
