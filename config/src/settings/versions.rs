//! `[versions]`: versions of functions, and aliases.

use super::Error;
use super::error::{above_zero, require};
use super::field::section;

/// Each version is known to every node, with a place for its instances.
const OF_FUNCTION_MAX: usize = 10_000;

section! {
    /// Versions of functions, and aliases.
    pub struct VersionsSettings {
        /// Versions that a function may have, at most 10000; one more is refused with 409.
        pub per_function_max: usize = 200,
        /// Aliases that a function may have, at most 10000; one more is refused with 409.
        pub aliases_per_function_max: usize = 50,
    }
}

impl VersionsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("versions", self: per_function_max, aliases_per_function_max);
        for (key, max) in [
            ("versions.per_function_max", self.per_function_max),
            (
                "versions.aliases_per_function_max",
                self.aliases_per_function_max,
            ),
        ] {
            require(max <= OF_FUNCTION_MAX, key, max, "at most 10000")?;
        }
        Ok(())
    }
}
