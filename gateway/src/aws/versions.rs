//! Versions of functions, as AWS's clients publish, list and read them.

use std::sync::Arc;

use accounts::Scope;
use actors::catalog::{self, Stored, StoredVersion, VersionError};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use protocol::version::LATEST;
use protocol::{Function, Qualifier, Version};
use serde_json::{Map, Value, json};

use super::deploy::{Page, TRIES, changed_meanwhile, read};
use super::name::Named;
use super::sent::Sent;
use super::{Context, configuration};
use crate::admin::{Query, Segments};
use crate::error::{AwsKind, Error};
use crate::surface::Shared;

/// A function as it is now, or a version of it.
pub(super) struct Found {
    pub(super) stored: Stored,
    /// What is said of the version.
    description: Option<String>,
    /// The alias that it was found by.
    alias: Option<String>,
}

impl Found {
    fn of_version(found: StoredVersion) -> Self {
        Self {
            description: found.published.description.clone(),
            stored: Stored {
                function: found.published.function.clone(),
                revision: found.revision,
            },
            alias: None,
        }
    }

    /// As AWS's clients see it.
    pub(super) fn configuration(&self, context: &Context) -> Map<String, Value> {
        let mut told = configuration::of(context, &self.stored);
        if let Some(text) = &self.description {
            told.insert("Description".to_owned(), json!(text));
        }
        if let Some(alias) = &self.alias {
            let arn = context.arn(&self.stored.function.function_id, Some(alias));
            told.insert("FunctionArn".to_owned(), json!(arn));
        }
        told
    }
}

/// Reads what is named: a function, a version, or the version that an alias stands for.
///
/// # Errors
/// When there is no such thing.
pub(super) async fn find(
    shared: &Shared,
    context: &Context,
    named: &Named,
) -> Result<Found, Error> {
    let (space, id) = (context.space.as_str(), named.id.as_str());
    let catalog = shared.node.catalog().await;
    let found = match &named.qualifier {
        None | Some(Qualifier::Latest) => {
            let stored = read(shared, context, named).await?;
            return Ok(Found {
                stored,
                description: None,
                alias: None,
            });
        }
        Some(Qualifier::Version(version)) => catalog.version(space, id, *version).await,
        Some(Qualifier::Alias(name)) => match catalog.alias(space, id, name.as_str()).await {
            Ok(found) => {
                let version = found.alias.target.version;
                let found = catalog.version(space, id, version).await;
                let found = found.map(Found::of_version);
                let alias = Some(name.to_string());
                return found
                    .map(|found| Found { alias, ..found })
                    .map_err(|error| refused(error, context, named));
            }
            Err(error) => Err(error),
        },
    };
    found
        .map(Found::of_version)
        .map_err(|error| refused(error, context, named))
}

/// Why something of a function was not read or changed.
pub(super) fn refused(error: catalog::Error, context: &Context, named: &Named) -> Error {
    match error {
        catalog::Error::NotFound(_)
        | catalog::Error::Version(
            VersionError::NotFound { .. } | VersionError::AliasNotFound { .. },
        ) => context.not_found(named),
        error => error.into(),
    }
}

/// Publishes a function as it is; only if it is what `is_wanted` takes, which is asked of each record that is found.
///
/// # Errors
/// When there is no such function, it is another one than was wanted, or it has too many versions.
pub(super) async fn publish_if(
    shared: &Shared,
    context: &Context,
    named: &Named,
    description: Option<String>,
    is_wanted: impl Fn(&Stored) -> Result<(), Error>,
) -> Result<Map<String, Value>, Error> {
    let catalog = shared.node.catalog().await;
    for _ in 0..TRIES {
        let stored = read(shared, context, named).await?;
        is_wanted(&stored)?;
        let (space, id) = (context.space.as_str(), named.id.as_str());
        let published = catalog.publish(space, id, description.clone(), Some(stored.revision));
        match published.await {
            Ok(found) => return Ok(Found::of_version(found).configuration(context)),
            Err(catalog::Error::Changed(_)) => {}
            Err(error) => return Err(refused(error, context, named)),
        }
    }
    Err(changed_meanwhile())
}

/// Publish a version of a function (AWS Lambda's `PublishVersion`).
#[utoipa::path(
    post,
    path = "/2015-03-31/functions/{name}/versions",
    operation_id = "aws_publish_version",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN")),
    request_body = Value,
    responses(
        (status = 201, description = "The version; the newest one, where nothing has changed since", body = Value),
        (status = 404, description = "There is no such function"),
        (status = 409, description = "It has as many as it may have"),
        (status = 412, description = "`RevisionId` is not that of the function"),
    ),
)]
pub(super) async fn publish(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    context: Context,
    body: Bytes,
) -> Result<Response, Error> {
    context.may(Scope::Write)?;
    let named = Named::read(&name, None)?;
    let mut sent = Sent::read(&body)?;
    let description = sent.text("Description")?.filter(|text| !text.is_empty());
    let revision_id = sent.text("RevisionId")?;
    let hash = sent.text("CodeSha256")?;
    sent.finish("")?;
    let is_wanted = |stored: &Stored| {
        if let Some(wanted) = &revision_id
            && *wanted != configuration::revision_id(stored)
        {
            return Err(changed_meanwhile());
        }
        let own = configuration::code_hash(&stored.function).unwrap_or_default();
        match &hash {
            Some(wanted) if *wanted != own => Err(Error::aws(
                AwsKind::InvalidParameterValue,
                format!(
                    "CodeSHA256 ({wanted}) is different from current CodeSHA256 in $LATEST ({own}). Please try again with the CodeSHA256 in $LATEST."
                ),
            )),
            _ => Ok(()),
        }
    };
    let told = publish_if(&shared, &context, &named, description, is_wanted).await?;
    Ok((StatusCode::CREATED, Json(told)).into_response())
}

/// List the versions of a function (AWS Lambda's `ListVersionsByFunction`).
#[utoipa::path(
    get,
    path = "/2015-03-31/functions/{name}/versions",
    operation_id = "aws_list_versions_by_function",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), Page),
    responses(
        (status = 200, description = "The function as it is now, and its versions, the first first", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(page): Query<Page>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    let named = Named::read(&name, None)?;
    let latest = find(&shared, &context, &named).await?;
    let catalog = shared.node.catalog().await;
    let (space, id) = (context.space.as_str(), named.id.as_str());
    let published = catalog.versions(space, id).await;
    let published = published.map_err(|error| refused(error, &context, &named))?;
    let published = published.into_iter().map(Found::of_version);
    let all: Vec<_> = std::iter::once(latest).chain(published).collect();
    let name = |found: &Found| in_order(&found.stored.function);
    let (versions, next) = page.of(all, name, shared.lambda.page_len_max)?;
    let versions: Vec<_> = versions
        .iter()
        .map(|found| found.configuration(&context))
        .collect();
    Ok(Json(json!({"Versions": versions, "NextMarker": next})))
}

/// A text by which versions are in the order of their numbers, behind the function as it is now.
fn in_order(function: &Function) -> String {
    match function.version {
        None => LATEST.to_owned(),
        Some(version) => format!("{:010}", version.number()),
    }
}

/// Removes a version.
///
/// # Errors
/// When there is none, or an alias needs it.
pub(super) async fn delete(
    shared: &Shared,
    context: &Context,
    named: &Named,
    version: Version,
) -> Result<(), Error> {
    let catalog = shared.node.catalog().await;
    let deleted = catalog.delete_version(context.space.as_str(), named.id.as_str(), version);
    deleted
        .await
        .map_err(|error| refused(error, context, named))
}
