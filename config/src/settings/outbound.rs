//! `[outbound]`: where URLs may lead that users name.

use std::net::IpAddr;

use super::Error;
use super::error::require;
use super::field::section;

section! {
    /// Where URLs may lead that users name: webhooks and what they redirect to, callbacks, destinations.
    pub struct OutboundSettings {
        /// Hosts, addresses and ranges of addresses (`10.0.0.0/8`) that they may lead to although these are loopback, link-local, this machine's or the cluster's own, with `auth.mode = "required"`; without auth all are allowed.
        pub allow: Vec<String> = Vec::new(),
    }
}

impl OutboundSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let Some(wrong) = self.allow.iter().find(|entry| !is_place(entry)) else {
            return Ok(());
        };
        require(
            false,
            "outbound.allow",
            wrong,
            "a host, an address, or an address and the bits that count, such as 10.0.0.0/8",
        )
    }
}

/// Whether it is a host, an address, or a range of addresses.
fn is_place(entry: &str) -> bool {
    match entry.split_once('/') {
        None => !entry.is_empty() && !entry.contains(|c: char| c.is_whitespace() || c == '*'),
        Some((address, bits)) => {
            let bits_max = match address.parse() {
                Ok(IpAddr::V4(_)) => 32,
                Ok(IpAddr::V6(_)) => 128,
                Err(_) => return false,
            };
            bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_addresses_and_ranges() {
        for (entry, expected) in [
            ("hooks.internal", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("10.0.0.0/8", true),
            ("fd00::/8", true),
            ("10.0.0.0/33", false),
            ("hooks/8", false),
            ("*.internal", false),
            ("", false),
        ] {
            assert_eq!(is_place(entry), expected, "{entry}");
        }
    }
}
