//! What a plugin may call of the node: its log, and what AssemblyScript calls when it gives up.

use std::sync::Arc;

use wasmtime::{Caller, Engine, Linker, Memory, Result};

use super::call::State;
use crate::stage::Stage;

/// The longest text of the log that is shown at once.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// What a call has left to log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) plugin: Arc<str>,
    pub(super) stage: Option<Stage>,
    pub(super) bytes_left: usize,
    pub(super) left_out: u64,
}

impl Log {
    /// Writes a line, while there is room.
    fn line(&mut self, level: i32, text: &[u8]) {
        let text = &text[..text.len().min(LINE_BYTES_MAX)];
        if text.len() >= self.bytes_left {
            self.left_out += 1;
            return;
        }
        self.bytes_left -= text.len().max(1);
        let (plugin, text) = (&*self.plugin, &*String::from_utf8_lossy(text));
        let stage = self.stage.map(tracing::field::display);
        // As a field, which is written with escapes: the text may hold what a client sent.
        match level {
            0 => tracing::debug!(target: "plugin", plugin, stage, text, "a plugin says"),
            1 => tracing::info!(target: "plugin", plugin, stage, text, "a plugin says"),
            2 => tracing::warn!(target: "plugin", plugin, stage, text, "a plugin says"),
            _ => tracing::error!(target: "plugin", plugin, stage, text, "a plugin says"),
        }
    }

    /// Says how much was left out.
    pub(super) fn finish(&self) {
        if self.left_out > 0 {
            let (plugin, lines) = (&*self.plugin, self.left_out);
            tracing::warn!(target: "plugin", plugin, lines, "left out of the log: over plugins.log_max in one call");
        }
    }
}

/// All that a plugin can import.
pub(super) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap("hearth", "log", log)?;
    linker.func_wrap("env", "abort", abort)?;
    Ok(linker)
}

/// `hearth.log(level, ptr, len)`: level 0 debug, 1 info, 2 warn, 3 error; the text is UTF-8.
fn log(mut caller: Caller<'_, State>, level: i32, pointer: u32, length: u32) -> Result<()> {
    let Some(memory) = memory(&mut caller) else {
        return Err(wasmtime::Error::msg("hearth.log needs the export memory"));
    };
    let (bytes, state) = memory.data_and_store_mut(&mut caller);
    let text = slice(bytes, pointer, length)
        .ok_or_else(|| wasmtime::Error::msg("hearth.log got a text outside of the memory"))?;
    state.log.line(level, text);
    Ok(())
}

/// `env.abort(message, file, line, column)`, which AssemblyScript calls before it ends: texts are UTF-16, their length stands before.
fn abort(
    mut caller: Caller<'_, State>,
    message: u32,
    file: u32,
    line: u32,
    column: u32,
) -> Result<()> {
    let texts = memory(&mut caller).map(|memory| {
        let bytes = memory.data(&caller);
        (text_of_script(bytes, message), text_of_script(bytes, file))
    });
    let (message, file) = texts.unwrap_or_default();
    Err(wasmtime::Error::msg(format!(
        "it gave up: {message} ({file}:{line}:{column})"
    )))
}

fn memory(caller: &mut Caller<'_, State>) -> Option<Memory> {
    caller.get_export("memory")?.into_memory()
}

/// The bytes at a place of a memory; nothing when they are not all in it.
pub(super) fn slice(memory: &[u8], pointer: u32, length: u32) -> Option<&[u8]> {
    let start = usize::try_from(pointer).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    memory.get(start..end)
}

fn text_of_script(memory: &[u8], pointer: u32) -> String {
    let length = pointer
        .checked_sub(4)
        .and_then(|at| slice(memory, at, 4))
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes);
    let bytes_max = u32::try_from(LINE_BYTES_MAX).unwrap_or(u32::MAX);
    let Some(bytes) = slice(memory, pointer, length.min(bytes_max)) else {
        return String::new();
    };
    let units = bytes.chunks_exact(2);
    let units: Vec<u16> = units
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    String::from_utf16_lossy(&units)
}
