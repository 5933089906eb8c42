//! Where URLs may lead that users name: not to this machine, its links or the cluster, unless the settings say so.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The addresses of the cluster's nodes and of this machine, as they are known now.
pub type OwnAddresses = Arc<dyn Fn() -> Vec<Range> + Send + Sync>;

/// An address, and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The address.
    pub first: IpAddr,
    /// The bits that count; more than it has are all.
    pub bits: u8,
}

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
    Range(Range),
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} is at {address}, which is loopback, link-local, or of this machine or the cluster, and not in outbound.allow"
)]
pub(super) struct Forbidden {
    host: String,
    address: IpAddr,
}

impl From<Forbidden> for crate::Error {
    fn from(forbidden: Forbidden) -> Self {
        let why = forbidden.to_string();
        Self::Forbidden { why }
    }
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
        let address = reached(address);
        let is_allowed = |place: &Place| match place {
            Place::Host(allowed) => allowed.eq_ignore_ascii_case(host),
            Place::Range(range) => range.contains(address),
        };
        let is_open = !is_inward(address) && !(self.own)().iter().any(|own| own.contains(address));
        match is_open || self.allowed.iter().any(is_allowed) {
            true => Ok(()),
            false => Err(Forbidden {
                host: host.to_owned(),
                address,
            }),
        }
    }

    /// The addresses of a name that may be connected to.
    ///
    /// # Errors
    /// When it has none, or as [`Outbound::filter`].
    pub(super) async fn lookup(
        &self,
        host: &str,
    ) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let found = tokio::net::lookup_host((host, 0)).await?.collect();
        Ok(self.filter(host, found)?)
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
            let found = guard.lookup(&host).await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
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

impl Range {
    /// One address.
    pub fn one(address: IpAddr) -> Self {
        Self {
            first: address.to_canonical(),
            bits: u8::MAX,
        }
    }

    /// Whether the first bits of both are the same.
    fn contains(&self, address: IpAddr) -> bool {
        match (address, self.first) {
            (IpAddr::V4(address), IpAddr::V4(first)) => {
                let differing = address.to_bits() ^ first.to_bits();
                differing.leading_zeros() >= u32::from(self.bits.min(32))
            }
            (IpAddr::V6(address), IpAddr::V6(first)) => {
                let differing = address.to_bits() ^ first.to_bits();
                differing.leading_zeros() >= u32::from(self.bits.min(128))
            }
            _ => false,
        }
    }
}

impl Place {
    fn read(entry: &str) -> Self {
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) => (address, bits.parse().ok()),
            None => (entry, None),
        };
        match address.parse::<IpAddr>() {
            Ok(first) => Self::Range(Range {
                first,
                bits: bits.unwrap_or(u8::MAX),
            }),
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

/// The address that is reached by another one: IPv4 addresses can be written as IPv6, some of which a gateway translates.
fn reached(address: IpAddr) -> IpAddr {
    let IpAddr::V6(written) = address.to_canonical() else {
        return address.to_canonical();
    };
    let low = |bits: u128| u32::try_from(bits & u128::from(u32::MAX)).unwrap_or_default();
    let bits = written.to_bits();
    let inner = match written.segments() {
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => low(bits),
        // 6to4 (RFC 3056).
        [0x2002, ..] => low(bits >> 80),
        // The old IPv4-compatible form (RFC 4291), but for the unspecified and the loopback address.
        [0, 0, 0, 0, 0, 0, ..] if bits > 1 => low(bits),
        _ => return address,
    };
    IpAddr::V4(inner.into())
}

/// Finds the error of the guard in what a library makes of it.
pub(super) fn forbidden_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Forbidden> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Forbidden>() {
            return Some(found);
        }
        // An I/O error does not count what it was made of among its sources.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allowed: &[&str]) -> Outbound {
        let allowed: Vec<_> = allowed.iter().map(|&entry| entry.to_owned()).collect();
        let own = || {
            let bridge = Range {
                first: "172.30.0.1".parse().unwrap(),
                bits: 24,
            };
            vec![Range::one("10.1.0.7".parse().unwrap()), bridge]
        };
        let own = Arc::new(own);
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
        check(&[], "http://172.30.1.9/", true);
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
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://172.30.0.9:8080/",
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
