//! How a function's record is described: flat, as it is written, so that generators of clients can read it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{
    AwsFirehoseProvider, AwsKinesisProvider, AwsLambdaProvider, AwsSqsProvider,
    AzureFunctionProvider, ContainerProvider, DeliverySpec, EventFormat, Function,
    GcloudFunctionProvider, HttpProvider, LimitsSpec, OpenWhiskProvider, ProcessProvider,
    SandboxSpec, ScalingSpec,
};
use crate::id::{FunctionId, Space};
use crate::version::Version;

/// A function: what runs it, and under which limits. A field that was not set is absent from answers.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is described and never made")]
struct Record {
    /// The function's space; that of the path.
    #[schema(required = false)]
    space: Space,
    /// The function's id within its space.
    #[schema(required = false)]
    function_id: FunctionId,
    /// Which published version it is; only answers have it.
    #[schema(read_only)]
    version: Option<Version>,
    /// What runs it.
    r#type: Type,
    /// How it is run: the fields of its type.
    provider: Fields,
    /// Limits.
    limits: Option<LimitsSpec>,
    /// How many instances there are.
    scaling: Option<ScalingSpec>,
    /// How queued events and invocations are delivered.
    delivery: Option<DeliverySpec>,
    /// What its instances may do.
    sandbox: Option<SandboxSpec>,
    /// The form in which it gets events.
    event_format: Option<EventFormat>,
    /// What its owner notes.
    metadata: Option<BTreeMap<String, String>>,
}

/// What runs a function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = FunctionType)]
#[expect(dead_code, reason = "it is described and never made")]
enum Type {
    Container,
    Process,
    Http,
    AwsLambda,
    AwsKinesis,
    AwsFirehose,
    AwsSqs,
    GcloudFunction,
    AzureFunction,
    OpenWhisk,
}

/// The fields of a function's type.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = FunctionProvider)]
#[expect(dead_code, reason = "it is described and never made")]
enum Fields {
    Container(ContainerProvider),
    Process(ProcessProvider),
    Http(HttpProvider),
    AwsLambda(AwsLambdaProvider),
    AwsKinesis(AwsKinesisProvider),
    AwsFirehose(AwsFirehoseProvider),
    AwsSqs(AwsSqsProvider),
    GcloudFunction(GcloudFunctionProvider),
    AzureFunction(AzureFunctionProvider),
    OpenWhisk(OpenWhiskProvider),
}

impl PartialSchema for Function {
    fn schema() -> RefOr<Schema> {
        Record::schema()
    }
}

impl ToSchema for Function {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Record::schemas(schemas);
    }
}
