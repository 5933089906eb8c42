//! How the code of a pooled function meets an invocation: the `http` contract and the `stdio` contract.
//!
//! Containers and processes share both, and webhooks share the headers.

#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod end;
pub(crate) mod headers;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod http;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod ready;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod stdio;

#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) use end::End;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) use http::HttpInstance;
