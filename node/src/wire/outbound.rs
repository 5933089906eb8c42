//! Where URLs may lead that users name: which addresses are the cluster's and this machine's.

use std::net::IpAddr;
use std::sync::Arc;

use cluster::Membership;
use config::Settings;
use config::settings::AuthMode;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use providers::docker::is_bridge;
use providers::http::{Outbound, OwnAddresses, Range};

/// The rule for webhooks, callbacks and destinations. Without auth there is none: who may call may do everything anyway.
pub(crate) fn outbound(settings: &Settings, membership: &Membership) -> Option<Arc<Outbound>> {
    if settings.auth.mode == AuthMode::Off {
        return None;
    }
    let (members, advertised) = (membership.members(), membership.advertised());
    let own: OwnAddresses = Arc::new(move || {
        let members = Arc::clone(&members.borrow());
        let known = members.values().flat_map(|member| {
            let state = &member.state;
            let apis = [state.functions_address, state.config_address];
            apis.into_iter().chain([member.peer.address])
        });
        let nodes = known.chain([advertised]);
        let nodes = nodes.map(|address| Range::one(address.ip()));
        nodes.chain(of_this_machine()).collect()
    });
    Some(Arc::new(Outbound::new(&settings.outbound.allow, own)))
}

/// The addresses of this machine's interfaces, and all that containers of functions have. They are read anew each time, which is
/// one exchange with the kernel for each connection that is made: interfaces come and go.
fn of_this_machine() -> Vec<Range> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::error!(%error, "the addresses of this machine can not be read, so URLs may lead to them");
            return Vec::new();
        }
    };
    let range = |interface: nix::ifaddrs::InterfaceAddress| {
        let first = ip(interface.address.as_ref()?)?;
        let mask = interface.netmask.as_ref().and_then(ip);
        Some(
            match mask.filter(|_| is_bridge(&interface.interface_name)) {
                Some(mask) => Range {
                    first,
                    bits: ones(mask),
                },
                None => Range::one(first),
            },
        )
    };
    interfaces.filter_map(range).collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(address.ip().into());
    }
    address.as_sockaddr_in6().map(|address| address.ip().into())
}

/// The length of a network's prefix.
fn ones(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    u8::try_from(ones).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback_address() {
        let loopback = Range::one(std::net::Ipv4Addr::LOCALHOST.into());
        assert!(of_this_machine().contains(&loopback));
        assert_eq!(ones("255.255.240.0".parse().unwrap()), 20);
        assert_eq!(ones("ffff:ffff::".parse().unwrap()), 32);
    }
}
