//! What a node says of itself as gossip keys, and back.
//!
//! | key | value |
//! |---|---|
//! | `about` | JSON: name, version, protocol version, certificate fingerprint; never changes while the node runs |
//! | `addresses` | JSON: where its APIs are reached |
//! | `status` | JSON: draining, engine, processes, ids of the cluster's secrets |
//! | `load` | JSON: how busy it is |
//! | `hint:<instance key>` | `<free slots>/<instances>` |
//! | `img:<digest>` | empty |
//!
//! JSON groups are read with defaults, so that nodes of neighbouring versions understand each other. What a peer says is never
//! trusted to be well formed: a value that can not be read is passed over and counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use config::settings::SECRETS_MAX;
use protocol::InstanceKey;
use serde::{Deserialize, Serialize};

use super::{Load, LocalState};
use crate::hint::Hint;
use crate::peer::Fingerprint;

const ABOUT: &str = "about";
const ADDRESSES: &str = "addresses";
const STATUS: &str = "status";
const LOAD: &str = "load";
const HINT: &str = "hint:";
const IMAGE: &str = "img:";

/// The most hints, and the most images, that are read of one peer: more than anybody is set to send.
const READ_MAX: usize = 4096;
/// The longest name and version that are read of a peer.
const NAME_BYTES_MAX: usize = 128;
/// The longest name of a secret that is read of a peer.
const SECRET_ID_BYTES_MAX: usize = 64;
/// The longest digest that is gossiped or read.
const DIGEST_BYTES_MAX: usize = 256;

#[derive(Serialize, Deserialize)]
struct About {
    name: String,
    #[serde(default)]
    version: String,
    protocol: u32,
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct Addresses {
    functions: SocketAddr,
    config: SocketAddr,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Status {
    draining: bool,
    engine: bool,
    processes: bool,
    secrets: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct LoadValue {
    in_flight: u32,
    instances: u32,
    instances_max: u32,
    memory_used_mb: u64,
    memory_max_mb: u64,
}

/// How many hints and images are gossiped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) hints_max: usize,
    pub(super) images_max: usize,
}

/// The keys and values that say a state.
pub(super) fn write(
    state: &LocalState,
    fingerprint: Fingerprint,
    bounds: Bounds,
) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::from([
        (
            ABOUT.to_owned(),
            json(&About {
                name: state.name.clone(),
                version: state.version.clone(),
                protocol: state.protocol_version,
                fingerprint: hex::encode(fingerprint.0),
            }),
        ),
        (
            ADDRESSES.to_owned(),
            json(&Addresses {
                functions: state.functions_address,
                config: state.config_address,
            }),
        ),
        (
            STATUS.to_owned(),
            json(&Status {
                draining: state.is_draining,
                engine: state.has_engine,
                processes: state.allows_processes,
                secrets: state.secrets.clone(),
            }),
        ),
        (
            LOAD.to_owned(),
            json(&LoadValue {
                in_flight: state.load.in_flight,
                instances: state.load.instances,
                instances_max: state.load.instances_max,
                memory_used_mb: state.load.memory_used_mb,
                memory_max_mb: state.load.memory_max_mb,
            }),
        ),
    ]);
    let hints = state.hints.iter().take(bounds.hints_max);
    entries.extend(hints.map(|hint| (format!("{HINT}{}", hint.key), hint.pack())));
    let images = state
        .images
        .iter()
        .filter(|digest| is_digest(digest))
        .take(bounds.images_max);
    entries.extend(images.map(|digest| (format!("{IMAGE}{digest}"), String::new())));
    entries
}

/// What a peer says of itself; `None` while it has not said enough to be called.
pub(super) fn read<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<(LocalState, Fingerprint)> {
    let (mut about, mut addresses, mut status, mut load) = (None, None, None, None);
    let (mut hints, mut images) = (Vec::new(), Vec::new());
    for (key, value) in pairs {
        if let Some(instance_key) = key.strip_prefix(HINT) {
            if hints.len() < READ_MAX {
                hints.extend(counted("hint", read_hint(instance_key, value)));
            }
        } else if let Some(digest) = key.strip_prefix(IMAGE) {
            if images.len() < READ_MAX {
                images.extend(counted(
                    "image",
                    is_digest(digest).then(|| digest.to_owned()),
                ));
            }
        } else {
            match key {
                ABOUT => about = counted("about", read_about(value)),
                ADDRESSES => addresses = counted::<Addresses>("addresses", parse(value)),
                STATUS => status = counted("status", read_status(value)),
                LOAD => load = counted::<LoadValue>("load", parse(value)),
                _ => {} // of a later version
            }
        }
    }
    let (about, fingerprint) = about?;
    let addresses = addresses?;
    let (status, load) = (status.unwrap_or_default(), load.unwrap_or_default());
    let state = LocalState {
        name: about.name,
        version: about.version,
        protocol_version: about.protocol,
        functions_address: addresses.functions,
        config_address: addresses.config,
        is_draining: status.draining,
        has_engine: status.engine,
        allows_processes: status.processes,
        secrets: status.secrets,
        load: Load {
            in_flight: load.in_flight,
            instances: load.instances,
            instances_max: load.instances_max,
            memory_used_mb: load.memory_used_mb,
            memory_max_mb: load.memory_max_mb,
        },
        hints,
        images,
    };
    Some((state, fingerprint))
}

fn read_hint(instance_key: &str, value: &str) -> Option<Hint> {
    let instance_key: InstanceKey = instance_key.parse().ok()?;
    Hint::unpack(instance_key, value)
}

fn read_about(value: &str) -> Option<(About, Fingerprint)> {
    let about: About = parse(value)?;
    let is_text = |text: &str| {
        text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if about.name.is_empty() || !is_text(&about.name) || !is_text(&about.version) {
        return None;
    }
    let mut fingerprint = [0; 32];
    hex::decode_to_slice(&about.fingerprint, &mut fingerprint).ok()?;
    Some((about, Fingerprint(fingerprint)))
}

fn read_status(value: &str) -> Option<Status> {
    let status: Status = parse(value)?;
    let is_right = status.secrets.len() <= SECRETS_MAX
        && status
            .secrets
            .iter()
            .all(|id| id.len() <= SECRET_ID_BYTES_MAX);
    is_right.then_some(status)
}

fn is_digest(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= DIGEST_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn parse<'a, T: Deserialize<'a>>(value: &'a str) -> Option<T> {
    serde_json::from_str(value).ok()
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("structs of texts and numbers have a JSON form")
}

fn counted<T>(what: &'static str, value: Option<T>) -> Option<T> {
    if value.is_none() {
        metrics::counter!("hearth_gossip_malformed_total", "value" => what).increment(1);
    }
    value
}

#[cfg(test)]
mod tests;
