//! Says what `pick` would choose now, and from what.

use std::collections::BTreeMap;

use protocol::api;
use serde_json::json;

use super::{Attempt, Invoker};
use crate::registry_cache::Registered;
use crate::router::pick::{Choice, Local, Remote, Shed, Site, pick};

impl Invoker {
    /// What `pick` would choose now for a function, and why.
    pub(crate) fn explain(&self, registered: &Registered) -> api::Route {
        let own_name = self.parts.node_name.to_string();
        if registered.function.contract().is_none() {
            let why = "a remote function is called from the node that is asked".to_owned();
            return api::Route {
                choice: "local".into(),
                node: Some(own_name),
                why,
                inputs: BTreeMap::new(),
            };
        }
        let pools = self.parts.pools.load();
        let Some(pool) = pools.get(registered.key) else {
            let why = "the function was registered this moment and has no pool yet".to_owned();
            return api::Route {
                choice: "wait".into(),
                node: Some(own_name),
                why,
                inputs: BTreeMap::new(),
            };
        };
        let (local, peers, question) = self.view(registered, pool, &Attempt::new());
        let choice = pick(&local, &peers, &question);
        let routes = self.parts.routes.load();
        let name =
            |id: &protocol::NodeId| routes.peers.get(id).map(|route| route.peer.name.clone());
        let (word, node, why) = match &choice {
            Choice::Local => ("local", Some(own_name), "a slot is free here"),
            Choice::Peer(id) => (
                "peer",
                name(id),
                "no slot is free here, one is on that peer",
            ),
            Choice::Wait => (
                "wait",
                Some(own_name),
                "no slot is free anywhere and scaling.max is reached",
            ),
            Choice::Cold => (
                "cold",
                Some(own_name),
                "no slot is free anywhere, and an instance fits best here",
            ),
            Choice::ColdAt(id) => (
                "cold",
                name(id),
                "no slot is free anywhere, and an instance fits best there, or waits there",
            ),
            Choice::Shed(Shed::FunctionBusy) => (
                "shed",
                None,
                "every instance is busy and enough invocations wait",
            ),
            Choice::Shed(Shed::NoRoom) => ("shed", None, "no node has room for an instance"),
            Choice::Shed(Shed::NoSite) => ("shed", None, "no node runs this type of function"),
        };
        let mut inputs = BTreeMap::from([
            ("local".to_owned(), local_json(&local)),
            ("instancesMax".to_owned(), json!(question.instances_max)),
            ("packUntil".to_owned(), json!(question.pack_until)),
        ]);
        for peer in &peers {
            inputs.insert(
                format!("peer {}", name(&peer.id).unwrap_or_default()),
                remote_json(peer),
            );
        }
        api::Route {
            choice: word.into(),
            node,
            why: why.into(),
            inputs,
        }
    }
}

fn local_json(local: &Local) -> serde_json::Value {
    json!({
        "freeSlots": local.free_slots,
        "instances": local.instances,
        "mayWait": local.may_wait,
        "site": site_json(&local.site),
    })
}

fn remote_json(peer: &Remote) -> serde_json::Value {
    json!({
        "freeSlots": peer.free_slots,
        "instances": peer.instances,
        "inFlight": peer.in_flight,
        "site": site_json(&peer.site),
    })
}

fn site_json(site: &Site) -> serde_json::Value {
    json!({
        "canRun": site.can_run,
        "hasImage": site.has_image,
        "hasRoom": site.has_room,
        "load": site.load,
        "rank": format!("{:016x}", site.rank),
    })
}
