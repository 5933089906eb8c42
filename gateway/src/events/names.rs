//! Header names as Go writes them, which functions of Event Gateway expect.

use http::{HeaderName, HeaderValue};

/// The canonical form of a header's name: a capital at the start and after each `-`, such as `X-Request-Id`.
pub(super) fn canonical(name: &HeaderName) -> String {
    let mut letters = name.as_str().as_bytes().to_vec();
    let mut is_start = true;
    for letter in &mut letters {
        if is_start {
            letter.make_ascii_uppercase();
        }
        is_start = *letter == b'-';
    }
    String::from_utf8(letters).expect("a header's name is ASCII")
}

/// The canonical form as the value of a header.
pub(super) fn canonical_value(name: &HeaderName) -> HeaderValue {
    HeaderValue::from_str(&canonical(name)).expect("a header's name is a valid value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_capitals_where_go_has_them() {
        for (name, expected) in [
            ("x-request-id", "X-Request-Id"),
            ("etag", "Etag"),
            ("content-md5", "Content-Md5"),
            ("sec-websocket-key", "Sec-Websocket-Key"),
            ("a_b", "A_b"),
            ("x--y", "X--Y"),
            ("1st", "1st"),
        ] {
            assert_eq!(canonical(&HeaderName::from_static(name)), expected);
        }
    }
}
