//! Watches the engine: whether it answers, and what happens to our containers behind our back.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use protocol::InstanceId;

use super::engine::{NoAnswer, State};
use super::name::labels;
use super::{Docker, Up, launch, now_seconds};
use crate::Life;

/// How often an engine that answers is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a look may take, and how many in a row must fail: an engine that starts many containers answers late.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
const FAILED_LOOKS_MAX: u32 = 2;

/// Looks at the engine for ever and tells when it goes and when it is back.
pub(super) async fn monitor(docker: Docker) {
    let engine = &docker.shared.engine;
    let settings = &docker.shared.setup.settings;
    let look_timeout = LOOK_TIMEOUT.min(settings.call_timeout);
    let mut failed_looks = 0;
    let mut has_told_missing = false;
    loop {
        let (before, outcome) = engine.look(look_timeout).await;
        docker.shared.watchers.settle();
        metrics::gauge!("hearth_engine_up").set(if outcome.is_ok() { 1.0 } else { 0.0 });
        match (before, outcome) {
            (State::Up, Ok(())) => failed_looks = 0,
            (_, Ok(())) => {
                failed_looks = 0;
                has_told_missing = false;
                tracing::info!(host = settings.host, "the container engine answers");
                docker.shared.networks.forget().await;
                docker.shared.setup.callers.forget_failures();
                docker.shared.images.changed();
                docker.shared.watchers.tell(Life::Restored);
            }
            (State::Up, Err(NoAnswer::Silent(_))) if failed_looks + 1 < FAILED_LOOKS_MAX => {
                failed_looks += 1;
            }
            (State::Up, Err(why)) => {
                has_told_missing = true;
                engine.give_up();
                tracing::error!(
                    host = settings.host,
                    %why,
                    "the container engine does not answer any more; containers that are up go on, none can start"
                );
                docker.shared.watchers.tell(Life::Lost);
            }
            (_, Err(why)) => {
                engine.give_up();
                if !std::mem::replace(&mut has_told_missing, true) {
                    tracing::warn!(
                        host = settings.host,
                        %why,
                        "no container engine answers; functions of type container do not run on this node until one does"
                    );
                }
            }
        }
        if engine.is_available() && failed_looks == 0 {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = engine.doubted() => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        } else {
            tokio::time::sleep(settings.retry_interval).await;
        }
    }
}

/// Follows the engine's events for ever.
pub(super) async fn follow_events(docker: Docker) {
    let mut since = now_seconds();
    loop {
        docker.shared.engine.until_up().await;
        if let Ok(client) = docker.shared.engine.stream_client().await {
            let filters = HashMap::from([
                ("type", vec!["container", "image"]),
                (
                    "event",
                    vec![
                        "die", "destroy", "pause", "oom", "pull", "load", "import", "tag", "untag",
                        "delete",
                    ],
                ),
            ]);
            let options = EventsOptionsBuilder::new()
                .since(&since.to_string())
                .filters(&filters)
                .build();
            let mut events = std::pin::pin!(client.events(Some(options)));
            while let Some(Ok(event)) = events.next().await {
                since = event
                    .time
                    .and_then(|time| u64::try_from(time).ok())
                    .unwrap_or(since);
                hear(&docker, &event);
            }
        }
        // What happened since is repeated by `since`; what the engine no longer remembers is found by a list.
        tokio::time::sleep(docker.shared.setup.settings.retry_interval).await;
    }
}

fn hear(docker: &Docker, event: &EventMessage) {
    let action = event.action.as_deref().unwrap_or_default();
    if matches!(
        action,
        "pull" | "load" | "import" | "tag" | "untag" | "delete"
    ) {
        docker.shared.images.changed();
        return;
    }
    let Some(actor) = &event.actor else { return };
    let attributes = actor.attributes.as_ref();
    let is_ours = attributes.is_some_and(|attributes| {
        attributes.get(labels::CLUSTER) == Some(&docker.shared.setup.cluster)
            && attributes.get(labels::NODE).map(String::as_str)
                == Some(docker.shared.setup.node.as_str())
    });
    let id = actor
        .id
        .as_deref()
        .and_then(|id| id.parse::<InstanceId>().ok());
    let (true, Some(id)) = (is_ours, id) else {
        return;
    };
    let name = attributes.and_then(|attributes| attributes.get("name"));
    match action {
        "oom" => {
            if let Some(end) = docker.shared.instances.end(&id) {
                end.out_of_memory(OUT_OF_MEMORY);
            }
        }
        "die" => {
            let code = attributes.and_then(|attributes| attributes.get("exitCode"));
            let code = code.and_then(|code| code.parse().ok());
            lose(docker, id, name, Loss::Exited(code.unwrap_or(-1)));
        }
        "pause" => lose(docker, id, name, Loss::By("the instance was paused")),
        _ => lose(docker, id, name, Loss::By("the instance was removed")),
    }
}

/// What an instance is lost by.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// It ended, with this code.
    Exited(i64),
    /// Something was done to it.
    By(&'static str),
}

const OUT_OF_MEMORY: &str = "the instance ran out of memory";

/// An instance that was up is so no more, and not because we stopped it: what is left of it goes.
fn lose(docker: &Docker, id: InstanceId, name: Option<&String>, loss: Loss) {
    let Some(Up { end, .. }) = docker.shared.instances.remove(&id) else {
        return;
    };
    if name.is_some_and(|name| docker.shared.instances.begun().contains(name)) {
        // Its start or run is not over: that sees the death, tells of it and removes the container.
        return;
    }
    metrics::counter!("hearth_instances_lost_total").increment(1);
    docker.shared.watchers.tell(Life::Gone(id.clone()));
    let docker = docker.clone();
    let (stop, tasks) = (
        docker.shared.setup.stop.clone(),
        docker.shared.setup.tasks.clone(),
    );
    tasks.spawn(stop.run_until_cancelled_owned(async move {
        // The event of the death may come before the one that tells of the memory.
        let inspected = launch::inspect(&docker, &id)
            .await
            .ok()
            .and_then(|inspected| inspected.state);
        let is_out_of_memory = inspected.is_some_and(|state| state.oom_killed == Some(true));
        match loss {
            Loss::Exited(_) if is_out_of_memory => end.out_of_memory(OUT_OF_MEMORY),
            Loss::Exited(code) => {
                end.exited(code, &format!("the instance ended with exit code {code}"));
            }
            Loss::By(why) => end.lost(why),
        }
        // The reader of its output gets a moment for the last lines.
        tokio::time::sleep(LAST_LINES).await;
        if let Err(error) = docker.remove_by_force(id.as_str()).await {
            tracing::debug!(instance = %id, %error, "an instance that died is not removed yet");
        }
    }));
}

/// How long the container of a dead instance stays, so that its last output can be read.
const LAST_LINES: Duration = Duration::from_millis(300);
