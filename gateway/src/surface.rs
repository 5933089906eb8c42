//! One API on one listener: from a request's head to the answer with all its headers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use accounts::Caller;
use actors::invoker::Completed;
use actors::quotas::Admitted;
use actors::view::Readiness;
use axum::Router;
use axum::extract::FromRequestParts;
use bytes::Bytes;
use config::settings::LambdaSettings;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use protocol::{ErrorCode, InvocationId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::auth::Guard;
use crate::body::{self, AnswerBody};
use crate::edge::{Certificate, EdgeLimits, Listener};
use crate::error::{Error, Shape};
use crate::events::Emitter;
use crate::inner::{self, Callers};
use crate::invoke::{self, Propagate};
use crate::meters::{EventMeters, InvocationMeters, ListenerMeters};
use crate::node::Node;
use crate::{aws, cors, events, functions, headers};

/// Writes the metrics as Prometheus reads them.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Whatever a function's result looks like, it is no page and no script.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// What the three APIs of a node have in common.
pub(crate) struct Shared {
    pub(crate) node: Arc<dyn Node>,
    /// Schemes and ports of the functions, events and config API.
    pub(crate) places: [(&'static str, u16); 3],
    /// The node's name, ready to be sent.
    pub(crate) node_name: HeaderValue,
    pub(crate) guard: Guard,
    pub(crate) limits: EdgeLimits,
    /// AWS Lambda's API.
    pub(crate) lambda: LambdaSettings,
    /// One permit for each client invocation that may be in flight.
    pub(crate) in_flight: Semaphore,
    pub(crate) propagate: Option<Propagate>,
    pub(crate) render_metrics: RenderMetrics,
    pub(crate) invocations: InvocationMeters,
    pub(crate) events: EventMeters,
    /// Takes events for their subscribers.
    pub(crate) emitter: Arc<Emitter>,
    /// How old what waits in the queue may get, where its function does not say.
    pub(crate) queued_age_max: Duration,
    /// How long an instance may take until it is ready.
    pub(crate) start_timeout: Duration,
    /// What goes on when its client is gone. A node that ends waits for it as for connections.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the node stops accepting clients; answers without an end end then.
    pub(crate) closing: CancellationToken,
}

impl Shared {
    /// Says where and how an invocation ran.
    pub(crate) fn describe(&self, fields: &mut HeaderMap, completed: &Completed) {
        fields.reserve(8);
        let is_here = completed.node == *self.node.name();
        let node = if is_here {
            self.node_name.clone()
        } else {
            headers::text(&completed.node)
        };
        fields.insert(headers::NODE, node);
        fields.insert(headers::START, headers::start(completed.start));
        fields.insert(headers::ROUTE, headers::route(completed.is_forwarded));
        if let Some(timing) = headers::server_timing(&completed.phases) {
            fields.insert(headers::SERVER_TIMING, timing);
        }
        if let Some(standing) = &completed.standing {
            headers::rate_limit(fields, standing);
        }
    }
}

/// Where the client of a request is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub(crate) IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let client = parts.extensions.get::<Self>().copied();
        client.ok_or_else(Error::lost)
    }
}

/// One API on one listener.
pub(crate) struct Surface {
    pub(crate) listener: Listener,
    pub(crate) shared: Arc<Shared>,
    pub(crate) meters: ListenerMeters,
    /// Cancelled when the listener stops accepting.
    pub(crate) closing: CancellationToken,
    /// What its connections are secured with.
    pub(crate) certificate: Option<Arc<Certificate>>,
    /// How long browsers are told to come by TLS only.
    hsts: Option<HeaderValue>,
    /// Who may call, on the inner listener.
    callers: Option<Arc<dyn Callers>>,
    router: Router,
}

impl Surface {
    /// Puts an API together.
    pub(crate) fn new(
        listener: Listener,
        shared: &Arc<Shared>,
        router: Router<Arc<Shared>>,
    ) -> Self {
        Self {
            listener,
            shared: Arc::clone(shared),
            meters: ListenerMeters::new(listener.label()),
            closing: shared.closing.clone(),
            certificate: None,
            hsts: None,
            callers: None,
            router: router.with_state(Arc::clone(shared)),
        }
    }

    /// Lets clients in with TLS only, and browsers never come without, for so long.
    pub(crate) fn with_certificate(
        self,
        certificate: Option<Arc<Certificate>>,
        hsts: Option<Duration>,
    ) -> Self {
        let hsts = hsts.filter(|_| certificate.is_some());
        Self {
            certificate,
            hsts: hsts.map(|age| headers::text(&format!("max-age={}", age.as_secs()))),
            ..self
        }
    }

    /// The surface of the inner listener, which is closed after those of clients.
    pub(crate) fn inner(shared: &Arc<Shared>, callers: Arc<dyn Callers>) -> Self {
        Self {
            closing: CancellationToken::new(),
            callers: Some(callers),
            ..Self::new(Listener::Inner, shared, functions::router())
        }
    }

    /// Answers one request, whatever it is. `from` is where its client is.
    pub(crate) async fn answer(
        &self,
        mut request: Request<Incoming>,
        from: IpAddr,
    ) -> Response<AnswerBody> {
        let shared = &*self.shared;
        let id = InvocationId::random();
        if let Some(callers) = &self.callers {
            // In a box, so that the path of clients carries nothing of it.
            let response = Box::pin(inner::answer(self, &**callers, &id, request, from)).await;
            return self.complete(response, &id, None);
        }
        if self.listener == Listener::Functions && aws::is_path(request.uri().path()) {
            // In a box, so that other paths carry nothing of it.
            let response = Box::pin(aws::answer(self, &id, request, from)).await;
            return self.complete(response, &id, None);
        }
        let (origin, checked) = match shared.guard.origin(self.listener, request.headers()) {
            Ok(origin) => (origin.cloned(), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let may_be_preflight = origin.is_some() || self.listener == Listener::Events;
        let is_preflight =
            may_be_preflight && cors::is_preflight(request.method(), request.headers());
        // Browsers send no credentials with a preflight, and it makes nothing run.
        let checked = match checked {
            Ok(()) if is_preflight => Ok(None),
            Ok(()) => shared.guard.admit(self.listener, &mut request).await,
            Err(error) => Err(error),
        };
        let checked = match self.listener == Listener::Events && self.closing.is_cancelled() {
            true => Err(Error::draining()),
            false => checked,
        };
        let (checked, admitted) = match checked {
            Ok(Some(caller)) => match self.count(&caller).await {
                Ok(admitted) => (Ok(Some(caller)), admitted),
                Err(error) => (Err(error), Admitted::default()),
            },
            checked => (checked, Admitted::default()),
        };
        let mut response = match checked {
            Err(error) => {
                let (parts, mut body) = request.into_parts();
                body::discard(&parts.headers, &mut body).await;
                self.render(&error, &id, self.shape(parts.uri.path()))
            }
            Ok(_) if self.listener == Listener::Events => {
                let is_trusted = !is_preflight || !shared.guard.requires_token();
                events::answer(&self.shared, &id, request, is_trusted).await
            }
            Ok(_) if is_preflight => cors::preflight(),
            Ok(caller) if self.is_invoke(&request) => {
                let caller = invoke::By::Client(caller);
                invoke::answer(shared, &id, request, caller).await
            }
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                self.route(&id, request, from).await
            }
        };
        if let Some(standing) = &admitted.standing {
            headers::rate_limit(response.headers_mut(), standing);
        }
        let response = match admitted.is_going_on() {
            true => response.map(|body| AnswerBody::Counted(Box::new(body), admitted)),
            false => response,
        };
        self.complete(response, &id, origin)
    }

    /// Counts a request for its user.
    pub(crate) async fn count(&self, caller: &Caller) -> Result<Admitted, Error> {
        let Some(quotas) = self.shared.node.quotas() else {
            return Ok(Admitted::default());
        };
        let terms = quotas.terms_of_request(caller);
        if terms.is_empty() {
            return Ok(Admitted::default());
        }
        let admitted = quotas.admit(terms).await;
        admitted.map_err(|exceeded| Error::exceeded(&exceeded))
    }

    /// Answers a request that came without TLS where there should be some.
    pub(crate) async fn refuse_plain(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let id = InvocationId::random();
        let (parts, mut body) = request.into_parts();
        body::discard(&parts.headers, &mut body).await;
        let shape = self.shape(parts.uri.path());
        let mut response = self.render(&Error::plain_http(), &id, shape);
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        self.complete(response, &id, None)
    }

    /// Puts on an answer what all answers have, and counts it.
    fn complete(
        &self,
        mut response: Response<AnswerBody>,
        id: &InvocationId,
        origin: Option<HeaderValue>,
    ) -> Response<AnswerBody> {
        let shared = &*self.shared;
        let fields = response.headers_mut();
        fields
            .entry(headers::INVOCATION)
            .or_insert_with(|| headers::text(id.as_str()));
        fields
            .entry(headers::NODE)
            .or_insert_with(|| shared.node_name.clone());
        // What a function answers to an event is a site of its own, whose headers are its own.
        if self.listener != Listener::Events {
            fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        }
        if let Some(hsts) = &self.hsts {
            fields.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        if let Some(origin) = origin {
            cors::allow(fields, origin);
        }
        // A draining node still answers, and asks its clients to take the next request elsewhere: when it closes its
        // connections none of them is in use.
        let is_ending = self.closing.is_cancelled();
        if is_ending || shared.node.readiness() == Readiness::Draining {
            fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.meters.count(response.status());
        response
    }

    fn is_invoke(&self, request: &Request<Incoming>) -> bool {
        self.listener == Listener::Functions
            && request.method() == Method::POST
            && request.uri().path() == invoke::PATH
    }

    /// Everything but the warm path goes through a router.
    pub(crate) async fn route<B>(
        &self,
        id: &InvocationId,
        mut request: Request<B>,
        from: IpAddr,
    ) -> Response<AnswerBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        request.extensions_mut().insert(Client(from));
        let shape = self.shape(request.uri().path());
        let request = request.map(axum::body::Body::new);
        let Ok(mut response) = self.router.clone().oneshot(request).await;
        let Some(error) = response.extensions_mut().remove::<Error>() else {
            for (name, value) in headers::OF_DOCUMENTS {
                response.headers_mut().entry(name).or_insert(value);
            }
            return response.map(AnswerBody::Routed);
        };
        // An execution is told by its own id, which its logs have as well.
        let named = response.headers_mut().remove(headers::INVOCATION);
        let own = named
            .as_ref()
            .and_then(|named| named.to_str().ok()?.parse().ok());
        let mut answer = self.render(&error, own.as_ref().unwrap_or(id), shape);
        if let Some(named) = named {
            answer.headers_mut().insert(headers::INVOCATION, named);
        }
        // The router knows which methods a path takes.
        if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
            answer.headers_mut().insert(header::ALLOW, allow);
        }
        answer
    }

    /// How the API of a path words errors.
    fn shape(&self, path: &str) -> Shape {
        match self.listener {
            Listener::Functions if aws::is_path(path) => Shape::Aws,
            Listener::Functions | Listener::Inner => Shape::Functions,
            Listener::Events | Listener::Config => Shape::EventGateway,
        }
    }

    fn render(&self, error: &Error, id: &InvocationId, shape: Shape) -> Response<AnswerBody> {
        if error.code() == ErrorCode::Internal {
            tracing::error!(request = %id, ?error, "request failed");
        }
        error.answer(shape, id, self.shared.node.name())
    }
}
