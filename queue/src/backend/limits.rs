//! How much a queue takes, and from whom.

use std::time::Duration;

use super::lanes::{Held, LaneKey, Lanes};
use super::{Bound, Delivery, Error, Origin};

/// What a delivery counts for besides its event, in bytes, about.
const DELIVERY_BYTES: usize = 256;

/// The bounds of what waits in a queue, and of its leases.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Deliveries that wait at most.
    pub len_max: usize,
    /// Bytes of their events at most, counted for each delivery, with some for the delivery itself.
    pub bytes_max: usize,
    /// The share of both, from 0 to 1, that the deliveries of one function may take.
    pub function_share: f64,
    /// How long a lease lasts that is not extended.
    pub lease_timeout: Duration,
}

impl Limits {
    /// Counts all of these as waiting, or none. Says to which lane each belongs and what it counts for. An end is taken in any case: it
    /// comes in the place of what ended, so a full queue ends what it has all the same.
    pub(super) fn admit<T>(
        &self,
        held: &mut Held,
        lanes: &mut Lanes<T>,
        deliveries: &[Delivery],
    ) -> Result<Vec<(LaneKey, usize)>, Error> {
        let before = *held;
        let mut added = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let (key, bytes) = (LaneKey::of(delivery), room(delivery));
            let refused = self.hold(held, lanes, &key, bytes);
            added.push((key, bytes));
            let is_end = matches!(delivery.origin, Origin::End(_));
            if let Some(bound) = refused.filter(|_| !is_end) {
                for (key, bytes) in added {
                    lanes.release(&key, bytes);
                }
                *held = before;
                return Err(Error::Full(bound));
            }
        }
        Ok(added)
    }

    /// Counts one more as waiting, and says which bound is passed by that.
    pub(super) fn hold<T>(
        &self,
        held: &mut Held,
        lanes: &mut Lanes<T>,
        key: &LaneKey,
        bytes: usize,
    ) -> Option<Bound> {
        held.add(bytes);
        lanes.hold(key, bytes);
        if held.len > self.len_max {
            return Some(Bound::Len(self.len_max));
        }
        if held.bytes > self.bytes_max {
            return Some(Bound::Bytes(self.bytes_max));
        }
        let own = lanes.held(key);
        let share = |max: usize| (count(max) * self.function_share).ceil();
        // A function's only delivery is taken if there is room at all, however large it is.
        let is_over = own.len > 1
            && (count(own.len) > share(self.len_max) || count(own.bytes) > share(self.bytes_max));
        is_over.then(|| Bound::Function(key.function_id.clone()))
    }
}

/// The bytes that a delivery counts for.
pub(super) fn room(delivery: &Delivery) -> usize {
    delivery.event.len() + DELIVERY_BYTES
}

/// The bytes that a delivery of this event counts for.
pub(super) fn room_of(event: &[u8]) -> u32 {
    u32::try_from(event.len() + DELIVERY_BYTES).unwrap_or(u32::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a queue has far fewer than 2^52 deliveries and bytes"
)]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}
