//! The edge over real loopback connections, with a scripted node behind it.

mod access;
mod admin;
mod drain;
mod invoke;
mod limits;
mod parsers;
mod support;
