//! The description of all three APIs (OpenAPI 3.1), made from the handlers and the types of bodies, and the page that shows it.
//!
//! A route is described beside its handler, by `#[utoipa::path(..)]`, and is routed by that description: what is not described is not
//! routed. `POST /invoke` and the events API pass no router; they are described in `openapi/unrouted.rs`. What all routes have in
//! common, such as the errors of authentication, is added here.

use std::sync::{Arc, LazyLock};

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response as Answer};
use axum::routing::get;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, header};
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::AnyOfBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::{Server, ServerBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, Url};

use crate::error::Error;
use crate::surface::Shared;
use crate::{admin, aws, functions, headers};

mod unrouted;

#[cfg(test)]
mod tests;

/// Where the page is, which stands under the same path with a slash.
pub(crate) const PAGE: &str = "/docs";

/// The name of the one way to authenticate.
const BEARER: &str = "bearer";

/// What any request may be answered with. The errors that only some have stand at their handlers.
const COMMON: [(u16, &str); 7] = [
    (
        400,
        "The request is not understood: what is wrong, and what was expected",
    ),
    (401, "There is no credential, or it is not good any more"),
    (
        403,
        "The caller may not do that, or the request comes from elsewhere than it may",
    ),
    (413, "The body is too large"),
    (
        429,
        "A limit is reached; `retry-after` says when to come back",
    ),
    (500, "A fault of the node, which its log explains"),
    (
        503,
        "The node or the config store can not do that now; `retry-after` says when to come back",
    ),
];

/// Where an API is reached, and how it words errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Functions,
    Events,
    Config,
}

impl Api {
    const ALL: [Self; 3] = [Self::Functions, Self::Events, Self::Config];

    /// Its name, as metrics have it.
    fn name(self) -> &'static str {
        match self {
            Self::Functions => "functions",
            Self::Events => "events",
            Self::Config => "config",
        }
    }

    /// Its port, where the settings do not say otherwise.
    fn port(self) -> u16 {
        match self {
            Self::Functions => 3000,
            Self::Events => 4000,
            Self::Config => 4001,
        }
    }

    fn server(self) -> Server {
        let (name, port) = (self.name(), self.port());
        ServerBuilder::new()
            .url(format!("http://127.0.0.1:{port}"))
            .description(Some(format!("The {name} API of a node")))
            .build()
    }
}

/// How the errors of a route are worded, by its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wording {
    Functions,
    Config,
    /// On both listeners: as each of them words errors.
    Both,
    /// With a shape of their own; those of authentication are worded as in the config API.
    Spaceless,
    /// As AWS Lambda.
    Aws,
}

impl Wording {
    const ALL: [Self; 5] = [
        Self::Functions,
        Self::Config,
        Self::Both,
        Self::Spaceless,
        Self::Aws,
    ];

    fn of(operation: &Operation) -> Self {
        let tag = operation.tags.as_ref().and_then(|tags| tags.first());
        match tag.map_or("", String::as_str) {
            "functions" | "users" => Self::Functions,
            "executions" => Self::Both,
            "spaceless" => Self::Spaceless,
            "aws" => Self::Aws,
            _ => Self::Config,
        }
    }

    /// The schemas of errors.
    fn schemas(self) -> &'static [&'static str] {
        match self {
            Self::Functions => &["InvokeError"],
            Self::Config => &["Errors"],
            Self::Both => &["InvokeError", "Errors"],
            Self::Spaceless => &["SpacelessError", "Errors"],
            Self::Aws => &["AwsError"],
        }
    }

    /// The name of a common answer.
    fn answer(self, status: u16) -> String {
        format!("{self:?}{status}")
    }

    fn response(self, description: &str) -> Response {
        let schema: RefOr<Schema> = match self.schemas() {
            [one] => Ref::from_schema_name(*one).into(),
            several => {
                let refs = several.iter().map(|name| Ref::from_schema_name(*name));
                let any = refs.fold(AnyOfBuilder::new(), AnyOfBuilder::item);
                Schema::from(any.build()).into()
            }
        };
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new()
            .description(description)
            .content("application/json", content)
            .build()
    }
}

/// What the document begins with.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hearth",
        description = "A clustered function runtime and event gateway. Each node serves three APIs: functions (port 3000), events (4000) and config (4001). Each answer says in `x-hearth-invocation` and `x-hearth-node` what it was and where it ran, an error in `x-hearth-error` what went wrong where.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(),
    ),
    tags(
        (name = "functions", description = "Calls of functions (port 3000)"),
        (name = "users", description = "Accounts, their tokens, keys and functions (port 3000)"),
        (name = "aws", description = "AWS Lambda's API, for its clients: requests are signed with an access key (port 3000)"),
        (name = "executions", description = "Invocations that are not waited for (ports 3000 and 4001)"),
        (name = "events", description = "Events, and http requests that functions answer (port 4000)"),
        (name = "config", description = "Records, the node and the cluster (port 4001)"),
        (name = "spaceless", description = "The same records of the space `default`, in the shapes of the Event Gateway's first versions (port 4001)"),
    ),
    components(schemas(protocol::api::InvokeError, protocol::api::Errors, aws::ErrorBody))
)]
struct Document;

/// The whole description, with the ports that are set by default.
fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let apis = [
        (Api::Functions, functions::routes().into_openapi()),
        (Api::Functions, unrouted::Functions::openapi()),
        (Api::Events, unrouted::Events::openapi()),
        (Api::Config, admin::routes(false).into_openapi()),
    ];
    let components = document.components.get_or_insert_default();
    let bearer = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of `POST /api/v1/users/login`, an API key, or the administrator's token",
        ))
        .build();
    components
        .security_schemes
        .insert(BEARER.to_owned(), RefOr::T(SecurityScheme::Http(bearer)));
    for wording in Wording::ALL {
        let answers = COMMON.map(|(status, description)| {
            let response = wording.response(description);
            (wording.answer(status), RefOr::T(response))
        });
        components.responses.extend(answers);
    }
    for (api, mut described) in apis {
        for item in described.paths.paths.values_mut() {
            item.servers = Some(vec![api.server()]);
            for operation in operations(item) {
                complete(operation);
            }
        }
        merge(&mut document, described, api);
    }
    document.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    document
}

/// Adds what another API has. A path that several serve has all their servers.
fn merge(document: &mut utoipa::openapi::OpenApi, described: utoipa::openapi::OpenApi, api: Api) {
    let mut described = described;
    for (path, item) in std::mem::take(&mut described.paths.paths) {
        match document.paths.paths.get_mut(&path) {
            None => drop(document.paths.paths.insert(path, item)),
            Some(known) => {
                known.servers.get_or_insert_default().push(api.server());
                known.merge_operations(item);
            }
        }
    }
    document.merge(described);
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        options,
        head,
        patch,
        ..
    } = item;
    [get, put, post, delete, options, head, patch]
        .into_iter()
        .flatten()
}

/// Adds what all operations may be answered with.
fn complete(operation: &mut Operation) {
    let wording = Wording::of(operation);
    let has_body = operation.request_body.is_some();
    for (status, _) in COMMON
        .into_iter()
        .filter(|(status, _)| has_body || *status != 413)
    {
        let reference = Ref::from_response_name(wording.answer(status));
        operation
            .responses
            .responses
            .entry(status.to_string())
            .or_insert(RefOr::Ref(reference));
    }
}

/// The description as it is served, and as docs/openapi.json has it.
static JSON: LazyLock<String> = LazyLock::new(|| {
    let mut json = document()
        .to_pretty_json()
        .expect("a description has a JSON form");
    json.push('\n');
    json
});

/// The routes of the description and its page, which the functions and the config API have.
pub(crate) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(describe))
        .routes(routes!(page))
        .route("/docs/", get(index))
        .route("/docs/{file}", get(named))
}

/// Describe all three APIs.
///
/// The servers are those of the node that answers.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "describe",
    tag = "functions",
    security(()),
    responses((status = 200, description = "This document", body = serde_json::Value)),
)]
async fn describe(State(shared): State<Arc<Shared>>, fields: HeaderMap) -> Answer {
    let content_type = [(header::CONTENT_TYPE, headers::JSON)];
    (content_type, of_node(&JSON, &shared, &fields)).into_response()
}

/// The description with the addresses of this node.
fn of_node(json: &str, shared: &Shared, fields: &HeaderMap) -> String {
    let mut json = json.to_owned();
    for (api, origin) in Api::ALL.into_iter().zip(origins(shared, fields)) {
        let default = format!("http://127.0.0.1:{}\"", api.port());
        json = json.replace(&default, &format!("{origin}\""));
    }
    json
}

/// Where the APIs of this node are, under the name that the client has for it.
fn origins(shared: &Shared, fields: &HeaderMap) -> [String; 3] {
    let host = fields.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let host = host.as_ref().map_or("127.0.0.1", Authority::host);
    shared
        .places
        .map(|(scheme, port)| format!("{scheme}://{host}:{port}"))
}

/// Show this description as a page that can try it.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "show_docs",
    tag = "functions",
    security(()),
    responses((status = 303, description = "The page is at `/docs/`")),
)]
async fn page() -> Redirect {
    Redirect::to("/docs/")
}

/// `GET /docs/`
async fn index(State(shared): State<Arc<Shared>>, fields: HeaderMap) -> Answer {
    file(&shared, &fields, "index.html")
}

/// `GET /docs/{file}`
async fn named(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    fields: HeaderMap,
) -> Answer {
    file(&shared, &fields, &name)
}

/// A file of the page, which may call the three APIs of this node, and load nothing from elsewhere.
fn file(shared: &Shared, fields: &HeaderMap, name: &str) -> Answer {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        let url = Url::new("Hearth", "/openapi.json");
        let config = Config::new([url]).persist_authorization(false);
        Arc::new(config.try_it_out_enabled(true).filter(true))
    });
    let file = match utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => file,
        Ok(None) => return Error::no_such_path(&format!("/docs/{name}")).into_response(),
        Err(error) => return Error::page(&*error).into_response(),
    };
    let apis = origins(shared, fields).join(" ");
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self' {apis}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    );
    let content_type = [
        (header::CONTENT_TYPE, headers::text(&file.content_type)),
        (header::CONTENT_SECURITY_POLICY, headers::text(&policy)),
    ];
    (StatusCode::OK, content_type, file.bytes.into_owned()).into_response()
}
