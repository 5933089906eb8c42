//! Functions of type `openwhisk`: an invocation is a blocking invocation of an action,
//! <https://github.com/apache/openwhisk/blob/master/docs/rest_api.md#actions>.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use config::settings::{CloudSettings, HttpSettings};
use protocol::function::{OpenWhiskProvider, Provider};
use protocol::invocation::Body;
use protocol::{Answered, Function, FunctionId, Invocation, Reply, Space};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use crate::cloud::{Calls, check_size, located};
use crate::contract::headers::retry_after;
use crate::http::client::{Client, Heard, Posted, elsewhere};
use crate::http::{BuildError, Outbound, unreachable};
use crate::{AnswerLimits, Error, Remote};

/// Bytes of an action's parameters, 1 MiB: <https://github.com/apache/openwhisk/blob/master/docs/reference.md#system-limits>.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of an activation besides its result: ids, annotations, and logs of 10 MiB at most.
const RECORD_BYTES_MAX: usize = 11 * 1024 * 1024;

/// Characters of an error that are repeated.
const SAID_CHARS_MAX: usize = 512;

/// Calls actions of OpenWhisk.
#[derive(Debug)]
pub struct OpenWhisk {
    client: Client,
    calls: Calls,
    answer_bytes_max: usize,
}

/// A call of an action.
#[derive(Debug)]
struct Call {
    url: Url,
    key: HeaderValue,
    /// The action and where it is, for errors.
    place: String,
    payload: Bytes,
}

/// What an action came to, as far as it is used. What is only accepted has an id and no response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Activation {
    #[serde(default)]
    activation_id: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Response {
    status: String,
    result: Option<Box<RawValue>>,
}

/// How errors of the API are written.
#[derive(Deserialize)]
struct ApiError {
    error: String,
}

impl OpenWhisk {
    /// Makes the provider. Without a guard it calls any API host.
    ///
    /// # Errors
    /// As [`crate::http::Webhook::new`].
    ///
    /// # Panics
    /// When the process has not installed its rustls provider.
    pub fn new(
        (http, cloud): (&HttpSettings, &CloudSettings),
        limits: AnswerLimits,
        guard: Option<Arc<Outbound>>,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            client: Client::new(http, guard)?,
            calls: Calls::new(http, cloud),
            answer_bytes_max: limits.whole,
        })
    }

    async fn exchange(&self, call: &Call) -> Result<Reply, Error> {
        let json = HeaderValue::from_static("application/json");
        let posted = Posted {
            url: call.url.clone(),
            headers: HeaderMap::from_iter([
                (AUTHORIZATION, call.key.clone()),
                (CONTENT_TYPE, json),
            ]),
            body: call.payload.clone(),
        };
        let bytes_max = self.answer_bytes_max.saturating_add(RECORD_BYTES_MAX);
        let heard = self.client.post(posted, bytes_max).await;
        let heard = heard.map_err(|error| located(error, &call.place))?;
        let answered = serde_json::from_slice::<Activation>(&heard.body).ok();
        match answered {
            Some(activation) if activation.response.is_some() || heard.status == 202 => {
                self.reply(call, activation)
            }
            _ => Err(refused(call, &heard)),
        }
    }

    /// What an activation comes to: <https://github.com/apache/openwhisk/blob/master/docs/actions.md#understanding-the-activation-record>.
    fn reply(&self, call: &Call, activation: Activation) -> Result<Reply, Error> {
        let (place, id) = (&call.place, activation.activation_id);
        let Some(response) = activation.response else {
            let why = format!(
                "{place}: it still ran as activation {id} when OpenWhisk stopped waiting for it"
            );
            return Err(Error::Interrupted { why });
        };
        let result = response.result.map_or_else(Bytes::new, |result| {
            Bytes::from(Box::<str>::from(result).into_string())
        });
        if response.status == "success" {
            if result.len() > self.answer_bytes_max {
                let bytes_max = self.answer_bytes_max as u64;
                return Err(Error::AnswerTooLarge { bytes_max });
            }
            return Ok(Reply {
                status: 200,
                content_type: Some("application/json".to_owned()),
                body: Body::Whole(result),
                ..Reply::default()
            });
        }
        let said = beginning(&result);
        let why = format!("{}: {said} (activation {id})", response.status);
        match response.status.as_str() {
            // OpenWhisk failed, and not the action.
            "whisk internal error" => Err(Error::Interrupted {
                why: format!("{place}: {why}"),
            }),
            _ => Err(Error::Failed {
                why,
                answered: None,
            }),
        }
    }
}

#[async_trait]
impl Remote for OpenWhisk {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        let Provider::OpenWhisk(provider) = &function.provider else {
            let type_name = function.type_name();
            let why = format!("a function of type {type_name} is no action of OpenWhisk");
            return Err(unreachable(why));
        };
        let call = call(provider, &invocation.payload)?;
        let exchange = || self.exchange(&call);
        self.calls.make(function, invocation, exchange).await
    }

    fn forget(&self, space: &Space, function_id: &FunctionId) {
        self.calls.forget(space, function_id);
    }
}

fn call(provider: &OpenWhiskProvider, payload: &Bytes) -> Result<Call, Error> {
    check_size("OpenWhisk", payload.len(), PAYLOAD_BYTES_MAX)?;
    let is_object = payload
        .trim_ascii_start()
        .first()
        .is_none_or(|first| *first == b'{');
    if !is_object {
        return Err(Error::PayloadRefused {
            why: "OpenWhisk takes a JSON object, the parameters of the action".to_owned(),
        });
    }
    let (host, namespace, action) = (provider.api_url(), provider.namespace(), &provider.action);
    let place = format!("OpenWhisk at {host}, action {namespace}/{action}");
    let wrong = |why: &str| unreachable(format!("{place}: the API host {why}"));
    let mut url = Url::parse(&host).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    let segments = ["api", "v1", "namespaces", namespace, "actions"];
    url.path_segments_mut()
        .map_err(|()| wrong("has no paths"))?
        .pop_if_empty()
        .extend(segments.into_iter().chain(action.split('/')));
    // The whole activation says whose fault a failure is.
    url.set_query(Some("blocking=true&result=false"));
    let key = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(&provider.key)));
    let mut key = key.map_err(|_| wrong("can not be sent the key"))?;
    key.set_sensitive(true);
    Ok(Call {
        url,
        key,
        place,
        payload: payload.clone(),
    })
}

/// What an answer that is no activation comes to.
fn refused(call: &Call, heard: &Heard) -> Error {
    let status = heard.status;
    let said = serde_json::from_slice::<ApiError>(&heard.body).map(|body| body.error);
    let said = said.unwrap_or_else(|_| beginning(&heard.body));
    let why = format!("{}: status {status}: {said}", call.place);
    match status {
        200..300 => Error::Malformed { why },
        413 => Error::PayloadTooLarge { why },
        429 => Error::Throttled {
            why,
            retry_after_ms: retry_after(elsewhere(&heard.headers).as_deref())
                .map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
        },
        500.. => Error::Interrupted { why },
        _ => Error::NotTaken {
            why,
            answered: Some(Answered {
                status,
                said,
                retry_after_ms: None,
            }),
        },
    }
}

fn beginning(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * SAID_CHARS_MAX)]);
    text.trim().chars().take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
