//! The subscriptions this node knows, indexed for the three ways an event finds them: by method and path, by name and path, and by
//! the function that is called.
//!
//! A *group* is what can be asked for together: the `http` subscriptions of a space and method, or those of a space and event. A
//! change makes its group anew; all other groups are shared with the index before. Typed subscriptions are in the same groups: a
//! sync one to `http.request` is an `http` subscription, and any other is of its event.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use config::Revision;
use protocol::path::Params;
use protocol::subscription::{EventType, Method, Mode};
use protocol::{FunctionId, PathTree, Space, Subscription, SubscriptionId};

#[cfg(test)]
mod tests;

/// The subscriptions this node knows, as of a revision of the store.
#[derive(Debug, Clone, Default)]
pub struct Subscriptions {
    /// The store's revision it was built from.
    pub revision: Revision,
    /// By space and what their keys begin with; so in the order of the keys.
    groups: BTreeMap<Arc<str>, Arc<Group>>,
    http: HashMap<Method, Spaces>,
    events: HashMap<Arc<str>, Spaces>,
    /// By the text before the `*`.
    patterns: HashMap<Arc<str>, Spaces>,
}

/// The groups of one method, event or pattern.
type Spaces = Arc<BTreeMap<Space, Arc<Group>>>;

/// A subscription as the registry has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribed {
    /// The record.
    pub subscription: Arc<Subscription>,
    /// The revision of its last change.
    pub revision: Revision,
    /// The revision at which it was created.
    pub created: Revision,
}

/// The subscription that a request goes to.
#[derive(Debug, Clone)]
pub struct Matched<'a> {
    /// The subscription; the parameters of its path `/` are none at all, not an empty set.
    pub subscription: &'a Arc<Subscription>,
    /// The parameters, as they stand in the request's path.
    pub params: Params<'a>,
}

#[derive(Debug)]
struct Group {
    /// In the order of their ids.
    subscriptions: Vec<Arc<Subscribed>>,
    routes: Routes,
}

#[derive(Debug)]
enum Routes {
    /// Of a method.
    Tree(PathTree<Arc<Subscribed>>),
    /// Of an event.
    Event {
        /// Those that are queued, by path; those of one path in the order of their creation.
        paths: HashMap<Box<str>, Vec<Arc<Subscribed>>>,
        /// Those that answer.
        sync: HashMap<Method, PathTree<Arc<Subscribed>>>,
    },
}

/// Which group a subscription is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    space: Space,
    /// The event, with a comma after it, or `http,METHOD,`.
    prefix: Arc<str>,
}

impl Subscriptions {
    /// The subscription that an `http` request goes to. Without a space all are asked, and of those whose path matches the one that
    /// was created first is taken.
    pub fn http_route<'a>(
        &'a self,
        space: Option<&Space>,
        method: &str,
        escaped_path: &'a str,
    ) -> Option<Matched<'a>> {
        let method = Method::from_name(method)?;
        oldest(self.http.get(&method)?, space, method, escaped_path)
    }

    /// The typed subscription whose function answers an event that is no plain request. Without a space as
    /// [`Subscriptions::http_route`].
    pub fn sync_route<'a>(
        &'a self,
        space: Option<&Space>,
        event: &str,
        method: &str,
        escaped_path: &'a str,
    ) -> Option<Matched<'a>> {
        let spaces = self.events.get(event)?;
        oldest(spaces, space, Method::from_name(method)?, escaped_path)
    }

    /// Whether anything is subscribed to an event by its name, in any space, that is no plain request.
    pub fn knows(&self, event: &str) -> bool {
        self.events.contains_key(event)
    }

    /// The typed subscriptions that an event is queued for. Their filters are not asked.
    pub fn async_subscribers<'a>(
        &'a self,
        space: Option<&'a Space>,
        event: &str,
        method: &str,
        decoded_path: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Subscription>> {
        let method = Method::from_name(method);
        let spaces = self.events.get(event).filter(|_| method.is_some());
        spaces
            .into_iter()
            .flat_map(move |spaces| of(spaces, space))
            .flat_map(move |group| group.at(decoded_path))
            .map(|subscribed| &subscribed.subscription)
            .filter(move |subscription| subscription.is_typed() && subscription.method == method)
    }

    /// Whether a function may be called with an `invoke` event on a path.
    pub fn invokable(&self, space: &Space, function_id: &FunctionId, decoded_path: &str) -> bool {
        let spaces = self.events.get("invoke");
        let groups = spaces
            .into_iter()
            .flat_map(|spaces| of(spaces, Some(space)));
        groups
            .flat_map(|group| group.at(decoded_path))
            .any(|subscribed| subscribed.subscription.function_id == *function_id)
    }

    /// The subscriptions that are not typed and that an event goes to: those of its name, then those of patterns, shortest first.
    /// Their filters are not asked. None for `http` and `invoke`, which are no events to be delivered.
    pub fn subscribers<'a>(
        &'a self,
        space: Option<&'a Space>,
        event: &'a str,
        decoded_path: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Subscription>> {
        let exact = self.events.get(event).filter(|_| event != "invoke");
        let ends = event.match_indices('.').map(|(at, dot)| at + dot.len());
        let patterns = std::iter::once(0)
            .chain(ends)
            .filter_map(|end| self.patterns.get(&event[..end]));
        exact
            .into_iter()
            .chain(patterns)
            .flat_map(move |spaces| of(spaces, space))
            .flat_map(move |group| group.at(decoded_path))
            .map(|subscribed| &subscribed.subscription)
            .filter(move |subscription| {
                !subscription.is_typed() && subscription.event.matches(event)
            })
    }

    /// Finds a subscription.
    pub fn get(&self, space: &Space, id: &SubscriptionId) -> Option<&Arc<Subscribed>> {
        let group = self
            .groups
            .get(GroupKey::of(space, &id.key())?.text().as_str())?;
        let known = &group.subscriptions;
        let at = known
            .binary_search_by(|subscribed| subscribed.subscription.subscription_id.cmp(id))
            .ok()?;
        known.get(at)
    }

    /// The subscriptions of a space.
    pub fn of_space<'a>(&'a self, space: &'a Space) -> impl Iterator<Item = &'a Arc<Subscribed>> {
        let from: Arc<str> = format!("{space}/").into();
        let groups = self
            .groups
            .range::<str, _>((Bound::Included(&*from), Bound::Unbounded));
        groups
            .map(|(_, group)| group)
            .take_while(move |group| group.space() == Some(space))
            .flat_map(|group| &group.subscriptions)
    }

    /// All subscriptions of all spaces.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Subscribed>> {
        self.groups.values().flat_map(|group| &group.subscriptions)
    }

    /// A subscription that needs a function: one that calls it, if there is one, else one that asks it before.
    pub fn uses<'a>(
        &'a self,
        space: &'a Space,
        function_id: &FunctionId,
    ) -> Option<&'a Arc<Subscription>> {
        let all = self.of_space(space);
        needs(all.map(|subscribed| &subscribed.subscription), function_id)
    }

    /// Whether a typed subscription is for an event type.
    pub fn uses_event_type(&self, space: &Space, name: &EventType) -> bool {
        // Those that answer plain requests are in the groups of `http`.
        self.of_space(space).any(|subscribed| {
            let subscription = &subscribed.subscription;
            subscription.is_typed() && subscription.event == *name
        })
    }

    /// The paths that a subscription that answers must stand beside: those of its space, method and, if it is no `http` one, event.
    pub(crate) fn beside(&self, subscription: &Subscription) -> Option<&PathTree<Arc<Subscribed>>> {
        let method = subscription.method?;
        let spaces = match subscription.is_http() {
            true => self.http.get(&method)?,
            false => self.events.get(subscription.event.as_str())?,
        };
        spaces.get(&subscription.space)?.tree(method)
    }

    /// Puts a group in the place of the one before; `subscriptions` are all that it has now.
    pub(crate) fn set_group(&mut self, key: &GroupKey, subscriptions: Vec<Arc<Subscribed>>) {
        let group = (!subscriptions.is_empty()).then(|| Arc::new(Group::new(key, subscriptions)));
        let event = key.event();
        match (key.method(), event.strip_suffix('*')) {
            (Some(method), _) => put(&mut self.http, method, &key.space, group.clone()),
            (None, Some(prefix)) => {
                put(&mut self.patterns, prefix.into(), &key.space, group.clone());
            }
            (None, None) => put(&mut self.events, event.into(), &key.space, group.clone()),
        }
        match group {
            Some(group) => self.groups.insert(key.text().into(), group),
            None => self.groups.remove(key.text().as_str()),
        };
    }
}

/// Of these subscriptions one that needs a function: one that calls it, if there is one, else one that asks it before.
pub(crate) fn needs<'a>(
    subscriptions: impl Iterator<Item = &'a Arc<Subscription>>,
    function_id: &FunctionId,
) -> Option<&'a Arc<Subscription>> {
    let mut asks = None;
    for subscription in subscriptions {
        if subscription.function_id == *function_id {
            return Some(subscription);
        }
        if subscription.authorizer_id.as_ref() == Some(function_id) {
            asks.get_or_insert(subscription);
        }
    }
    asks
}

/// The groups of one space, or of all.
fn of<'a>(spaces: &'a Spaces, space: Option<&Space>) -> impl Iterator<Item = &'a Arc<Group>> {
    let (one, all) = match space {
        Some(space) => (spaces.get(space), None),
        None => (None, Some(spaces.values())),
    };
    one.into_iter().chain(all.into_iter().flatten())
}

/// Of those whose path matches, the one that was created first.
fn oldest<'a>(
    spaces: &'a Spaces,
    space: Option<&Space>,
    method: Method,
    escaped_path: &'a str,
) -> Option<Matched<'a>> {
    let matches = of(spaces, space).filter_map(|group| group.tree(method)?.resolve(escaped_path));
    let (subscribed, params) = matches.min_by_key(|(subscribed, _)| subscribed.created)?;
    Some(Matched {
        subscription: &subscribed.subscription,
        params,
    })
}

fn put<K: std::hash::Hash + Eq>(
    index: &mut HashMap<K, Spaces>,
    key: K,
    space: &Space,
    group: Option<Arc<Group>>,
) {
    match group {
        Some(group) => {
            let spaces = Arc::make_mut(index.entry(key).or_default());
            spaces.insert(space.clone(), group);
        }
        None => {
            let Some(spaces) = index.get_mut(&key) else {
                return;
            };
            Arc::make_mut(spaces).remove(space);
            if spaces.is_empty() {
                index.remove(&key);
            }
        }
    }
}

impl Group {
    fn new(key: &GroupKey, mut subscriptions: Vec<Arc<Subscribed>>) -> Self {
        subscriptions.sort_by(|one, other| one.id().cmp(other.id()));
        let mut by_age = subscriptions.clone();
        by_age.sort_by_key(|subscribed| subscribed.created);
        let routes = match key.method() {
            Some(_) => Routes::Tree(tree(by_age)),
            None => Routes::of_event(by_age),
        };
        Self {
            subscriptions,
            routes,
        }
    }

    fn space(&self) -> Option<&Space> {
        let first = self.subscriptions.first()?;
        Some(&first.subscription.space)
    }

    fn at(&self, path: &str) -> &[Arc<Subscribed>] {
        match &self.routes {
            Routes::Event { paths, .. } => paths.get(path).map_or(&[], Vec::as_slice),
            Routes::Tree(_) => &[],
        }
    }

    fn tree(&self, method: Method) -> Option<&PathTree<Arc<Subscribed>>> {
        match &self.routes {
            Routes::Event { sync, .. } => sync.get(&method),
            Routes::Tree(tree) => Some(tree),
        }
    }
}

impl Routes {
    fn of_event(by_age: Vec<Arc<Subscribed>>) -> Self {
        let mut paths: HashMap<Box<str>, Vec<_>> = HashMap::new();
        let mut sync: HashMap<Method, Vec<_>> = HashMap::new();
        for subscribed in by_age {
            let subscription = &subscribed.subscription;
            match (subscription.mode, subscription.method) {
                (Some(Mode::Sync), Some(method)) => {
                    sync.entry(method).or_default().push(subscribed);
                }
                _ => match paths.get_mut(subscription.path.as_str()) {
                    Some(others) => others.push(subscribed),
                    None => {
                        let path = subscription.path.as_str().into();
                        paths.insert(path, vec![subscribed]);
                    }
                },
            }
        }
        let sync = sync.into_iter();
        let sync = sync.map(|(method, by_age)| (method, tree(by_age)));
        Self::Event {
            paths,
            sync: sync.collect(),
        }
    }
}

impl Subscribed {
    fn id(&self) -> &SubscriptionId {
        &self.subscription.subscription_id
    }
}

/// The tree of a group. The store lets no conflict in; should there be one, the older subscription stays.
fn tree(by_age: Vec<Arc<Subscribed>>) -> PathTree<Arc<Subscribed>> {
    let mut tree = PathTree::default();
    for subscribed in by_age {
        let subscription = Arc::clone(&subscribed.subscription);
        if let Err(error) = tree.add(&subscription.path, subscribed) {
            let (space, id) = (&subscription.space, &subscription.subscription_id);
            tracing::error!(%space, %id, %error, "a subscription in the store gets no requests");
        }
    }
    tree
}

impl GroupKey {
    /// The group of a subscription's key; `None` for what is no key of ours.
    pub(crate) fn of(space: &Space, key: &str) -> Option<Self> {
        let comma = |from: usize| key[from..].find(',').map(|at| from + at + 1);
        let event = comma(0)?;
        let end = match &key[..event] {
            "http," => comma(event)?,
            _ => event,
        };
        Some(Self {
            space: space.clone(),
            prefix: key[..end].into(),
        })
    }

    /// The group whose subscriptions have keys with this beginning, after the prefix of all subscriptions.
    pub(crate) fn text(&self) -> String {
        format!("{}/{}", self.space, self.prefix)
    }

    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    fn event(&self) -> &str {
        self.prefix.split(',').next().unwrap_or_default()
    }

    fn method(&self) -> Option<Method> {
        let name = self.prefix.strip_prefix("http,")?.strip_suffix(',')?;
        Method::from_name(name)
    }
}
