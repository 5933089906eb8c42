//! Schedules.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::ScheduleRecord;
use protocol::schedule::Invalid;

use super::{
    ATTEMPTS_MAX, CATCH_UP, Catalog, Error, StoredSchedule, fires_key, function_key, pause, unmoved,
};
use crate::registry_cache::state::{read_schedule, schedule_key};
use crate::registry_cache::{RegisteredSchedule, Registry, SCHEDULES_PREFIX};
use crate::scheduler::progress::{Progress, progress_key, progress_prefix};

/// Slots that are looked at to find the shortest time between two.
const SLOTS_CHECKED: usize = 64;

impl Catalog {
    /// Stores a schedule, if its space may have one more.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn create_schedule(&self, schedule: ScheduleRecord) -> Result<StoredSchedule, Error> {
        self.check_limits(&schedule)?;
        let (space, id) = (schedule.space.as_str(), schedule.schedule_id.as_str());
        let (key, count_key) = (schedule_key(space, id), format!("counts/{space}/schedules"));
        for attempt in 0..ATTEMPTS_MAX {
            let count = self.store.get(&count_key).await?;
            // The guard has not moved when this is stored, so no other was added meanwhile.
            let all = self.store.list(&of_space(space)).await?;
            if all.entries.iter().any(|entry| entry.key == key) {
                return Err(Error::ScheduleExists(id.to_owned()));
            }
            if all.entries.len() >= self.schedules.per_space_max {
                return Err(Error::TooManySchedules {
                    space: schedule.space.clone(),
                    max: self.schedules.per_space_max,
                });
            }
            let mut transaction = put(&schedule, (key.clone(), Precondition::Absent));
            let unmoved = (count_key.clone(), unmoved(count.as_ref()));
            transaction.preconditions.push(unmoved);
            let counted = Write::Put(count_key.clone(), id.to_owned().into());
            transaction.writes.push(counted);
            // Of one before it that was removed together with its progress there is none; this is for what was written by hand.
            transaction
                .writes
                .push(Write::Delete(progress_key(space, id)));
            match self.commit_schedule(&schedule, transaction).await {
                Ok(revision) => return Ok(stored(schedule, revision, None)),
                Err(Error::Store(StoreError::Precondition { .. })) => pause(attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(contended(id))
    }

    /// Replaces a schedule. With `at`, only if the record is at that revision. One that is due at other times than before, or was off,
    /// begins anew: what it missed until now is forgotten.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn update_schedule(
        &self,
        schedule: ScheduleRecord,
        at: Option<Revision>,
    ) -> Result<StoredSchedule, Error> {
        self.check_limits(&schedule)?;
        let (space, id) = (schedule.space.as_str(), schedule.schedule_id.as_str());
        let key = schedule_key(space, id);
        for attempt in 0..ATTEMPTS_MAX {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| Error::ScheduleNotFound(id.to_owned()))?;
            let before = read_schedule(&entry).map(|registered| registered.schedule);
            let precondition = Precondition::At(at.unwrap_or(entry.revision));
            let mut transaction = put(&schedule, (key.clone(), precondition));
            if let Some(before) = &before
                && before.function_id != schedule.function_id
            {
                transaction.writes.extend(moved_guard(before));
            }
            let goes_on = before.is_some_and(|before| {
                before.has_plan_of(&schedule) && (before.enabled || !schedule.enabled)
            });
            if !goes_on {
                transaction
                    .writes
                    .push(Write::Delete(progress_key(space, id)));
            }
            match self.commit_schedule(&schedule, transaction).await {
                Ok(revision) => {
                    let progress = self.progress(space, id).await?;
                    return Ok(stored(schedule, revision, progress));
                }
                Err(Error::Store(StoreError::Precondition { .. })) if at.is_some() => {
                    return Err(Error::ScheduleChanged(id.to_owned()));
                }
                Err(Error::Store(StoreError::Precondition { .. })) => pause(attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(contended(id))
    }

    /// Removes a schedule; what it queued is delivered. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete_schedule(
        &self,
        space: &str,
        id: &str,
        at: Option<Revision>,
    ) -> Result<(), Error> {
        let key = schedule_key(space, id);
        for attempt in 0..ATTEMPTS_MAX {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| Error::ScheduleNotFound(id.to_owned()))?;
            let before = read_schedule(&entry).map(|registered| registered.schedule);
            let mut writes = vec![
                Write::Delete(key.clone()),
                Write::Delete(progress_key(space, id)),
            ];
            writes.extend(before.as_deref().and_then(moved_guard));
            let precondition = Precondition::At(at.unwrap_or(entry.revision));
            let transaction = Transaction {
                preconditions: vec![(key.clone(), precondition)],
                writes,
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, known).await;
                    return Ok(());
                }
                Err(StoreError::Precondition { .. }) if at.is_some() => {
                    return Err(Error::ScheduleChanged(id.to_owned()));
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(id))
    }

    /// Reads one schedule from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::ScheduleNotFound`].
    pub async fn schedule(&self, space: &str, id: &str) -> Result<StoredSchedule, Error> {
        let not_found = || Error::ScheduleNotFound(id.to_owned());
        match self.store.get(&schedule_key(space, id)).await {
            Ok(entry) => {
                let registered = read(&entry.ok_or_else(not_found)?)?;
                let progress = self.progress(space, id).await?;
                Ok(of_registered(&registered, progress))
            }
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let registry = self.registry.load();
                let space = space.parse().map_err(|_| not_found())?;
                let mut all = registry.schedules_of(&space);
                let found = all.find(|found| found.schedule.schedule_id.as_str() == id);
                Ok(of_registered(found.ok_or_else(not_found)?, None))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the schedules of a space, by id, from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// When what the store holds can not be read.
    pub async fn schedules(&self, space: &str) -> Result<Vec<StoredSchedule>, Error> {
        let (prefix, progress_prefix) = (of_space(space), progress_prefix(space));
        let listings =
            tokio::try_join!(self.store.list(&prefix), self.store.list(&progress_prefix));
        match listings {
            Ok((records, progress)) => records
                .entries
                .iter()
                .map(|entry| {
                    let registered = read(entry)?;
                    let id = registered.schedule.schedule_id.as_str();
                    let key = progress_key(space, id);
                    let found = progress.entries.iter().find(|entry| entry.key == key);
                    let found = found.and_then(|entry| Progress::read(&entry.value));
                    Ok(of_registered(&registered, found))
                })
                .collect(),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let registry = self.registry.load();
                let Ok(space) = space.parse() else {
                    return Ok(Vec::new());
                };
                let all = registry.schedules_of(&space);
                Ok(all
                    .map(|registered| of_registered(registered, None))
                    .collect())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The schedule that is for a function, as of the revision of its guard or later.
    pub(super) async fn schedule_for(
        &self,
        space: &str,
        function_id: &str,
        guard: Revision,
    ) -> Result<Option<String>, Error> {
        let is_for = |schedule: &ScheduleRecord| {
            let named = schedule.function_id.as_ref();
            named.is_some_and(|named| named.as_str() == function_id)
        };
        if self.reaches(guard, known, CATCH_UP).await {
            let Ok(space) = space.parse() else {
                return Ok(None);
            };
            let registry = self.registry.load();
            let mut all = registry.schedules_of(&space);
            let found = all.find(|registered| is_for(&registered.schedule));
            return Ok(found.map(|registered| registered.schedule.schedule_id.to_string()));
        }
        let all = self.schedules(space).await?;
        let found = all.iter().find(|stored| is_for(&stored.schedule));
        Ok(found.map(|stored| stored.schedule.schedule_id.to_string()))
    }

    async fn progress(&self, space: &str, id: &str) -> Result<Option<Progress>, Error> {
        let entry = self.store.get(&progress_key(space, id)).await?;
        Ok(entry.and_then(|entry| Progress::read(&entry.value)))
    }

    /// What only a node can check: its settings and its clock.
    fn check_limits(&self, schedule: &ScheduleRecord) -> Result<(), Error> {
        let refused = |why: Invalid| Error::ScheduleLimit(why.to_string());
        let data_max = self.schedules.data_max;
        if let Some(data) = &schedule.data
            && data.get().len() as u64 > data_max.as_u64()
        {
            let (bytes, max) = (data.get().len(), data_max.as_u64());
            let why =
                format!("data has {bytes} bytes, expected at most {max} (schedules.data_max)");
            return Err(Error::ScheduleLimit(why));
        }
        let now_ms = wall_ms();
        let plan = schedule.plan().map_err(refused)?;
        if plan.next_after(now_ms).is_none() {
            let why = Invalid::new("cron", &schedule.cron, "one that comes once more");
            return Err(refused(why));
        }
        let min = self.schedules.interval_min;
        // Cron expressions go by the second, and intervals as well.
        if min > Duration::from_secs(1)
            && let Some(gap) = plan.shortest_gap(now_ms, SLOTS_CHECKED)
            && gap < min
        {
            let shown = humantime(min);
            let expected = format!("at least {shown} from slot to slot (schedules.interval_min)");
            return Err(refused(match (&schedule.cron, schedule.every) {
                (Some(cron), _) => Invalid::new("cron", cron, expected),
                (None, every) => Invalid::new("every", &every.map(humantime), expected),
            }));
        }
        Ok(())
    }

    /// Commits a schedule whose function must be there then.
    async fn commit_schedule(
        &self,
        schedule: &ScheduleRecord,
        mut transaction: Transaction,
    ) -> Result<Revision, Error> {
        let space = schedule.space.as_str();
        let mut needed = None;
        if let Some(function_id) = &schedule.function_id {
            let function_id = function_id.as_str();
            let key = function_key(space, function_id);
            let present = (key.clone(), Precondition::Present);
            transaction.preconditions.push(present);
            let guard = fires_key(space, function_id);
            let id = schedule.schedule_id.to_string();
            transaction.writes.push(Write::Put(guard, id.into()));
            needed = Some((key, function_id));
        }
        match self.store.commit(transaction).await {
            Ok(revision) => {
                self.applied(revision, known).await;
                Ok(revision)
            }
            Err(StoreError::Precondition { key }) => match needed {
                Some((needed, function_id)) if key == needed => {
                    Err(Error::UnknownFunction(function_id.to_owned()))
                }
                _ => Err(StoreError::Precondition { key }.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// The wall clock of this node, in milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The revision that the registry's schedules are at.
fn known(registry: &Registry) -> Revision {
    registry.schedules_revision
}

fn of_space(space: &str) -> String {
    format!("{SCHEDULES_PREFIX}{space}/")
}

fn humantime(duration: Duration) -> String {
    format!("{duration:?}")
}

/// Moves the guard of the function that a schedule was for, so that a node whose registry is behind does not decide by it.
fn moved_guard(before: &ScheduleRecord) -> Option<Write> {
    let function_id = before.function_id.as_ref()?;
    let key = fires_key(before.space.as_str(), function_id.as_str());
    Some(Write::Put(key, before.schedule_id.to_string().into()))
}

fn put(schedule: &ScheduleRecord, precondition: (String, Precondition)) -> Transaction {
    let value = serde_json::to_vec(schedule).expect("a record has string keys only");
    Transaction {
        writes: vec![Write::Put(precondition.0.clone(), value.into())],
        preconditions: vec![precondition],
    }
}

fn read(entry: &Entry) -> Result<RegisteredSchedule, Error> {
    let registered = read_schedule(entry).ok_or_else(|| StoreError::Damaged {
        why: format!("record {}", entry.key),
    })?;
    Ok(registered)
}

fn stored(
    schedule: ScheduleRecord,
    revision: Revision,
    progress: Option<Progress>,
) -> StoredSchedule {
    StoredSchedule {
        schedule: Arc::new(schedule),
        revision,
        progress,
    }
}

fn of_registered(registered: &RegisteredSchedule, progress: Option<Progress>) -> StoredSchedule {
    StoredSchedule {
        schedule: Arc::clone(&registered.schedule),
        revision: registered.revision,
        progress,
    }
}

fn contended(id: &str) -> Error {
    Error::Contended(format!("schedule {id}"))
}
