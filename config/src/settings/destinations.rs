//! `[destinations]`: where ends of executions and deliveries are told.

use std::net::IpAddr;
use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

/// Payload and result, with all that is escaped in them, have to fit into one batch of a queue.
const VALUE_MAX: ByteSize = ByteSize::kib(64);

section! {
    /// Where ends of executions and deliveries are told: callbacks, `onSuccess` and `onFailure`.
    pub struct DestinationsSettings {
        /// How many ends may lead to each other, as when a function is its own `onSuccess`; one more is a dead letter.
        pub depth_max: u32 = 8,
        /// Bytes of a payload, and of a result, that are told; of a longer one the beginning. 64 KiB at most.
        #[serde(with = "size")]
        pub value_max: ByteSize = ByteSize::kib(16),
        /// How long a URL may take to answer.
        #[serde(with = "humantime_serde")]
        pub timeout: Duration = Duration::from_secs(5),
        /// Hosts, addresses and ranges of addresses (`10.0.0.0/8`) that URLs may lead to although they are loopback, link-local or the cluster's own, with `auth.mode = "required"`; without auth all are allowed.
        pub allow: Vec<String> = Vec::new(),
    }
}

impl DestinationsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("destinations", self: depth_max, value_max, timeout);
        require(
            self.value_max <= VALUE_MAX,
            "destinations.value_max",
            size::text(self.value_max),
            "a size of at most 64KiB",
        )?;
        let wrong = self.allow.iter().find(|entry| !is_place(entry));
        match wrong {
            None => Ok(()),
            Some(entry) => require(
                false,
                "destinations.allow",
                entry,
                "a host, an address, or an address and the bits that count, such as 10.0.0.0/8",
            ),
        }
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
