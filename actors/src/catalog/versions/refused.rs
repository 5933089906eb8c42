//! Why a version or an alias was not read or changed.

use protocol::{AliasName, ErrorCode, Version};

/// Why a version or an alias was not read or changed. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The function has no such version.
    #[error("Version {version} of function \"{function}\" not found.")]
    NotFound {
        /// The function.
        function: String,
        /// The version.
        version: Version,
    },
    /// The function has as many versions as it may have.
    #[error(
        "function {function} has {max} versions, the most it may have (versions.per_function_max): delete some that no alias names"
    )]
    TooMany {
        /// The function.
        function: String,
        /// The setting.
        max: usize,
    },
    /// There are aliases that send calls to the version.
    #[error(
        "Version {version} of function \"{function}\" cannot be deleted because it's used by aliases: {aliases}."
    )]
    InUse {
        /// The function.
        function: String,
        /// The version.
        version: Version,
        /// The aliases.
        aliases: String,
    },
    /// The function has no such alias.
    #[error("Alias \"{name}\" of function \"{function}\" not found.")]
    AliasNotFound {
        /// The function.
        function: String,
        /// The alias.
        name: String,
    },
    /// The function has an alias of that name.
    #[error("Alias \"{name}\" of function \"{function}\" already exists.")]
    AliasExists {
        /// The function.
        function: String,
        /// The alias.
        name: AliasName,
    },
    /// The alias is not at the revision the caller named.
    #[error("Alias \"{name}\" of function \"{function}\" changed meanwhile.")]
    AliasChanged {
        /// The function.
        function: String,
        /// The alias.
        name: String,
    },
    /// An alias names a version that the function does not have.
    #[error("{field} is {version}, expected a version that function \"{function}\" has")]
    Unknown {
        /// The field of the record.
        field: String,
        /// The version that it names.
        version: Version,
        /// The function.
        function: String,
    },
    /// The function has as many aliases as it may have.
    #[error(
        "function {function} has {max} aliases, the most it may have (versions.aliases_per_function_max)"
    )]
    TooManyAliases {
        /// The function.
        function: String,
        /// The setting.
        max: usize,
    },
    /// All calls of the alias have always gone where they go now.
    #[error(
        "Alias \"{name}\" of function \"{function}\" has nothing to roll back to: it has stood for one version only."
    )]
    NothingBefore {
        /// The function.
        function: String,
        /// The alias.
        name: AliasName,
    },
    /// What an alias would be rolled back to is gone.
    #[error(
        "Alias \"{name}\" of function \"{function}\" cannot be rolled back: version {version} was deleted."
    )]
    BeforeIsGone {
        /// The function.
        function: String,
        /// The alias.
        name: AliasName,
        /// The version.
        version: Version,
    },
    /// What is said of a version or an alias is wrong.
    #[error(transparent)]
    Invalid(#[from] protocol::version::Invalid),
}

impl VersionError {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } | Self::AliasNotFound { .. } => ErrorCode::NotFound,
            Self::Unknown { .. } | Self::Invalid(_) => ErrorCode::InvalidRequest,
            Self::TooMany { .. }
            | Self::InUse { .. }
            | Self::AliasExists { .. }
            | Self::AliasChanged { .. }
            | Self::TooManyAliases { .. }
            | Self::NothingBefore { .. }
            | Self::BeforeIsGone { .. } => ErrorCode::Conflict,
        }
    }
}
