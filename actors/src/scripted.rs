//! A registry of given records, for tests of what reads one.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Revision;
use protocol::{Function, Subscription};

use crate::registry_cache::subscriptions::GroupKey;
use crate::registry_cache::{Registered, Registry, Subscribed};

/// Makes a loaded registry of these records, each created after the one before it.
pub fn registry(
    functions: impl IntoIterator<Item = Function>,
    subscriptions: impl IntoIterator<Item = Subscription>,
) -> Registry {
    let mut registry = Registry {
        is_loaded: true,
        ..Registry::default()
    };
    let mut next = 0;
    let mut revision = || {
        next += 1;
        Revision(next)
    };
    for function in functions {
        let space = registry
            .functions
            .entry(function.space.clone())
            .or_default();
        let registered = Registered {
            key: function.instance_key(|_| None),
            secrets: Vec::new(),
            revision: revision(),
            function: Arc::new(function),
        };
        let id = registered.function.function_id.clone();
        Arc::make_mut(space).insert(id, Arc::new(registered));
    }
    let mut groups: BTreeMap<GroupKey, Vec<Arc<Subscribed>>> = BTreeMap::new();
    for subscription in subscriptions {
        let created = revision();
        let key = GroupKey::of(&subscription.space, &subscription.subscription_id.key())
            .expect("the key of a subscription names its group");
        groups.entry(key).or_default().push(Arc::new(Subscribed {
            subscription: Arc::new(subscription),
            revision: created,
            created,
        }));
    }
    for (key, subscriptions) in groups {
        registry.subscriptions.set_group(&key, subscriptions);
    }
    registry.revision = revision();
    registry
}
