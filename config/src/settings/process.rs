//! `[process]`: functions of type `process`.

use super::field::section;

section! {
    /// Functions of type `process`.
    pub struct ProcessSettings {
        /// Whether local commands may be registered and run; `dev` turns it on.
        pub allow: bool = false,
    }
}
