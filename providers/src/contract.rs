//! How the code of a pooled function meets an invocation: the contracts `http`, `stdio` and `lambda`.
//!
//! Containers and processes share them, and webhooks share the headers.

use std::time::Duration;

use config::settings::LimitsSettings;

#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod end;
pub(crate) mod headers;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod http;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod lambda;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod ready;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) mod stdio;

#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) use end::End;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) use http::HttpInstance;

/// How large an answer may be, and how long silent.
#[derive(Debug, Clone, Copy)]
pub struct AnswerLimits {
    /// The most bytes of one that is read whole.
    pub whole: usize,
    /// The most bytes of one that is passed on as it comes.
    pub stream: usize,
    /// How long such a one may be silent.
    pub stream_idle_timeout: Duration,
}

/// Up to this length a body that tells it is read whole, also where it may be passed on as it comes: it is about to be there, and
/// costs less so.
pub(crate) const WHOLE_BYTES_MAX: usize = 64 * 1024;

impl AnswerLimits {
    /// Those of a node.
    pub fn new(settings: &LimitsSettings) -> Self {
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        Self {
            whole: bytes(settings.answer_max),
            stream: bytes(settings.stream_max),
            stream_idle_timeout: settings.stream_idle_timeout,
        }
    }
}
