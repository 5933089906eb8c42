//! What a node knows of accounts: a plain struct that the store's watch feeds and checks of credentials read.
//!
//! It holds no password and no hash of a refresh token. Each session and key has a flag that is cleared as soon as what was
//! known of it is no longer so; the cache of checked credentials holds the flag, and so needs to know of nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use config::store::{Change, Entry, Listing};
use protocol::{Space, UserLimits};
use serde::{Deserialize, Serialize};

use crate::records::user::{Role, UserId, UserState};
use crate::records::{Millis, key, login, session, signing, space, user};

/// The kinds of records, each with a watch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Users,
    Sessions,
    Keys,
    Signing,
    Spaces,
    Logins,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Users,
        Self::Sessions,
        Self::Keys,
        Self::Signing,
        Self::Spaces,
        Self::Logins,
    ];

    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Users => user::PREFIX,
            Self::Sessions => session::PREFIX,
            Self::Keys => key::PREFIX,
            Self::Signing => signing::PREFIX,
            Self::Spaces => space::PREFIX,
            Self::Logins => login::PREFIX,
        }
    }

    /// The kind of a record and its name, by its key.
    pub(crate) fn of(key: &str) -> Option<(Self, &str)> {
        let mut kinds = Self::ALL.into_iter();
        kinds.find_map(|kind| Some((kind, key.strip_prefix(kind.prefix())?)))
    }
}

/// What is known of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) email: String,
    pub(crate) role: Role,
    pub(crate) spaces: BTreeSet<Space>,
    pub(crate) state: UserState,
    #[serde(default)]
    pub(crate) limits: UserLimits,
}

impl From<user::Record> for Member {
    fn from(record: user::Record) -> Self {
        Self {
            email: record.email,
            role: record.role,
            spaces: record.spaces,
            state: record.state,
            limits: record.limits,
        }
    }
}

/// Something that a credential rests on.
#[derive(Debug, Clone)]
pub(crate) struct Held<T> {
    pub(crate) record: T,
    /// Cleared when the record or its user changes or goes.
    pub(crate) is_current: Arc<AtomicBool>,
}

impl<T> Held<T> {
    fn new(record: T) -> Self {
        Self {
            record,
            is_current: Arc::new(AtomicBool::new(true)),
        }
    }

    fn renew(&mut self) {
        self.clear();
        self.is_current = Arc::new(AtomicBool::new(true));
    }

    fn clear(&self) {
        self.is_current.store(false, Ordering::Release);
    }
}

/// When a session ends by itself; all that a check needs of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionEnd(pub(crate) Millis);

type Owned<T> = HashMap<UserId, HashMap<String, Held<T>>>;

/// Deleted users that are remembered, the last ones.
const GONE_MAX: usize = 1_000;

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) users: HashMap<UserId, Member>,
    /// Users that went while this node knew of them, the last [`GONE_MAX`].
    pub(crate) gone: VecDeque<UserId>,
    pub(crate) sessions: Owned<SessionEnd>,
    pub(crate) keys: Owned<key::Record>,
    pub(crate) signing: BTreeMap<u64, signing::Record>,
    pub(crate) spaces: HashMap<Space, space::SpaceSettings>,
    pub(crate) logins: HashMap<String, login::Record>,
}

/// What is kept on disk: all but failed logins.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    users: Vec<(UserId, Member)>,
    sessions: Vec<(UserId, String, SessionEnd)>,
    keys: Vec<(UserId, String, key::Record)>,
    signing: BTreeMap<u64, signing::Record>,
    spaces: Vec<(Space, space::SpaceSettings)>,
}

impl Known {
    /// Replaces all that is known of a kind.
    pub(crate) fn on_listing(&mut self, kind: Kind, listing: &Listing) {
        match kind {
            Kind::Users => {
                let listed: BTreeSet<_> = keys(listing, kind).collect();
                let gone = self.users.keys().filter(|id| !listed.contains(id.as_str()));
                for id in gone.cloned().collect::<Vec<_>>() {
                    self.forget(kind, id.as_str());
                }
            }
            Kind::Sessions => clear_all(&mut self.sessions),
            Kind::Keys => clear_all(&mut self.keys),
            Kind::Signing => self.signing.clear(),
            Kind::Spaces => self.spaces.clear(),
            Kind::Logins => self.logins.clear(),
        }
        for entry in &listing.entries {
            self.put(kind, entry);
        }
    }

    /// Applies one change.
    pub(crate) fn on_change(&mut self, kind: Kind, change: &Change) {
        match change {
            Change::Put(entry) => self.put(kind, entry),
            Change::Deleted(key) => {
                if let Some(name) = key.strip_prefix(kind.prefix()) {
                    self.forget(kind, name);
                }
            }
        }
    }

    /// Takes a record that was read by itself.
    pub(crate) fn on_entry(&mut self, entry: &Entry) {
        if let Some((kind, _)) = Kind::of(&entry.key) {
            self.put(kind, entry);
        }
    }

    /// Whether there is a record of that name.
    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Users => name.parse().is_ok_and(|id| self.users.contains_key(&id)),
            Kind::Sessions => has_owned(&self.sessions, name),
            Kind::Keys => has_owned(&self.keys, name),
            Kind::Signing => name
                .parse()
                .is_ok_and(|number| self.signing.contains_key(&number)),
            Kind::Spaces => name
                .parse()
                .is_ok_and(|space| self.spaces.contains_key(&space)),
            Kind::Logins => self.logins.contains_key(name),
        }
    }

    fn put(&mut self, kind: Kind, entry: &Entry) {
        let Some(name) = entry.key.strip_prefix(kind.prefix()) else {
            return;
        };
        if self.read(kind, name, &entry.value).is_none() {
            // What can not be read lets nobody in; so it is as good as gone.
            tracing::error!(key = %entry.key, revision = entry.revision.0, "a record of accounts can not be read, so it counts for nothing");
            self.forget(kind, name);
        }
    }

    fn read(&mut self, kind: Kind, name: &str, value: &[u8]) -> Option<()> {
        match kind {
            Kind::Users => {
                let member = Member::from(json::<user::Record>(value)?);
                self.put_user(name.parse().ok()?, member);
            }
            Kind::Sessions => {
                let (user, id) = owned(name)?;
                let record: session::Record = json(value)?;
                let end = SessionEnd(record.expires_at_ms);
                put_owned(&mut self.sessions, user, id, end);
            }
            Kind::Keys => {
                let (user, id) = owned(name)?;
                put_owned(&mut self.keys, user, id, json(value)?);
            }
            Kind::Signing => {
                self.signing.insert(name.parse().ok()?, json(value)?);
            }
            Kind::Spaces => {
                self.spaces.insert(name.parse().ok()?, json(value)?);
            }
            Kind::Logins => {
                self.logins.insert(name.to_owned(), json(value)?);
            }
        }
        Some(())
    }

    fn put_user(&mut self, id: UserId, member: Member) {
        if self.users.get(&id) == Some(&member) {
            return;
        }
        self.renew(&id);
        self.users.insert(id, member);
    }

    /// Has the user's credentials checked anew.
    fn renew(&mut self, id: &UserId) {
        for held in self.sessions.get_mut(id).into_iter().flatten() {
            held.1.renew();
        }
        for held in self.keys.get_mut(id).into_iter().flatten() {
            held.1.renew();
        }
    }

    fn forget(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Users => {
                if let Ok(id) = name.parse() {
                    self.renew(&id);
                    if let Some((id, _)) = self.users.remove_entry(&id) {
                        self.gone.truncate(GONE_MAX - 1);
                        self.gone.push_front(id);
                    }
                }
            }
            Kind::Sessions => forget_owned(&mut self.sessions, name),
            Kind::Keys => forget_owned(&mut self.keys, name),
            Kind::Signing => forget_named(name, |number| self.signing.remove(&number)),
            Kind::Spaces => forget_named(name, |space: Space| self.spaces.remove(&space)),
            Kind::Logins => {
                self.logins.remove(name);
            }
        }
    }

    /// What goes to the disk.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let users = self.users.iter();
        let spaces = self.spaces.iter();
        Snapshot {
            users: users
                .map(|(id, member)| (id.clone(), member.clone()))
                .collect(),
            sessions: flat(&self.sessions),
            keys: flat(&self.keys),
            signing: self.signing.clone(),
            spaces: spaces
                .map(|(space, set)| (space.clone(), set.clone()))
                .collect(),
        }
    }

    /// What came from the disk.
    pub(crate) fn on_snapshot(&mut self, snapshot: Snapshot) {
        self.users = snapshot.users.into_iter().collect();
        for (user, id, end) in snapshot.sessions {
            put_owned(&mut self.sessions, user, &id, end);
        }
        for (user, id, record) in snapshot.keys {
            put_owned(&mut self.keys, user, &id, record);
        }
        self.signing = snapshot.signing;
        self.spaces = snapshot.spaces.into_iter().collect();
    }
}

fn json<T: for<'de> Deserialize<'de>>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

/// The parts of `<user>/<id>`.
fn owned(name: &str) -> Option<(UserId, &str)> {
    let (user, id) = name.split_once('/')?;
    Some((user.parse().ok()?, id))
}

fn keys(listing: &Listing, kind: Kind) -> impl Iterator<Item = &str> {
    let keys = listing.entries.iter().map(|entry| entry.key.as_str());
    keys.filter_map(move |key| key.strip_prefix(kind.prefix()))
}

fn clear_all<T>(owned: &mut Owned<T>) {
    for held in owned.drain().flat_map(|(_, held)| held) {
        held.1.clear();
    }
}

fn put_owned<T>(all: &mut Owned<T>, user: UserId, id: &str, record: T) {
    let replaced = all
        .entry(user)
        .or_default()
        .insert(id.to_owned(), Held::new(record));
    if let Some(held) = replaced {
        held.clear();
    }
}

fn has_owned<T>(all: &Owned<T>, name: &str) -> bool {
    let found = owned(name).and_then(|(user, id)| all.get(&user)?.get(id));
    found.is_some()
}

fn forget_owned<T>(all: &mut Owned<T>, name: &str) {
    let Some((user, id)) = owned(name) else {
        return;
    };
    let Some(of_user) = all.get_mut(&user) else {
        return;
    };
    if let Some(held) = of_user.remove(id) {
        held.clear();
    }
    if of_user.is_empty() {
        all.remove(&user);
    }
}

fn forget_named<N: FromStr, T>(name: &str, forget: impl FnOnce(N) -> T) {
    if let Ok(name) = name.parse() {
        forget(name);
    }
}

fn flat<T: Clone>(all: &Owned<T>) -> Vec<(UserId, String, T)> {
    let of_users = all.iter();
    of_users
        .flat_map(|(user, held)| {
            held.iter()
                .map(|(id, held)| (user.clone(), id.clone(), held.record.clone()))
        })
        .collect()
}
