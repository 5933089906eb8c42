//! AWS Lambda's API, on the listener of the functions API at AWS's own paths, so that its clients need another address and nothing else.
//!
//! What it makes and changes are Hearth's own records of functions; what of AWS's has no place in those is noted in their metadata under
//! names that begin with `aws:`, which no tag of AWS's may.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use accounts::{Caller, Scope};
use actors::quotas::Admitted;
use axum::extract::FromRequestParts;
use config::settings::LambdaSettings;
use http::request::Parts;
use http::{HeaderName, Request, Response};
use hyper::body::Incoming;
use protocol::{FunctionId, InvocationId, Space};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth;
use crate::body::{self, AnswerBody};
use crate::edge::Listener;
use crate::error::{Error, Shape};
use crate::surface::{Shared, Surface};
use crate::{cors, headers};

mod aliases;
mod concurrency;
mod configuration;
mod deploy;
mod event_invoke;
mod invoke;
mod log_tail;
mod name;
mod sent;
mod stream;
mod tags;
mod versions;

/// The id of a request, as AWS's clients show it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// Whether a path is one of AWS's: each begins with the day that its operation was made on, `/2015-03-31/`.
pub(crate) fn is_path(path: &str) -> bool {
    let is_right = |(position, byte): (usize, u8)| match position {
        0 | 11 => byte == b'/',
        5 | 8 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    path.len() > 12 && path.bytes().take(12).enumerate().all(is_right)
}

/// An error, as the model of its type has it; `x-amzn-errortype` names that.
#[derive(ToSchema)]
#[schema(as = AwsError)]
#[expect(
    dead_code,
    reason = "it is described and not made: gateway/src/error/aws.rs writes it"
)]
pub(crate) struct ErrorBody {
    /// `User` or `Service`, where the type has that.
    #[schema(rename = "Type")]
    kind: Option<String>,
    /// What is wrong; some types have it in capitals.
    message: Option<String>,
    /// What is wrong, of the others.
    #[schema(rename = "Message")]
    other_message: Option<String>,
    /// Whose limit is reached.
    #[schema(rename = "Reason")]
    reason: Option<String>,
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(invoke::invoke))
        .routes(routes!(stream::invoke))
        .routes(routes!(deploy::list, deploy::create))
        .routes(routes!(deploy::get, deploy::delete))
        .routes(routes!(deploy::update_code))
        .routes(routes!(
            deploy::get_configuration,
            deploy::update_configuration
        ))
        .routes(routes!(versions::list, versions::publish))
        .routes(routes!(aliases::list, aliases::create))
        .routes(routes!(aliases::get, aliases::update, aliases::delete))
        .routes(routes!(concurrency::put, concurrency::delete))
        .routes(routes!(concurrency::get))
        .routes(routes!(
            event_invoke::get,
            event_invoke::put,
            event_invoke::update,
            event_invoke::delete
        ))
        .routes(routes!(event_invoke::list))
        .routes(routes!(tags::list, tags::add, tags::remove))
}

/// Answers a request to one of AWS's paths: the body is read before it is known who calls, since the signature is of the body too.
pub(crate) async fn answer(
    surface: &Surface,
    id: &InvocationId,
    request: Request<Incoming>,
    from: IpAddr,
) -> Response<AnswerBody> {
    let shared = &surface.shared;
    let mut origin = None;
    let mut response = match enter(surface, request, &mut origin).await {
        Ok(None) => cors::preflight(),
        Ok(Some(entered)) => {
            let Entered {
                mut request,
                known,
                admitted,
                place,
            } = entered;
            let context = Context::new(id, known, &shared.lambda, place);
            request.extensions_mut().insert(context);
            let mut response = surface.route(id, request, from).await;
            if let Some(standing) = &admitted.standing {
                headers::rate_limit(response.headers_mut(), standing);
            }
            match admitted.is_going_on() {
                true => response.map(|body| AnswerBody::Counted(Box::new(body), admitted)),
                false => response,
            }
        }
        Err(error) => error.answer(Shape::Aws, id, shared.node.name()),
    };
    let fields = response.headers_mut();
    let named = fields.get(headers::INVOCATION).cloned();
    let named = named.unwrap_or_else(|| headers::text(id.as_str()));
    fields.insert(REQUEST_ID, named);
    if let Some(origin) = origin {
        cors::allow(fields, origin);
    }
    response
}

/// A request that is let in.
struct Entered {
    request: Request<axum::body::Body>,
    known: auth::Known,
    /// What it counts for, while it goes on.
    admitted: Admitted,
    place: Place,
}

/// A place among the requests in flight.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.add_permits(1);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

/// Lets a request in; none where it is a browser's preflight.
async fn enter(
    surface: &Surface,
    request: Request<Incoming>,
    from_page: &mut Option<http::HeaderValue>,
) -> Result<Option<Entered>, Error> {
    let shared = &surface.shared;
    let (parts, mut body) = request.into_parts();
    let entering = async {
        let origin = shared.guard.origin(Listener::Functions, &parts.headers)?;
        *from_page = origin.cloned();
        if origin.is_some() && cors::is_preflight(&parts.method, &parts.headers) {
            return Ok(None);
        }
        let permit = shared.in_flight.try_acquire();
        let permit = permit.map_err(|_| Error::in_flight(shared.limits.in_flight_max))?;
        permit.forget();
        let place = Place(Arc::clone(shared));
        let entrant = shared
            .guard
            .enter(&parts, shared.lambda.clock_skew_max)
            .await?;
        Ok(Some((entrant, place)))
    };
    let (entrant, place) = match entering.await {
        Ok(Some(entered)) => entered,
        Ok(None) => return Ok(None),
        Err(error) => {
            body::discard(&parts.headers, &mut body).await;
            return Err(error);
        }
    };
    let body = body::read(&parts.headers, &mut body, &shared.limits).await?;
    let known = shared.guard.let_in(entrant, &parts, &body).await?;
    let admitted = surface.count(&known.caller).await?;
    let request = Request::from_parts(parts, axum::body::Body::from(body));
    Ok(Some(Entered {
        request,
        known,
        admitted,
        place,
    }))
}

/// What every operation knows of its request.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    id: InvocationId,
    caller: Caller,
    /// The space of all that the request names.
    space: Space,
    region: Arc<str>,
    account_id: Arc<str>,
    /// Given back when the last who knows the request is done with it.
    _place: Arc<Place>,
}

impl Context {
    fn new(id: &InvocationId, known: auth::Known, settings: &LambdaSettings, place: Place) -> Self {
        let is_region = |text: &&str| {
            let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=32).contains(&text.len()) && text.bytes().all(is_plain)
        };
        let region = known.region.as_deref().filter(is_region);
        let region = region.unwrap_or(&settings.region);
        Self {
            id: id.clone(),
            space: known.caller.home_space(),
            region: region.into(),
            account_id: settings.account_id.as_str().into(),
            caller: known.caller,
            _place: Arc::new(place),
        }
    }

    /// Whether the caller may do something in its space.
    fn may(&self, scope: Scope) -> Result<(), Error> {
        auth::may(&self.caller, &self.space, scope)
    }

    /// The ARN of a function, as this caller would say it.
    fn arn(&self, id: &FunctionId, qualifier: Option<&str>) -> String {
        let (region, account) = (&self.region, &self.account_id);
        match qualifier {
            None => format!("arn:aws:lambda:{region}:{account}:function:{id}"),
            Some(qualifier) => {
                format!("arn:aws:lambda:{region}:{account}:function:{id}:{qualifier}")
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let context = parts.extensions.get::<Self>().cloned();
        context.ok_or_else(Error::lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_aws_begin_with_a_day() {
        assert!(is_path("/2015-03-31/functions"));
        assert!(is_path("/2015-03-31/x"));
        for other in [
            "/",
            "/2015-03-31/",
            "/2015-03-31",
            "/2015-03-3x/f",
            "/api/v1/functions",
            "/2015/03/31/f",
        ] {
            assert!(!is_path(other), "{other}");
        }
    }
}
