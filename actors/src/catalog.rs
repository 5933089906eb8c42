//! Reads and changes the cluster's records: functions, their versions and aliases, subscriptions, event types, CORS configurations, schedules and secrets.
//!
//! Whatever two nodes could decide differently is decided by the store: a change goes in one transaction with *guards*, small records
//! whose revision moves with all that they guard. `paths/<space>/<METHOD>` guards the paths of `http` subscriptions, `paths/<space>/cors/<METHOD>` those of CORS configurations,
//! `uses/<space>/<function>` the subscriptions that name a function, to be called or to be asked before, `types/<space>/<name>` those of an event type, paths included, and
//! `authorizes/<space>/<function>` the event types that a function authorizes, `fires/<space>/<function>` the schedules that are for a function, and
//! `counts/<space>/schedules`, `counts/<space>/functions` and `counts/<space>/secrets` the number of these, and `needs/<space>/<secret>` the functions that
//! name a secret, `pins/<space>/<secret>` the versions that do, and `numbers/<space>/<function>`, which has the number of its newest version, the versions and aliases of a function. A change reads the guard, looks at what it guards as of that
//! revision, and is refused by the store when the guard has moved meanwhile; then it is tried anew. See docs/adr/0011.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use config::settings::{SchedulesSettings, SecretsSettings, VersionsSettings};
use config::store::{Entry, Error as StoreError, Precondition, Write};
use config::{Revision, Store};
use protocol::path::PathConflict;
use protocol::{
    CorsRecord, ErrorCode, EventTypeRecord, Failure, Function, FunctionId, ScheduleRecord,
    SecretRecord, Space, Subscription, SubscriptionId,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use vault::Vault;

use crate::images::Images;
use crate::quotas::Quotas;
use crate::registry_cache::{FUNCTIONS_PREFIX, Registry};
use crate::router::RouteTable;
use crate::scheduler::Progress;
use crate::snapshot::Reader;

mod aliases;
mod cors;
mod event_types;
mod functions;
mod schedules;
mod secrets;
mod subscriptions;
#[cfg(test)]
mod tests;
mod versions;

pub use aliases::Expected;
pub use schedules::wall_ms;
pub(crate) use subscriptions::guards as guards_of_subscription;
pub(crate) use versions::NUMBERS_PREFIX;
pub use versions::{StoredAlias, StoredVersion, VersionError};

/// How often a change is tried when others change the same at the same time.
const ATTEMPTS_MAX: u32 = 24;

/// How long this node's registry may take to reach a guard before the store is asked for all that is guarded.
const CATCH_UP: Duration = Duration::from_millis(500);

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// A function as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The function.
    pub function: Function,
    /// The revision of its last change; the `ETag` of the record.
    pub revision: Revision,
}

/// A subscription as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSubscription {
    /// The subscription.
    pub subscription: Arc<Subscription>,
    /// The revision of its last change; the `ETag` of the record.
    pub revision: Revision,
}

/// An event type as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEventType {
    /// The event type.
    pub event_type: Arc<EventTypeRecord>,
    /// The revision of its last change; the `ETag` of the record.
    pub revision: Revision,
}

/// A CORS configuration as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCors {
    /// The configuration.
    pub cors: Arc<CorsRecord>,
    /// The revision of its last change; the `ETag` of the record.
    pub revision: Revision,
}

/// A schedule as the store has it.
#[derive(Debug, Clone)]
pub struct StoredSchedule {
    /// The schedule.
    pub schedule: Arc<ScheduleRecord>,
    /// The revision of its last change; the `ETag` of the record.
    pub revision: Revision,
    /// Which of its slots were fired; none before it is known to a node, and while the store is away.
    pub progress: Option<Progress>,
}

/// A secret as the store has it: sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// The secret, its value sealed.
    pub secret: Arc<SecretRecord>,
    /// The revision of its last change.
    pub revision: Revision,
    /// The functions whose instances get it, as this node knows them.
    pub functions: Vec<FunctionId>,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// Why a record was not read or changed. Nothing was stored, unless `Store` says that it may have been.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A function of that id exists in the space.
    #[error("Function \"{0}\" already registered.")]
    Exists(String),
    /// No such function in the space.
    #[error("Function \"{0}\" not found.")]
    NotFound(String),
    /// The record is not at the revision the caller named.
    #[error("Function \"{0}\" changed meanwhile.")]
    Changed(String),
    /// The function is subscribed.
    #[error("Function cannot be deleted because it's subscribed to a least one event.")]
    InUse,
    /// The function is asked before events of a type are delivered.
    #[error(
        "Function {function} cannot be deleted because is used as an authorizer for {event_type} event type."
    )]
    IsAuthorizer {
        /// The function.
        function: String,
        /// The event type.
        event_type: String,
    },
    /// The function is asked before requests of a subscription reach its function.
    #[error(
        "Function {function} cannot be deleted because it's used as an authorizer for subscription {subscription}."
    )]
    IsSubscriptionAuthorizer {
        /// The function.
        function: String,
        /// The subscription.
        subscription: SubscriptionId,
    },
    /// A function's record names another one as a destination that is not in its space.
    #[error("{field}.function is \"{id}\", expected a function that is registered in the space")]
    UnknownDestination {
        /// The field of the record.
        field: &'static str,
        /// The id that it names.
        id: String,
    },
    /// A subscription names a function that is not in its space.
    #[error("Function \"{0}\" not found.")]
    UnknownFunction(String),
    /// A subscription names an authorizer that is no function of its space.
    #[error("authorizerId is \"{0}\", expected a function that is registered in the space")]
    UnknownSubscriptionAuthorizer(String),
    /// A subscription of that id exists in the space.
    #[error("Subscription \"{0}\" already exists.")]
    SubscriptionExists(SubscriptionId),
    /// No such subscription in the space.
    #[error("Subscription \"{0}\" not found.")]
    SubscriptionNotFound(String),
    /// The subscription is not at the revision the caller named.
    #[error("Subscription \"{0}\" changed meanwhile.")]
    SubscriptionChanged(String),
    /// An update would make it another subscription.
    #[error("Invalid update. '{0}' of existing subscription cannot be updated.")]
    Identity(&'static str),
    /// Its path can not stand beside those of the space and method.
    #[error("Subscription path conflict: {0}")]
    Path(#[from] PathConflict),
    /// An event type of that name exists in the space.
    #[error("Event Type \"{0}\" already exists.")]
    EventTypeExists(String),
    /// No such event type in the space.
    #[error("Event Type \"{0}\" not found.")]
    EventTypeNotFound(String),
    /// A typed subscription names an event type that is not in its space.
    #[error("Event Type \"{0}\" not found.")]
    UnknownEventType(String),
    /// The event type is not at the revision the caller named.
    #[error("Event Type \"{0}\" changed meanwhile.")]
    EventTypeChanged(String),
    /// There are typed subscriptions for the event type.
    #[error("Event type cannot be deleted because there are subscriptions using it.")]
    EventTypeInUse,
    /// An event type names an authorizer that is no function of its space.
    #[error("Authorizer function doesn't exists.")]
    UnknownAuthorizer,
    /// A CORS configuration of that id exists in the space.
    #[error("CORS configuration \"{0}\" already exists.")]
    CorsExists(String),
    /// No such CORS configuration in the space.
    #[error("CORS configuration \"{0}\" not found.")]
    CorsNotFound(String),
    /// The CORS configuration is not at the revision the caller named.
    #[error("CORS configuration \"{0}\" changed meanwhile.")]
    CorsChanged(String),
    /// An update would make it another CORS configuration.
    #[error("Invalid update. '{0}' of existing CORS configuration cannot be updated.")]
    CorsIdentity(&'static str),
    /// Its path can not stand beside those of the space and method.
    #[error("CORS configuration path conflict: {0}")]
    CorsPath(PathConflict),
    /// The function gets the events of a schedule.
    #[error("Function cannot be deleted because schedule {0} is for it.")]
    IsScheduled(String),
    /// A schedule of that id exists in the space.
    #[error("Schedule \"{0}\" already exists.")]
    ScheduleExists(String),
    /// No such schedule in the space.
    #[error("Schedule \"{0}\" not found.")]
    ScheduleNotFound(String),
    /// The schedule is not at the revision the caller named.
    #[error("Schedule \"{0}\" changed meanwhile.")]
    ScheduleChanged(String),
    /// A schedule asks for more than the settings allow, or for what never comes.
    #[error("Schedule doesn't validate. Validation error: {0}")]
    ScheduleLimit(String),
    /// The space has as many schedules as it may have.
    #[error("space {space} has {max} schedules, the most it may have (schedules.per_space_max)")]
    TooManySchedules {
        /// The space.
        space: Space,
        /// The setting.
        max: usize,
    },
    /// The space has as many functions as it may have.
    #[error("space {space} has {max} functions, the most it may have (limits.functions)")]
    TooManyFunctions {
        /// The space.
        space: Space,
        /// Its limit.
        max: u32,
    },
    /// No such secret in the space.
    #[error("Secret \"{0}\" not found.")]
    SecretNotFound(String),
    /// A function names a secret that is not in its space.
    #[error("{field} is \"{name}\", expected a secret that is set in the space")]
    UnknownSecret {
        /// The field of the record.
        field: String,
        /// The name that it has.
        name: String,
    },
    /// There are functions whose instances get the secret.
    #[error("Secret \"{name}\" cannot be deleted because it's used by: {functions}.")]
    SecretInUse {
        /// The secret.
        name: String,
        /// The functions.
        functions: String,
    },
    /// The space has as many secrets as it may have.
    #[error("space {space} has {max} secrets, the most it may have (secrets.per_space_max)")]
    TooManySecrets {
        /// The space.
        space: Space,
        /// The setting.
        max: usize,
    },
    /// A secret is empty, or larger than the settings allow.
    #[error("the value has {bytes} bytes, expected 1 to {max} (secrets.value_max)")]
    SecretSize {
        /// How many it has.
        bytes: usize,
        /// The setting.
        max: u64,
    },
    /// A version or an alias.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A secret can not be sealed.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// Others changed the same at the same time, again and again.
    #[error("too many others change {0} at the same time")]
    Contended(String),
    /// Commands may be run on no node.
    #[error("type process is off: no node of the cluster was started with --allow-process")]
    ProcessesOff,
    /// The image is nowhere to be found, or nobody could look.
    #[error("provider.image: {}", .0.message)]
    Image(Failure),
    /// The store did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Exists(_)
            | Self::Changed(_)
            | Self::InUse
            | Self::IsAuthorizer { .. }
            | Self::IsSubscriptionAuthorizer { .. }
            | Self::EventTypeExists(_)
            | Self::EventTypeChanged(_)
            | Self::EventTypeInUse
            | Self::CorsExists(_)
            | Self::CorsChanged(_)
            | Self::CorsPath(_)
            | Self::IsScheduled(_)
            | Self::ScheduleExists(_)
            | Self::ScheduleChanged(_)
            | Self::TooManySchedules { .. }
            | Self::TooManyFunctions { .. }
            | Self::SecretInUse { .. }
            | Self::TooManySecrets { .. }
            | Self::SubscriptionExists(_)
            | Self::SubscriptionChanged(_)
            | Self::Path(_) => ErrorCode::Conflict,
            Self::NotFound(_)
            | Self::UnknownFunction(_)
            | Self::UnknownDestination { .. }
            | Self::UnknownSubscriptionAuthorizer(_)
            | Self::UnknownAuthorizer => ErrorCode::FunctionNotFound,
            Self::SubscriptionNotFound(_)
            | Self::EventTypeNotFound(_)
            | Self::CorsNotFound(_)
            | Self::ScheduleNotFound(_)
            | Self::SecretNotFound(_)
            | Self::UnknownEventType(_) => ErrorCode::NotFound,
            Self::Identity(_)
            | Self::CorsIdentity(_)
            | Self::ScheduleLimit(_)
            | Self::UnknownSecret { .. }
            | Self::SecretSize { .. } => ErrorCode::InvalidRequest,
            Self::Version(error) => error.code(),
            Self::Vault(error) => error.code(),
            Self::Contended(_) => ErrorCode::Overloaded,
            Self::ProcessesOff => ErrorCode::Forbidden,
            Self::Image(failure) => failure.code,
            Self::Store(error) => error.code(),
        }
    }
}

/// Reads and changes the cluster's records; cheap to clone. A change answers when this node's registry has it.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Arc<dyn Store>,
    registry: Reader<Registry>,
    images: Images,
    routes: Reader<RouteTable>,
    allows_processes: bool,
    apply_timeout: Duration,
    schedules: SchedulesSettings,
    quotas: Option<Quotas>,
    secrets: SecretsSettings,
    versions: VersionsSettings,
    vault: Vault,
    /// One at a time of this node's changes that others of the same space and method would refuse.
    path_changes: Arc<Semaphore>,
}

impl Catalog {
    /// Makes the catalog of a node.
    pub fn new(
        (store, vault): (Arc<dyn Store>, Vault),
        registry: Reader<Registry>,
        images: Images,
        routes: Reader<RouteTable>,
        allows_processes: bool,
        apply_timeout: Duration,
        (schedules, secrets): (SchedulesSettings, SecretsSettings),
    ) -> Self {
        Self {
            store,
            registry,
            images,
            routes,
            allows_processes,
            apply_timeout,
            schedules,
            quotas: None,
            secrets,
            versions: VersionsSettings::default(),
            vault,
            path_changes: Arc::new(Semaphore::new(1)),
        }
    }

    /// Keeps spaces to their limits.
    #[must_use]
    pub fn with_quotas(self, quotas: Option<Quotas>) -> Self {
        Self { quotas, ..self }
    }

    /// Keeps functions to their numbers of versions and aliases.
    #[must_use]
    pub fn with_versions(self, versions: VersionsSettings) -> Self {
        Self { versions, ..self }
    }

    /// Asks that there be room for one more record under a prefix when it is stored: its guard has not moved by then, so no other was added
    /// meanwhile. Nothing where there are `max`.
    async fn room_for_one(
        &self,
        guard: String,
        prefix: &str,
        max: usize,
    ) -> Result<Option<((String, Precondition), Write)>, StoreError> {
        let count = self.store.get(&guard).await?;
        if self.store.list_page(prefix, None, max).await?.len() >= max {
            return Ok(None);
        }
        let unmoved = (guard.clone(), unmoved(count.as_ref()));
        Ok(Some((unmoved, Write::Put(guard, "{}".into()))))
    }

    /// The spaces that hold something, as this node's registry knows them.
    pub fn spaces(&self) -> BTreeSet<Space> {
        let registry = self.registry.load();
        let subscribed = registry.subscriptions.iter();
        let subscribed = subscribed.map(|subscribed| &subscribed.subscription.space);
        registry
            .functions
            .keys()
            .chain(subscribed)
            .chain(registry.event_types.keys())
            .chain(registry.cors.spaces())
            .chain(registry.schedules.keys())
            .chain(registry.secrets.keys())
            .cloned()
            .collect()
    }

    /// Waits until this node's registry has a revision, so that its own caller finds what it wrote.
    async fn applied(&self, revision: Revision, known: fn(&Registry) -> Revision) {
        if !self.reaches(revision, known, self.apply_timeout).await {
            tracing::warn!(
                revision = revision.0,
                "a write is stored, but this node's registry has not reached it yet"
            );
        }
    }

    async fn reaches(
        &self,
        revision: Revision,
        known: fn(&Registry) -> Revision,
        within: Duration,
    ) -> bool {
        let until = Instant::now() + within;
        let is_reached = |registry: &Registry| known(registry) >= revision;
        self.registry.wait_until(until, is_reached).await
    }
}

/// What a transaction asks of a guard that was read: that nobody moved it.
fn unmoved(guard: Option<&Entry>) -> Precondition {
    guard.map_or(Precondition::Absent, |guard| {
        Precondition::At(guard.revision)
    })
}

/// Pauses before another attempt, longer each time and not as long as others do.
pub(crate) async fn pause(attempt: u32) {
    let longest = (Duration::from_millis(1) * 2u32.saturating_pow(attempt)).min(PAUSE_MAX);
    tokio::time::sleep(longest.mul_f64(rand::random_range(0.0..1.0))).await;
}

fn function_key(space: &str, id: &str) -> String {
    format!("{FUNCTIONS_PREFIX}{space}/{id}")
}

/// The guard of the subscriptions that name a function.
fn uses_key(space: &str, function_id: &str) -> String {
    format!("uses/{space}/{function_id}")
}

/// The guard of the subscriptions of an event type, with the paths of those that answer.
fn types_key(space: &str, name: &str) -> String {
    format!("types/{space}/{name}")
}

/// The guard of the event types that a function authorizes.
pub(crate) fn authorizes_key(space: &str, function_id: &str) -> String {
    format!("authorizes/{space}/{function_id}")
}

/// The guard of the schedules that are for a function.
pub(crate) fn fires_key(space: &str, function_id: &str) -> String {
    format!("fires/{space}/{function_id}")
}

/// The guard of the versions that name a secret.
pub(crate) fn pins_key(space: &str, secret: &str) -> String {
    format!("pins/{space}/{secret}")
}

/// The guard of the functions that name a secret.
pub(crate) fn needs_key(space: &str, secret: &str) -> String {
    format!("needs/{space}/{secret}")
}
