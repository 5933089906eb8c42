//! Network namespaces with links that a test can cut.
//!
//! ```text
//! root ── management link ── node i        always up: the test calls the node, whatever else is cut
//! root ──┐
//!        hub (a bridge in a namespace of its own, out of reach of the host's packet filter)
//! node i ┘                                 peers, gossip and the store: cut and healed
//! ```
//!
//! Functions of the test itself are reached over the management links too.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use crate::node::Place;

/// A hub with one namespace per node; all of it goes when this value is dropped.
#[derive(Debug)]
pub struct Network {
    number: u8,
    nodes: u8,
}

impl Network {
    /// Makes the hub and its namespaces. `number` is unique on this machine, as [`crate::ports::Ports::number`] is.
    ///
    /// # Panics
    /// When it can not, for want of root for instance.
    pub fn create(number: u16, nodes: u8) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "cutting links needs root, to make network namespaces"
        );
        let number = u8::try_from(number).expect("block numbers are below 250");
        let network = Self { number, nodes };
        network.delete();
        let hub = network.hub();
        ip(&["netns", "add", &hub]);
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &hub, "link", "set", "bridge", "up"]);
        let root = network.root_link();
        ip(&[
            "link", "add", &root, "type", "veth", "peer", "name", "root", "netns", &hub,
        ]);
        ip(&["-n", &hub, "link", "set", "root", "master", "bridge", "up"]);
        ip(&[
            "address",
            "add",
            &format!("{}/24", network.root_address()),
            "dev",
            &root,
        ]);
        let test = format!("{}/32", network.test_address());
        ip(&["address", "add", &test, "dev", &root]);
        ip(&["link", "set", &root, "up"]);
        for node in 0..nodes {
            network.add_node(node);
        }
        network
    }

    /// The test's own address on the hub, for the store.
    pub fn root_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 254)
    }

    /// The test's own address that all nodes reach whatever is cut, for functions that it serves.
    pub fn test_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.number, 254)
    }

    /// Where a node lives.
    pub fn place(&self, node: u8) -> Place {
        Place {
            namespace: self.namespace(node),
            peer_address: IpAddr::V4(self.hub_address(node)),
            client_address: IpAddr::V4(Ipv4Addr::new(198, 19, self.number, node * 4 + 2)),
        }
    }

    /// Cuts a node off from its peers and the store.
    pub fn cut(&self, node: u8) {
        ip(&[
            "-n",
            &self.hub(),
            "link",
            "set",
            &format!("node{node}"),
            "down",
        ]);
    }

    /// Ends the cut.
    pub fn heal(&self, node: u8) {
        ip(&[
            "-n",
            &self.hub(),
            "link",
            "set",
            &format!("node{node}"),
            "up",
        ]);
    }

    /// Cuts the link between two nodes; both still reach all others and the store.
    pub fn cut_between(&self, one: u8, other: u8) {
        self.route_between("add", one, other);
    }

    /// Ends such a cut.
    pub fn heal_between(&self, one: u8, other: u8) {
        self.route_between("delete", one, other);
    }

    /// Adds or deletes routes to nowhere on both sides.
    fn route_between(&self, change: &str, one: u8, other: u8) {
        for (from, to) in [(one, other), (other, one)] {
            let (namespace, to) = (self.namespace(from), self.hub_address(to).to_string());
            ip(&["-n", &namespace, "route", change, "blackhole", &to]);
        }
    }

    fn add_node(&self, node: u8) {
        let (hub, namespace) = (self.hub(), self.namespace(node));
        ip(&["netns", "add", &namespace]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);

        let port = format!("node{node}");
        ip(&[
            "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "peers", "netns",
            &namespace,
        ]);
        ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"]);
        ip(&[
            "-n",
            &namespace,
            "address",
            "add",
            &format!("{}/24", self.hub_address(node)),
            "dev",
            "peers",
        ]);
        ip(&["-n", &namespace, "link", "set", "peers", "up"]);

        let link = self.management_link(node);
        ip(&[
            "link", "add", &link, "type", "veth", "peer", "name", "clients", "netns", &namespace,
        ]);
        let ours = Ipv4Addr::new(198, 19, self.number, node * 4 + 1);
        let IpAddr::V4(theirs) = self.place(node).client_address else {
            unreachable!("it is built from V4")
        };
        ip(&["address", "add", &format!("{ours}/30"), "dev", &link]);
        ip(&["link", "set", &link, "up"]);
        ip(&[
            "-n",
            &namespace,
            "address",
            "add",
            &format!("{theirs}/30"),
            "dev",
            "clients",
        ]);
        ip(&["-n", &namespace, "link", "set", "clients", "up"]);
        let (test, via) = (self.test_address().to_string(), ours.to_string());
        ip(&["-n", &namespace, "route", "add", &test, "via", &via]);
    }

    fn hub_address(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, node + 1)
    }

    fn hub(&self) -> String {
        format!("hearth-{}-{}-hub", std::process::id(), self.number)
    }

    fn namespace(&self, node: u8) -> String {
        format!("hearth-{}-{}-{node}", std::process::id(), self.number)
    }

    // Interface names have 15 characters at most; numbers are unique among live sandboxes.
    fn root_link(&self) -> String {
        format!("hearth{}", self.number)
    }

    fn management_link(&self, node: u8) -> String {
        format!("hearth{}m{node}", self.number)
    }

    /// Deletes what is there, also what a test that was killed left under these names.
    fn delete(&self) {
        let quietly = |arguments: &[&str]| {
            let _ = Command::new("ip")
                .args(arguments)
                .stderr(Stdio::null())
                .status();
        };
        quietly(&["link", "delete", &self.root_link()]);
        for node in 0..self.nodes {
            quietly(&["link", "delete", &self.management_link(node)]);
            quietly(&["netns", "delete", &self.namespace(node)]);
        }
        quietly(&["netns", "delete", &self.hub()]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.delete();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("ip {arguments:?}: {error} (package iproute2)"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {errors}");
}
