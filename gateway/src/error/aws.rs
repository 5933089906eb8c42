//! Errors as AWS Lambda's model has them: type, status and body, for its clients to make their exceptions of.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use protocol::{Component, Effect, ErrorCode, Failure};
use serde_json::json;

use super::{Error, Wording};
use crate::body::AnswerBody;

/// The header that names the error's type.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// The types of errors that AWS's clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    AccessDenied,
    ExpiredToken,
    IncompleteSignature,
    InvalidParameterValue,
    InvalidRequestContent,
    InvalidSignature,
    MethodNotAllowed,
    MissingAuthenticationToken,
    PreconditionFailed,
    RequestTooLarge,
    ResourceConflict,
    ResourceNotFound,
    Service,
    TooManyRequests,
    UnknownOperation,
    UnrecognizedClient,
    Validation,
}

impl Kind {
    /// Its name and status, as in the service's model and its list of common errors.
    fn told(self) -> (&'static str, u16) {
        match self {
            Self::AccessDenied => ("AccessDeniedException", 403),
            Self::ExpiredToken => ("ExpiredTokenException", 403),
            Self::IncompleteSignature => ("IncompleteSignatureException", 400),
            Self::InvalidParameterValue => ("InvalidParameterValueException", 400),
            Self::InvalidRequestContent => ("InvalidRequestContentException", 400),
            Self::InvalidSignature => ("InvalidSignatureException", 403),
            Self::MethodNotAllowed => ("MethodNotAllowedException", 405),
            Self::MissingAuthenticationToken => ("MissingAuthenticationTokenException", 403),
            Self::PreconditionFailed => ("PreconditionFailedException", 412),
            Self::RequestTooLarge => ("RequestTooLargeException", 413),
            Self::ResourceConflict => ("ResourceConflictException", 409),
            Self::ResourceNotFound => ("ResourceNotFoundException", 404),
            Self::Service => ("ServiceException", 500),
            Self::TooManyRequests => ("TooManyRequestsException", 429),
            Self::UnknownOperation => ("UnknownOperationException", 404),
            Self::UnrecognizedClient => ("UnrecognizedClientException", 403),
            Self::Validation => ("ValidationException", 400),
        }
    }

    /// What it is among Hearth's own codes.
    fn code(self) -> ErrorCode {
        match self {
            Self::AccessDenied => ErrorCode::Forbidden,
            Self::ExpiredToken
            | Self::IncompleteSignature
            | Self::InvalidSignature
            | Self::MissingAuthenticationToken
            | Self::UnrecognizedClient => ErrorCode::Unauthorized,
            Self::InvalidParameterValue | Self::InvalidRequestContent | Self::Validation => {
                ErrorCode::InvalidRequest
            }
            Self::MethodNotAllowed => ErrorCode::MethodNotAllowed,
            Self::PreconditionFailed | Self::ResourceConflict => ErrorCode::Conflict,
            Self::RequestTooLarge => ErrorCode::PayloadTooLarge,
            Self::ResourceNotFound => ErrorCode::FunctionNotFound,
            Self::UnknownOperation => ErrorCode::NotFound,
            Self::Service => ErrorCode::Internal,
            Self::TooManyRequests => ErrorCode::RateLimited,
        }
    }

    /// The member of the body that has the message: the model has it in capitals for two, and the front of AWS for its own without type.
    fn body(self, message: &str, reason: Option<&str>) -> serde_json::Value {
        match self {
            Self::ResourceNotFound => json!({"Type": "User", "Message": message}),
            Self::Service => json!({"Type": "Service", "Message": message}),
            Self::TooManyRequests => {
                json!({"Type": "User", "message": message, "Reason": reason})
            }
            Self::InvalidParameterValue
            | Self::InvalidRequestContent
            | Self::PreconditionFailed
            | Self::RequestTooLarge
            | Self::ResourceConflict => json!({"Type": "User", "message": message}),
            Self::AccessDenied => json!({"Message": message}),
            Self::ExpiredToken
            | Self::IncompleteSignature
            | Self::InvalidSignature
            | Self::MethodNotAllowed
            | Self::MissingAuthenticationToken
            | Self::UnknownOperation
            | Self::UnrecognizedClient
            | Self::Validation => json!({"message": message}),
        }
    }
}

impl Error {
    /// An error that AWS's clients know by its type.
    pub(crate) fn aws(kind: Kind, message: impl Into<String>) -> Self {
        let (_, status) = kind.told();
        let failure = Failure::new(kind.code(), Component::Gateway, Effect::Refused, message);
        let status = StatusCode::from_u16(status).expect("the table has statuses only");
        Self {
            wording: Wording::Aws(kind),
            ..Self::new(status, failure)
        }
    }

    /// No operation of AWS Lambda's that is here has such a path.
    pub(crate) fn no_such_operation(path: &str) -> Self {
        let message = format!(
            "there is no operation at {path}; docs/compatibility.md lists those of AWS Lambda that are here"
        );
        Self::aws(Kind::UnknownOperation, message)
    }

    /// Its type for AWS's clients.
    fn aws_kind(&self) -> Kind {
        match (self.wording, self.failure.code) {
            (Wording::Aws(kind), _) => kind,
            (_, ErrorCode::InvalidRequest | ErrorCode::Vetoed) => Kind::InvalidParameterValue,
            (_, ErrorCode::Unauthorized) => Kind::UnrecognizedClient,
            (_, ErrorCode::Forbidden) => Kind::AccessDenied,
            (_, ErrorCode::FunctionNotFound | ErrorCode::NotFound) => Kind::ResourceNotFound,
            (_, ErrorCode::MethodNotAllowed) => Kind::MethodNotAllowed,
            (_, ErrorCode::Conflict) if self.status == StatusCode::PRECONDITION_FAILED => {
                Kind::PreconditionFailed
            }
            (_, ErrorCode::Conflict) => Kind::ResourceConflict,
            (_, ErrorCode::PayloadTooLarge) if self.failure.effect == Effect::Refused => {
                Kind::RequestTooLarge
            }
            (_, ErrorCode::FunctionBusy | ErrorCode::RateLimited) => Kind::TooManyRequests,
            // Of a record that is not stored; a call whose image is gone is the service's fault.
            (_, ErrorCode::ImageNotFound) if self.status == StatusCode::NOT_FOUND => {
                Kind::InvalidParameterValue
            }
            _ => Kind::Service,
        }
    }

    /// The status: that of the type, but for faults of the service, which tell apart what may help.
    fn aws_status(&self) -> StatusCode {
        let kind = self.aws_kind();
        let (_, status) = kind.told();
        match kind {
            Kind::Service if self.status.is_server_error() => self.status,
            _ => StatusCode::from_u16(status).expect("the table has statuses only"),
        }
    }

    /// Puts the type and its status on an answer.
    pub(super) fn aws_tell(&self, response: &mut Response<AnswerBody>) {
        let (name, _) = self.aws_kind().told();
        *response.status_mut() = self.aws_status();
        let fields = response.headers_mut();
        fields.insert(ERROR_TYPE, HeaderValue::from_static(name));
        fields.remove(header::WWW_AUTHENTICATE);
    }

    /// The body.
    pub(super) fn aws_body(&self) -> serde_json::Value {
        let message = match self.wording {
            Wording::Aws(_) => self.failure.message.clone(),
            _ => self.functions_message(),
        };
        self.aws_kind().body(&message, self.throttle_reason())
    }

    /// Why there are too many requests, in the words of the model.
    fn throttle_reason(&self) -> Option<&'static str> {
        let message = &self.failure.message;
        let is_of_function = message.starts_with("function ");
        let is_rate = message.contains("(limits.rate)");
        match self.failure.code {
            ErrorCode::FunctionBusy => Some("ReservedFunctionConcurrentInvocationLimitExceeded"),
            ErrorCode::RateLimited => Some(match (is_of_function, is_rate) {
                (true, false) => "ReservedFunctionConcurrentInvocationLimitExceeded",
                (true, true) => "FunctionInvocationRateLimitExceeded",
                (false, true) => "CallerRateLimitExceeded",
                (false, false) => "ConcurrentInvocationLimitExceeded",
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Shape;

    fn check(code: ErrorCode, effect: Effect, status: u16, name: &str) {
        let failure = Failure::new(code, Component::Provider, effect, "why");
        let answer = Error::from(failure).answer(Shape::Aws, &"i".parse().unwrap(), "n1");
        let told = answer.headers()[&ERROR_TYPE].to_str().unwrap();
        assert_eq!(
            (answer.status().as_u16(), told),
            (status, name),
            "{code} {effect:?}"
        );
    }

    #[test]
    fn codes_have_their_types() {
        use ErrorCode as Code;
        check(
            Code::InvalidRequest,
            Effect::Refused,
            400,
            "InvalidParameterValueException",
        );
        check(
            Code::FunctionNotFound,
            Effect::Refused,
            404,
            "ResourceNotFoundException",
        );
        check(
            Code::Conflict,
            Effect::Refused,
            409,
            "ResourceConflictException",
        );
        check(
            Code::PayloadTooLarge,
            Effect::Refused,
            413,
            "RequestTooLargeException",
        );
        check(
            Code::FunctionBusy,
            Effect::Refused,
            429,
            "TooManyRequestsException",
        );
        check(
            Code::Forbidden,
            Effect::Refused,
            403,
            "AccessDeniedException",
        );
        check(
            Code::Unauthorized,
            Effect::Refused,
            403,
            "UnrecognizedClientException",
        );
        check(Code::Overloaded, Effect::Refused, 503, "ServiceException");
        check(
            Code::Interrupted,
            Effect::Interrupted,
            502,
            "ServiceException",
        );
        check(Code::Internal, Effect::Refused, 500, "ServiceException");
    }

    #[test]
    fn bodies_have_the_members_of_the_model() {
        let found = Error::aws(Kind::ResourceNotFound, "why").aws_body();
        assert_eq!(found, json!({"Type": "User", "Message": "why"}));
        let found = Error::aws(Kind::ResourceConflict, "why").aws_body();
        assert_eq!(found, json!({"Type": "User", "message": "why"}));
        let found = Error::aws(Kind::InvalidSignature, "why").aws_body();
        assert_eq!(found, json!({"message": "why"}));
    }

    #[test]
    fn a_throttle_says_whose_limit_it_is() {
        let reason = |message: &str| {
            let failure = Failure::new(
                ErrorCode::RateLimited,
                Component::Gateway,
                Effect::Refused,
                message,
            );
            Error::from(failure).throttle_reason().unwrap()
        };
        let function = limits::Subject::Function("default".parse().unwrap(), "f".parse().unwrap());
        let told = |subject: limits::Subject, what| {
            limits::Exceeded {
                subject,
                what,
                standing: None,
                retry_after: std::time::Duration::ZERO,
            }
            .to_string()
        };
        let at_once = limits::What::Concurrent(3);
        assert_eq!(
            reason(&told(function, at_once)),
            "ReservedFunctionConcurrentInvocationLimitExceeded"
        );
        let caller = limits::Subject::Caller("ada".to_owned());
        assert_eq!(
            reason(&told(caller, at_once)),
            "ConcurrentInvocationLimitExceeded"
        );
    }
}
