//! The session of a node: a key that etcd removes when nobody keeps its lease alive.

use std::sync::Arc;
use std::time::Duration;

use config::etcd::Member;
use config::recurring::{Due, Recurring};
use etcd_client::Error;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::look::Owner;
use super::shared::{Current, Shared, why};
use super::transaction::{Changes, Done, Op, Session, Silent, Standing};
use crate::backend::Stats;

/// The first pause before a session is asked for again; it doubles each time.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Shared {
    /// Begins a session, however long that takes.
    pub(super) async fn begin_session(&self) -> Session {
        let mut outage = Recurring::default();
        let mut pause = PAUSE;
        loop {
            match self.try_begin().await {
                Ok(session) => {
                    let seconds = outage.end(Instant::now()).unwrap_or_default();
                    tracing::info!(session = %session.id, seconds, "the queue in etcd has a session: events are accepted");
                    return session;
                }
                Err(why) => {
                    if let Some(Due { times, seconds }) = outage.note(Instant::now()) {
                        tracing::warn!(
                            why,
                            times,
                            seconds,
                            "the queue in etcd can not be used: events are answered with 503 until etcd answers"
                        );
                    }
                    sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn try_begin(&self) -> Result<Session, String> {
        let asked_at = Instant::now();
        let seconds = i64::try_from(self.options.session_timeout.as_secs()).unwrap_or(i64::MAX);
        let grant = async |member: Arc<Member>| {
            let granted = member.leases().await?.grant(seconds, None).await?;
            Ok((granted.id(), granted.ttl()))
        };
        let granted = self.members.read(grant).await;
        let (lease, ttl) = granted.map_err(why)?;
        // Etcd may give more than it was asked for.
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or_default());
        let mut session = Session::new(lease, ttl);
        let owner = Owner {
            node: self.options.node.clone(),
            has_left: false,
            is_handed: false,
        };
        let changes = Changes {
            guards: Vec::new(),
            // It outlives the session, so that what is held under its name is found.
            ops: vec![Op::Put(self.keys.owner(session.id), owner.write())],
        };
        let standing = self.standing(Stats::default(), true);
        let until = asked_at + ttl;
        loop {
            match session
                .commit(&self.members, &self.keys, &standing, &changes)
                .await
            {
                Ok(Done::Written(_)) => break,
                Ok(Done::Refused | Done::Lost) => return Err("its lease ended at once".to_owned()),
                Err(Silent {
                    may_have_happened: true,
                    ..
                }) if Instant::now() < until => {}
                Err(Silent { why, .. }) => return Err(why),
            }
        }
        let id = session.id;
        self.begin(Current::new(id, ttl, until));
        Ok(session)
    }

    /// What the session says of this node.
    pub(super) fn standing(&self, held: Stats, has_permits: bool) -> Standing {
        Standing {
            node: self.options.node.clone(),
            generation: self.options.generation,
            len: (held.waiting + held.leased) as u64,
            bytes: held.waiting_bytes as u64,
            has_permits,
            number: rand::random(),
        }
    }

    /// Keeps a session alive, and returns why that came to an end.
    pub(super) async fn keep_session(&self, lease: i64, ttl: Duration) -> String {
        let mut beat = interval(ttl / 10);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until = Instant::now() + ttl;
        if let Some(current) = self.state().session {
            until = current.until;
        }
        loop {
            beat.tick().await;
            let asked_at = Instant::now();
            let kept = tokio::select! {
                kept = self.keep_alive(lease) => kept,
                () = sleep_until(until) => return format!("etcd was not heard for {ttl:?}"),
            };
            match kept {
                Ok(true) => {
                    until = asked_at + ttl;
                    self.prolong(until);
                }
                Ok(false) => return "etcd has ended it, as it did not hear of it".to_owned(),
                Err(why) => tracing::debug!(why, "the session of the queue was not kept alive"),
            }
            if Instant::now() >= until {
                return format!("etcd was not heard for {ttl:?}");
            }
        }
    }

    /// Keeps a lease alive once; false when there is no such lease.
    async fn keep_alive(&self, lease: i64) -> Result<bool, String> {
        let keep = async |member: Arc<Member>| {
            let kept = member.leases().await?.keep_alive(lease).await;
            match kept {
                Ok(_) => Ok(true),
                Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        };
        let kept = self.members.read(keep).await;
        kept.map_err(why)
    }
}
