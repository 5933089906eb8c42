//! Payloads and answers as people are shown them: JSON as JSON, other text as a string, other bytes as base64; the beginning of what is
//! too long.

use base64::Engine;
use protocol::api::ExecutionResult;
use protocol::destination::Content;
use protocol::event::is_json;
use serde_json::value::{RawValue, to_raw_value};

/// What is shown of some bytes.
pub(crate) struct Shown {
    pub(crate) value: Box<RawValue>,
    pub(crate) encoding: Option<String>,
    pub(crate) truncated: bool,
}

/// What is shown of these bytes.
///
/// # Errors
/// When they are said to be JSON and are not.
pub(crate) fn shown(
    bytes: &[u8],
    content_type: Option<&str>,
    bytes_max: usize,
) -> Result<Shown, serde_json::Error> {
    let is_whole = bytes.len() <= bytes_max;
    let mut encoding = None;
    let value = if bytes.is_empty() {
        to_raw_value(&())
    } else if content_type.is_some_and(is_json) {
        let json: &RawValue = serde_json::from_slice(bytes)?;
        match is_whole {
            true => Ok(json.to_owned()),
            false => to_raw_value(beginning(json.get(), bytes_max)),
        }
    } else if let Ok(text) = std::str::from_utf8(bytes) {
        to_raw_value(beginning(text, bytes_max))
    } else {
        encoding = Some("base64".to_owned());
        let begin = &bytes[..bytes.len().min(bytes_max)];
        to_raw_value(&base64::engine::general_purpose::STANDARD.encode(begin))
    };
    Ok(Shown {
        value: value.expect("a text has a JSON form"),
        encoding,
        truncated: !is_whole,
    })
}

/// A payload as it is told; what is said to be JSON and is not is told as what else it is.
pub(crate) fn payload(bytes: &[u8], content_type: &str, bytes_max: usize) -> Content {
    let named = Some(content_type).filter(|name| !name.is_empty());
    let Shown {
        value,
        encoding,
        truncated,
    } = shown(bytes, named, bytes_max)
        .or_else(|_| shown(bytes, None, bytes_max))
        .expect("only what is said to be JSON is read as such");
    Content {
        content_type: named.map(str::to_owned),
        bytes: bytes.len() as u64,
        truncated,
        value,
        encoding,
    }
}

/// The same result with no more of its value than that.
pub(crate) fn bounded(result: ExecutionResult, bytes_max: u64) -> ExecutionResult {
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let json = result.value.get();
    if json.len() <= bytes_max {
        return result;
    }
    // Base64 is read in fours.
    let bytes_max = match result.encoding {
        Some(_) => bytes_max & !3,
        None => bytes_max,
    };
    // A text is cut as a text, anything else as its JSON.
    let text = serde_json::from_str::<String>(json);
    let text = text.as_deref().unwrap_or(json);
    let value = to_raw_value(beginning(text, bytes_max)).expect("a text has a JSON form");
    let truncated = result.truncated || text.len() > bytes_max;
    ExecutionResult {
        truncated,
        value,
        ..result
    }
}

/// As much of a text as has so many bytes.
fn beginning(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
