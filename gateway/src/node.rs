//! What the edge asks of the node behind it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use actors::catalog::{
    self, Stored, StoredCors, StoredEventType, StoredSchedule, StoredSecret, StoredSubscription,
};
use actors::invoker::{Completed, Failed, Request};
use actors::view::Readiness;
use actors::{Backup, Catalog, Executions, Quotas, Registry};
use async_trait::async_trait;
use bytes::Bytes;
use config::Revision;
use futures_util::stream::BoxStream;
use protocol::{
    CorsId, CorsRecord, EventTypeRecord, Function, FunctionId, ScheduleRecord, SecretName, Space,
    Subscription, SubscriptionId, api,
};
use vault::Plain;

/// What the edge asks of the node behind it; [`actors::Control`] in a running node, a scripted one in tests.
#[async_trait]
pub trait Node: Send + Sync + fmt::Debug + 'static {
    /// The `--name` of the node.
    fn name(&self) -> &Arc<str>;

    /// Runs a function once and waits for its answer, or for the head of one that streams. Dropping the future, or the stream,
    /// cancels the invocation.
    ///
    /// # Errors
    /// [`Failed`], with the code to answer with.
    async fn invoke(&self, request: Request) -> Result<Completed, Box<Failed>>;

    /// Registers a function.
    ///
    /// # Errors
    /// As [`actors::Catalog::create`].
    async fn create(&self, function: Function) -> Result<Stored, catalog::Error>;

    /// Replaces a function; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::update`].
    async fn update(
        &self,
        function: Function,
        at: Option<Revision>,
    ) -> Result<Stored, catalog::Error>;

    /// Replaces a function that was read at this revision, without resolving its image.
    ///
    /// # Errors
    /// As [`actors::Catalog::adjust`].
    async fn adjust(&self, function: Function, at: Revision) -> Result<Stored, catalog::Error>;

    /// Removes a function; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::delete`].
    async fn delete(
        &self,
        space: &str,
        id: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error>;

    /// Reads one record.
    ///
    /// # Errors
    /// As [`actors::Catalog::get`].
    async fn get(&self, space: &str, id: &str) -> Result<Stored, catalog::Error>;

    /// Reads one record, and waits until it can be called here.
    ///
    /// # Errors
    /// As [`actors::Catalog::known`].
    async fn known(&self, space: &str, id: &str) -> Result<Stored, catalog::Error>;

    /// Reads the records of a space, by id.
    ///
    /// # Errors
    /// As [`actors::Catalog::list`].
    async fn list(&self, space: &str) -> Result<Vec<Stored>, catalog::Error>;

    /// The functions and subscriptions this node knows. Asked for every event, so it must be cheap.
    fn registry(&self) -> Arc<Registry>;

    /// Subscribes a function to an event.
    ///
    /// # Errors
    /// As [`actors::Catalog::create_subscription`].
    async fn create_subscription(
        &self,
        subscription: Subscription,
    ) -> Result<StoredSubscription, catalog::Error>;

    /// Replaces what of a subscription can change; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::update_subscription`].
    async fn update_subscription(
        &self,
        id: &SubscriptionId,
        subscription: Subscription,
        at: Option<Revision>,
    ) -> Result<StoredSubscription, catalog::Error>;

    /// Removes a subscription; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::delete_subscription`].
    async fn delete_subscription(
        &self,
        space: &str,
        id: &SubscriptionId,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error>;

    /// Reads one subscription.
    ///
    /// # Errors
    /// As [`actors::Catalog::subscription`].
    async fn subscription(
        &self,
        space: &str,
        id: &SubscriptionId,
    ) -> Result<StoredSubscription, catalog::Error>;

    /// Reads the subscriptions of a space, by id.
    ///
    /// # Errors
    /// As [`actors::Catalog::subscriptions`].
    async fn subscriptions(&self, space: &str) -> Result<Vec<StoredSubscription>, catalog::Error>;

    /// Registers an event type.
    ///
    /// # Errors
    /// As [`actors::Catalog::create_event_type`].
    async fn create_event_type(
        &self,
        event_type: EventTypeRecord,
    ) -> Result<StoredEventType, catalog::Error>;

    /// Replaces an event type; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::update_event_type`].
    async fn update_event_type(
        &self,
        event_type: EventTypeRecord,
        at: Option<Revision>,
    ) -> Result<StoredEventType, catalog::Error>;

    /// Removes an event type; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::delete_event_type`].
    async fn delete_event_type(
        &self,
        space: &str,
        name: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error>;

    /// Reads one event type.
    ///
    /// # Errors
    /// As [`actors::Catalog::event_type`].
    async fn event_type(&self, space: &str, name: &str) -> Result<StoredEventType, catalog::Error>;

    /// Reads the event types of a space, by name.
    ///
    /// # Errors
    /// As [`actors::Catalog::event_types`].
    async fn event_types(&self, space: &str) -> Result<Vec<StoredEventType>, catalog::Error>;

    /// Stores a CORS configuration.
    ///
    /// # Errors
    /// As [`actors::Catalog::create_cors`].
    async fn create_cors(&self, cors: CorsRecord) -> Result<StoredCors, catalog::Error>;

    /// Replaces a CORS configuration; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::update_cors`].
    async fn update_cors(
        &self,
        id: &CorsId,
        cors: CorsRecord,
        at: Option<Revision>,
    ) -> Result<StoredCors, catalog::Error>;

    /// Removes a CORS configuration; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::delete_cors`].
    async fn delete_cors(
        &self,
        space: &str,
        id: &CorsId,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error>;

    /// Reads one CORS configuration.
    ///
    /// # Errors
    /// As [`actors::Catalog::cors`].
    async fn cors(&self, space: &str, id: &CorsId) -> Result<StoredCors, catalog::Error>;

    /// Reads the CORS configurations of a space, by id.
    ///
    /// # Errors
    /// As [`actors::Catalog::all_cors`].
    async fn all_cors(&self, space: &str) -> Result<Vec<StoredCors>, catalog::Error>;

    /// Asynchronous invocations.
    fn executions(&self) -> &Executions;

    /// Stores a schedule.
    ///
    /// # Errors
    /// As [`actors::Catalog::create_schedule`].
    async fn create_schedule(
        &self,
        schedule: ScheduleRecord,
    ) -> Result<StoredSchedule, catalog::Error>;

    /// Replaces a schedule; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::update_schedule`].
    async fn update_schedule(
        &self,
        schedule: ScheduleRecord,
        at: Option<Revision>,
    ) -> Result<StoredSchedule, catalog::Error>;

    /// Removes a schedule; with `at`, only if its record is at that revision.
    ///
    /// # Errors
    /// As [`actors::Catalog::delete_schedule`].
    async fn delete_schedule(
        &self,
        space: &str,
        id: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error>;

    /// Reads one schedule.
    ///
    /// # Errors
    /// As [`actors::Catalog::schedule`].
    async fn schedule(&self, space: &str, id: &str) -> Result<StoredSchedule, catalog::Error>;

    /// Reads the schedules of a space, by id.
    ///
    /// # Errors
    /// As [`actors::Catalog::schedules`].
    async fn schedules(&self, space: &str) -> Result<Vec<StoredSchedule>, catalog::Error>;

    /// Sets a secret.
    ///
    /// # Errors
    /// As [`actors::Catalog::set_secret`].
    async fn set_secret(
        &self,
        space: &Space,
        name: &SecretName,
        value: &Plain,
    ) -> Result<StoredSecret, catalog::Error>;

    /// Removes a secret that no function has.
    ///
    /// # Errors
    /// As [`actors::Catalog::delete_secret`].
    async fn delete_secret(&self, space: &str, name: &str) -> Result<(), catalog::Error>;

    /// Reads the secrets of a space, by name, sealed as they are.
    ///
    /// # Errors
    /// As [`actors::Catalog::secrets`].
    async fn secrets(&self, space: &str) -> Result<Vec<StoredSecret>, catalog::Error>;

    /// Reads and changes records; versions and aliases are asked for here.
    async fn catalog(&self) -> &Catalog;

    /// The whole configuration, to be exported and imported.
    fn backup(&self) -> &Backup;

    /// What may be asked for; everything without.
    fn quotas(&self) -> Option<&Quotas>;

    /// The spaces that hold something.
    fn spaces(&self) -> BTreeSet<Space>;

    /// What a function wrote, one JSON object a line; with `follow` it goes on until dropped.
    async fn output(
        &self,
        space: &Space,
        id: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<Bytes>>;

    /// Whether a balancer should send requests here. Asked for every answer, so it must be cheap.
    fn readiness(&self) -> Readiness;

    /// The cluster as this node sees it.
    fn cluster(&self) -> api::Cluster;

    /// The node's actors.
    async fn actors(&self) -> api::Actors;

    /// What would be chosen now for a function, and why; `None` when it is not registered.
    fn route(&self, space: &Space, id: &FunctionId) -> Option<api::Route>;

    /// Kills an actor, for fault tests; false when there is none of that name.
    fn kill_actor(&self, name: &str) -> bool;
}

#[async_trait]
impl Node for actors::Control {
    fn name(&self) -> &Arc<str> {
        &self.node_name
    }

    async fn invoke(&self, request: Request) -> Result<Completed, Box<Failed>> {
        self.invoker.invoke(request).await
    }

    async fn create(&self, function: Function) -> Result<Stored, catalog::Error> {
        self.catalog.create(function).await
    }

    async fn update(
        &self,
        function: Function,
        at: Option<Revision>,
    ) -> Result<Stored, catalog::Error> {
        self.catalog.update(function, at).await
    }

    async fn adjust(&self, function: Function, at: Revision) -> Result<Stored, catalog::Error> {
        self.catalog.adjust(function, at).await
    }

    async fn delete(
        &self,
        space: &str,
        id: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.catalog.delete(space, id, at).await
    }

    async fn get(&self, space: &str, id: &str) -> Result<Stored, catalog::Error> {
        self.catalog.get(space, id).await
    }

    async fn known(&self, space: &str, id: &str) -> Result<Stored, catalog::Error> {
        self.catalog.known(space, id).await
    }

    async fn list(&self, space: &str) -> Result<Vec<Stored>, catalog::Error> {
        self.catalog.list(space).await
    }

    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.load())
    }

    async fn create_subscription(
        &self,
        subscription: Subscription,
    ) -> Result<StoredSubscription, catalog::Error> {
        self.catalog.create_subscription(subscription).await
    }

    async fn update_subscription(
        &self,
        id: &SubscriptionId,
        subscription: Subscription,
        at: Option<Revision>,
    ) -> Result<StoredSubscription, catalog::Error> {
        self.catalog.update_subscription(id, subscription, at).await
    }

    async fn delete_subscription(
        &self,
        space: &str,
        id: &SubscriptionId,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.catalog.delete_subscription(space, id, at).await
    }

    async fn subscription(
        &self,
        space: &str,
        id: &SubscriptionId,
    ) -> Result<StoredSubscription, catalog::Error> {
        self.catalog.subscription(space, id).await
    }

    async fn subscriptions(&self, space: &str) -> Result<Vec<StoredSubscription>, catalog::Error> {
        self.catalog.subscriptions(space).await
    }

    async fn create_event_type(
        &self,
        event_type: EventTypeRecord,
    ) -> Result<StoredEventType, catalog::Error> {
        self.catalog.create_event_type(event_type).await
    }

    async fn update_event_type(
        &self,
        event_type: EventTypeRecord,
        at: Option<Revision>,
    ) -> Result<StoredEventType, catalog::Error> {
        self.catalog.update_event_type(event_type, at).await
    }

    async fn delete_event_type(
        &self,
        space: &str,
        name: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.catalog.delete_event_type(space, name, at).await
    }

    async fn event_type(&self, space: &str, name: &str) -> Result<StoredEventType, catalog::Error> {
        self.catalog.event_type(space, name).await
    }

    async fn event_types(&self, space: &str) -> Result<Vec<StoredEventType>, catalog::Error> {
        self.catalog.event_types(space).await
    }

    async fn create_cors(&self, cors: CorsRecord) -> Result<StoredCors, catalog::Error> {
        self.catalog.create_cors(cors).await
    }

    async fn update_cors(
        &self,
        id: &CorsId,
        cors: CorsRecord,
        at: Option<Revision>,
    ) -> Result<StoredCors, catalog::Error> {
        self.catalog.update_cors(id, cors, at).await
    }

    async fn delete_cors(
        &self,
        space: &str,
        id: &CorsId,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.catalog.delete_cors(space, id, at).await
    }

    async fn cors(&self, space: &str, id: &CorsId) -> Result<StoredCors, catalog::Error> {
        self.catalog.cors(space, id).await
    }

    async fn all_cors(&self, space: &str) -> Result<Vec<StoredCors>, catalog::Error> {
        self.catalog.all_cors(space).await
    }

    fn executions(&self) -> &Executions {
        &self.executions
    }

    async fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn backup(&self) -> &Backup {
        &self.backup
    }

    async fn create_schedule(
        &self,
        schedule: ScheduleRecord,
    ) -> Result<StoredSchedule, catalog::Error> {
        self.catalog.create_schedule(schedule).await
    }

    async fn update_schedule(
        &self,
        schedule: ScheduleRecord,
        at: Option<Revision>,
    ) -> Result<StoredSchedule, catalog::Error> {
        self.catalog.update_schedule(schedule, at).await
    }

    async fn delete_schedule(
        &self,
        space: &str,
        id: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.catalog.delete_schedule(space, id, at).await
    }

    async fn schedule(&self, space: &str, id: &str) -> Result<StoredSchedule, catalog::Error> {
        self.catalog.schedule(space, id).await
    }

    async fn schedules(&self, space: &str) -> Result<Vec<StoredSchedule>, catalog::Error> {
        self.catalog.schedules(space).await
    }

    fn quotas(&self) -> Option<&Quotas> {
        self.quotas.as_ref()
    }

    async fn set_secret(
        &self,
        space: &Space,
        name: &SecretName,
        value: &Plain,
    ) -> Result<StoredSecret, catalog::Error> {
        self.catalog.set_secret(space, name, value).await
    }

    async fn delete_secret(&self, space: &str, name: &str) -> Result<(), catalog::Error> {
        self.catalog.delete_secret(space, name).await
    }

    async fn secrets(&self, space: &str) -> Result<Vec<StoredSecret>, catalog::Error> {
        self.catalog.secrets(space).await
    }

    fn spaces(&self) -> BTreeSet<Space> {
        self.catalog.spaces()
    }

    async fn output(
        &self,
        space: &Space,
        id: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<Bytes>> {
        self.output.read(space, id, follow).await
    }

    fn readiness(&self) -> Readiness {
        self.view.readiness()
    }

    fn cluster(&self) -> api::Cluster {
        self.view.cluster()
    }

    async fn actors(&self) -> api::Actors {
        self.view.actors().await
    }

    fn route(&self, space: &Space, id: &FunctionId) -> Option<api::Route> {
        self.view.route(space, id)
    }

    fn kill_actor(&self, name: &str) -> bool {
        self.view.kill_actor(name)
    }
}
