//! The `provider` objects of AWS types: kept and shown; their credentials are in no log.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Invalid;
use super::cloud::check_url;

/// `provider` of type `awslambda`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AwsLambdaProvider {
    /// The function's ARN.
    pub arn: String,
    /// Its region.
    pub region: String,
    /// The URL that requests go to in place of AWS's own, or that of `aws.endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whose name it is called in.
    #[serde(flatten)]
    pub credentials: AwsCredentials,
}

/// `provider` of type `awskinesis`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsKinesisProvider {
    /// The stream's name.
    pub stream_name: String,
    /// Its region.
    pub region: String,
    /// The URL that requests go to in place of AWS's own, or that of `aws.endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whose name records are put in.
    #[serde(flatten)]
    pub credentials: AwsCredentials,
}

/// `provider` of type `awsfirehose`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsFirehoseProvider {
    /// The delivery stream's name.
    pub delivery_stream_name: String,
    /// Its region.
    pub region: String,
    /// The URL that requests go to in place of AWS's own, or that of `aws.endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whose name records are put in.
    #[serde(flatten)]
    pub credentials: AwsCredentials,
}

/// `provider` of type `awssqs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsSqsProvider {
    /// The queue's URL.
    pub queue_url: String,
    /// Its region.
    pub region: String,
    /// The URL that requests go to in place of AWS's own, or that of `aws.endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whose name messages are sent in.
    #[serde(flatten)]
    pub credentials: AwsCredentials,
}

/// Credentials of an AWS type: used when the first two are set, absent from answers when empty.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsCredentials {
    /// The id of the access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_access_key_id: Option<String>,
    /// The access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_secret_access_key: Option<String>,
    /// The token of a session, where the key is a temporary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_session_token: Option<String>,
}

impl AwsCredentials {
    /// The id of the key, the key, and the token of its session, where the record has a key.
    pub fn key(&self) -> Option<(&str, &str, Option<&str>)> {
        let id = self.aws_access_key_id.as_deref()?;
        let secret = self.aws_secret_access_key.as_deref()?;
        Some((id, secret, self.aws_session_token.as_deref()))
    }
}

/// Checks a field that stands in a URL or a header: the characters that AWS's names of that kind are made of, and how long they may be.
pub(super) fn check_name(
    field: &str,
    value: &str,
    signs: &str,
    len_max: usize,
) -> Result<(), Invalid> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    match value.len() <= len_max && value.chars().all(is_known) {
        true => Ok(()),
        false => Err(Invalid(format!(
            "provider.{field} is \"{value}\", expected at most {len_max} letters, digits and {signs}"
        ))),
    }
}

/// Checks where requests go in place of AWS: the paths of its APIs are put behind it.
pub(super) fn check_endpoint(endpoint: Option<&str>) -> Result<(), Invalid> {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    check_url("provider.endpoint", endpoint)?;
    match endpoint.contains(['?', '#']) {
        true => Err(Invalid(format!(
            "provider.endpoint is \"{endpoint}\", expected a URL without query and fragment"
        ))),
        false => Ok(()),
    }
}

/// Credentials are masked wherever a record is logged.
impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = |text: &Option<String>| text.as_ref().map(|_| "*****");
        f.debug_struct("AwsCredentials")
            .field("aws_access_key_id", &mask(&self.aws_access_key_id))
            .field("aws_secret_access_key", &mask(&self.aws_secret_access_key))
            .field("aws_session_token", &mask(&self.aws_session_token))
            .finish()
    }
}
