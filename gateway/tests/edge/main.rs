//! The edge over real loopback connections, with a scripted node behind it.

#![expect(
    clippy::unwrap_used,
    reason = "the lint spares test functions, not what they call"
)]

mod access;
mod accounts;
mod admin;
mod aws;
mod cors;
mod destinations;
mod drain;
mod emit;
mod event_types;
mod events;
mod executions;
mod functions;
mod inner;
mod invoke;
mod limits;
mod meters;
mod parsers;
mod plugins;
mod schedules;
mod secrets;
mod spaceless;
mod subscriptions;
mod support;
mod versions;
