//! Processes of the `lambda` contract: each asks a Runtime API of its own on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Process;
use super::launch::{Begun, micros, wait};
use crate::contract::End;
use crate::contract::lambda::Server;
use crate::{Error, LaunchSpec, Launched};

/// Starts an instance, and waits until it asks for an invocation.
pub(super) async fn start(process: &Process, spec: &LaunchSpec) -> Result<Launched, Error> {
    let until = Instant::from_std(spec.deadline.moment());
    let (setup, function) = (&process.shared.setup, &spec.function);
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (limits, stop) = (setup.answer_limits, &setup.stop);
    let bound = Server::bind(local, function, &setup.lambda, limits, stop).await;
    let mut server = bound.map_err(|error| Error::StartFailed {
        why: format!("listening for its runtime: {error}"),
    })?;
    server.is_at(local);
    let end = Arc::new(End::default());
    server.serve(function, Arc::clone(&end), &setup.tasks);
    let variables = setup.lambda.variables(function, server.address());
    let begun = Begun::new(process, spec, &variables, until).await?;
    let began = Instant::now();
    // A little before the deadline, so that there is time to say why.
    let until = until - (until.saturating_duration_since(began) / 8).min(Duration::from_secs(1));
    let mut state = begun.handle.state();
    let ready = tokio::time::timeout_at(until, async {
        tokio::select! {
            biased;
            ready = server.ready() => Ok(ready),
            end = wait(&mut state, |state| state.exit_code.is_some()) => Err(end),
        }
    });
    match ready.await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(why))) => return Err(begun.give_up(why).await),
        Ok(Err(end)) => return Err(begun.ended(&end).await),
        Err(_) => {
            let why = "its runtime did not ask for an invocation in time".to_owned();
            return Err(begun.give_up(why).await);
        }
    }
    let ready_us = micros(began);
    let broken = server.broken();
    let instance = server.into_instance(function, Arc::clone(&begun.running), Arc::clone(&end));
    Ok(begun.up(
        process,
        spec,
        (Arc::new(instance), end, Some(broken)),
        ready_us,
    ))
}
