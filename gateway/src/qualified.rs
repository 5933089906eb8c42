//! Which version of a function a call goes to that names a qualifier, as in `hello:prod`.

use actors::Registry;
use http::HeaderMap;
use protocol::version::LATEST;
use protocol::{Failure, FunctionId, Qualifier, Space, Version};

use crate::error::Error;
use crate::headers;

/// Chooses the version that a call goes to: by what its alias says of the call's headers, else by its weights. A call without a qualifier, and one of
/// `$LATEST`, goes to none.
///
/// # Errors
/// When the function has no such version or alias, or this node has not loaded them yet.
pub(crate) fn resolve(
    registry: &Registry,
    space: &Space,
    id: &FunctionId,
    qualifier: &Qualifier,
    fields: &HeaderMap,
) -> Result<Option<Version>, Failure> {
    if !registry.is_loaded {
        return Err(Error::not_loaded().into_failure());
    }
    let header = |name: &str| fields.get(name).map(http::HeaderValue::as_bytes);
    let found = registry.resolve(space, id, qualifier, header, rand::random());
    found.map_err(Failure::from)
}

/// Says in an answer which version ran.
pub(crate) fn tell(fields: &mut HeaderMap, version: Option<Version>) {
    let value = match version {
        Some(version) => version.number().into(),
        None => http::HeaderValue::from_static(LATEST),
    };
    fields.insert(headers::VERSION, value);
}
