//! As much of JSON as a plugin without dependencies needs: the text of a member, as it stands. A plugin that may have dependencies
//! takes serde_json.

/// The value at the end of a path of members, as it is written. The text has to be valid JSON, as every message is.
pub fn find<'a>(text: &'a str, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = match path.split_first() {
        Some((first, rest)) => (*first, rest),
        None => return Some(text),
    };
    let mut left = text.trim_start().strip_prefix('{')?.trim_start();
    while left.starts_with('"') {
        let name = &left[..end(left)];
        left = left[name.len()..].trim_start().strip_prefix(':')?.trim_start();
        let value = &left[..end(left)];
        if name.strip_prefix('"')?.strip_suffix('"')? == first {
            return find(value, rest);
        }
        left = left[value.len()..].trim_start();
        left = left.strip_prefix(',').unwrap_or("").trim_start();
    }
    None
}

/// Where the value at the start of a text ends.
fn end(text: &str) -> usize {
    let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            // A number, true, false or null ends before what is not its own.
            b',' | b':' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        let is_closed = depth == 0 && !in_string && matches!(byte, b'}' | b']' | b'"');
        if is_closed && at > 0 {
            return at + 1;
        }
    }
    text.len()
}
