//! Greets whom the payload names: `{"name":"Ada"}` is answered with `{"hello":"Ada","instance":"…"}`.

mod http;

use std::path::Path;
use std::{env, io, process};

fn main() -> io::Result<()> {
    let instance = instance();
    http::serve(move |payload, stream| {
        let payload = String::from_utf8_lossy(payload);
        let name = name(&payload).unwrap_or(r#""world""#);
        let greeting = format!(r#"{{"hello":{name},"instance":"{instance}"}}"#);
        http::answer(stream, 200, &greeting)
    })
}

/// What tells this instance from others: the container's host name, or the process id outside of one.
fn instance() -> String {
    match env::var("HOSTNAME") {
        Ok(host) if Path::new("/.dockerenv").exists() => host,
        _ => process::id().to_string(),
    }
}

/// The JSON string after the key `name`, with its quotes, so that it can be copied into the answer as it is.
/// This much JSON keeps the example free of dependencies; your own function would use `serde_json`.
fn name(payload: &str) -> Option<&str> {
    let value = payload.split_once(r#""name""#)?.1.trim_start();
    let value = value.strip_prefix(':')?.trim_start();
    let mut escaped = false;
    let length = value.strip_prefix('"')?.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some(&value[..length + 2])
}
