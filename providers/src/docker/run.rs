//! The `stdio` contract: one container for one invocation.

use std::sync::Arc;

use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error as BollardError;
use bollard::query_parameters::{AttachContainerOptionsBuilder, WaitContainerOptionsBuilder};
use futures_util::StreamExt;
use protocol::function::Contract;
use protocol::{InstanceId, Invocation, Phases, Reply};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::Docker;
use super::engine::CallError;
use super::image::micros;
use super::launch::{self, Created};
use crate::contract::stdio;
use crate::output::{Running, Writer};
use crate::{Error, LaunchSpec};

pub(super) async fn run(
    docker: &Docker,
    spec: LaunchSpec,
    invocation: &Invocation,
) -> (Phases, Result<Reply, Error>) {
    let mut phases = Phases::default();
    let outcome = run_in(docker, &spec, invocation, &mut phases).await;
    (phases, outcome)
}

async fn run_in(
    docker: &Docker,
    spec: &LaunchSpec,
    invocation: &Invocation,
    phases: &mut Phases,
) -> Result<Reply, Error> {
    let start_until = Instant::from_std(spec.deadline.moment());
    let begun = tokio::time::timeout_at(start_until, begin(docker, spec, phases)).await;
    let (created, attached) = begun.map_err(|_| launch::not_in_time(phases))??;
    let began = Instant::now();
    let until = (began + spec.function.limits().timeout)
        .min(Instant::from_std(invocation.deadline.moment()));
    let running = Arc::new(Running::default());
    let _run = running.enter(&invocation.id);
    let setup = &docker.shared.setup;
    let short: String = created.id.as_str().chars().take(12).collect();
    let writer = Writer::new(&setup.outputs, &spec.function, &short, Arc::clone(&running));
    let mut run = stdio::Run::new(invocation, setup.answer_limits.whole, writer);
    let converse = converse(docker, invocation, &created.id, attached, &mut run);
    let outcome = match tokio::time::timeout_at(until, converse).await {
        Ok(ended) => ended.and_then(|(exit_code, note)| run.finish(exit_code, note)),
        Err(_) => run.stop(until - began),
    };
    phases.run = Some(micros(began));
    // Dropping the guard has a task remove the container; the answer does not wait for that.
    drop(created.guard);
    outcome
}

/// Creates, attaches and starts, in this order: what is written before an attach is lost.
async fn begin(
    docker: &Docker,
    spec: &LaunchSpec,
    phases: &mut Phases,
) -> Result<(Created, AttachContainerResults), Error> {
    let created = launch::create(docker, spec, Contract::Stdio, phases).await?;
    let began = Instant::now();
    let options = AttachContainerOptionsBuilder::new()
        .stream(true)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .build();
    let name = created.id.as_str();
    let engine = &docker.shared.engine;
    let attached = engine
        .call("attaching to a container", |client| {
            client.attach_container(name, Some(options))
        })
        .await?;
    launch::start_created(docker, spec, &created.id).await?;
    launch::note_address(docker, &created.id).await;
    phases.start = Some(micros(began));
    Ok((created, attached))
}

/// Hands the payload over and reads what is printed, until the end; says the exit code, and why it was killed, if it was.
async fn converse(
    docker: &Docker,
    invocation: &Invocation,
    id: &InstanceId,
    attached: AttachContainerResults,
    run: &mut stdio::Run,
) -> Result<(i64, Option<&'static str>), Error> {
    let AttachContainerResults {
        mut output,
        mut input,
    } = attached;
    let hand_over = async {
        // A function may end without reading its input; then the write fails, and the exit code tells the outcome.
        let _ = input.write_all(&invocation.payload).await;
        let _ = input.shutdown().await;
    };
    let read = async {
        while let Some(piece) = output.next().await {
            match piece {
                Ok(LogOutput::StdErr { message }) => run.stderr(&message),
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    run.stdout(&message)?;
                }
                Ok(LogOutput::StdIn { .. }) => {}
                Err(error) => {
                    return Err(Error::Interrupted {
                        why: format!("the engine stopped telling the output: {error}"),
                    });
                }
            }
        }
        Ok(())
    };
    let ((), read) = tokio::join!(hand_over, read);
    read?;
    let exit_code = wait(docker, id).await?;
    if exit_code == 0 {
        return Ok((0, None));
    }
    let inspected = launch::inspect(docker, id).await.ok();
    let state = inspected
        .and_then(|inspected| inspected.state)
        .unwrap_or_default();
    let note = (state.oom_killed == Some(true)).then_some("out of memory");
    Ok((exit_code, note))
}

/// Waits for the container's end and returns its exit code.
async fn wait(docker: &Docker, id: &InstanceId) -> Result<i64, Error> {
    let interrupted = |why: String| Error::Interrupted { why };
    let client = docker.shared.engine.stream_client().await;
    let client = client.map_err(|error| interrupted(Error::from(error).to_string()))?;
    let options = WaitContainerOptionsBuilder::new()
        .condition("not-running")
        .build();
    let mut waited = std::pin::pin!(client.wait_container(id.as_str(), Some(options)));
    match waited.next().await {
        Some(Ok(ended)) => Ok(ended.status_code),
        Some(Err(BollardError::DockerContainerWaitError { code, .. })) => Ok(code),
        Some(Err(error)) => Err(
            match docker
                .shared
                .engine
                .classify("waiting for a container", error)
            {
                CallError::Answered { message, .. } => interrupted(message),
                CallError::Unavailable(why) => interrupted(why),
            },
        ),
        None => Err(interrupted("the engine did not tell the exit code".into())),
    }
}
