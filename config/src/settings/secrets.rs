//! `[secrets]`: secrets of functions.

use std::path::PathBuf;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

/// What a variable of the environment may have: Linux takes 128 KiB, its name included.
const VALUE_MAX: ByteSize = ByteSize::kib(120);

section! {
    /// Secrets of functions.
    pub struct SecretsSettings {
        /// Secrets that a space may have; one more is refused with 409.
        pub per_space_max: usize = 1_000,
        /// The bytes that a secret may have, at most 120 KiB, which a variable can hold.
        #[serde(with = "size")]
        pub value_max: ByteSize = ByteSize::kib(64),
        /// A directory of a tmpfs, below which this node keeps the files of its instances' secrets. A container engine must see it at the same path.
        pub dir: PathBuf = PathBuf::from("/dev/shm"),
    }
}

impl SecretsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("secrets", self: per_space_max, value_max);
        require(
            self.value_max <= VALUE_MAX,
            "secrets.value_max",
            self.value_max,
            "at most 120 KiB",
        )?;
        require(
            self.dir.is_absolute(),
            "secrets.dir",
            self.dir.display(),
            "an absolute path",
        )
    }
}
