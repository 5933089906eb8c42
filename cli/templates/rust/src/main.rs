//! The function {{name}}: a payload of `"Ada"` is answered with `{"hello":"Ada"}`.

mod http;

use std::io;

fn main() -> io::Result<()> {
    http::serve(|payload, stream| match answer(payload) {
        Ok(json) => http::answer(stream, 200, &json),
        // Any status but 2xx says that the invocation failed.
        Err(json) => http::answer(stream, 400, &json),
    })
}

/// The answer to a payload, as JSON. A payload is JSON as well, so it can stand in the answer as it came;
/// to look into it, add the crate serde_json.
fn answer(payload: &[u8]) -> Result<String, String> {
    match std::str::from_utf8(payload) {
        Ok(payload) if !payload.trim().is_empty() => Ok(format!(r#"{{"hello":{payload}}}"#)),
        _ => Err(r#"{"error":"the payload is no JSON"}"#.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_the_payload_names_is_greeted() {
        assert_eq!(answer(br#""Ada""#), Ok(r#"{"hello":"Ada"}"#.to_owned()));
    }

    #[test]
    fn a_payload_that_is_no_json_is_refused() {
        assert!(answer(b"").is_err());
        assert!(answer(b"\xff").is_err());
    }
}
