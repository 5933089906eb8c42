//! How a function is called by an event: with which method, path and headers, and what counts as an answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How a function is called; an invocation without one is called as `POST /invoke` calls: `POST /` with attributes of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The method.
    #[serde(default = "post")]
    pub method: String,
    /// Path and query, as they stand in a request. A webhook has a path of its own and takes the query only.
    #[serde(default = "root")]
    pub target: String,
    /// Headers, by name in lower case, besides the content type and what a node says of itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Bytes)>,
    /// What counts as an answer.
    #[serde(default)]
    pub answer: AnswerRule,
    /// Whether the answer may come piece by piece, where it is told whole; else it is read to its end first.
    #[serde(default)]
    pub may_stream: bool,
}

/// What counts as an answer of a function, and what of it is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerRule {
    /// Status 2xx; the body is told.
    #[default]
    Success,
    /// Any status but 500, as Event Gateway has it; the body is told.
    Envelope,
    /// Any status; it is told with all headers and the body.
    Whole,
    /// All that a `stdio` run printed, to stdout and stderr, however it ended; elsewhere as [`AnswerRule::Success`].
    Output,
}

impl AnswerRule {
    /// Whether an answer with this status counts as one.
    pub fn takes(self, status: u16) -> bool {
        match self {
            Self::Success | Self::Output => (200..300).contains(&status),
            Self::Envelope => status != 500,
            Self::Whole => true,
        }
    }
}

impl Default for Call {
    fn default() -> Self {
        Self {
            method: post(),
            target: root(),
            headers: Vec::new(),
            answer: AnswerRule::default(),
            may_stream: false,
        }
    }
}

impl Call {
    /// Whether it can be written into the head of a request without becoming another one. What a peer sent must be asked.
    pub fn is_well_formed(&self) -> bool {
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
        let is_name = |name: &str| is_token(name) && !name.bytes().any(|b| b.is_ascii_uppercase());
        let is_value = |value: &Bytes| {
            value
                .iter()
                .all(|b| matches!(b, b'\t' | b' '..=0x7e | 0x80..))
        };
        is_token(&self.method)
            && self.target.starts_with('/')
            && self
                .target
                .bytes()
                .all(|byte| matches!(byte, b'!'..=0x7e | 0x80..))
            && self
                .headers
                .iter()
                .all(|(name, value)| is_name(name) && is_value(value))
    }

    /// The query of the target, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

/// Whether a header belongs to one connection only and is never passed on, by its name in lower case.
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn post() -> String {
    "POST".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, target: &str, name: &str, value: &'static [u8], expected: bool) {
        let call = Call {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![(name.to_owned(), Bytes::from_static(value))],
            answer: AnswerRule::Whole,
            may_stream: false,
        };
        assert_eq!(call.is_well_formed(), expected, "{call:?}");
    }

    #[test]
    fn what_would_become_another_request_is_not_well_formed() {
        check("POST", "/a?b=%20", "x-a", b"caf\xc3\xa9\t1", true);
        check("M-SEARCH", "/", "x", b"", true);
        check("", "/", "x", b"", false);
        check("GET /x", "/", "x", b"", false);
        check("GET", "/a b", "x", b"", false);
        check("GET", "/a\r\nb:c", "x", b"", false);
        check("GET", "a", "x", b"", false);
        check("GET", "/", "x:", b"", false);
        check("GET", "/", "X", b"", false);
        check("GET", "/", "", b"", false);
        check("GET", "/", "x", b"a\r\nb: c", false);
        check("GET", "/", "x", b"\0", false);
    }

    #[test]
    fn a_call_of_another_version_is_read_with_defaults() {
        let read: Call = rmp_serde::from_slice(&[0x80]).unwrap();
        assert_eq!(read, Call::default());
        assert!(read.answer.takes(204) && !read.answer.takes(404));
        assert!(AnswerRule::Envelope.takes(404) && !AnswerRule::Envelope.takes(500));
        assert!(AnswerRule::Whole.takes(500));
    }
}
