//! Firehose: one record, <https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecord.html>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use protocol::function::AwsFirehoseProvider;
use serde_json::json;

use super::{Call, Service, check_size, url};
use crate::Error;

/// Bytes of a record, 1000 KiB: <https://docs.aws.amazon.com/firehose/latest/APIReference/API_Record.html>.
const RECORD_BYTES_MAX: usize = 1000 * 1024;

pub(super) fn call<'a>(
    provider: &'a AwsFirehoseProvider,
    endpoint: Option<&str>,
    payload: &Bytes,
) -> Result<Call<'a>, Error> {
    check_size(Service::Firehose, payload.len(), RECORD_BYTES_MAX)?;
    let body = json!({
        "DeliveryStreamName": provider.delivery_stream_name,
        "Record": { "Data": STANDARD.encode(payload) },
    });
    Ok(Call {
        service: Service::Firehose,
        region: &provider.region,
        resource: format!("delivery stream {}", provider.delivery_stream_name),
        url: url(Service::Firehose, &provider.region, endpoint, "/")?,
        headers: vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "Firehose_20150804.PutRecord"),
        ],
        body: body.to_string().into(),
        credentials: &provider.credentials,
    })
}
