//! `hearth dev`: a node, or a cluster, on this machine for trying things out.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use config::Settings;
use config::settings::Flags;
use config::store::embedded::EmbeddedStore;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::args::DevArguments;
use crate::telemetry::Telemetry;
use crate::{Node, NodeHandle, StartError, shutdown};

/// The word that makes the binary a guard of one command, which ends it with the process that started it.
pub const GUARD: &str = "instance-guard";

/// How far apart the client ports of two nodes are: n1 has 3000, 4000 and 4001, n2 has 3010, 4010 and 4011.
const PORT_STEP: u16 = 10;

/// How long a node or etcd gets to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// Runs until a signal comes or a node fails.
///
/// # Errors
/// When a setting is wrong or something does not start.
pub async fn run(arguments: &DevArguments) -> anyhow::Result<ExitCode> {
    let mut flags = arguments.node.flags();
    flags
        .entry("process.allow".into())
        .or_insert_with(|| json!(true));
    let settings = Settings::load(arguments.node.settings.as_deref(), &flags)?;
    let telemetry = Telemetry::install(&settings)?;
    let result = match (arguments.nodes, find_etcd()) {
        (1, _) => Box::pin(in_process(vec![settings], &telemetry)).await,
        (_, Some(etcd)) if settings.store.etcd.endpoints.is_empty() => {
            processes(arguments, &settings, &flags, Some(&etcd)).await
        }
        (_, _) if !settings.store.etcd.endpoints.is_empty() => {
            processes(arguments, &settings, &flags, None).await
        }
        (nodes, _) => {
            say(&format!(
                "no etcd on PATH: {nodes} nodes in one process share the embedded store"
            ));
            let all = (1..=nodes).map(|number| numbered(arguments, &settings, &flags, number));
            let all = all.collect::<Result<_, _>>()?;
            Box::pin(in_process(all, &telemetry)).await
        }
    };
    telemetry.shutdown().await;
    result
}

/// The exit code for an error of [`run`]: 64 for a wrong setting, else 69.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let is_setting = error.downcast_ref::<config::settings::Error>().is_some();
    let of_start = error.downcast_ref::<StartError>();
    let is_of_start = of_start.is_some_and(StartError::is_of_settings);
    if is_setting || is_of_start { 64 } else { 69 }
}

async fn in_process(all: Vec<Settings>, telemetry: &Telemetry) -> anyhow::Result<ExitCode> {
    let is_cluster = all.len() > 1;
    let mut nodes: Vec<NodeHandle> = Vec::new();
    let shared = match all.first().filter(|_| is_cluster) {
        Some(settings) => {
            let path = settings.node.data_dir.with_file_name("store.redb");
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            Some(Arc::new(
                tokio::task::spawn_blocking(move || EmbeddedStore::open(path)).await??,
            ))
        }
        None => None,
    };
    for settings in all {
        let name = settings.node.name.clone();
        let schemes = settings.tls.schemes();
        let node = match &shared {
            Some(store) => {
                Node::new(settings).with_store(Arc::clone(store) as Arc<dyn config::Store>)
            }
            None => Node::new(settings),
        };
        let handle = node.start(&telemetry.metrics).await?;
        let gateway::Addresses {
            functions,
            events,
            config,
        } = handle.addresses();
        announce(&name, schemes, [functions, events, config]);
        nodes.push(handle);
    }
    let failed = futures_util::future::select_all(nodes.iter().map(|node| Box::pin(node.failed())));
    let has_failed = tokio::select! {
        requested = shutdown::requested() => requested.is_err(),
        _ = failed => true,
    };
    futures_util::future::join_all(nodes.into_iter().map(NodeHandle::stop)).await;
    Ok(if has_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Tells where the functions, events and config API of a node are.
fn announce(name: &str, schemes: [&str; 3], addresses: [SocketAddr; 3]) {
    let [functions, events, config] = addresses;
    say(&format!(
        "{name}: functions {}://{functions}  events {}://{events}  config {}://{config}",
        schemes[0], schemes[1], schemes[2]
    ));
}

/// Starts each node as a process of its own, on an etcd of their own where none is given.
async fn processes(
    arguments: &DevArguments,
    settings: &Settings,
    flags: &Flags,
    etcd: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let base = &settings.node.data_dir;
    std::fs::create_dir_all(base).with_context(|| format!("node.data_dir {}", base.display()))?;
    let secret = secret_file(base)?;
    let mut children: Vec<(String, Guarded)> = Vec::new();
    let endpoint = match etcd {
        Some(etcd) => {
            let (endpoint, child) = start_etcd(etcd, base)?;
            children.push(("etcd".into(), child));
            say(&format!("etcd: {endpoint}"));
            Some(endpoint)
        }
        None => None,
    };
    for number in 1..=arguments.nodes {
        let node = numbered(arguments, settings, flags, number)?;
        let name = node.node.name.clone();
        let mut command = node_arguments(arguments, &node, &secret);
        if let Some(endpoint) = &endpoint {
            command.extend(["--etcd".into(), endpoint.into()]);
        }
        children.push((name.clone(), Guarded::start(command)?));
        let listen = &node.listen;
        let addresses = [listen.functions, listen.events, listen.config];
        announce(&name, node.tls.schemes(), addresses);
    }
    let ended = futures_util::future::select_all(
        children
            .iter_mut()
            .map(|(_, child)| Box::pin(child.child.wait())),
    );
    let ended = tokio::select! {
        requested = shutdown::requested() => { requested?; None }
        (_, index, _) = ended => Some(index),
    };
    let code = match ended {
        Some(index) => {
            say(&format!(
                "{} ended by itself: stopping all",
                children[index].0
            ));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    };
    // etcd was started first and is stopped last.
    let (nodes, stores): (Vec<_>, Vec<_>) =
        children.into_iter().partition(|(name, _)| name != "etcd");
    futures_util::future::join_all(nodes.into_iter().map(|(_, child)| child.stop())).await;
    futures_util::future::join_all(stores.into_iter().map(|(_, child)| child.stop())).await;
    Ok(code)
}

/// The settings of node `number` of several: own name, directory and ports.
fn numbered(
    arguments: &DevArguments,
    settings: &Settings,
    flags: &Flags,
    number: u16,
) -> anyhow::Result<Settings> {
    let mut flags = flags.clone();
    let step = (number - 1) * PORT_STEP;
    let name = format!("n{number}");
    let moved = |address: std::net::SocketAddr, step: u16| -> anyhow::Result<serde_json::Value> {
        let port = address
            .port()
            .checked_add(step)
            .context("the ports of the nodes end above 65535")?;
        Ok(json!(
            std::net::SocketAddr::new(address.ip(), port).to_string()
        ))
    };
    let secret = secret_file(&settings.node.data_dir)?;
    flags.insert(
        "node.data_dir".into(),
        json!(settings.node.data_dir.join(&name)),
    );
    flags.insert("node.name".into(), json!(name));
    flags.insert(
        "listen.functions".into(),
        moved(settings.listen.functions, step)?,
    );
    flags.insert("listen.events".into(), moved(settings.listen.events, step)?);
    flags.insert("listen.config".into(), moved(settings.listen.config, step)?);
    flags.insert(
        "listen.peer".into(),
        moved(settings.listen.peer, number - 1)?,
    );
    if settings.listen.inner_port != 0 {
        let port = settings.listen.inner_port.checked_add(number - 1);
        let port = port.context("the ports of the nodes end above 65535")?;
        flags.insert("listen.inner_port".into(), json!(port));
    }
    flags.insert(
        "cluster.seeds".into(),
        json!([settings.listen.peer.to_string()]),
    );
    flags.insert("cluster.secret_file".into(), json!(secret));
    Ok(Settings::load(arguments.node.settings.as_deref(), &flags)?)
}

fn node_arguments(arguments: &DevArguments, node: &Settings, secret: &Path) -> Vec<OsString> {
    let program = std::env::current_exe().unwrap_or_else(|_| "hearth".into());
    let mut command: Vec<OsString> = vec![program.into(), "node".into()];
    let mut flag = |name: &str, value: OsString| command.extend([OsString::from(name), value]);
    if let Some(file) = &arguments.node.settings {
        flag("--settings", file.into());
    }
    flag("--name", node.node.name.clone().into());
    flag("--data-dir", node.node.data_dir.clone().into());
    flag(
        "--functions-listen",
        node.listen.functions.to_string().into(),
    );
    flag("--events-listen", node.listen.events.to_string().into());
    flag("--config-listen", node.listen.config.to_string().into());
    flag("--peer-listen", node.listen.peer.to_string().into());
    flag("--cluster-secret-file", secret.into());
    flag("--docker-host", node.docker.host.clone().into());
    // Those of the file come with it, settings of their own included.
    for plugin in &arguments.node.plugin {
        flag("--plugin", plugin.into());
    }
    for seed in &node.cluster.seeds {
        flag("--seed", seed.into());
    }
    if !node.store.etcd.endpoints.is_empty() {
        flag("--etcd", node.store.etcd.endpoints.join(",").into());
    }
    // The later one counts: a port that was set is this node's own.
    for (key, value) in &arguments.node.set {
        flag("--set", format!("{key}={value}").into());
    }
    let inner_port = node.listen.inner_port;
    flag("--set", format!("listen.inner_port={inner_port}").into());
    if node.process.allow {
        command.push("--allow-process".into());
    }
    command
}

/// A process that ends with this one, even by `kill -9`: it runs under the guard of instances.
struct Guarded {
    child: Child,
    link: UnixStream,
}

impl Guarded {
    fn start(command: Vec<OsString>) -> anyhow::Result<Self> {
        let (link, theirs) = UnixStream::pair()?;
        let program = std::env::current_exe().context("the path of this program")?;
        let child = Command::new(program)
            .arg(GUARD)
            .arg("--")
            .args(command)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // A Ctrl-C at the terminal is this process's to hand on, in order.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, link })
    }

    async fn stop(self) {
        use std::io::Write;
        let Self {
            mut child,
            mut link,
        } = self;
        // One byte asks the guard to hand SIGTERM on; a guard that is gone needs none.
        let _ = link.write_all(&[providers::process::guard::TERMINATE]);
        if tokio::time::timeout(STOP_TIMEOUT, child.wait())
            .await
            .is_err()
        {
            // Without its link the guard kills all that is left.
            drop(link);
            let _ = child.wait().await;
        }
    }
}

fn start_etcd(etcd: &Path, base: &Path) -> anyhow::Result<(String, Guarded)> {
    let (client, peer) = (free_port()?, free_port()?);
    let (client, peer) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let texts = [
        "--data-dir".into(),
        base.join("etcd").into_os_string(),
        "--listen-client-urls".into(),
        client.clone().into(),
        "--advertise-client-urls".into(),
        client.clone().into(),
        "--listen-peer-urls".into(),
        peer.clone().into(),
        "--initial-advertise-peer-urls".into(),
        peer.clone().into(),
        "--initial-cluster".into(),
        format!("default={peer}").into(),
        "--force-new-cluster".into(),
        "--log-level".into(),
        "error".into(),
    ];
    let command = std::iter::once(etcd.as_os_str().to_owned())
        .chain(texts)
        .collect();
    Ok((client, Guarded::start(command)?))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn find_etcd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("etcd"))
        .find(|file| file.is_file())
}

/// The secret of the nodes of one directory, made once.
fn secret_file(base: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::create_dir_all(base).with_context(|| format!("node.data_dir {}", base.display()))?;
    let path = base.join("cluster-secret");
    match std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
    {
        Ok(mut file) => {
            use std::io::Write;
            let text = format!(
                "{}{}",
                protocol::NodeId::random(),
                protocol::NodeId::random()
            );
            file.write_all(text.as_bytes())?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => bail!("{}: {error}", path.display()),
    }
    Ok(path)
}

fn say(text: &str) {
    use std::io::Write;
    // A reader that went away wants no more.
    let _ = writeln!(std::io::stdout(), "{text}");
}
