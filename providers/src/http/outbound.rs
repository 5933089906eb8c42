//! Where URLs may lead that users name: not to this machine, its links or the cluster, unless the settings say so.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The addresses of the cluster's nodes, as they are known now.
pub type OwnAddresses = Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>;

/// Says where requests may go, by the addresses that names resolve to.
#[derive(Clone)]
pub struct Outbound {
    allowed: Arc<[Place]>,
    own: OwnAddresses,
}

/// What the settings allow.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Host(String),
    /// An address, and how many of its first bits count.
    Range(IpAddr, u8),
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} is at {address}, which is loopback, link-local or the cluster's own, and not in destinations.allow"
)]
pub(super) struct Forbidden {
    host: String,
    address: IpAddr,
}

impl Outbound {
    /// Allows these hosts, addresses and ranges, and whatever is neither this machine's, nor link-local, nor of `own`.
    pub fn new(allowed: &[String], own: OwnAddresses) -> Self {
        let allowed = allowed.iter().map(|entry| Place::read(entry));
        let allowed = allowed.collect();
        Self { allowed, own }
    }

    /// Asks about a URL whose host is an address, which is resolved by nobody.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub(super) fn check_literal(&self, url: &Url) -> Result<(), Forbidden> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.check(&address.to_string(), address)
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), Forbidden> {
        let address = address.to_canonical();
        let is_allowed = |place: &Place| match place {
            Place::Host(allowed) => allowed.eq_ignore_ascii_case(host),
            Place::Range(first, bits) => has_prefix(address, *first, *bits),
        };
        let is_open = !is_inward(address) && !(self.own)().contains(&address);
        match is_open || self.allowed.iter().any(is_allowed) {
            true => Ok(()),
            false => Err(Forbidden {
                host: host.to_owned(),
                address,
            }),
        }
    }

    /// Those of these addresses that may be connected to.
    ///
    /// # Errors
    /// [`Forbidden`], when there are some and none may.
    fn filter(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Forbidden> {
        let mut refused = None;
        let mut open = Vec::with_capacity(found.len());
        for address in found {
            match self.check(host, address.ip()) {
                Ok(()) => open.push(address),
                Err(forbidden) => refused = Some(forbidden),
            }
        }
        match refused {
            Some(forbidden) if open.is_empty() => Err(forbidden),
            _ => Ok(open),
        }
    }
}

impl Resolve for Outbound {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, host) = (self.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let open = guard.filter(&host, found)?;
            let addresses: Addrs = Box::new(open.into_iter());
            Ok::<_, Box<dyn Error + Send + Sync>>(addresses)
        })
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

impl Place {
    fn read(entry: &str) -> Self {
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) => (address, bits.parse().ok()),
            None => (entry, None),
        };
        match address.parse::<IpAddr>() {
            Ok(address) => Self::Range(address, bits.unwrap_or(u8::MAX)),
            Err(_) => Self::Host(entry.to_owned()),
        }
    }
}

/// Whether it is this machine's, of one of its links, or of nobody.
fn is_inward(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let is_this_network = address.octets()[0] == 0;
            is_this_network
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address == Ipv4Addr::BROADCAST
        }
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_multicast()
        }
    }
}

/// Whether the first bits of both are the same.
fn has_prefix(address: IpAddr, first: IpAddr, bits: u8) -> bool {
    match (address, first) {
        (IpAddr::V4(address), IpAddr::V4(first)) => {
            let differing = address.to_bits() ^ first.to_bits();
            differing.leading_zeros() >= u32::from(bits.min(32))
        }
        (IpAddr::V6(address), IpAddr::V6(first)) => {
            let differing = address.to_bits() ^ first.to_bits();
            differing.leading_zeros() >= u32::from(bits.min(128))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allowed: &[&str]) -> Outbound {
        let allowed: Vec<_> = allowed.iter().map(|&entry| entry.to_owned()).collect();
        let own = Arc::new(|| vec!["10.1.0.7".parse().unwrap()]);
        Outbound::new(&allowed, own)
    }

    fn check(allowed: &[&str], url: &str, expected: bool) {
        let url = Url::parse(url).unwrap();
        let is_open = guard(allowed).check_literal(&url).is_ok();
        assert_eq!(is_open, expected, "{url} with {allowed:?}");
    }

    #[test]
    fn what_leads_inward_is_refused_unless_it_is_listed() {
        check(&[], "http://93.184.216.34/", true);
        check(&[], "http://10.1.0.8/", true);
        check(&[], "http://[2001:db8::1]/", true);
        for inward in [
            "http://127.0.0.1:4001/",
            "http://127.9.9.9/",
            "http://0.0.0.0/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://10.1.0.7:3000/",
            "http://[::1]/",
            "http://[::]/",
            "http://[fe80::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:10.1.0.7]/",
        ] {
            check(&[], inward, false);
            check(&["0.0.0.0/0", "::/0"], inward, true);
        }
        check(&["127.0.0.1"], "http://127.0.0.1/", true);
        check(&["127.0.0.1"], "http://127.0.0.2/", false);
        check(&["10.1.0.0/16"], "http://10.1.0.7/", true);
        check(&["10.2.0.0/16"], "http://10.1.0.7/", false);
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let resolve = async |allowed: &[&str]| {
            let found = guard(allowed).resolve("localhost".parse().unwrap()).await;
            found.map(|found| found.count() > 0)
        };
        let refused = resolve(&[]).await.unwrap_err();
        assert!(refused.downcast_ref::<Forbidden>().is_some(), "{refused}");
        assert!(resolve(&["localhost"]).await.unwrap());
        assert!(resolve(&["127.0.0.0/8", "::1"]).await.unwrap());
        let mixed = ["127.0.0.1:0", "93.184.216.34:0"].map(|address| address.parse().unwrap());
        let open = guard(&[]).filter("h", mixed.to_vec()).unwrap();
        assert_eq!(open, mixed[1..]);
    }
}
