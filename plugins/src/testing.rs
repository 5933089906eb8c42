//! Small modules for tests, as WebAssembly text.

/// Passes on whatever comes.
pub const PASS: &str = "(i64.const 0)";

/// Answers with the whole message as the event's new data.
pub const ECHO: &str = r"
    (i32.store8 (i32.add (local.get $message) (local.get $length)) (i32.const 125))
    (call $pack
      (i32.sub (local.get $message) (i32.const 8))
      (i32.add (local.get $length) (i32.const 9)))";

/// Never comes to an end.
pub const HANG: &str = "(loop $again (br $again)) (i64.const 0)";

/// Ends in a trap.
pub const TRAP: &str = "(unreachable)";

/// Takes memory until there is no more, and then ends in a trap.
pub const HOG: &str = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";

/// A module that hooks into these stages, each with its mode, and whose `hearth_handle` has this body. The body has `$message`, `$length`,
/// `$log` and `$pack`; `answers` are texts that it may answer with, by [`answering`].
pub fn module(hooks: &[(&str, &str)], body: &str, answers: &[&str]) -> String {
    let hooks: Vec<_> = hooks
        .iter()
        .map(|(stage, mode)| format!(r#"{{"stage":"{stage}","mode":"{mode}"}}"#))
        .collect();
    let hooks = format!("[{}]", hooks.join(","));
    let texts: String = (0..)
        .zip(answers)
        .map(|(index, text)| data(place(index), text))
        .collect();
    format!(
        r#"(module
  (import "hearth" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $calls (mut i32) (i32.const 0))
  {hooks_data}
  {before}
  {texts}
  (func $pack (param $at i32) (param $length i32) (result i64)
    (i64.or
      (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
      (i64.extend_i32_u (local.get $length))))
  (func (export "hearth_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "hearth_hooks") (result i64) (call $pack (i32.const 0) (i32.const {hooks_len})))
  (func (export "hearth_handle") (param $message i32) (param $length i32) (result i64) {body}))"#,
        hooks_data = data(0, &hooks),
        before = data(65_528, r#"{"data":"#),
        hooks_len = hooks.len(),
    )
}

/// The body that answers with one of the texts of a module.
pub fn answering(index: usize, text: &str) -> String {
    let (at, length) = (place(index), text.len());
    format!("(call $pack (i32.const {at}) (i32.const {length}))")
}

/// A module that answers every message with one text.
pub fn answer(hooks: &[(&str, &str)], text: &str) -> String {
    module(hooks, &answering(0, text), &[text])
}

/// Where a text of a module lies.
fn place(index: usize) -> usize {
    2_048 + index * 1_024
}

fn data(at: usize, text: &str) -> String {
    let text: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {at}) \"{text}\")\n  ")
}
