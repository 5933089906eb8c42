//! What one call may take: memory, tables, and lines of the log.

use wasmtime::ResourceLimiter;

/// Entries of a module's tables, all together: a pointer each.
const TABLE_ENTRIES_MAX: usize = 100_000;

/// Limits memory and tables of one call, and remembers that they were reached.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes_max: usize,
    has_denied: bool,
}

impl Limiter {
    pub(super) fn new(memory_bytes_max: usize) -> Self {
        Self {
            memory_bytes_max,
            has_denied: false,
        }
    }

    /// Whether more was wanted than there may be.
    pub(super) fn has_denied(&self) -> bool {
        self.has_denied
    }

    fn check(&mut self, desired: usize, max: usize) -> wasmtime::Result<bool> {
        let fits = desired <= max;
        self.has_denied |= !fits;
        Ok(fits)
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.check(desired, self.memory_bytes_max)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.check(desired, TABLE_ENTRIES_MAX)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        4
    }

    fn memories(&self) -> usize {
        1
    }
}
