//! Adopting containers that an earlier incarnation of the node started.

use std::net::SocketAddr;
use std::sync::Arc;

use bollard::models::ContainerInspectResponse;
use protocol::function::{TOKEN_VARIABLE, URL_VARIABLE};
use protocol::secret::Target;
use protocol::{Function, InstanceId, SecretUse};

use super::launch::{NotRunning, address, inspect, networks, port, runs};
use super::name::labels;
use super::{Docker, logs};
use crate::callers::Badge;
use crate::contract::HttpInstance;
use crate::output::Running;
use crate::secrets::SecretDir;
use crate::{Error, Found, Invoke};

/// Takes over a container of an earlier generation.
pub(super) async fn adopt(
    docker: &Docker,
    found: &Found,
    function: &Function,
) -> Result<Arc<dyn Invoke>, Error> {
    let instances = &docker.shared.instances;
    // Before the look, so that a death after it is noticed.
    let end = instances.insert(&found.id);
    let address = match look_at_running(docker, &found.id, function).await {
        Ok((address, badge, secrets)) => {
            instances.admit(&found.id, badge, secrets, None);
            address
        }
        Err(error) => {
            instances.remove(&found.id);
            return Err(error);
        }
    };
    let running = Arc::new(Running::default());
    let follow = logs::follow(
        docker,
        function,
        &found.id,
        Arc::clone(&running),
        logs::From::Now,
    );
    docker.shared.setup.tasks.spawn(follow);
    let limits = docker.shared.setup.answer_limits;
    let instance = HttpInstance::new(address, None, function, limits, running, end);
    Ok(Arc::new(instance))
}

/// Where a running container is, the badge that it has, and the files of its secrets.
async fn look_at_running(
    docker: &Docker,
    id: &InstanceId,
    function: &Function,
) -> Result<(SocketAddr, Option<Badge>, Option<SecretDir>), Error> {
    let inspected = inspect(docker, id).await?;
    if let Err(NotRunning(why)) = runs(&inspected) {
        return Err(Error::StartFailed { why });
    }
    let port = port_of(&inspected).unwrap_or_else(|| port(function));
    let address = address(&inspected, port)?;
    let badge = badge_of(docker, function, &inspected)?;
    if let Some(badge) = &badge {
        badge.is_at(address.ip());
    }
    let secrets = secrets_of(docker, function, &inspected)?;
    Ok((address, badge, secrets))
}

/// The files of its secrets. Without those that it should have it is no use.
fn secrets_of(
    docker: &Docker,
    function: &Function,
    inspected: &ContainerInspectResponse,
) -> Result<Option<SecretDir>, Error> {
    let mut targets = function.secrets().iter().map(SecretUse::target);
    if !targets.any(|target| matches!(target, Target::File(_))) {
        return Ok(None);
    }
    let name = inspected.name.as_deref().unwrap_or_default();
    let found = docker
        .shared
        .setup
        .secrets
        .adopt(name.trim_start_matches('/'));
    match found {
        Some(found) => Ok(Some(found)),
        None => Err(Error::StartFailed {
            why: "the files of its secrets are gone".into(),
        }),
    }
}

/// The badge that a container was given. One that calls its node where that is not, or does not know where it is, is no use.
fn badge_of(
    docker: &Docker,
    function: &Function,
    inspected: &ContainerInspectResponse,
) -> Result<Option<Badge>, Error> {
    let callers = &docker.shared.setup.callers;
    let gateway = networks(inspected).find_map(|network| network.gateway.as_deref()?.parse().ok());
    let gateway = gateway.filter(|_| function.sandbox().network);
    let url = gateway.and_then(|gateway| callers.hear_at(gateway));
    let env = inspected
        .config
        .as_ref()
        .and_then(|config| config.env.as_ref());
    let told = |name: &str| {
        let mut variables = env.into_iter().flatten();
        variables.find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
    };
    let token = told(TOKEN_VARIABLE);
    match (url, token) {
        (Some(url), Some(token)) if told(URL_VARIABLE) == Some(&url) => {
            Ok(Some(callers.readmit(function, &url, token)))
        }
        (None, None) => Ok(None),
        (url, _) => Err(Error::StartFailed {
            why: format!(
                "its {} is {}, and its node is at {} now",
                URL_VARIABLE,
                told(URL_VARIABLE).unwrap_or("not set"),
                url.as_deref().unwrap_or("none")
            ),
        }),
    }
}

fn port_of(inspected: &ContainerInspectResponse) -> Option<u16> {
    inspected
        .config
        .as_ref()?
        .labels
        .as_ref()?
        .get(labels::PORT)?
        .parse()
        .ok()
}
