//! What is known of the endpoints of functions: their calls in flight, and whether they are ejected.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::settings::HttpSettings;
use protocol::{Function, FunctionId, Space, Version};
use tokio::time::Instant;

use super::outlier::Outlier;
use crate::Error;

/// Endpoints that are remembered before those without a call in flight and without failures are forgotten.
const ENDPOINTS_MAX: usize = 4096;

/// The endpoints of this node's functions, each with a way to it. What is learned of one counts for one function (space, id and
/// version) only, never for a host.
#[derive(Debug)]
pub(crate) struct Endpoints<W> {
    failures_max: u32,
    ejection: Duration,
    known: Mutex<Known<W>>,
}

/// By function, and version of one.
type Known<W> = HashMap<(Space, FunctionId, Option<Version>), Arc<Endpoint<W>>>;

/// What is known of one function's endpoint on this node.
#[derive(Debug)]
pub(crate) struct Endpoint<W> {
    way: W,
    in_flight: AtomicU32,
    outlier: Mutex<Outlier>,
}

impl<W> Deref for Endpoint<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.way
    }
}

impl<W> Endpoints<W> {
    pub(crate) fn new(settings: &HttpSettings) -> Self {
        Self {
            failures_max: settings.failures_max,
            ejection: settings.ejection,
            known: Mutex::default(),
        }
    }

    /// The endpoint of a function; `way` is asked when it is not known.
    ///
    /// # Errors
    /// Those of `way`.
    pub(crate) fn of(
        &self,
        function: &Function,
        way: impl FnOnce() -> Result<W, Error>,
    ) -> Result<Arc<Endpoint<W>>, Error> {
        let (space, id) = (function.space.clone(), function.function_id.clone());
        let key = (space, id, function.version);
        let mut known = self.known();
        if let Some(endpoint) = known.get(&key) {
            return Ok(Arc::clone(endpoint));
        }
        let way = way()?;
        if known.len() >= ENDPOINTS_MAX {
            known.retain(|_, endpoint| {
                Arc::strong_count(endpoint) > 1 || endpoint.outlier().has_failures()
            });
        }
        let endpoint = Arc::new(Endpoint {
            way,
            in_flight: AtomicU32::new(0),
            outlier: Mutex::new(Outlier::new(self.failures_max, self.ejection)),
        });
        known.insert(key, Arc::clone(&endpoint));
        Ok(endpoint)
    }

    pub(crate) fn forget(&self, space: &Space, function_id: &FunctionId) {
        self.known()
            .retain(|(of, id, _), _| of != space || id != function_id);
    }

    fn known(&self) -> MutexGuard<'_, Known<W>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Endpoint<W> {
    fn outlier(&self) -> MutexGuard<'_, Outlier> {
        self.outlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// One call in flight, whose outcome counts; dropped without one, as when the caller goes, it says nothing of the endpoint.
pub(crate) struct Attempt<W> {
    pub(crate) endpoint: Arc<Endpoint<W>>,
    is_settled: bool,
}

impl<W> Attempt<W> {
    /// # Errors
    /// When as many calls as may be are in flight, or the endpoint is ejected.
    pub(crate) fn begin(endpoint: Arc<Endpoint<W>>, calls_max: u32) -> Result<Self, Error> {
        let in_flight = endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut attempt = Self {
            endpoint,
            is_settled: true,
        };
        if in_flight >= calls_max {
            return Err(Error::Busy { calls_max });
        }
        let admitted = attempt.endpoint.outlier().admit(Instant::now());
        match admitted {
            Ok(()) => {
                attempt.is_settled = false;
                Ok(attempt)
            }
            Err(wait) => Err(Error::Unreachable {
                why: "its endpoint is ejected after repeated connection failures and timeouts"
                    .into(),
                retry_after_ms: Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)),
            }),
        }
    }

    pub(crate) fn settle(&mut self, error: Option<&Error>) {
        self.is_settled = true;
        let mut outlier = self.endpoint.outlier();
        match error {
            Some(Error::Unreachable { .. } | Error::TimedOut { .. }) => {
                outlier.fail(Instant::now());
            }
            // Any answer at all shows that somebody is there, however its body goes on.
            None | Some(_) => outlier.succeed(),
        }
    }
}

impl<W> Drop for Attempt<W> {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.is_settled {
            self.endpoint.outlier().abandon(Instant::now());
        }
    }
}
