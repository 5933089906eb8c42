//! Aliases of functions, whose weights are AWS's routing configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use accounts::Scope;
use actors::catalog::{self, Expected, StoredAlias, VersionError};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use protocol::version::Target;
use protocol::{Alias, AliasName, Qualifier, Version};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::Context;
use super::deploy::{Page, TRIES, changed_meanwhile};
use super::name::{Named, invalid};
use super::sent::{Sent, unlike};
use super::versions::refused;
use crate::admin::{Query, Segments};
use crate::error::{AwsKind, Error};
use crate::surface::Shared;

/// What a client wants to be so of an alias.
#[derive(Debug)]
struct Wanted {
    version: Option<Version>,
    description: Option<String>,
    weights: Option<BTreeMap<Version, f64>>,
}

impl Wanted {
    fn take(sent: &mut Sent) -> Result<Self, Error> {
        let version = match sent.text("FunctionVersion")? {
            None => None,
            Some(text) => {
                let read = text.parse::<Version>();
                let expected = "the number of a version: an alias stands for what does not change";
                Some(read.map_err(|_| unlike("FunctionVersion", &json!(text), expected))?)
            }
        };
        let weights = match sent.object("RoutingConfig")? {
            None => None,
            Some(mut config) => {
                let member = "AdditionalVersionWeights";
                let weights = config.take(member).unwrap_or_else(|| json!({}));
                config.finish("RoutingConfig.")?;
                let read = serde_json::from_value(weights.clone());
                let expected = "an object of weights from 0 to 1 by versions";
                Some(read.map_err(|_| unlike(member, &weights, expected))?)
            }
        };
        Ok(Self {
            version,
            description: sent.text("Description")?,
            weights,
        })
    }
}

/// The function of a path that names no version of it.
fn function(name: &str) -> Result<Named, Error> {
    let named = Named::read(name, None)?;
    match named.qualifier {
        None => Ok(named),
        Some(_) => Err(invalid("functionName", name, "a name without a qualifier")),
    }
}

fn alias_name(text: &str) -> Result<AliasName, Error> {
    text.parse().map_err(|_| {
        invalid(
            "name",
            text,
            "an alias: letters, digits, '-' and '_', and not digits alone",
        )
    })
}

/// The alias of a path, as what is not found.
fn qualified(named: &Named, name: &AliasName) -> Named {
    Named {
        id: named.id.clone(),
        qualifier: Some(Qualifier::Alias(name.clone())),
    }
}

fn told(context: &Context, stored: &StoredAlias) -> Value {
    let alias = &stored.alias;
    let mut told = json!({
        "AliasArn": context.arn(&alias.function_id, Some(alias.name.as_str())),
        "Name": alias.name,
        "FunctionVersion": alias.target.version.to_string(),
        "Description": alias.description.as_deref().unwrap_or_default(),
        "RevisionId": stored.revision.0.to_string(),
    });
    if !alias.target.weights.is_empty() {
        told["RoutingConfig"] = json!({"AdditionalVersionWeights": alias.target.weights});
    }
    told
}

/// Make an alias of a function (AWS Lambda's `CreateAlias`).
#[utoipa::path(
    post,
    path = "/2015-03-31/functions/{name}/aliases",
    operation_id = "aws_create_alias",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN")),
    request_body = Value,
    responses(
        (status = 201, description = "The alias", body = Value),
        (status = 404, description = "There is no such function"),
        (status = 409, description = "There is one of that name"),
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    context: Context,
    body: Bytes,
) -> Result<Response, Error> {
    context.may(Scope::Write)?;
    let named = function(&name)?;
    let mut sent = Sent::read(&body)?;
    let name = sent.text("Name")?.unwrap_or_default();
    let name = alias_name(&name)?;
    let wanted = Wanted::take(&mut sent)?;
    sent.finish("")?;
    let expected = "the number of a version";
    let version = wanted.version;
    let version = version.ok_or_else(|| unlike("FunctionVersion", &Value::Null, expected))?;
    let alias = Alias {
        space: context.space.clone(),
        function_id: named.id.clone(),
        name,
        description: wanted.description.filter(|text| !text.is_empty()),
        target: Target {
            weights: wanted.weights.unwrap_or_default(),
            ..Target::all_to(version)
        },
        previous: None,
    };
    let catalog = shared.node.catalog().await;
    let stored = catalog.set_alias(alias, Expected::Absent).await;
    let stored = stored.map_err(|error| refused(error, &context, &named))?;
    Ok((StatusCode::CREATED, Json(told(&context, &stored))).into_response())
}

/// Change an alias of a function (AWS Lambda's `UpdateAlias`). It is one change on every node.
#[utoipa::path(
    put,
    path = "/2015-03-31/functions/{name}/aliases/{alias}",
    operation_id = "aws_update_alias",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), ("alias" = String, Path, description = "The alias")),
    request_body = Value,
    responses(
        (status = 200, description = "The alias", body = Value),
        (status = 404, description = "There is no such alias"),
        (status = 412, description = "`RevisionId` is not that of the alias"),
    ),
)]
pub(super) async fn update(
    State(shared): State<Arc<Shared>>,
    Segments((name, alias)): Segments<(String, String)>,
    context: Context,
    body: Bytes,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Write)?;
    let named = function(&name)?;
    let name = alias_name(&alias)?;
    let mut sent = Sent::read(&body)?;
    let wanted = Wanted::take(&mut sent)?;
    let revision_id = sent.text("RevisionId")?;
    sent.finish("")?;
    let catalog = shared.node.catalog().await;
    let (space, id) = (context.space.as_str(), named.id.as_str());
    for _ in 0..TRIES {
        let stored = catalog.alias(space, id, name.as_str()).await;
        let stored = stored.map_err(|error| refused(error, &context, &qualified(&named, &name)))?;
        if let Some(wanted) = &revision_id
            && *wanted != stored.revision.0.to_string()
        {
            return Err(changed_meanwhile());
        }
        let mut alias = Alias::clone(&stored.alias);
        if let Some(version) = wanted.version {
            alias.target.version = version;
        }
        if let Some(weights) = &wanted.weights {
            alias.target.weights.clone_from(weights);
        }
        if let Some(text) = &wanted.description {
            alias.description = Some(text.clone()).filter(|text| !text.is_empty());
        }
        match catalog
            .set_alias(alias, Expected::At(stored.revision))
            .await
        {
            Ok(stored) => return Ok(Json(told(&context, &stored))),
            Err(catalog::Error::Version(VersionError::AliasChanged { .. })) => {}
            Err(error) => return Err(refused(error, &context, &named)),
        }
    }
    Err(Error::aws(
        AwsKind::ResourceConflict,
        format!(
            "The operation cannot be performed at this time. Others change alias {name} all the time."
        ),
    ))
}

/// Read an alias of a function (AWS Lambda's `GetAlias`).
#[utoipa::path(
    get,
    path = "/2015-03-31/functions/{name}/aliases/{alias}",
    operation_id = "aws_get_alias",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), ("alias" = String, Path, description = "The alias")),
    responses(
        (status = 200, description = "The alias", body = Value),
        (status = 404, description = "There is no such alias"),
    ),
)]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    Segments((name, alias)): Segments<(String, String)>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    let named = function(&name)?;
    let name = alias_name(&alias)?;
    let catalog = shared.node.catalog().await;
    let (space, id) = (context.space.as_str(), named.id.as_str());
    let stored = catalog.alias(space, id, name.as_str()).await;
    let stored = stored.map_err(|error| refused(error, &context, &qualified(&named, &name)))?;
    Ok(Json(told(&context, &stored)))
}

/// Which aliases.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OfVersion {
    /// Only those that stand for this version.
    #[serde(default, rename = "FunctionVersion")]
    function_version: Option<String>,
}

/// List the aliases of a function (AWS Lambda's `ListAliases`).
#[utoipa::path(
    get,
    path = "/2015-03-31/functions/{name}/aliases",
    operation_id = "aws_list_aliases",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), OfVersion, Page),
    responses(
        (status = 200, description = "Some of them, by name", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(of): Query<OfVersion>,
    Query(page): Query<Page>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    let named = function(&name)?;
    let catalog = shared.node.catalog().await;
    let (space, id) = (context.space.as_str(), named.id.as_str());
    let all = catalog.aliases(space, id).await;
    let mut all = all.map_err(|error| refused(error, &context, &named))?;
    if let Some(version) = of.function_version {
        all.retain(|stored| stored.alias.target.version.to_string() == version);
    }
    all.sort_by(|one, other| one.alias.name.cmp(&other.alias.name));
    let name = |stored: &StoredAlias| stored.alias.name.to_string();
    let (aliases, next) = page.of(all, name, shared.lambda.page_len_max)?;
    let aliases: Vec<_> = aliases
        .iter()
        .map(|stored| told(&context, stored))
        .collect();
    Ok(Json(json!({"Aliases": aliases, "NextMarker": next})))
}

/// Remove an alias of a function (AWS Lambda's `DeleteAlias`).
#[utoipa::path(
    delete,
    path = "/2015-03-31/functions/{name}/aliases/{alias}",
    operation_id = "aws_delete_alias",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), ("alias" = String, Path, description = "The alias")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is no such alias"),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments((name, alias)): Segments<(String, String)>,
    context: Context,
) -> Result<StatusCode, Error> {
    context.may(Scope::Write)?;
    let named = function(&name)?;
    let name = alias_name(&alias)?;
    let catalog = shared.node.catalog().await;
    let (space, id) = (context.space.as_str(), named.id.as_str());
    let deleted = catalog.delete_alias(space, id, name.as_str(), None).await;
    deleted.map_err(|error| refused(error, &context, &qualified(&named, &name)))?;
    Ok(StatusCode::NO_CONTENT)
}
