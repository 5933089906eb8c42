//! Containers of the `lambda` contract: each asks a Runtime API of its own, at the gateway of its network.

use std::sync::Arc;
use std::time::Duration;

use protocol::{InstanceId, Phases};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::firewall::Gap;
use super::image::micros;
use super::launch::{Created, NotRunning, Place, address, ended, inspect, runs, start_failed};
use super::{Docker, logs};
use crate::contract::End;
use crate::contract::lambda::Server;
use crate::output::Running;
use crate::{Error, LaunchSpec, Launched};

/// The port that an address of the engine's is completed with; nobody connects there.
const NO_PORT: u16 = 0;

/// Listens for the runtime of a container that is to be created.
pub(super) async fn listen(
    docker: &Docker,
    spec: &LaunchSpec,
    place: &Place,
) -> Result<Server, Error> {
    let failed = |why: String| Error::StartFailed { why };
    let gateway = place.found.as_ref().and_then(|found| found.gateway);
    let gateway =
        gateway.ok_or_else(|| failed("its network has no gateway to listen at".to_owned()))?;
    let setup = &docker.shared.setup;
    let (limits, stop) = (setup.answer_limits, &setup.stop);
    let bound = Server::bind(gateway, &spec.function, &setup.lambda, limits, stop).await;
    bound.map_err(|error| {
        failed(format!(
            "listening for its runtime at {gateway}, the gateway of its network: {error}; functions of the lambda contract need an \
             engine on the node's own machine"
        ))
    })
}

/// Lets containers reach a Runtime API, where the firewall keeps them from this machine.
pub(super) async fn open(
    docker: &Docker,
    server: Option<&Server>,
    place: &Place,
) -> Result<Option<Gap>, Error> {
    let (Some(server), Some(found)) = (server, &place.found) else {
        return Ok(None);
    };
    let firewall = &docker.shared.networks.firewall;
    let opened = firewall.open(&found.bridge, server.address().port()).await;
    opened.map_err(|why| Error::StartFailed {
        why: format!("its Runtime API can not be reached through the firewall: {why}"),
    })
}

/// Waits until a container that was started asks for an invocation.
pub(super) async fn start(
    docker: &Docker,
    spec: &LaunchSpec,
    (created, mut server): (Created, Server),
    until: Instant,
    phases: &mut Phases,
) -> Result<Launched, Error> {
    let (function, tasks) = (&spec.function, &docker.shared.setup.tasks);
    let Created { id, guard, end, .. } = created;
    server.serve(function, Arc::clone(&end), tasks);
    let began = Instant::now();
    if let Err(error) = wait_until_ready(docker, spec, (&id, &server), until).await {
        guard.remove().await;
        return Err(error);
    }
    phases.ready = Some(micros(began));
    let running = Arc::new(Running::default());
    let from = logs::From::Start;
    let follow = logs::follow(docker, function, &id, Arc::clone(&running), from);
    let broken = server.broken();
    let instance = server.into_instance(function, running, Arc::clone(&end));
    guard.disarm()?;
    tasks.spawn(follow);
    tasks.spawn(attend(docker.clone(), id.clone(), end, broken));
    Ok(Launched {
        id,
        invoke: Arc::new(instance),
        phases: *phases,
    })
}

/// Removes an instance whose runtime broke the protocol; the engine then tells of its end.
async fn attend(docker: Docker, id: InstanceId, end: Arc<End>, broken: CancellationToken) {
    let stop = docker.shared.setup.stop.clone();
    tokio::select! {
        () = broken.cancelled() => {}
        () = end.told() => return,
        () = stop.cancelled() => return,
    }
    if let Err(error) = docker.remove_by_force(id.as_str()).await {
        tracing::debug!(instance = %id, %error, "an instance whose runtime broke the protocol is not removed yet");
    }
}

async fn wait_until_ready(
    docker: &Docker,
    spec: &LaunchSpec,
    (id, server): (&InstanceId, &Server),
    until: Instant,
) -> Result<(), Error> {
    let function = &spec.function;
    let inspected = inspect(docker, id).await?;
    if let Err(NotRunning(why)) = runs(&inspected) {
        return Err(start_failed(function, &why, &logs::end(docker, id).await));
    }
    let address = address(&inspected, NO_PORT)?.ip();
    docker.shared.instances.is_at(id, address);
    server.is_at(address);
    // A little before the deadline, so that there is time to say why.
    let until =
        until - (until.saturating_duration_since(Instant::now()) / 8).min(Duration::from_secs(1));
    let ready = tokio::time::timeout_at(until, async {
        tokio::select! {
            biased;
            ready = server.ready() => ready,
            why = ended(docker, id) => Err(why),
        }
    });
    let why = match ready.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(_) => "its runtime did not ask for an invocation in time".to_owned(),
    };
    Err(start_failed(function, &why, &logs::end(docker, id).await))
}
