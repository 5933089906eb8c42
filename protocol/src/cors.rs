//! The record of a CORS configuration: what web pages of other origins may do at a method and path.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::id::Space;
use crate::subscription::{METHOD_TAG, Method, PATH_BYTES_MAX, escape_segment};

/// A registered CORS configuration. Metadata that was not set is absent from answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CorsRecord {
    /// Its space.
    #[schema(required = false)]
    pub space: Space,
    /// Its id within the space, made of method and path.
    #[schema(required = false)]
    pub cors_id: CorsId,
    /// The method of the requests.
    #[schema(required = false)]
    pub method: Method,
    /// The path of the requests, a pattern as those of subscriptions.
    #[schema(required = false)]
    pub path: String,
    /// The origins that may call; `*` is any, and one `*` inside stands for any characters.
    pub allowed_origins: Vec<String>,
    /// The methods that may be used.
    pub allowed_methods: Vec<String>,
    /// The headers that may be sent; `*` is any.
    pub allowed_headers: Vec<String>,
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
    /// What its owner notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// The id of a CORS configuration within its space, as it stands in URLs: never decoded, never escaped again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CorsId(Arc<str>);

crate::schema::text_schema!(CorsId);

impl CorsId {
    /// An id as it came in a URL; whether there is such a configuration is another matter.
    pub fn from_url(segment: &str) -> Self {
        Self(segment.into())
    }

    /// The id of a configuration: the method, and the path escaped.
    pub fn of(method: Method, path: &str) -> Self {
        Self(format!("{method}{}", escape_segment(path)).into())
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CorsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a record is refused: the text after `Validation error: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// A record as a client sends it; what it says of space and id is passed over, and so is what nobody knows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    method: Option<String>,
    path: Option<String>,
    allowed_origins: Option<Vec<String>>,
    allowed_methods: Option<Vec<String>>,
    allowed_headers: Option<Vec<String>>,
    allow_credentials: Option<bool>,
    metadata: Option<BTreeMap<String, String>>,
}

impl CorsRecord {
    /// Reads and checks a record, and fills in what it leaves out.
    ///
    /// # Errors
    /// [`Invalid`], all fields that fail in one text, a line each.
    pub fn parse(space: &str, body: &[u8]) -> Result<Self, Invalid> {
        let sent = read(body)?;
        let mut lines = Vec::new();
        let mut add = |field: &str, tag: &str| {
            lines.push(format!(
                "Key: 'CORS.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
            ));
        };
        let space: Result<Space, _> = space.parse();
        if let Err(error) = &space {
            add("Space", error.tag);
        }
        let method = Method::from_name(&sent.method.unwrap_or_default());
        if method.is_none() {
            add("Method", METHOD_TAG);
        }
        let path = sent.path.unwrap_or_default();
        if !path.starts_with('/') {
            add("Path", "path");
        }
        if path.len() > PATH_BYTES_MAX {
            add("Path", "max");
        }
        let (Ok(space), Some(method), true) = (space, method, lines.is_empty()) else {
            return Err(Invalid(lines.join("\n")));
        };
        Ok(Self {
            space,
            cors_id: CorsId::of(method, &path),
            method,
            path,
            allowed_origins: or(sent.allowed_origins, &["*"]),
            allowed_methods: or(sent.allowed_methods, &["HEAD", "GET", "POST"]),
            allowed_headers: or(sent.allowed_headers, &["Origin", "Accept", "Content-Type"]),
            allow_credentials: sent.allow_credentials.unwrap_or_default(),
            metadata: sent.metadata.filter(|metadata| !metadata.is_empty()),
        })
    }
}

/// A list, or the default of one that is empty.
fn or(list: Option<Vec<String>>, default: &[&str]) -> Vec<String> {
    list.filter(|list| !list.is_empty())
        .unwrap_or_else(|| default.iter().map(|&text| text.to_owned()).collect())
}

/// Reads the JSON; serde would take arrays for structs.
fn read(body: &[u8]) -> Result<Sent, Invalid> {
    let invalid = |error: serde_json::Error| Invalid(error.to_string());
    let record: serde_json::Map<String, Value> = serde_json::from_slice(body).map_err(invalid)?;
    if let Some(metadata) = record.get("metadata")
        && !metadata.is_object()
        && !metadata.is_null()
    {
        return Err(Invalid(format!(
            "metadata is {metadata}, expected an object"
        )));
    }
    serde_path_to_error::deserialize(Value::Object(record)).map_err(|error| {
        let path = error.path().to_string();
        Invalid(format!("{path}: {}", error.into_inner()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn becomes(body: &str, expected: &str) {
        let record = CorsRecord::parse("default", body.as_bytes());
        let record = record.unwrap_or_else(|error| panic!("{body}: {error}"));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, expected, "{body}");
        assert_eq!(serde_json::from_str::<CorsRecord>(&text).unwrap(), record);
    }

    fn refuses(body: &str, expected: &str) {
        let error = CorsRecord::parse("default", body.as_bytes()).expect_err(body);
        assert!(error.to_string().starts_with(expected), "{body}: {error}");
    }

    /// Section 12 of the reference: CORS as a resource per method and path.
    #[test]
    fn a_record_is_filled_in() {
        becomes(
            r#"{"method":"GET","path":"/users/:id","space":"x","corsId":"y","more":1,"allowedHeaders":[]}"#,
            r#"{"space":"default","corsId":"GET%2Fusers%2F:id","method":"GET","path":"/users/:id","allowedOrigins":["*"],"allowedMethods":["HEAD","GET","POST"],"allowedHeaders":["Origin","Accept","Content-Type"],"allowCredentials":false}"#,
        );
        becomes(
            r#"{"method":"POST","path":"/","allowedOrigins":["http://a"],"allowedMethods":["POST"],"allowedHeaders":["X-A"],"allowCredentials":true,"metadata":{"a":"b"}}"#,
            r#"{"space":"default","corsId":"POST%2F","method":"POST","path":"/","allowedOrigins":["http://a"],"allowedMethods":["POST"],"allowedHeaders":["X-A"],"allowCredentials":true,"metadata":{"a":"b"}}"#,
        );
    }

    #[test]
    fn what_does_not_validate_is_told_field_by_field() {
        let tag = |field: &str, tag: &str| {
            format!(
                "Key: 'CORS.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
            )
        };
        refuses(
            "{}",
            &[tag("Method", METHOD_TAG), tag("Path", "path")].join("\n"),
        );
        refuses(r#"{"method":"get","path":"/"}"#, &tag("Method", METHOD_TAG));
        refuses(r#"{"method":"GET","path":"a"}"#, &tag("Path", "path"));
        refuses(
            r#"{"method":"GET","path":"/","allowedOrigins":[1]}"#,
            "allowedOrigins[0]: invalid type",
        );
        refuses("[]", "invalid type: sequence");
    }
}
