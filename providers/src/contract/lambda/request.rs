//! Reads the requests of a runtime out of bytes as they come. No I/O.
//!
//! What comes is written by a function's code, so nothing is believed: heads, lines and bodies have bounds.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};

use crate::http1::answer::{self, Framing, HEADERS_MAX, bounded, content_length, ends_head};

/// What a runtime asks, and the head that it came with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) path: Path,
    pub(super) content_type: Option<String>,
    /// `Lambda-Runtime-Function-Response-Mode`.
    pub(super) response_mode: Option<String>,
    /// `Lambda-Runtime-Function-Error-Type`.
    pub(super) error_type: Option<String>,
    pub(super) body: Framing,
    /// Whether the other side takes another answer on this connection.
    pub(super) is_kept: bool,
    /// Whether it waits to be told that it may send the body.
    pub(super) expects_continue: bool,
}

/// The resources of the API. Ids are as they stand in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    Next,
    Response(String),
    Error(String),
    InitError,
    /// `restore/next` and `restore/error`, of environments that are restored from a snapshot.
    Restore,
    /// One of the above, with another method.
    OtherMethod(String),
    Unknown(String),
}

/// The version of the API, which all its paths begin with.
const ROOT: &str = "/2018-06-01/runtime/";

/// Of what is told of a path that is unknown.
const TOLD_CHARS_MAX: usize = 128;

/// A head that is read as it comes.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// Bytes that were looked at and do not end it.
    seen: usize,
}

impl HeadReader {
    /// Takes a head from the buffer once it is whole there.
    ///
    /// # Errors
    /// When it is no HTTP/1.1, or longer than a head may be.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, answer::Error> {
        let from = self.seen.saturating_sub(3);
        // Parsed only once its end is there: a head that comes byte by byte must not be parsed as often.
        let is_worth_it = !buffer.is_empty() && ends_head(&buffer[from..]);
        self.seen = buffer.len();
        if !is_worth_it {
            return bounded(buffer).map(|()| None);
        }
        let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let length = match parsed.parse_with_uninit_headers(buffer, &mut fields) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return bounded(buffer).map(|()| None),
            Err(error) => return Err(answer::Error::Malformed(error.to_string())),
        };
        let request = read(&parsed)?;
        buffer.advance(length);
        self.seen = 0;
        Ok(Some(request))
    }
}

fn read(parsed: &httparse::Request<'_, '_>) -> Result<Request, answer::Error> {
    let is_http_11 = parsed.version == Some(1);
    let method = parsed.method.unwrap_or_default();
    let mut request = Request {
        path: Path::read(method, parsed.path.unwrap_or_default()),
        content_type: None,
        response_mode: None,
        error_type: None,
        body: Framing::Length(0),
        is_kept: is_http_11,
        expects_continue: false,
    };
    let (mut length, mut is_chunked) = (None, false);
    for field in &*parsed.headers {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let text = || std::str::from_utf8(field.value).ok().map(str::to_owned);
        if is("content-length") {
            length = Some(content_length(field.value, length)?);
        } else if is("content-type") {
            request.content_type = text();
        } else if is("lambda-runtime-function-response-mode") {
            request.response_mode = text();
        } else if is("lambda-runtime-function-error-type") {
            request.error_type = text();
        } else if is("transfer-encoding") && !field.value.is_empty() {
            if is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") || !is_http_11 {
                let why = "it has a transfer encoding other than chunked";
                return Err(answer::Error::Malformed(why.to_owned()));
            }
            is_chunked = true;
        } else if is("connection") {
            let mut options = field.value.split(|byte| *byte == b',');
            if options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close")) {
                request.is_kept = false;
            }
        } else if is("expect") {
            request.expects_continue = field.value.eq_ignore_ascii_case(b"100-continue");
        }
    }
    request.body = match (is_chunked, length) {
        // Two lengths are how one request is smuggled behind another.
        (true, Some(_)) => {
            let why = "it has both a length and a transfer encoding";
            return Err(answer::Error::Malformed(why.to_owned()));
        }
        (true, None) => Framing::chunked(),
        (false, length) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(request)
}

impl Path {
    fn read(method: &str, target: &str) -> Self {
        let path = target.split('?').next().unwrap_or_default();
        let unknown = || Self::Unknown(path.chars().take(TOLD_CHARS_MAX).collect());
        let Some(rest) = path.strip_prefix(ROOT) else {
            return unknown();
        };
        let (found, expected) = match rest {
            "invocation/next" => (Self::Next, "GET"),
            "init/error" => (Self::InitError, "POST"),
            "restore/next" => (Self::Restore, "GET"),
            "restore/error" => (Self::Restore, "POST"),
            _ => {
                let named = rest.strip_prefix("invocation/");
                match named.and_then(|named| named.split_once('/')) {
                    Some((id, "response")) => (Self::Response(id.to_owned()), "POST"),
                    Some((id, "error")) => (Self::Error(id.to_owned()), "POST"),
                    _ => return unknown(),
                }
            }
        };
        match method == expected {
            true => found,
            false => Self::OtherMethod(format!(
                "{} is {expected}",
                path.chars().take(TOLD_CHARS_MAX).collect::<String>()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, target: &str, expected: &Path) {
        assert_eq!(&Path::read(method, target), expected, "{method} {target}");
    }

    #[test]
    fn the_api_and_nothing_else_is_known() {
        let root = "/2018-06-01/runtime";
        check("GET", &format!("{root}/invocation/next"), &Path::Next);
        check("GET", &format!("{root}/invocation/next?a=1"), &Path::Next);
        let response = Path::Response("7-a".into());
        check(
            "POST",
            &format!("{root}/invocation/7-a/response"),
            &response,
        );
        let error = Path::Error("7".into());
        check("POST", &format!("{root}/invocation/7/error"), &error);
        check("POST", &format!("{root}/init/error"), &Path::InitError);
        check("GET", &format!("{root}/restore/next"), &Path::Restore);
        check("POST", &format!("{root}/restore/error"), &Path::Restore);
        for unknown in [
            "/",
            "",
            "/2018-06-01/ping",
            "/2018-06-01/runtime/invocation",
            "/2018-06-01/runtime/invocation/7",
            "/2018-06-01/runtime/invocation/7/x/response",
            "/2020-01-01/extension/register",
            "/2018-06-02/runtime/invocation/next",
            "http://elsewhere/2018-06-01/runtime/invocation/next",
        ] {
            check("GET", unknown, &Path::Unknown(unknown.into()));
        }
        let told = "/2018-06-01/runtime/invocation/next is GET";
        let target = format!("{root}/invocation/next");
        check("POST", &target, &Path::OtherMethod(told.into()));
    }

    fn take(text: &str) -> Result<Option<Request>, answer::Error> {
        HeadReader::default().take(&mut BytesMut::from(text))
    }

    #[test]
    fn a_head_is_read_however_it_is_cut() {
        let text = "POST /2018-06-01/runtime/invocation/7/response HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n\
                    Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
        let expected = Request {
            path: Path::Response("7".into()),
            content_type: Some("text/plain".into()),
            response_mode: Some("streaming".into()),
            error_type: None,
            body: Framing::chunked(),
            is_kept: true,
            expects_continue: true,
        };
        assert_eq!(take(text).unwrap().unwrap(), expected);
        let mut reader = HeadReader::default();
        let mut buffer = BytesMut::new();
        for (index, byte) in text.bytes().enumerate() {
            buffer.extend_from_slice(&[byte]);
            let taken = reader.take(&mut buffer).unwrap();
            match index + 1 == text.len() {
                true => assert_eq!(taken.as_ref(), Some(&expected)),
                false => assert_eq!(taken, None),
            }
        }
        assert!(buffer.is_empty());
    }

    #[test]
    fn two_requests_in_one_piece_are_two() {
        let one = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n";
        let mut buffer = BytesMut::from(format!("{one}{one}").as_str());
        let mut reader = HeadReader::default();
        for _ in 0..2 {
            let request = reader.take(&mut buffer).unwrap().unwrap();
            assert_eq!(request.path, Path::Next);
        }
        assert_eq!(reader.take(&mut buffer).unwrap(), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let head = "POST /2018-06-01/runtime/init/error HTTP/1.1\r\n";
        for fields in [
            "content-length: 1\r\ncontent-length: 2\r\n",
            "content-length: x\r\n",
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ] {
            let taken = take(&format!("{head}{fields}\r\n"));
            assert!(
                matches!(taken, Err(answer::Error::Malformed(_))),
                "{fields}"
            );
        }
        let old = take("GET /2018-06-01/runtime/invocation/next HTTP/1.0\r\n\r\n");
        assert!(!old.unwrap().unwrap().is_kept);
        assert!(take("nonsense\r\n\r\n").is_err());
        let endless = format!("{head}x: {}", "y".repeat(70_000));
        assert!(take(&endless).is_err());
    }
}
