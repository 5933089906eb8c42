//! What the edge's limits leave: room for bodies, and connections of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use config::settings::LimitsSettings;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a permit for bodies stands for.
const STEP_BYTES: usize = 1024;

/// Up to this many bytes a body takes no room: `limits.in_flight_max` bounds how many there are.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// The limits of the edge, and what is left of those that requests share.
#[derive(Debug)]
pub(crate) struct EdgeLimits {
    settings: LimitsSettings,
    bodies: Arc<Semaphore>,
}

/// The room that a body takes, given back with its last byte.
#[derive(Debug)]
pub(crate) struct Room {
    bodies: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

/// All of `limits.bodies_max` is taken.
#[derive(Debug)]
pub(crate) struct NoRoom;

impl EdgeLimits {
    /// Nothing is taken yet.
    pub(crate) fn new(settings: LimitsSettings) -> Self {
        let bytes = usize::try_from(settings.bodies_max.as_u64()).unwrap_or(usize::MAX);
        let steps = (bytes / STEP_BYTES).min(Semaphore::MAX_PERMITS);
        Self {
            settings,
            bodies: Arc::new(Semaphore::new(steps)),
        }
    }

    /// The room of a body that has no bytes yet.
    pub(crate) fn room(&self) -> Room {
        Room {
            bodies: Arc::clone(&self.bodies),
            taken: None,
        }
    }
}

impl Deref for EdgeLimits {
    type Target = LimitsSettings;

    fn deref(&self) -> &LimitsSettings {
        &self.settings
    }
}

impl Room {
    /// Makes it large enough for so many bytes.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes <= SMALL_BYTES_MAX {
            return Ok(());
        }
        let taken = self.taken.as_ref().map_or(0, |taken| taken.num_permits());
        let Some(missing) = bytes.div_ceil(STEP_BYTES).checked_sub(taken) else {
            return Ok(());
        };
        let missing = u32::try_from(missing).map_err(|_| NoRoom)?;
        let more = Arc::clone(&self.bodies).try_acquire_many_owned(missing);
        let more = more.map_err(|_| NoRoom)?;
        match &mut self.taken {
            None => self.taken = Some(more),
            Some(taken) => taken.merge(more),
        }
        Ok(())
    }

    /// Takes the room for as long as anybody holds these bytes.
    pub(crate) fn hold(self, body: Bytes) -> Bytes {
        match self.taken {
            None => body,
            Some(taken) => Bytes::from_owner(Held {
                body,
                _taken: taken,
            }),
        }
    }
}

struct Held {
    body: Bytes,
    _taken: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// How many connections of a listener each address has.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    connections_max: usize,
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    addresses: Addresses,
    of: IpAddr,
}

impl Addresses {
    /// No address may have more than so many.
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            open: Arc::default(),
            connections_max,
        }
    }

    /// Counts a connection; none when its address has as many as it may.
    pub(super) fn admit(&self, from: IpAddr) -> Option<Counted> {
        let of = subscriber(from);
        let mut open = self.open();
        let count = open.entry(of).or_default();
        if *count >= self.connections_max {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Counted {
            addresses: self.clone(),
            of,
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.open();
        match open.get_mut(&self.of) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                open.remove(&self.of);
            }
        }
    }
}

/// Whoever has an address of IPv6 has the 64 bits behind its network too.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    #[test]
    fn a_body_takes_room_until_its_last_byte_is_dropped() {
        let limits = EdgeLimits::new(LimitsSettings {
            bodies_max: ByteSize::kib(100),
            ..LimitsSettings::default()
        });
        let mut small = limits.room();
        small.grow_to(SMALL_BYTES_MAX).unwrap();
        assert_eq!(limits.bodies.available_permits(), 100);
        let mut room = limits.room();
        room.grow_to(70_000).unwrap();
        room.grow_to(80_000).unwrap();
        room.grow_to(75_000).unwrap();
        assert_eq!(limits.bodies.available_permits(), 100 - 79);
        assert!(limits.room().grow_to(70_000).is_err());
        let body = room.hold(Bytes::from(vec![7; 80_000]));
        let part = body.slice(1..2);
        drop(body);
        assert_eq!(limits.bodies.available_permits(), 100 - 79);
        assert_eq!(part, [7][..]);
        drop(part);
        assert_eq!(limits.bodies.available_permits(), 100);
    }

    #[test]
    fn an_address_has_so_many_connections_and_a_network_of_ipv6_is_one() {
        let addresses = Addresses::new(2);
        let admit = |from: &str| addresses.admit(from.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        let second = admit("::ffff:192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        let _other = admit("192.0.2.2").unwrap();
        drop(first);
        let third = admit("192.0.2.1").unwrap();
        drop((second, third));
        let _six = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert!(admit("2001:db8::3").is_none());
        assert_eq!(addresses.open().len(), 2, "who is gone is forgotten");
    }
}
