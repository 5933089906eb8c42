//! `[aws]`: functions of the AWS types.

use super::error::{NOT_SET, require};
use super::field::section;
use super::{Error, Secret};

section! {
    /// Functions of types `awslambda`, `awskinesis`, `awsfirehose` and `awssqs`: the credentials of those whose records have none.
    pub struct AwsSettings {
        /// The id of the access key. `AWS_ACCESS_KEY_ID` sets it, too.
        pub access_key_id: Option<String> = None,
        /// The access key. `AWS_SECRET_ACCESS_KEY` sets it, too.
        pub secret_access_key: Option<Secret> = None,
        /// The token of a session, where the key is a temporary one. `AWS_SESSION_TOKEN` sets it, too.
        pub session_token: Option<Secret> = None,
        /// The URL that requests go to in place of AWS's own, where the record names none. `AWS_ENDPOINT_URL` sets it, too.
        pub endpoint: Option<String> = None,
        /// Spaces whose functions may use these credentials, with `auth.mode = "required"`; `*` stands for all. Without auth all may.
        pub spaces: Vec<String> = Vec::new(),
    }
}

/// The variables that programs of AWS read, and the settings that they are here.
pub(super) const VARIABLES: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "access_key_id"),
    ("AWS_ENDPOINT_URL", "endpoint"),
    ("AWS_SECRET_ACCESS_KEY", "secret_access_key"),
    ("AWS_SESSION_TOKEN", "session_token"),
];

impl AwsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        require(
            self.access_key_id.is_none() || self.secret_access_key.is_some(),
            "aws.secret_access_key",
            NOT_SET,
            "the key, because aws.access_key_id is set",
        )?;
        require(
            self.secret_access_key.is_none() || self.access_key_id.is_some(),
            "aws.access_key_id",
            NOT_SET,
            "the id of the key, because aws.secret_access_key is set",
        )?;
        let Some(endpoint) = &self.endpoint else {
            return Ok(());
        };
        let rest = ["http://", "https://"]
            .iter()
            .find_map(|scheme| endpoint.strip_prefix(scheme));
        let is_url = rest.is_some_and(|rest| {
            !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', ' '])
        });
        require(
            is_url,
            "aws.endpoint",
            endpoint,
            "a URL of http or https, without query",
        )
    }
}
