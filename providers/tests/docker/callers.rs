//! Containers that call their node: what they are told, whom they reach, and for how long.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use protocol::Function;
use providers::{Launch, Launched};
use serde_json::json;

use super::engine::Cluster;
use super::program::{eventually, invocation, spec};
use super::{container, http, text};

/// The address and token that a function tells of its environment.
async fn told_of_node(launched: &Launched, function: &Function) -> Option<(SocketAddr, String)> {
    let env = invocation(function, "env");
    let env = launched.invoke.invoke(function, &env).await.unwrap();
    let variable = |name: &str| {
        let mut lines = text(&env).lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let url = variable("HEARTH_URL")?;
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    Some((address, variable("HEARTH_TOKEN").unwrap()))
}

#[tokio::test]
async fn an_instance_may_call_its_node_and_nothing_else_there() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let function = http(json!({}));
    let launched = docker.start(spec(&function)).await.unwrap();
    let (address, token) = told_of_node(&launched, &function).await.unwrap();
    let inspected = cluster.client.inspect_container(launched.id.as_str(), None);
    let networks = inspected.await.unwrap().network_settings.unwrap().networks;
    let network = networks.unwrap().into_values().next().unwrap();
    assert_eq!(network.gateway, Some(address.ip().to_string()));
    let own: IpAddr = network.ip_address.unwrap().parse().unwrap();
    let instance = cluster.callers.find(token.as_bytes()).unwrap();
    assert_eq!(instance.function_id, function.function_id);
    assert!(instance.is_at(own).await && !instance.is_at(address.ip()).await);

    // What listens on loopback, as a node's other listeners do, is not to be reached there.
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = SocketAddr::new(address.ip(), loopback.local_addr().unwrap().port());
    for (target, expected) in [(address, "connected"), (other, "refused")] {
        let connect = invocation(&function, &format!("connect {target}"));
        let tried = launched.invoke.invoke(&function, &connect).await.unwrap();
        assert!(
            text(&tried).starts_with(expected),
            "{target}: {}",
            text(&tried)
        );
    }

    // A later incarnation knows it again; one that listens elsewhere does not take it over.
    let restarted = cluster.provider(2).await;
    let found = restarted.list().await.unwrap().remove(0);
    let adopted = restarted
        .adopt(&found, Arc::clone(&function))
        .await
        .unwrap();
    drop(adopted);
    let again = cluster.callers.find(token.as_bytes()).unwrap();
    assert!(again.is_at(own).await);
    restarted.stop(&found.id).await.unwrap();
    assert!(cluster.callers.find(token.as_bytes()).is_none());

    let closed = http(json!({"sandbox": {"network": false}}));
    let closed_in = docker.start(spec(&closed)).await.unwrap();
    assert_eq!(told_of_node(&closed_in, &closed).await, None);
    cluster.finish().await;
}

#[tokio::test]
async fn a_run_may_call_its_node_until_it_is_over() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let function = container("stdio", "stdio", json!({}));
    let call = invocation(&function, "sleep 3000");
    let running = docker.run(spec(&function), &call);
    let looking = async {
        eventually("it may call its node", || async {
            let id = cluster.containers().await.pop()?;
            let inspected = cluster.client.inspect_container(&id, None).await.ok()?;
            let env = inspected.config?.env?;
            let token = env
                .iter()
                .find_map(|line| line.strip_prefix("HEARTH_TOKEN="))?;
            let networks = inspected.network_settings?.networks?;
            let address = networks.into_values().next()?.ip_address?;
            let instance = cluster.callers.find(token.as_bytes())?;
            let is_there = instance.is_at(address.parse().ok()?).await;
            is_there.then(|| token.to_owned())
        })
        .await
    };
    let ((_, reply), token) = tokio::join!(running, looking);
    reply.unwrap();
    assert!(cluster.callers.find(token.as_bytes()).is_none());
    cluster.finish().await;
}

#[tokio::test]
async fn a_container_that_was_told_of_another_port_is_not_adopted() {
    let cluster = Cluster::new().await;
    let function = http(json!({}));
    let docker = cluster.provider(1).await;
    docker.start(spec(&function)).await.unwrap();
    let elsewhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let (sender, _listeners) = tokio::sync::mpsc::channel(1);
    let mut setup = cluster.setup(2);
    setup.callers = providers::Callers::new(elsewhere, sender);
    let restarted = providers::docker::Docker::connect(setup);
    let found = eventually("the container is found", || async {
        restarted.list().await.ok()?.pop()
    })
    .await;
    let refused = restarted.adopt(&found, function).await.unwrap_err();
    assert!(refused.to_string().contains("HEARTH_URL"), "{refused}");
    cluster.finish().await;
}
