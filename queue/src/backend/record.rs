//! What the journal says: msgpack maps with short names, so that a later version may add to them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use protocol::{ExecutionId, Failure, FunctionId, Space, SubscriptionId};
use serde::{Deserialize, Serialize};

use super::{Delivery, DeliveryId, Origin};

/// What a row takes, about.
const ROW_BYTES: usize = 192;

/// One record. Those about a delivery that is not known are about one that ended and whose segment was released.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record<'a> {
    /// Deliveries that wait from now on, all or none; or where they are kept from now on, as they are by now.
    #[serde(rename = "p", borrow)]
    Put(Put<'a>),
    /// These were leased, each so many times by now.
    #[serde(rename = "l")]
    Leased(Vec<(Id, u32)>),
    /// It is leased no sooner than this.
    #[serde(rename = "a")]
    Again(Id, u64),
    /// It was delivered, cancelled or purged.
    #[serde(rename = "e")]
    Ended(Id),
    /// It became a dead letter.
    #[serde(rename = "d")]
    Died(Id, Death),
    /// It waits again since then.
    #[serde(rename = "r")]
    Redriven(Id, u64),
    /// Segments up to this one hold nothing that is needed.
    #[serde(rename = "s")]
    Released(u32),
    /// Nothing: it is there for the mark in its head.
    #[serde(rename = "m")]
    Mark,
}

/// Deliveries with their events, each event once.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Put<'a> {
    #[serde(rename = "e", borrow)]
    pub(super) events: Vec<&'a serde_bytes::Bytes>,
    #[serde(rename = "d")]
    pub(super) deliveries: Vec<Row>,
}

/// A delivery, and how far it got.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(rename = "i")]
    pub(super) id: Id,
    /// Which of the events.
    #[serde(rename = "e")]
    pub(super) event: u32,
    #[serde(rename = "s")]
    pub(super) space: Space,
    #[serde(rename = "f")]
    pub(super) function_id: FunctionId,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub(super) subscription_id: Option<SubscriptionId>,
    /// Instead of a subscription.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub(super) execution_id: Option<ExecutionId>,
    /// Instead of either.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub(super) end_of: Option<Id>,
    #[serde(rename = "o")]
    pub(super) ordinal: u32,
    #[serde(rename = "t")]
    pub(super) accepted_at: u64,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<u64>,
    /// Since when it counts as waiting.
    #[serde(rename = "w")]
    pub(super) since: u64,
    /// It is not leased sooner.
    #[serde(rename = "u", default, skip_serializing_if = "is_zero")]
    pub(super) due: u64,
    #[serde(rename = "a", default, skip_serializing_if = "is_zero_u32")]
    pub(super) attempts: u32,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) death: Option<Death>,
}

/// How a delivery became a dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Death {
    #[serde(rename = "p")]
    pub(super) position: u64,
    #[serde(rename = "t")]
    pub(super) at: u64,
    #[serde(rename = "f")]
    pub(super) reason: Failure,
    #[serde(rename = "a", default)]
    pub(super) answer: Bytes,
}

/// A delivery's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub(super) DeliveryId);

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.into_bytes())
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteArray::<16>::deserialize(deserializer)?;
        Ok(Self(DeliveryId::from_bytes(bytes.into_array())))
    }
}

impl Row {
    /// What the delivery is for; nothing if the record does not say.
    fn origin(&self) -> Option<Origin> {
        let subscription = self.subscription_id.clone().map(Origin::Subscription);
        let execution = || self.execution_id.map(Origin::Execution);
        let end = || self.end_of.map(|Id(id)| Origin::End(id));
        subscription.or_else(execution).or_else(end)
    }
}

impl<'a> Record<'a> {
    /// The record as bytes.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes_about());
        rmp_serde::encode::write_named(&mut bytes, self)
            .expect("a record is made of numbers, texts and bytes");
        bytes
    }

    /// What it takes, about, so that events are not copied while it grows.
    fn bytes_about(&self) -> usize {
        match self {
            Self::Put(put) => {
                let events: usize = put.events.iter().map(|event| event.len()).sum();
                events + ROW_BYTES * (1 + put.deliveries.len())
            }
            _ => 0,
        }
    }

    /// Reads a record back.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }
}

impl<'a> Put<'a> {
    /// Deliveries that are accepted now.
    pub(super) fn accepted(deliveries: &'a [Delivery], now: u64) -> Self {
        let mut put = Self::default();
        let mut last: Option<&Bytes> = None;
        for (delivery, since) in deliveries.iter().zip(since(now)) {
            // Deliveries of an event follow each other, and share its bytes.
            let is_shared = last.is_some_and(|last| {
                last.as_ptr() == delivery.event.as_ptr() && last.len() == delivery.event.len()
            });
            if !is_shared {
                put.events.push(serde_bytes::Bytes::new(&delivery.event));
                last = Some(&delivery.event);
            }
            let event = index(put.events.len() - 1);
            let not_before = delivery.not_before.map(micros);
            let (subscription_id, execution_id, end_of) = match &delivery.origin {
                Origin::Subscription(id) => (Some(id.clone()), None, None),
                Origin::Execution(id) => (None, Some(*id), None),
                Origin::End(id) => (None, None, Some(Id(*id))),
            };
            put.deliveries.push(Row {
                id: Id(delivery.id),
                event,
                space: delivery.space.clone(),
                function_id: delivery.function_id.clone(),
                subscription_id,
                execution_id,
                end_of,
                ordinal: delivery.ordinal,
                accepted_at: micros(delivery.accepted_at),
                not_before,
                since,
                due: not_before.unwrap_or(0),
                attempts: 0,
                death: None,
            });
        }
        put
    }

    /// The event of one of its deliveries; nothing if the record names one that it does not have.
    pub(super) fn event(&self, row: &Row) -> Option<&'a [u8]> {
        let event: &'a serde_bytes::Bytes = self.events.get(row.event as usize)?;
        Some(event)
    }

    /// Those of its deliveries that are wanted. What is of one event shares its bytes.
    pub(super) fn deliveries(&self, mut is_wanted: impl FnMut(&Row) -> bool) -> Vec<Delivery> {
        let mut events: HashMap<u32, Bytes> = HashMap::new();
        let rows = self.deliveries.iter().filter(|row| is_wanted(row));
        let found = rows.filter_map(|row| {
            let bytes = self.event(row)?;
            let event = events.entry(row.event);
            let event = event.or_insert_with(|| Bytes::copy_from_slice(bytes));
            Some(Delivery {
                id: row.id.0,
                event: event.clone(),
                space: row.space.clone(),
                function_id: row.function_id.clone(),
                origin: row.origin()?,
                ordinal: row.ordinal,
                accepted_at: moment(row.accepted_at),
                not_before: row.not_before.map(moment),
            })
        });
        found.collect()
    }

    /// The same with these deliveries only, and the events that they need.
    pub(super) fn only(&self, rows: Vec<Row>) -> Self {
        let mut put = Self::default();
        let mut last = None;
        for mut row in rows {
            let Some(event) = self.events.get(row.event as usize) else {
                continue;
            };
            if last != Some(row.event) {
                last = Some(row.event);
                put.events.push(event);
            }
            row.event = index(put.events.len() - 1);
            put.deliveries.push(row);
        }
        put
    }
}

/// How a delivery died, from the record that says so.
pub(super) fn death(body: &[u8], id: DeliveryId) -> Option<Death> {
    match Record::read(body) {
        Ok(Record::Died(died, death)) if died.0 == id => Some(death),
        Ok(Record::Put(put)) => {
            let row = put.deliveries.into_iter().find(|row| row.id.0 == id)?;
            row.death
        }
        _ => None,
    }
}

/// Since when the deliveries of a batch wait: each a moment after the one before it, so that they keep their order.
pub(super) fn since(now: u64) -> impl Iterator<Item = u64> {
    now..
}

/// Microseconds since 1970.
pub(super) fn micros(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The moment so many microseconds after 1970.
pub(super) fn moment(micros: u64) -> SystemTime {
    // What is beyond all clocks is as late as can be.
    UNIX_EPOCH
        .checked_add(Duration::from_micros(micros))
        .unwrap_or(UNIX_EPOCH)
}

fn index(position: usize) -> u32 {
    u32::try_from(position).expect("a batch has far fewer than 2^32 events")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row as it was written before there were executions.
    #[derive(Serialize)]
    struct FormerRow {
        i: Id,
        e: u32,
        s: &'static str,
        f: &'static str,
        b: &'static str,
        o: u32,
        t: u64,
        w: u64,
    }

    #[derive(Serialize)]
    enum Former {
        #[serde(rename = "p")]
        Put {
            e: Vec<&'static serde_bytes::Bytes>,
            d: Vec<FormerRow>,
        },
    }

    #[test]
    fn a_delivery_of_a_subscription_is_written_as_it_was_before_there_were_executions() {
        let id = Id(DeliveryId::random());
        let row = FormerRow {
            i: id,
            e: 0,
            s: "default",
            f: "mail",
            b: "user.created,mail,%2F",
            o: 0,
            t: 5,
            w: 7,
        };
        let former = Former::Put {
            e: vec![serde_bytes::Bytes::new(b"event")],
            d: vec![row],
        };
        let former = rmp_serde::to_vec_named(&former).unwrap();
        let Record::Put(put) = Record::read(&former).unwrap() else {
            panic!("that is a put");
        };
        let found = put.deliveries(|_| true);
        let subscription = SubscriptionId::from_url("user.created,mail,%2F");
        assert_eq!(found[0].origin, Origin::Subscription(subscription));
        assert_eq!(Record::Put(Put::accepted(&found, 7)).write(), former);
    }

    #[test]
    fn other_origins_are_read_back_as_they_were() {
        for origin in [
            Origin::Execution(ExecutionId::at(SystemTime::now())),
            Origin::End(DeliveryId::random()),
        ] {
            let written = Delivery {
                id: DeliveryId::random(),
                event: Bytes::from_static(b"invocation"),
                space: Space::default_space(),
                function_id: "mail".parse().unwrap(),
                origin: origin.clone(),
                ordinal: 0,
                accepted_at: moment(5),
                not_before: None,
            };
            let record = Record::Put(Put::accepted(std::slice::from_ref(&written), 7)).write();
            let Record::Put(put) = Record::read(&record).unwrap() else {
                panic!("that is a put");
            };
            assert_eq!(put.deliveries(|_| true)[0].origin, origin);
        }
    }
}
