//! Keeps names to ourselves: an event whose name begins with the setting `reserved` is refused. Failed calls are written to the log.
//!
//! Built by `scripts/plugins.sh`, or by hand, with nothing but rustc:
//! `rustc --edition 2021 -O --crate-type cdylib --target wasm32-unknown-unknown plugin.rs -o guard.wasm`

mod json;

#[link(wasm_import_module = "hearth")]
extern "C" {
    fn log(level: i32, text: *const u8, length: usize);
}

/// Where the node puts a message. Each call has an instance of its own, so nothing needs to be freed.
#[no_mangle]
pub extern "C" fn hearth_alloc(length: usize) -> *mut u8 {
    let mut room = Vec::with_capacity(length.max(1));
    let place = room.as_mut_ptr();
    std::mem::forget(room);
    place
}

/// What this plugin takes part in.
#[no_mangle]
pub extern "C" fn hearth_hooks() -> u64 {
    answer(
        r#"[{"stage":"gateway.event.received","mode":"sync"},
            {"stage":"gateway.function.invocationFailed","mode":"async"}]"#
            .to_owned(),
    )
}

/// Takes a message and answers it.
#[no_mangle]
pub unsafe extern "C" fn hearth_handle(message: *const u8, length: usize) -> u64 {
    let message = std::slice::from_raw_parts(message, length);
    let message = std::str::from_utf8(message).expect("a message is UTF-8");
    answer(handle(message))
}

fn handle(message: &str) -> String {
    let find = |path: &[&str]| json::find(message, path).unwrap_or("\"\"");
    if find(&["stage"]) != "\"gateway.event.received\"" {
        let (function, error) = (find(&["about", "functionId"]), find(&["about", "error"]));
        let bare = |text: &str| text.trim_matches('"').to_owned();
        tell(&format!("a call of {} failed: {}", bare(function), bare(error)));
        return String::new();
    }
    // A name in JSON's quotes, without the one at the end: what begins with it begins with the reserved name.
    let reserved = find(&["settings", "reserved"]).trim_end_matches('"');
    let name = find(&["about", "event", "event"]);
    if reserved.len() > 1 && name.starts_with(reserved) {
        return format!(r#"{{"veto":"events named {}* are our own"}}"#, &reserved[1..]);
    }
    String::new()
}

fn tell(text: &str) {
    unsafe { log(1, text.as_ptr(), text.len()) }
}

/// Hands a text to the node: its place in the upper half, its length in the lower one.
fn answer(text: String) -> u64 {
    let text = text.into_bytes().leak();
    (text.as_ptr() as u64) << 32 | text.len() as u64
}
