//! Events that the node itself has emitted, for schedules and for ends: to whoever subscribed, as when a client emits them.

use std::borrow::Cow;
use std::sync::Arc;

use actors::Registry;
use protocol::subscription::EventType;
use protocol::{Event, Failure, Space, Subscription};
use queue::Delivery;

use super::{Emission, Emitter};
use crate::error::Error;

impl Emitter {
    /// The deliveries of an event of this space, to the subscribers of both dialects.
    ///
    /// # Errors
    /// When this node does not know its subscriptions yet.
    pub(crate) fn own_deliveries(
        &self,
        space: &Space,
        event: &Event,
        path: &str,
    ) -> Result<Vec<Delivery>, Failure> {
        let registry = self.node.registry();
        if !registry.is_loaded {
            return Err(Error::not_loaded().into_failure());
        }
        let emission = Emission {
            typed: typed(&registry, space, event, path),
            event,
            is_custom: true,
        };
        let mut deliveries = Vec::new();
        Self::address(&registry, &emission, Some(space), path, &mut deliveries);
        Ok(deliveries)
    }

    /// Puts the deliveries of such an event into the queue. What is refused comes again, and is no event until then.
    ///
    /// # Errors
    /// The queue's.
    pub(crate) async fn accept_own(&self, deliveries: Vec<Delivery>) -> Result<(), Failure> {
        let meters = &self.meters;
        if deliveries.is_empty() {
            meters.received.increment(1);
            meters.processed.increment(1);
            return Ok(());
        }
        self.enqueue(deliveries).await?;
        meters.received.increment(1);
        Ok(())
    }
}

/// The typed subscriptions that get it. An authorizer judges requests, and this is none: those of its event type get nothing.
fn typed<'e>(
    registry: &Registry,
    space: &Space,
    event: &'e Event,
    path: &str,
) -> Vec<(Arc<Subscription>, Cow<'e, Event>)> {
    let name = event.event_type.parse::<EventType>().ok();
    let registered = name.and_then(|name| registry.event_type(space, &name));
    if registered.is_some_and(|registered| registered.event_type.authorizer_id.is_some()) {
        return Vec::new();
    }
    let found =
        registry
            .subscriptions
            .async_subscribers(Some(space), &event.event_type, "POST", path);
    found
        .map(|subscription| (Arc::clone(subscription), Cow::Borrowed(event)))
        .collect()
}
