//! Functions of the AWS types: an invocation is one signed request to Lambda, Kinesis, Firehose or SQS.
//!
//! AWS's SDK is not used: see docs/adr/0040.

mod credentials;
mod firehose;
mod kinesis;
mod lambda;
mod refusal;
mod sign;
mod sqs;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use config::settings::{AwsSettings, CloudSettings, HttpSettings};
use protocol::function::{AwsCredentials, Provider};
use protocol::invocation::Body;
use protocol::{Function, FunctionId, Invocation, Reply, Space};
use url::Url;

use self::credentials::Owner;
use crate::cloud::{self, Calls};
use crate::http::client::{Client, Heard};
use crate::http::{BuildError, Outbound};
use crate::{AnswerLimits, Error, Remote};

/// Calls functions of the AWS types.
#[derive(Debug)]
pub struct Aws {
    client: Client,
    calls: Calls,
    owner: Owner,
    endpoint: Option<String>,
    answer_bytes_max: usize,
}

/// A service of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Lambda,
    Kinesis,
    Firehose,
    Sqs,
}

/// One request to a service, before it is signed.
#[derive(Debug)]
struct Call<'a> {
    service: Service,
    region: &'a str,
    /// What of the service is meant, with its kind, as errors name it.
    resource: String,
    url: Url,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
    credentials: &'a AwsCredentials,
}

impl Service {
    /// Its name in signatures and hosts: <https://docs.aws.amazon.com/general/latest/gr/aws-service-information.html>.
    fn name(self) -> &'static str {
        match self {
            Self::Lambda => "lambda",
            Self::Kinesis => "kinesis",
            Self::Firehose => "firehose",
            Self::Sqs => "sqs",
        }
    }

    /// What people call it.
    fn title(self) -> &'static str {
        match self {
            Self::Lambda => "AWS Lambda",
            Self::Kinesis => "AWS Kinesis",
            Self::Firehose => "AWS Firehose",
            Self::Sqs => "AWS SQS",
        }
    }

    /// Where it is in a region, if nothing else is said.
    fn host(self, region: &str) -> String {
        // China is a partition of its own: https://docs.aws.amazon.com/general/latest/gr/rande.html
        let domain = match region.starts_with("cn-") {
            true => "amazonaws.com.cn",
            false => "amazonaws.com",
        };
        format!("https://{}.{region}.{domain}", self.name())
    }
}

impl Call<'_> {
    /// The service, the resource and the region, for errors.
    fn place(&self) -> String {
        let (title, resource, region) = (self.service.title(), &self.resource, self.region);
        format!("{title}, {resource} in {region}")
    }
}

impl Aws {
    /// Makes the provider. Where `is_open`, functions of every space may use the settings' credentials. Without a guard it calls any endpoint.
    ///
    /// # Errors
    /// As [`crate::http::Webhook::new`].
    ///
    /// # Panics
    /// When the process has not installed its rustls provider.
    pub fn new(
        settings: (&HttpSettings, &CloudSettings, &AwsSettings),
        is_open: bool,
        limits: AnswerLimits,
        guard: Option<Arc<Outbound>>,
    ) -> Result<Self, BuildError> {
        let (http, cloud, aws) = settings;
        Ok(Self {
            client: Client::new(http, guard)?,
            calls: Calls::new(http, cloud),
            owner: Owner::new(aws, is_open),
            endpoint: aws.endpoint.clone(),
            answer_bytes_max: limits.whole,
        })
    }

    /// What is asked of AWS, where the payload is one that it takes.
    fn call<'a>(&self, function: &'a Function, invocation: &Invocation) -> Result<Call<'a>, Error> {
        let payload = &invocation.payload;
        let endpoint =
            |of_record: &'a Option<String>| of_record.as_deref().or(self.endpoint.as_deref());
        match &function.provider {
            Provider::AwsLambda(it) => lambda::call(it, endpoint(&it.endpoint), payload),
            Provider::AwsKinesis(it) => kinesis::call(it, endpoint(&it.endpoint), payload),
            Provider::AwsFirehose(it) => firehose::call(it, endpoint(&it.endpoint), payload),
            Provider::AwsSqs(it) => sqs::call(it, endpoint(&it.endpoint), invocation),
            _ => Err(crate::http::unreachable(format!(
                "a function of type {} is none of AWS",
                function.type_name()
            ))),
        }
    }

    async fn exchange(&self, space: &Space, call: &Call<'_>) -> Result<Reply, Error> {
        let credentials = self.owner.credentials(space, call)?;
        let posted = sign::signed(call, &credentials, SystemTime::now())?;
        let heard = self.client.post(posted, self.answer_bytes_max).await;
        let heard = heard.map_err(|error| {
            let authority = call.url.authority();
            cloud::located(error, &format!("{} at {authority}", call.place()))
        })?;
        if !(200..300).contains(&heard.status) {
            return Err(refusal::of(call, &heard));
        }
        match call.service {
            Service::Lambda => lambda::reply(heard),
            Service::Kinesis => field(call, &heard, "SequenceNumber"),
            Service::Firehose => field(call, &heard, "RecordId"),
            Service::Sqs => field(call, &heard, "MessageId"),
        }
    }
}

#[async_trait]
impl Remote for Aws {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        let call = self.call(function, invocation)?;
        let exchange = || self.exchange(&invocation.space, &call);
        self.calls.make(function, invocation, exchange).await
    }

    fn forget(&self, space: &Space, function_id: &FunctionId) {
        self.calls.forget(space, function_id);
    }
}

/// The URL of an API's path at the endpoint, which is the service's own where none is said.
fn url(service: Service, region: &str, endpoint: Option<&str>, path: &str) -> Result<Url, Error> {
    let base = endpoint.map_or_else(|| service.host(region), str::to_owned);
    let base = base.trim_end_matches('/');
    let url = Url::parse(&format!("{base}{path}"));
    url.map_err(|error| {
        let title = service.title();
        crate::http::unreachable(format!("the endpoint of {title}, {base:?}: {error}"))
    })
}

/// The answer of a service that takes a record: the id that it gave it.
fn field(call: &Call<'_>, heard: &Heard, name: &str) -> Result<Reply, Error> {
    let read = serde_json::from_slice::<serde_json::Value>(&heard.body);
    let id = read
        .ok()
        .and_then(|body| Some(body.get(name)?.as_str()?.to_owned()));
    let id = id.ok_or_else(|| Error::Malformed {
        why: format!("{} answered without {name}", call.place()),
    })?;
    Ok(reply("text/plain", id.into()))
}

fn reply(content_type: &str, body: Bytes) -> Reply {
    Reply {
        status: 200,
        content_type: Some(content_type.to_owned()),
        body: Body::Whole(body),
        ..Reply::default()
    }
}

/// Refuses a payload that is longer than the service takes.
fn check_size(service: Service, bytes: usize, bytes_max: usize) -> Result<(), Error> {
    cloud::check_size(service.title(), bytes, bytes_max)
}

#[cfg(test)]
mod tests;
