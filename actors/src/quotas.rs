//! What may be asked for: which limits a call, a request or a delivery counts for, and what it takes to pass them.

use std::num::NonZeroU32;
use std::sync::Arc;

use accounts::{Accounts, Caller};
use config::settings::QuotasSettings;
use config::store;
use limits::{Besides, Exceeded, Limits, Permit, Rate, Standing, Subject};
use protocol::{Function, RateSpec, Space};

/// What may be asked for, as this node applies it; cheap to clone.
#[derive(Debug, Clone)]
pub struct Quotas(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    accounts: Accounts,
    settings: QuotasSettings,
}

/// The limits that something counts for.
#[derive(Debug, Default)]
pub struct Terms([Option<Term>; 2]);

/// What one subject may have.
#[derive(Debug)]
struct Term {
    subject: Subject,
    rate: Option<Rate>,
    concurrent: Option<u32>,
}

/// What was let in; dropped when it has ended.
#[derive(Debug, Default)]
pub struct Admitted {
    permits: [Option<Permit>; 2],
    /// How the tightest rate stands that it counted for.
    pub standing: Option<Standing>,
}

impl Admitted {
    /// Whether it counts until it has ended.
    pub fn is_going_on(&self) -> bool {
        self.permits.iter().any(Option::is_some)
    }

    /// Notes how a rate stands.
    fn stands(&mut self, standing: Standing) {
        let tightest = self
            .standing
            .filter(|one| one.remaining <= standing.remaining);
        self.standing = tightest.or(Some(standing));
    }
}

/// What is passed one after the other: first what may have to wait, so that nothing is counted for a rate that does not run.
const STEPS: usize = 4;

/// What is asked of one subject in one step.
enum Asked {
    Concurrent(u32),
    Rate(Rate),
}

impl Terms {
    /// Whether there is nothing to pass.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// What is passed in that step.
    fn step(&self, step: usize) -> Option<(&Subject, Asked)> {
        let count = self.0.len();
        let term = self.0[step % count].as_ref()?;
        let asked = match step < count {
            true => Asked::Concurrent(term.concurrent?),
            false => Asked::Rate(term.rate?),
        };
        Some((&term.subject, asked))
    }
}

impl Term {
    /// Nothing where there is no limit.
    fn new(
        subject: impl FnOnce() -> Subject,
        rate: Option<Rate>,
        concurrent: Option<u32>,
    ) -> Option<Self> {
        (rate.is_some() || concurrent.is_some()).then(|| Self {
            subject: subject(),
            rate,
            concurrent,
        })
    }
}

impl Quotas {
    /// Puts the limits that are set before the service that counts for all nodes.
    pub fn new(limits: Limits, accounts: Accounts, settings: QuotasSettings) -> Self {
        Self(Arc::new(Inner {
            limits,
            accounts,
            settings,
        }))
    }

    /// What an invocation of a function counts for: the function and its space. Asked for every invocation.
    pub fn terms_of_call(&self, function: &Function) -> Terms {
        let (space, id) = (&function.space, &function.function_id);
        let of_function = function.limits.as_ref().and_then(|own| {
            let subject = || Subject::Function(space.clone(), id.clone());
            Term::new(subject, own.rate.as_ref().and_then(rate), own.concurrent)
        });
        let (set, settings) = (self.0.accounts.space_limits(space), &self.0.settings);
        let default = default_rate(settings.space_rate, settings.space_burst);
        let of_space = Term::new(
            || Subject::Space(space.clone()),
            set.rate.as_ref().and_then(rate).or(default),
            set.concurrent
                .or_else(|| above_zero(settings.space_concurrent)),
        );
        Terms([of_function, of_space])
    }

    /// What a request counts for: its user. Whoever has no account has no limit.
    pub fn terms_of_request(&self, caller: &Caller) -> Terms {
        let Some(user) = caller.user_id() else {
            return Terms::default();
        };
        let (set, settings) = (self.0.accounts.user_limits(user), &self.0.settings);
        let default = default_rate(settings.user_rate, settings.user_burst);
        let of_user = Term::new(
            || Subject::Caller(user.to_string()),
            set.rate.as_ref().and_then(rate).or(default),
            set.concurrent
                .or_else(|| above_zero(settings.user_concurrent)),
        );
        Terms([of_user, None])
    }

    /// Passes all of them, or waits a bounded while for what other nodes may give back.
    ///
    /// # Errors
    /// [`Exceeded`], for the first that is used up.
    pub async fn admit(&self, terms: Terms) -> Result<Admitted, Exceeded> {
        let mut admitted = Admitted::default();
        match self.admit_now(&terms, &mut admitted)? {
            STEPS => Ok(admitted),
            // In a box, so that who need not wait carries nothing of it.
            done => Box::pin(self.admit_rest(terms, done, admitted)).await,
        }
    }

    /// Passes those for which nobody has to be waited for; how many there were.
    fn admit_now(&self, terms: &Terms, admitted: &mut Admitted) -> Result<usize, Exceeded> {
        for step in 0..STEPS {
            match terms.step(step) {
                None => {}
                Some((subject, Asked::Concurrent(max))) => {
                    match self.0.limits.try_enter(subject, max)? {
                        Some(permit) => admitted.permits[step] = Some(permit),
                        None => return Ok(step),
                    }
                }
                Some((subject, Asked::Rate(rate))) => {
                    match self.0.limits.try_take(subject, rate)? {
                        Some(standing) => admitted.stands(standing),
                        None => return Ok(step),
                    }
                }
            }
        }
        Ok(STEPS)
    }

    /// Passes the others, each as soon as it is its turn.
    async fn admit_rest(
        &self,
        terms: Terms,
        done: usize,
        mut admitted: Admitted,
    ) -> Result<Admitted, Exceeded> {
        for step in done..STEPS {
            match terms.step(step) {
                None => {}
                Some((subject, Asked::Concurrent(max))) => {
                    admitted.permits[step] = Some(self.0.limits.enter(subject, max).await?);
                }
                Some((subject, Asked::Rate(rate))) => {
                    admitted.stands(self.0.limits.take(subject, rate).await?);
                }
            }
        }
        Ok(admitted)
    }

    /// Begins to queue so many deliveries of a space; the permit is for as long as they are not queued yet. `queued` counts those of
    /// this node that are.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub async fn admit_queued(
        &self,
        space: &Space,
        count: usize,
        queued: impl FnOnce() -> Besides,
    ) -> Result<Option<Permit>, Exceeded> {
        let set = self.0.accounts.space_limits(space).queued;
        let Some(max) = set.or_else(|| above_zero(self.0.settings.space_queued)) else {
            return Ok(None);
        };
        let subject = Subject::Space(space.clone());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let permit = self.0.limits.enqueue(&subject, max, count, queued).await?;
        Ok(Some(permit))
    }

    /// How many functions a space may have, as the store says.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn functions_max(&self, space: &Space) -> Result<Option<u32>, store::Error> {
        let set = self.0.accounts.space(space).await;
        let set = set.map_err(|error| match error {
            accounts::Error::Store(error) => error,
            error => store::Error::Damaged {
                why: error.to_string(),
            },
        })?;
        let set = set.limits.functions;
        Ok(set.or_else(|| above_zero(self.0.settings.space_functions)))
    }
}

fn rate(spec: &RateSpec) -> Option<Rate> {
    Some(Rate {
        per_second: NonZeroU32::new(spec.per_second)?,
        burst: NonZeroU32::new(spec.burst())?,
    })
}

fn default_rate(per_second: u32, burst: u32) -> Option<Rate> {
    rate(&RateSpec {
        per_second,
        burst: above_zero(burst),
    })
}

fn above_zero(number: u32) -> Option<u32> {
    Some(number).filter(|number| *number > 0)
}
