//! Counts words: text (or a JSON string) comes on stdin, one JSON object goes to stdout.

use std::collections::BTreeMap;
use std::io::{self, Read};

/// Bytes of text that are read; the rest is an error rather than a wrong count.
const TEXT_BYTES_MAX: u64 = 64 << 20;

fn main() -> io::Result<()> {
    let mut input = String::new();
    io::stdin()
        .take(TEXT_BYTES_MAX + 1)
        .read_to_string(&mut input)?;
    if input.len() as u64 > TEXT_BYTES_MAX {
        return Err(io::Error::other(format!(
            "the text is larger than {TEXT_BYTES_MAX} bytes"
        )));
    }
    // Hearth hands a JSON payload over as it is, and a text in JSON is a string in quotes.
    let text = json_string(input.trim()).unwrap_or(input);
    println!("{}", report(&text));
    Ok(())
}

/// `{"words":3,"counts":{"a":2,"b":1}}`, the most frequent words first.
fn report(text: &str) -> String {
    let mut counts = BTreeMap::<String, u64>::new();
    // Words are letters and digits only, so they need no escaping in JSON.
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let words = counts.values().sum::<u64>();
    let mut counts = counts.into_iter().collect::<Vec<_>>();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts = counts
        .iter()
        .map(|(word, count)| format!(r#""{word}":{count}"#))
        .collect::<Vec<_>>();
    format!(r#"{{"words":{words},"counts":{{{}}}}}"#, counts.join(","))
}

/// The text of a JSON string; none when the input is not one. Your own function would use `serde_json`.
fn json_string(input: &str) -> Option<String> {
    let mut rest = input.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut units = Vec::new();
    while let Some(next) = rest.next() {
        let unescaped = match next {
            '"' => return None,
            '\\' => match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    // Beyond 16 bits a character is two of these, so they are put together at the end.
                    let digits = rest.by_ref().take(4).collect::<String>();
                    units.push(u16::from_str_radix(&digits, 16).ok()?);
                    continue;
                }
                other => other,
            },
            other => other,
        };
        units.extend_from_slice(unescaped.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}
