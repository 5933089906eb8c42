//! The errors of callers that are not let in, or not to where they want.

use accounts::Scope;
use http::StatusCode;
use protocol::{ErrorCode, Failure, Space};

use super::Error;

impl Error {
    /// The Host header names something else than this machine.
    pub(crate) fn host(host: &str) -> Self {
        let message = format!(
            "host {host:?} is no loopback name; without auth only localhost, 127.0.0.1 and [::1] are served"
        );
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// The request comes from a web page that is not listed.
    pub(crate) fn origin(origin: &str) -> Self {
        let message = format!("origin {origin:?} is not listed in auth.origins");
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// No credential came along.
    pub(crate) fn unauthorized() -> Self {
        let message = "a token or an API key is needed: send it as Authorization: Bearer TOKEN";
        Self::refused(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
    }

    /// The call is for admins.
    pub(crate) fn admin_needed() -> Self {
        let message = "this needs the role admin, and of a key the scope admin";
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// A function of type `process` is for admins.
    pub(crate) fn process_needs_admin() -> Self {
        let message = "type is process, expected another one such as container: functions of type process are for admins";
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// The call is about a user's own things, and the caller is none, or came with a key where that is not enough.
    pub(crate) fn no_account() -> Self {
        let message = "this needs the token of a user: log in with POST /api/v1/users/login";
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// The key may not do that.
    pub(crate) fn scope_needed(scope: Scope) -> Self {
        let message = format!(
            "this needs the scope {}, which the key does not have",
            scope.as_str()
        );
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// The caller may not do that to the space.
    pub(crate) fn not_allowed(space: &Space, scope: Scope) -> Self {
        let message = format!(
            "the caller may not do this in space {space}: it needs to be a member, and a key the scope {}",
            scope.as_str()
        );
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// No token of an instance came along.
    pub(crate) fn unknown_instance() -> Self {
        let message = "only instances of this node's functions may call here: send HEARTH_TOKEN as Authorization: Bearer TOKEN";
        Self::refused(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
    }

    /// The token of one instance came from where another one is.
    pub(crate) fn instance_elsewhere() -> Self {
        let message = "this token was made for an instance at another address";
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// A function calls into a space that is not its own.
    pub(crate) fn other_space(named: &str, own: &Space) -> Self {
        let message = format!(
            "space {named} is not that of the caller, {own}, and with auth it may call no other"
        );
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }
}

impl From<accounts::Error> for Error {
    fn from(error: accounts::Error) -> Self {
        Failure::from(&error).into()
    }
}
