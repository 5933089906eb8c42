//! What a node does beside: signing keys in time, the first admin's token, and nothing kept that has ended.

use std::time::Duration;

use config::recurring::{Due, Recurring};
use config::store::{Transaction, Write};
use tokio::time::Instant;

use crate::clock::now_ms;
use crate::follow::Reached;
use crate::login::is_forgotten;
use crate::records::{login, session};
use crate::{Accounts, Error};

/// How soon what failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Records that are removed in one transaction; etcd takes 128.
const AT_ONCE: usize = 100;

/// Goes on until dropped.
pub(crate) async fn keep_house(accounts: Accounts) {
    let mut reached = accounts.inner.reached.subscribe();
    if reached.wait_for(Reached::is_listed).await.is_err() {
        return;
    }
    let mut failing = Recurring::default();
    let mut has_offered = false;
    loop {
        let pause = match accounts.sweep(&mut has_offered).await {
            Ok(()) => {
                failing.end(Instant::now());
                accounts.sweep_pause()
            }
            Err(error) => {
                if let Some(Due { times, seconds }) = failing.note(Instant::now()) {
                    tracing::warn!(%error, times, seconds, "signing keys, or sessions that have ended, can not be seen to; trying again");
                }
                RETRY_DELAY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Accounts {
    /// Nodes that started together do not sweep together.
    fn sweep_pause(&self) -> Duration {
        let interval = self.inner.settings.sweep_interval;
        interval.mul_f64(0.75 + rand::random::<f64>() / 2.0)
    }

    async fn sweep(&self, has_offered: &mut bool) -> Result<(), Error> {
        self.keep_signing_keys().await?;
        // One offer for each time that there is none: the last admin may go.
        if self.is_admin_needed() {
            if !*has_offered {
                self.offer_admin().await?;
            }
            *has_offered = true;
        } else {
            *has_offered = false;
        }
        let ended = self.ended();
        for keys in ended.chunks(AT_ONCE) {
            let writes = keys.iter().cloned().map(Write::Delete).collect();
            self.commit(Transaction {
                preconditions: Vec::new(),
                writes,
            })
            .await?;
        }
        Ok(())
    }

    /// The keys of sessions that have ended and of failed logins that count no more, or are too many.
    fn ended(&self) -> Vec<String> {
        let (known, now) = (self.known(), now_ms());
        let settings = &self.inner.settings;
        let mut ended = Vec::new();
        for (user, sessions) in &known.sessions {
            let over = sessions.iter().filter(|(_, held)| now >= held.record.0);
            ended.extend(over.map(|(id, _)| session::record_key(user, id)));
        }
        let (forgotten, mut kept): (Vec<_>, Vec<_>) =
            (known.logins.iter()).partition(|(_, record)| is_forgotten(settings, record, now));
        let surplus = kept.len().saturating_sub(settings.login_subjects_max);
        if surplus > 0 {
            kept.sort_by_key(|(_, record)| record.last_at_ms);
        }
        let subjects = forgotten.into_iter().chain(kept.into_iter().take(surplus));
        ended.extend(subjects.map(|(subject, _)| login::record_key(subject)));
        ended
    }
}
