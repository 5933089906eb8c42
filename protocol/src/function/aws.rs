//! The `provider` objects of AWS types: kept and shown; their credentials are in no log.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `provider` of type `awslambda`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AwsLambdaProvider {
    /// The function's ARN.
    pub arn: String,
    /// Its region.
    pub region: String,
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
