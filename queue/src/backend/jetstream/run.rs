//! The tasks of the queue: it gives signs of life, hears those of others, answers them, and looks through what waits when there is a
//! reason to, or once in a while.

use std::sync::Arc;

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::api::Failed;
use super::trim::Kept;
use super::{OpenError, Shared, streams};

/// What a session says as long as it lives, and when it ends.
const HERE: &str = "here";
const LEFT: &str = "left";

/// Makes the streams, takes back what this node had before, and starts the tasks. When NATS is away that is done when it is there.
pub(super) async fn begin(shared: &Arc<Shared>) -> Result<(), OpenError> {
    let client = shared.api.client();
    let subscribe = async |subject: String| {
        let subscribed = client.subscribe(subject).await;
        subscribed.map_err(|error| OpenError::Connect(error.to_string()))
    };
    let nodes = subscribe(shared.names.all_nodes()).await?;
    let asked = subscribe(shared.names.cancel(&shared.session)).await?;
    let is_set_up = match set_up(shared).await {
        Ok(()) => true,
        Err(OpenError::Away(error)) => {
            tracing::warn!(%error, "the queue is not there yet: events are answered with 503, and this is tried until it is");
            false
        }
        Err(error) => return Err(error),
    };
    let run = listen(Arc::clone(shared), nodes, asked);
    spawn(shared, run);
    spawn(shared, live(Arc::clone(shared)));
    spawn(shared, look_through(Arc::clone(shared), is_set_up));
    Ok(())
}

/// Tells what has not been told, and then that this session ends, so that the others take its deliveries over now.
pub(super) async fn end(shared: &Shared, until: Instant) {
    if !shared.sessions.end() {
        return;
    }
    let batches: Vec<_> = shared.held().batches.values().cloned().collect();
    for batch in batches {
        let _ = timeout_at(until, shared.tell_all(&batch)).await;
    }
    match say(shared, LEFT).await {
        Ok(_) => tracing::info!("what waits in NATS is left to the other nodes"),
        Err(failed) => {
            tracing::warn!(error = %failed, "the other nodes take over what waits when this one is missed");
        }
    }
}

fn spawn(shared: &Arc<Shared>, task: impl Future<Output = ()> + Send + 'static) {
    let stop = shared.stop.clone();
    shared.tasks.spawn(stop.run_until_cancelled_owned(task));
}

async fn set_up(shared: &Shared) -> Result<(), OpenError> {
    shared.api.connected(shared.api.deadline()).await?;
    let (version, replicas) = (shared.api.version(), shared.options.settings.replicas);
    if replicas > 1 && !streams::keeps_replicas(&version) {
        return Err(OpenError::Version { version, replicas });
    }
    streams::ensure(&shared.api, &shared.names, &shared.options).await?;
    tell_what_is_kept(shared);
    give_sign(shared).await?;
    // Only what this node had before is known to be nobody's by now.
    let begun = Instant::now();
    shared.sweep().await?;
    shared.sessions.looked_through(begun);
    shared.changed.notify_one();
    look_at_dead(shared, true).await?;
    let stats = shared.held().stats();
    tracing::info!(
        waiting = stats.waiting,
        dead_letters = stats.dead,
        session = shared.session,
        "the queue in NATS was opened"
    );
    Ok(())
}

/// What may still be lost is told once, for whoever reads the log after it was.
fn tell_what_is_kept(shared: &Shared) {
    let version = shared.api.version();
    let (servers, replicas) = (shared.api.servers(), shared.options.settings.replicas);
    match replicas {
        1 => tracing::warn!(
            version,
            servers,
            "NATS acknowledges before its disk has what was accepted: it survives the death of the NATS process, and not a power cut, unless the server has `jetstream {{ sync_interval: always }}` (NATS 2.10 and later), which a client can not see"
        ),
        replicas => tracing::info!(
            version,
            servers,
            replicas,
            "NATS acknowledges when most of the replicas have what was accepted, in memory: it survives a power cut of fewer than half of them"
        ),
    }
}

/// Gives signs of life.
async fn live(shared: Arc<Shared>) {
    let mut tick = interval(shared.sessions.pace());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_told = false;
    loop {
        tick.tick().await;
        if shared.sessions.is_ended() {
            return;
        }
        match give_sign(&shared).await {
            Ok(()) => was_told = false,
            Err(failed) if !was_told && !shared.sessions.is_held() => {
                was_told = true;
                tracing::warn!(error = %failed, "no sign of life of this node reaches NATS: it begins no deliveries, and others may take them over");
            }
            Err(failed) => tracing::debug!(error = %failed, "a sign of life did not reach NATS"),
        }
        for session in shared.sessions.newly_dead() {
            tracing::warn!(
                session,
                "a node gives no sign of life, and its deliveries are taken over"
            );
            shared.sweep.notify_one();
        }
    }
}

/// Gives one sign of life.
async fn give_sign(shared: &Shared) -> Result<(), Failed> {
    let given = say(shared, HERE).await?;
    if shared.sessions.is_ended() {
        // The last word is that it ended.
        return say(shared, LEFT).await.map(|_| ());
    }
    if !shared.sessions.heard_own(given) {
        shared.sweep.notify_one();
    }
    Ok(())
}

/// Says something to all nodes; when that was, at the latest.
async fn say(shared: &Shared, what: &'static str) -> Result<Instant, Failed> {
    let given = Instant::now();
    // One that waited for a connection would say that this node lived when it is read.
    let deadline = shared.api.deadline().min(given + shared.sessions.pace());
    shared.api.connected(deadline).await?;
    let given = Instant::now();
    let subject = shared.names.node(&shared.session);
    let body = Bytes::from_static(what.as_bytes());
    let said = shared
        .api
        .put(&subject, None, HeaderMap::new(), body, deadline);
    said.await?;
    Ok(given)
}

/// Hears the others, and answers them.
async fn listen(shared: Arc<Shared>, mut nodes: Subscriber, mut asked: Subscriber) {
    loop {
        tokio::select! {
            Some(sign) = nodes.next() => {
                if let Some(session) = shared.names.session(&sign.subject)
                    && shared.sessions.heard(session, sign.payload == LEFT)
                {
                    tracing::info!(session, "a node left, and its deliveries are taken over");
                    shared.sweep.notify_one();
                }
            }
            Some(question) = asked.next() => answer(&shared, question),
            else => return,
        }
    }
}

fn answer(shared: &Arc<Shared>, question: Message) {
    let shared_then = Arc::clone(shared);
    let answering = async move {
        let Some(reply) = question.reply else { return };
        let answer = shared_then.cancel_asked(&question.payload).await;
        if let Err(error) = shared_then.api.client().publish(reply, answer).await {
            tracing::debug!(%error, "a node that asked is not told");
        }
    };
    spawn(shared, answering);
}

/// Looks through all that waits: when something is known to have changed, and once in a while.
async fn look_through(shared: Arc<Shared>, mut is_set_up: bool) {
    let mut pace = interval(shared.options.settings.sweep_interval);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace.reset();
    let mut soon = interval(shared.sessions.pace());
    soon.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_due, mut is_age_due) = (true, true);
    let mut listened_from = None;
    let mut why_not = None;
    loop {
        tokio::select! {
            () = shared.sweep.notified() => is_due = true,
            _ = pace.tick() => (is_due, is_age_due) = (true, true),
            _ = soon.tick() => {}
        }
        // By then all that live have been heard: whatever no one of them has is taken over.
        if let Some(from) = shared.sessions.has_listened_from()
            && listened_from.replace(from) != Some(from)
        {
            is_due = true;
        }
        if shared.sessions.is_ended() {
            return;
        }
        if !is_set_up {
            match set_up(&shared).await {
                Ok(()) => is_set_up = true,
                Err(OpenError::Away(error)) => {
                    tracing::debug!(%error, "the queue is not there yet");
                }
                Err(error) => {
                    // Once for each reason: it is tried again every other second.
                    let why = Some(error.to_string());
                    if why_not != why {
                        tracing::error!(%error, "the queue can not be used: events are answered with 503");
                        why_not = why;
                    }
                }
            }
            continue;
        }
        if is_due {
            is_due = !swept(&shared).await;
        }
        match look_at_dead(&shared, is_age_due).await {
            Ok(()) => is_age_due = false,
            Err(failed) => tracing::debug!(error = %failed, "dead letters are looked at later"),
        }
    }
}

/// Looks through all that waits; false when that has to be done again soon.
async fn swept(shared: &Shared) -> bool {
    let begun = Instant::now();
    match shared.sweep().await {
        Ok(is_all) => {
            shared.sessions.looked_through(begun);
            shared.changed.notify_one();
            is_all
        }
        Err(failed) => {
            tracing::debug!(error = %failed, "what waits can not be looked through");
            false
        }
    }
}

/// Looks how many dead letters there are, and drops those beyond what is kept. What this node changed meanwhile is counted when it
/// looks next.
async fn look_at_dead(shared: &Shared, by_age: bool) -> Result<(), Failed> {
    let version = shared.held().dead_version();
    let info = shared.api.stream(&shared.names.dead).await?;
    let Some(kept) = info.as_ref().and_then(Kept::of) else {
        return Ok(());
    };
    if let Some(version) = version {
        let mut held = shared.held();
        held.dead_counted(kept.letters(), version);
        shared.meters.tell(&mut held);
    }
    shared.trim(kept, by_age).await
}

/// The answer to a question that needs nobody's time: NATS gives it when nobody listens.
pub(super) async fn ask(shared: &Shared, subject: String, what: String) -> Result<Bytes, Failed> {
    let asked = shared.api.client().request(subject, what.into());
    match timeout_at(shared.api.deadline(), asked).await {
        Ok(Ok(answer)) => Ok(answer.payload),
        Ok(Err(error)) => Err(Failed::Away(error.to_string())),
        Err(_) => Err(Failed::Unknown(
            "the node that holds it does not answer".to_owned(),
        )),
    }
}
