//! The members of the etcd cluster: one client each, tried one after another. The config store and the queue in etcd both ask them.
//!
//! etcd's own client spreads its calls over all members and lets those to a dead one fail. Here every operation stays with the
//! member that answered last, and goes on to the next one when it does not, until the operation's time is up.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, LeaseClient, MaintenanceClient,
    TlsOptions, WatchClient,
};
use protocol::Effect;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Code;

use crate::settings::{EtcdSettings, Secret};
use crate::store::Error;

#[cfg(feature = "test-util")]
pub mod server;

/// etcd closes connections that are pinged more often than every 5 s, and those pinged without a call on them.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// The largest answer taken in: a page of a listing, or the events of one revision.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The pause after all members failed once; it doubles with each further round.
const ROUND_PAUSE: Duration = Duration::from_millis(25);
const ROUND_PAUSE_MAX: Duration = Duration::from_millis(400);

/// One member.
pub struct Member {
    /// Its client URL.
    pub url: String,
    client: Client,
    kv: KvClient,
    watch: WatchClient,
    user: Option<(String, Secret)>,
    /// Whether the client has a token. It renews one that expired by itself.
    authenticated: Mutex<bool>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// The client of records, with a token where one is needed.
    ///
    /// # Errors
    /// When it can not be had: this one and those below.
    pub async fn kv(&self) -> Result<KvClient, etcd_client::Error> {
        self.authenticate().await?;
        Ok(self.kv.clone())
    }

    /// The client of leases, with a token where one is needed.
    ///
    /// # Errors
    /// As [`Member::kv`].
    pub async fn leases(&self) -> Result<LeaseClient, etcd_client::Error> {
        self.authenticate().await?;
        Ok(self.client.lease_client())
    }

    /// The client that says how a member does, with a token where one is needed.
    ///
    /// # Errors
    /// As [`Member::kv`].
    pub async fn maintenance(&self) -> Result<MaintenanceClient, etcd_client::Error> {
        self.authenticate().await?;
        Ok(self.client.maintenance_client())
    }

    /// The client of watches, with a token where one is needed.
    ///
    /// # Errors
    /// As [`Member::kv`].
    pub async fn watches(&self) -> Result<WatchClient, etcd_client::Error> {
        self.authenticate().await?;
        Ok(self.watch.clone())
    }

    async fn authenticate(&self) -> Result<(), etcd_client::Error> {
        let Some((user, password)) = &self.user else {
            return Ok(());
        };
        let mut authenticated = self.authenticated.lock().await;
        if !*authenticated {
            self.client
                .clone()
                .update_user(Some((user.clone(), password.expose().to_owned())))
                .await?;
            *authenticated = true;
        }
        Ok(())
    }

    /// Gets a new token before the next call: etcd refused the old one in a way its client does not notice.
    pub async fn forget_token(&self) {
        *self.authenticated.lock().await = false;
    }
}

/// All members, and the one that answered last.
#[derive(Debug)]
pub struct Members {
    all: Vec<Arc<Member>>,
    preferred: AtomicUsize,
    operation_timeout: Duration,
}

impl Members {
    /// Makes the clients; connects to nothing yet.
    ///
    /// # Errors
    /// When there is no endpoint, or a file of the TLS settings can not be read.
    pub async fn new(settings: &EtcdSettings) -> Result<Self, Error> {
        let tls = tls(settings).await?;
        let count = u32::try_from(settings.endpoints.len().max(1)).unwrap_or(u32::MAX);
        let mut all = Vec::with_capacity(settings.endpoints.len());
        for url in &settings.endpoints {
            let mut options = ConnectOptions::new()
                .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
                .with_keep_alive_while_idle(false)
                .with_connect_timeout(settings.operation_timeout / count)
                .with_require_leader(true)
                .with_auto_token_refresh(true);
            if let Some(tls) = tls.clone().filter(|_| url.starts_with("https://")) {
                options = options.with_tls(tls);
            }
            let client = Client::connect([url], Some(options))
                .await
                .map_err(|error| refused(format!("{url}: {error}")))?;
            all.push(Arc::new(Member {
                url: url.clone(),
                kv: client
                    .kv_client()
                    .max_decoding_message_size(ANSWER_BYTES_MAX),
                watch: client
                    .watch_client()
                    .max_decoding_message_size(ANSWER_BYTES_MAX),
                client,
                user: settings.user.clone().zip(settings.password.clone()),
                authenticated: Mutex::new(false),
            }));
        }
        if all.is_empty() {
            return Err(refused("store.etcd.endpoints is empty".into()));
        }
        Ok(Self {
            all,
            preferred: AtomicUsize::new(0),
            operation_timeout: settings.operation_timeout,
        })
    }

    /// The member at a place, counted on and on.
    pub fn at(&self, index: usize) -> &Arc<Member> {
        &self.all[index % self.all.len()]
    }

    /// The place of the member that answered last.
    pub fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// Begins to try members for one operation.
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts {
            members: self,
            index: self.preferred(),
            tried: 0,
            unconnected: 0,
            tokens_refused: 0,
            deadline: Instant::now() + self.operation_timeout,
            failures: Vec::new(),
        }
    }

    /// Runs an operation that may be done more than once, on one member after another until one answers.
    ///
    /// # Errors
    /// When none does in time, or one says what each would say.
    pub async fn read<T, F>(&self, operation: impl Fn(Arc<Member>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut attempts = self.attempts();
        while let Some(attempt) = attempts.next().await {
            match attempt.run(operation(Arc::clone(&attempt.member))).await {
                Ok(answer) => {
                    attempts.answered();
                    return Ok(answer);
                }
                Err(fault) => attempts.failed(&attempt, fault).await?,
            }
        }
        Err(attempts.exhausted(Effect::Refused))
    }
}

/// The attempts of one operation: member after member, round after round, until its time is up.
#[derive(Debug)]
pub struct Attempts<'a> {
    members: &'a Members,
    index: usize,
    tried: usize,
    /// Attempts in a row that found no server to connect to.
    unconnected: usize,
    /// Attempts whose token was refused.
    tokens_refused: usize,
    deadline: Instant,
    /// The last failure of each member.
    failures: Vec<(String, String)>,
}

/// One attempt at one member.
#[derive(Debug)]
pub struct Attempt {
    /// Whom it asks.
    pub member: Arc<Member>,
    time: Duration,
}

impl Attempt {
    /// Runs the attempt's call within its share of the operation's time.
    ///
    /// # Errors
    /// What went wrong, and what that means for the next attempt.
    pub async fn run<T>(
        &self,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Fault> {
        match timeout(self.time, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Fault::of(&error)),
            Err(_) => Err(Fault {
                kind: FaultKind::Unknown,
                why: format!("no answer within {:?}", rounded(self.time)),
            }),
        }
    }
}

/// To milliseconds: what is left of a time is a little less than a round number, which says nothing.
fn rounded(time: Duration) -> Duration {
    let millis = (time + Duration::from_micros(500)).as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl Attempts<'_> {
    /// The next member to try; none when the time is up.
    pub async fn next(&mut self) -> Option<Attempt> {
        let count = self.members.all.len();
        let (round, place) = (self.tried / count, self.tried % count);
        if place == 0 && round > 0 {
            let pause = ROUND_PAUSE
                .saturating_mul(1 << (round - 1).min(8))
                .min(ROUND_PAUSE_MAX);
            sleep_until(
                (Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0))).min(self.deadline),
            )
            .await;
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Nothing runs at any of the addresses, twice over: who waits for this is better told at once.
        if left.is_zero() || self.unconnected >= 2 * count {
            return None;
        }
        let member = Arc::clone(self.members.at(self.index + self.tried));
        self.tried += 1;
        // A member that hangs must leave time for each of the others.
        let share = self.members.operation_timeout / u32::try_from(count).unwrap_or(u32::MAX);
        Some(Attempt {
            member,
            time: left.min(share),
        })
    }

    /// The member tried last answered: the next operation begins with it.
    pub fn answered(&self) {
        self.members.preferred.store(
            (self.index + self.tried - 1) % self.members.all.len(),
            Ordering::Relaxed,
        );
    }

    /// Notes a failure.
    ///
    /// # Errors
    /// When no other member would say otherwise.
    pub async fn failed(&mut self, attempt: &Attempt, fault: Fault) -> Result<(), Error> {
        let Fault { kind, why } = fault;
        tracing::debug!(member = attempt.member.url, why, "etcd operation failed");
        self.unconnected = if kind == FaultKind::Unconnected {
            self.unconnected + 1
        } else {
            0
        };
        if kind == FaultKind::Token {
            attempt.member.forget_token().await;
            self.tokens_refused += 1;
        }
        // A new token for each member, and no more: one that is refused as well will not get better.
        let hopeless =
            attempt.member.user.is_none() || self.tokens_refused > self.members.all.len();
        if kind == FaultKind::Final || (kind == FaultKind::Token && hopeless) {
            return Err(refused(format!("{}: {why}", attempt.member.url)));
        }
        self.failures.retain(|(url, _)| *url != attempt.member.url);
        self.failures.push((attempt.member.url.clone(), why));
        Ok(())
    }

    /// The error once the time is up.
    pub fn exhausted(&self, effect: Effect) -> Error {
        let failures: Vec<_> = self
            .failures
            .iter()
            .map(|(url, why)| format!("{url}: {why}"))
            .collect();
        let failures = if failures.is_empty() {
            "no time was left".to_owned()
        } else {
            failures.join("; ")
        };
        let times = if self.tried == 1 {
            "once".to_owned()
        } else {
            format!("{} times", self.tried)
        };
        let why = format!("tried {times}; {failures}");
        Error::Unavailable { why, effect }
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub struct Fault {
    /// What it means for the next attempt.
    pub kind: FaultKind,
    /// What went wrong.
    pub why: String,
}

/// What a failed attempt means for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// No server was found to connect to, so nothing was written.
    Unconnected,
    /// Nothing was written; another member may answer.
    NotDone,
    /// Nothing was written; a new token may help.
    Token,
    /// A write may have happened.
    Unknown,
    /// Nothing was written, and every member would say the same.
    Final,
}

impl Fault {
    /// What an error of the client means.
    pub fn of(error: &etcd_client::Error) -> Self {
        let etcd_client::Error::GRpcStatus(status) = error else {
            return Self {
                kind: FaultKind::Unknown,
                why: error.to_string(),
            };
        };
        let mut why = status.message().to_owned();
        let mut connected = true;
        let mut cause = status.source();
        while let Some(error) = cause {
            connected &= !error.is::<tonic::ConnectError>();
            cause = error.source();
            if cause.is_none() && !why.contains(&error.to_string()) {
                why = format!("{why}: {error}");
            }
        }
        let message = status.message();
        let kind = match status.code() {
            // Never sent: no connection, or none was ready.
            _ if !connected || message.starts_with("Service was not ready") => {
                FaultKind::Unconnected
            }
            Code::Unauthenticated => FaultKind::Token,
            Code::InvalidArgument
                if message.contains("auth store is old")
                    || message.contains("user name is empty") =>
            {
                FaultKind::Token
            }
            Code::Unavailable if message == "etcdserver: no leader" => FaultKind::NotDone,
            // A listing whose pages were compacted away meanwhile begins anew.
            Code::OutOfRange if message.contains("compacted") => FaultKind::NotDone,
            Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::NotFound
            | Code::Unimplemented => FaultKind::Final,
            _ => FaultKind::Unknown,
        };
        Self { kind, why }
    }
}

async fn tls(settings: &EtcdSettings) -> Result<Option<TlsOptions>, Error> {
    let Some(ca) = &settings.ca_file else {
        return Ok(None);
    };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca).await?));
    if let (Some(certificate), Some(key)) = (&settings.cert_file, &settings.key_file) {
        tls = tls.identity(Identity::from_pem(
            read(certificate).await?,
            read(key).await?,
        ));
    }
    Ok(Some(tls))
}

async fn read(file: &Path) -> Result<Vec<u8>, Error> {
    tokio::fs::read(file)
        .await
        .map_err(|error| refused(format!("file {}: {error}", file.display())))
}

pub(crate) fn refused(why: String) -> Error {
    Error::Unavailable {
        why,
        effect: Effect::Refused,
    }
}

/// The first key after all those that begin with `prefix`.
pub fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_after_its_prefix() {
        let check = |prefix: &[u8], end: &[u8]| assert_eq!(range_end(prefix), end);
        check(b"hearth/", b"hearth0");
        check(b"a\xff", b"b");
        check(b"\xff\xff", b"\0");
    }
}
