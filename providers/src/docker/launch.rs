//! Creating containers, and starting those that stay up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, EndpointSettings, HostConfig,
    HostConfigLogConfig, Mount, MountType, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use protocol::function::{Contract, Provider, SECRETS_VARIABLE};
use protocol::{Function, InstanceId, Phases};
use tokio::time::Instant;

use super::engine::CallError;
use super::guard::Guard;
use super::image::{self, micros};
use super::{Docker, lambda, logs, name, network};
use crate::callers::Badge;
use crate::contract::lambda::Server;
use crate::contract::ready::{NotReady, wait_ready};
use crate::contract::stdio::describe_exit;
use crate::contract::{End, HttpInstance};
use crate::output::Running;
use crate::secrets::{Readers, SecretDir};
use crate::{Error, LaunchSpec, Launched};

/// A container that exists and does not run yet.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) id: InstanceId,
    pub(super) guard: Guard,
    /// Why it died, once it did.
    pub(super) end: Arc<End>,
    /// The Runtime API that it asks, where it has the `lambda` contract.
    pub(super) api: Option<Server>,
}

/// The port an instance listens on when its record names none.
const PORT_DEFAULT: u16 = 8080;
/// How often the engine is asked whether a container that is not ready yet still runs.
const EXIT_CHECK_INTERVAL: Duration = Duration::from_millis(150);
/// Where a container finds the files of its secrets.
const SECRETS_DIR: &str = "/run/secrets";
/// Disk that the engine keeps of one container's output, in two files; ours is read from them at once.
const LOG_FILE_SIZE: &str = "1m";

pub(super) async fn start(docker: &Docker, spec: LaunchSpec) -> Result<Launched, Error> {
    let until = Instant::from_std(spec.deadline.moment());
    let mut phases = Phases::default();
    match tokio::time::timeout_at(until, start_until(docker, &spec, until, &mut phases)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(not_in_time(&phases)),
    }
}

/// Names the phase that took too long.
pub(super) fn not_in_time(phases: &Phases) -> Error {
    let what = match (phases.create, phases.start) {
        (None, _) => "was not created",
        (Some(_), None) => "was not started",
        (Some(_), Some(_)) => "was not ready",
    };
    Error::StartFailed {
        why: format!("it {what} in time"),
    }
}

async fn start_until(
    docker: &Docker,
    spec: &LaunchSpec,
    until: Instant,
    phases: &mut Phases,
) -> Result<Launched, Error> {
    let contract = spec.function.contract().unwrap_or(Contract::Http);
    let mut created = create(docker, spec, contract, phases).await?;
    let began = Instant::now();
    if let Err(error) = start_created(docker, spec, &created.id).await {
        created.guard.remove().await;
        return Err(error);
    }
    phases.start = Some(micros(began));
    if let Some(server) = created.api.take() {
        return lambda::start(docker, spec, (created, server), until, phases).await;
    }
    let began = Instant::now();
    let readied = wait_until_ready(docker, &spec.function, &created.id, until).await;
    let (address, stream) = match readied {
        Ok(ready) => ready,
        Err(error) => {
            created.guard.remove().await;
            return Err(error);
        }
    };
    phases.ready = Some(micros(began));
    let running = Arc::new(Running::default());
    let follow = logs::follow(
        docker,
        &spec.function,
        &created.id,
        Arc::clone(&running),
        logs::From::Start,
    );
    let limits = docker.shared.setup.answer_limits;
    let function = &spec.function;
    let instance = HttpInstance::new(
        address,
        Some(stream),
        function,
        limits,
        running,
        created.end,
    );
    created.guard.disarm()?;
    docker.shared.setup.tasks.spawn(follow);
    Ok(Launched {
        id: created.id,
        invoke: Arc::new(instance),
        phases: *phases,
    })
}

/// Creates a container; a missing image is pulled and a missing network is made.
pub(super) async fn create(
    docker: &Docker,
    spec: &LaunchSpec,
    contract: Contract,
    phases: &mut Phases,
) -> Result<Created, Error> {
    let shared = &docker.shared;
    let (mut image, pulled) = image::ensure(docker, &spec.function).await?;
    phases.pull = pulled;
    let began = Instant::now();
    let name = name::container(&shared.setup, spec);
    let mut guard = Guard::new(docker, &name);
    let files = &spec.secrets.files;
    guard.secrets = shared.setup.secrets.make(&name, files, Readers::Any)?;
    let mut is_second = false;
    let (id, badge, api) = loop {
        let network = network(docker, &spec.function, contract).await?;
        let callers = &shared.setup.callers;
        let gateway = network.caller_gateway;
        let badge = gateway.and_then(|gateway| callers.admit_container(&spec.function, gateway));
        let api = match contract {
            Contract::Lambda => Some(lambda::listen(docker, spec, &network).await?),
            Contract::Http | Contract::Stdio => None,
        };
        let variables = api.as_ref().map(|server| {
            let lambda = &shared.setup.lambda;
            lambda.variables(&spec.function, server.address())
        });
        let body = body(
            docker,
            spec,
            contract,
            (image.clone(), network.id.clone()),
            (badge.as_ref(), guard.secrets.as_ref()),
            variables.unwrap_or_default(),
        )?;
        let opened = lambda::open(docker, api.as_ref(), &network);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let call = shared.engine.call("creating a container", |client| {
            client.create_container(Some(options), body)
        });
        // Before the start, whose first request would wait for a second otherwise.
        let (created, gap) = tokio::join!(call, opened);
        guard.gap = gap?;
        match created {
            Ok(created) => break (created.id, badge, api),
            // The image or the network was removed behind our back.
            Err(CallError::Answered {
                status: 404,
                message,
            }) if !is_second => {
                tracing::debug!(container = name, message, "creating a container again");
                is_second = true;
                shared.networks.forget().await;
                image = image::refind(docker, &spec.function, &image).await?;
            }
            Err(CallError::Answered { message, .. }) => {
                return Err(start_failed(&spec.function, &message, ""));
            }
            Err(error) => return Err(error.into()),
        }
    };
    phases.create = Some(micros(began));
    let id: InstanceId = id.parse().map_err(|_| Error::StartFailed {
        why: format!("the engine named the container {id:?}"),
    })?;
    let end = guard.created(&id, badge);
    Ok(Created {
        id,
        guard,
        end,
        api,
    })
}

/// Starts what was created.
pub(super) async fn start_created(
    docker: &Docker,
    spec: &LaunchSpec,
    id: &InstanceId,
) -> Result<(), Error> {
    let engine = &docker.shared.engine;
    let name = id.as_str();
    let call = engine.call("starting a container", |client| {
        client.start_container(name, None::<StartContainerOptions>)
    });
    match call.await {
        Ok(()) => Ok(()),
        Err(CallError::Answered { status, message }) => {
            if status == 404 && message.contains("network") {
                docker.shared.networks.forget().await;
            }
            Err(start_failed(&spec.function, &message, ""))
        }
        Err(error) => Err(error.into()),
    }
}

/// Notes where a container that was started is, for the calls that it makes itself. One that ended by then makes none.
pub(super) async fn note_address(docker: &Docker, id: &InstanceId) {
    let inspected = inspect(docker, id).await;
    let address = inspected.and_then(|inspected| address(&inspected, PORT_DEFAULT));
    if let Ok(address) = address {
        docker.shared.instances.is_at(id, address.ip());
    }
}

async fn wait_until_ready(
    docker: &Docker,
    function: &Function,
    id: &InstanceId,
    until: Instant,
) -> Result<(SocketAddr, tokio::net::TcpStream), Error> {
    let inspected = inspect(docker, id).await?;
    if let Err(NotRunning(why)) = runs(&inspected) {
        return Err(start_failed(function, &why, &logs::end(docker, id).await));
    }
    let address = address(&inspected, port(function))?;
    docker.shared.instances.is_at(id, address.ip());
    // A little before the deadline, so that there is time to say why.
    let until =
        until - (until.saturating_duration_since(Instant::now()) / 8).min(Duration::from_secs(1));
    match wait_ready(address, until, ended(docker, id)).await {
        Ok(stream) => Ok((address, stream)),
        Err(NotReady::Ended(why)) => {
            Err(start_failed(function, &why, &logs::end(docker, id).await))
        }
        Err(NotReady::TimedOut(last)) => {
            let why = format!(
                "nothing listened on port {} in time ({last})",
                address.port()
            );
            Err(start_failed(function, &why, &logs::end(docker, id).await))
        }
    }
}

/// Resolves when the container no longer runs, with what is known of its end.
pub(super) async fn ended(docker: &Docker, id: &InstanceId) -> String {
    loop {
        tokio::time::sleep(EXIT_CHECK_INTERVAL).await;
        let Ok(inspected) = inspect(docker, id).await else {
            continue;
        };
        if let Err(NotRunning(why)) = runs(&inspected) {
            return why;
        }
    }
}

pub(super) async fn inspect(
    docker: &Docker,
    id: &InstanceId,
) -> Result<ContainerInspectResponse, Error> {
    let name = id.as_str();
    let call = docker
        .shared
        .engine
        .call("inspecting a container", |client| {
            client.inspect_container(name, None)
        });
    match call.await {
        Err(CallError::Answered { status: 404, .. }) => Err(Error::StartFailed {
            why: "the container is gone".into(),
        }),
        outcome => Ok(outcome?),
    }
}

pub(super) struct NotRunning(pub(super) String);

pub(super) fn runs(inspected: &ContainerInspectResponse) -> Result<(), NotRunning> {
    let Some(state) = &inspected.state else {
        return Err(NotRunning("the engine tells no state".into()));
    };
    if state.paused == Some(true) {
        return Err(NotRunning("the container is paused".into()));
    }
    match state.running {
        Some(true) => Ok(()),
        _ => Err(NotRunning(describe_end(state))),
    }
}

/// Says how a container ended, without its output.
pub(super) fn describe_end(state: &ContainerState) -> String {
    let oom = (state.oom_killed == Some(true)).then_some("out of memory");
    let error = state.error.as_deref().unwrap_or_default();
    describe_exit(state.exit_code.unwrap_or(-1), oom, error)
}

/// A failed start, with the sandbox named where it may be the reason.
pub(super) fn start_failed(function: &Function, why: &str, tail: &str) -> Error {
    let mut why = why.to_owned();
    if !tail.is_empty() {
        why.push_str("; the end of its output: ");
        why.push_str(tail);
    }
    let sandbox = function.sandbox();
    let said = why.to_lowercase();
    if said.contains("bind source path does not exist") {
        why.push_str(
            "; the engine does not see secrets.dir of this node: both need it at the same path",
        );
    }
    let hint = if sandbox.read_only_root && said.contains("read-only file system") {
        Some("sandbox.readOnlyRoot forbids writing")
    } else if said.contains("operation not permitted") || said.contains("permission denied") {
        Some("all capabilities are dropped unless sandbox.capabilities lists them")
    } else if !sandbox.network
        && (said.contains("network is unreachable") || said.contains("name resolution"))
    {
        Some("sandbox.network is false")
    } else {
        None
    };
    if let Some(hint) = hint {
        why.push_str("; the sandbox may be the reason: ");
        why.push_str(hint);
    }
    Error::StartFailed { why }
}

/// The network of a container.
pub(super) struct Place {
    id: String,
    /// The address at which it may call its node.
    caller_gateway: Option<IpAddr>,
    /// What the engine says of it; nothing where there is none.
    pub(super) found: Option<network::Found>,
}

/// The network of a container. A run that reaches nothing needs no network at all; an instance without one is still reached by
/// its node, and asks it for invocations where it has the `lambda` contract.
async fn network(docker: &Docker, function: &Function, contract: Contract) -> Result<Place, Error> {
    let reaches_outside = function.sandbox().network;
    if !reaches_outside && contract == Contract::Stdio {
        return Ok(Place {
            id: "none".to_owned(),
            caller_gateway: None,
            found: None,
        });
    }
    let networks = &docker.shared.networks;
    let found = networks.of(&docker.shared.engine, reaches_outside).await?;
    Ok(Place {
        id: found.id.clone(),
        caller_gateway: found.gateway.filter(|_| reaches_outside),
        found: Some(found),
    })
}

fn body(
    docker: &Docker,
    spec: &LaunchSpec,
    contract: Contract,
    (image, network): (String, String),
    (badge, secrets): (Option<&Badge>, Option<&SecretDir>),
    variables: Vec<(&'static str, String)>,
) -> Result<ContainerCreateBody, Error> {
    let function = &spec.function;
    let Provider::Container(container) = &function.provider else {
        return Err(Error::StartFailed {
            why: format!(
                "a function of type {} has no container",
                function.type_name()
            ),
        });
    };
    let port = port(function);
    let given = container.env.iter();
    let given = given.map(|(name, value)| (name.as_str(), value.as_str()));
    let told = badge.into_iter().flat_map(Badge::variables);
    let mut env: Vec<String> = given
        .chain(told)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    match contract {
        Contract::Http | Contract::Stdio => env.push(format!("PORT={port}")),
        Contract::Lambda => {
            let set = variables.iter();
            env.extend(set.map(|(name, value)| format!("{name}={value}")));
        }
    }
    env.extend(secrets.map(|_| format!("{SECRETS_VARIABLE}={SECRETS_DIR}")));
    for (name, value) in &spec.secrets.env {
        let value = std::str::from_utf8(value.expose()).map_err(|_| Error::StartFailed {
            why: format!("the secret for the variable {name} is no text, so it can only be a file"),
        })?;
        env.push(format!("{name}={value}"));
    }
    let is_stdio = contract == Contract::Stdio;
    Ok(ContainerCreateBody {
        image: Some(image),
        entrypoint: (!container.entrypoint.is_empty()).then(|| container.entrypoint.clone()),
        cmd: (!container.command.is_empty()).then(|| container.command.clone()),
        working_dir: container.working_directory.clone(),
        env: Some(env),
        labels: Some(name::container_labels(
            &docker.shared.setup,
            spec,
            contract,
            port,
        )),
        open_stdin: Some(is_stdio),
        stdin_once: Some(is_stdio),
        attach_stdin: Some(is_stdio),
        attach_stdout: Some(is_stdio),
        attach_stderr: Some(is_stdio),
        host_config: Some(HostConfig {
            mounts: secrets.map(|dir| vec![mount(dir)]),
            ..host_config(docker, function, contract, network)
        }),
        ..ContainerCreateBody::default()
    })
}

/// What a container sees of the files of its secrets.
fn mount(dir: &SecretDir) -> Mount {
    Mount {
        target: Some(SECRETS_DIR.into()),
        source: Some(dir.path().to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Mount::default()
    }
}

fn host_config(
    docker: &Docker,
    function: &Function,
    contract: Contract,
    network: String,
) -> HostConfig {
    let limits = function.limits();
    let sandbox = function.sandbox();
    let memory_bytes = i64::from(limits.memory_mb) * 1024 * 1024;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most 1024 processors, so 2^40 at most"
    )]
    let nano_cpus = (docker.shared.engine.cpus(limits.cpus) * 1e9) as i64;
    // The output of a run is read while it is attached; that of an instance is read from the engine's files, which are bounded.
    let log_config = match contract {
        Contract::Stdio => HostConfigLogConfig {
            typ: Some("none".into()),
            config: None,
        },
        Contract::Http | Contract::Lambda => HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([
                ("max-size".into(), LOG_FILE_SIZE.into()),
                ("max-file".into(), "2".into()),
            ])),
        },
    };
    HostConfig {
        memory: Some(memory_bytes),
        // Equal to `memory`: no swap.
        memory_swap: Some(memory_bytes),
        nano_cpus: Some(nano_cpus),
        pids_limit: Some(docker.shared.setup.settings.pids_max),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(sandbox.capabilities),
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(sandbox.read_only_root),
        network_mode: Some(network),
        // A function that handles no signals, as most do not, ends at once instead of after the grace.
        init: Some(true),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(log_config),
        ..HostConfig::default()
    }
}

pub(super) fn port(function: &Function) -> u16 {
    match &function.provider {
        Provider::Container(container) => container.port.unwrap_or(PORT_DEFAULT),
        _ => PORT_DEFAULT,
    }
}

pub(super) fn networks(
    inspected: &ContainerInspectResponse,
) -> impl Iterator<Item = &EndpointSettings> {
    let settings = inspected.network_settings.as_ref();
    let networks = settings.and_then(|settings| settings.networks.as_ref());
    networks.into_iter().flat_map(HashMap::values)
}

pub(super) fn address(
    inspected: &ContainerInspectResponse,
    port: u16,
) -> Result<SocketAddr, Error> {
    let mut addresses = networks(inspected).filter_map(|network| network.ip_address.as_deref());
    let address = addresses.find_map(|address| address.parse::<IpAddr>().ok());
    let address = address.ok_or_else(|| Error::StartFailed {
        why: "the container has no address on its network".into(),
    })?;
    Ok(SocketAddr::new(address, port))
}
