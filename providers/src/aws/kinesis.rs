//! Kinesis: one record, <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecord.html>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use protocol::function::AwsKinesisProvider;
use serde_json::json;

use super::{Call, Service, check_size, url};
use crate::Error;

/// Bytes of a record, its partition key included, 10 MiB: a stream takes 1 MiB until it is told to take more, which only AWS knows
/// (<https://docs.aws.amazon.com/kinesis/latest/APIReference/API_UpdateMaxRecordSize.html>).
const RECORD_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Bytes of a partition key, random as nothing says which records belong together.
const KEY_BYTES: usize = 16;

pub(super) fn call<'a>(
    provider: &'a AwsKinesisProvider,
    endpoint: Option<&str>,
    payload: &Bytes,
) -> Result<Call<'a>, Error> {
    let key = hex::encode(rand::random::<[u8; KEY_BYTES]>());
    check_size(
        Service::Kinesis,
        payload.len(),
        RECORD_BYTES_MAX - key.len(),
    )?;
    let body = json!({
        "StreamName": provider.stream_name,
        "Data": STANDARD.encode(payload),
        "PartitionKey": key,
    });
    Ok(Call {
        service: Service::Kinesis,
        region: &provider.region,
        resource: format!("stream {}", provider.stream_name),
        url: url(Service::Kinesis, &provider.region, endpoint, "/")?,
        headers: vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "Kinesis_20131202.PutRecord"),
        ],
        body: body.to_string().into(),
        credentials: &provider.credentials,
    })
}
