//! The port of the inner listener where the settings name none.
//!
//! Instances are told the port in their environment and outlive their node's process, so it must be the same after a restart. It
//! follows from the node's id, so that nodes that share a machine hardly ever want the same one; where they do, the next one is taken.

use protocol::{InstanceKey, NodeId};

/// Below the ports that outgoing connections take theirs from (32768 on Linux).
const FIRST: u16 = 28_000;
const COUNT: u16 = 4_700;
/// Ports that are tried.
const TRIES: u16 = 100;

/// The ports of a node, best first.
pub(super) fn of_node(id: &NodeId) -> impl Iterator<Item = u16> {
    let hash = InstanceKey::hash([id.as_str().as_bytes()]);
    let [first, second, ..] = *hash.as_bytes();
    let start = u16::from_be_bytes([first, second]) % COUNT;
    (0..TRIES).map(move |step| FIRST + (start + step) % COUNT)
}

/// Binds the first port that is free.
///
/// # Errors
/// That of the last one, when none is.
pub(super) fn bind_first_of<T, E>(
    ports: impl Iterator<Item = u16>,
    bind: impl Fn(u16) -> Result<T, E>,
) -> Result<T, E> {
    let mut last = None;
    for port in ports {
        match bind(port) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("there is a port to try"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ports(id: &str) -> Vec<u16> {
        of_node(&id.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_has_the_same_ports_after_each_start() {
        assert_eq!(ports("node-1"), ports("node-1"));
        let firsts: HashSet<u16> = (0..20).map(|n| ports(&format!("node-{n}"))[0]).collect();
        assert!(firsts.len() > 15, "{firsts:?}");
        for n in 0..500 {
            let ports = ports(&format!("node-{n}"));
            assert!(ports.iter().all(|port| (28_000..32_700).contains(port)));
            assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 100);
        }
    }

    #[test]
    fn the_first_free_port_is_taken() {
        let taken = |port| if port < 3 { Err(port) } else { Ok(port) };
        assert_eq!(bind_first_of(1..9, taken), Ok(3));
        assert_eq!(bind_first_of(1..3, taken), Err(2));
    }
}
