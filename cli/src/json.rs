//! JSON laid out for reading, without a change to any number, key order or string.

use std::fmt::Write;

/// Lays out JSON text with two spaces a level.
///
/// It works on the text, not on parsed values, so that a number too long for 64 bits or a repeated key is shown as the
/// function wrote it. Text that is no JSON comes out with odd spaces, nothing worse.
pub(crate) fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut rest = text.trim().char_indices().peekable();
    let text = text.trim();
    while let Some((at, character)) = rest.next() {
        match character {
            '"' => {
                let end = string_end(&text[at..]);
                out.push_str(&text[at..at + end]);
                while rest.next_if(|(next, _)| *next < at + end).is_some() {}
            }
            '{' | '[' => {
                out.push(character);
                while rest
                    .next_if(|(_, next)| next.is_ascii_whitespace())
                    .is_some()
                {}
                match rest.next_if(|(_, next)| matches!(next, '}' | ']')) {
                    Some((_, close)) => out.push(close),
                    None => {
                        depth += 1;
                        new_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ if character.is_ascii_whitespace() => {}
            _ => out.push(character),
        }
    }
    out
}

/// The length in bytes of the string literal that `text` begins with, both quotes included.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn new_line(out: &mut String, depth: usize) {
    let width = depth * 2;
    write!(out, "\n{:width$}", "").expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(pretty(text), expected, "{text}");
    }

    #[test]
    fn it_lays_out_what_serde_would() {
        check("1", "1");
        check("{}", "{}");
        check("[ ]", "[]");
        check(
            r#"{"b":1,"a":[true,null,{}]}"#,
            "{\n  \"b\": 1,\n  \"a\": [\n    true,\n    null,\n    {}\n  ]\n}",
        );
        check("{\n  \"a\" :\t1\n}\n", "{\n  \"a\": 1\n}");
    }

    #[test]
    fn strings_and_numbers_stay_as_they_were_written() {
        check(r#"["a{,:}\"ü\\"]"#, "[\n  \"a{,:}\\\"ü\\\\\"\n]");
        check(
            "123456789012345678901234567890.0e-3",
            "123456789012345678901234567890.0e-3",
        );
    }

    #[test]
    fn text_that_is_no_json_does_not_panic() {
        for text in ["\"open", "}}]", "\"\\", "", "ü", "{\"ü"] {
            pretty(text);
        }
    }
}
