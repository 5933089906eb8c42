//! Functions as AWS's clients make, change, read and remove them. Their code is an image.

use std::sync::Arc;

use accounts::Scope;
use actors::catalog::{self, Stored};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use protocol::function::Provider;
use protocol::{Function, Qualifier};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::configuration::{self, Wanted};
use super::invoke::Qualified;
use super::name::{Named, invalid};
use super::sent::{Sent, unlike};
use super::{Context, configuration::revision_id, versions};
use crate::admin::{Query, Segments};
use crate::auth;
use crate::error::{AwsKind, Error};
use crate::surface::Shared;

/// How often a change is tried that others come before.
pub(super) const TRIES: usize = 5;

/// What is done about the image of a function that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    /// It runs what it ran.
    AsItWas,
    /// It is looked up anew.
    Anew,
}

/// Register a function (AWS Lambda's `CreateFunction`).
///
/// `PackageType` is `Image`, with `Code.ImageUri`: it runs by Lambda's own contract.
#[utoipa::path(
    post,
    path = "/2015-03-31/functions",
    operation_id = "aws_create_function",
    tag = "aws",
    request_body = Value,
    responses(
        (status = 201, description = "Its configuration", body = Value),
        (status = 409, description = "There is one of that name"),
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    context: Context,
    body: Bytes,
) -> Result<Response, Error> {
    context.may(Scope::Write)?;
    let mut sent = Sent::read(&body)?;
    let function = new_function(&context, &mut sent)?;
    let is_published = sent.flag("Publish")?;
    sent.finish("")?;
    auth::may_register(&context.caller, &function)?;
    let id = function.function_id.clone();
    let stored = match shared.node.create(function).await {
        Ok(stored) => stored,
        Err(catalog::Error::Exists(_)) => {
            return Err(Error::aws(
                AwsKind::ResourceConflict,
                format!("Function already exist: {id}"),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    let told = match is_published {
        true => publish_as_it_is(&shared, &context, &stored).await?,
        false => configuration::of(&context, &stored),
    };
    Ok((StatusCode::CREATED, Json(told)).into_response())
}

/// Publishes a function that was just stored, unless somebody else has changed it since.
async fn publish_as_it_is(
    shared: &Shared,
    context: &Context,
    stored: &Stored,
) -> Result<Map<String, Value>, Error> {
    let named = Named {
        id: stored.function.function_id.clone(),
        qualifier: None,
    };
    let is_wanted = |found: &Stored| match found.revision == stored.revision {
        true => Ok(()),
        false => Err(changed_meanwhile()),
    };
    versions::publish_if(shared, context, &named, None, is_wanted).await
}

fn new_function(context: &Context, sent: &mut Sent) -> Result<Function, Error> {
    let name = sent.text("FunctionName")?;
    let name = name.ok_or_else(|| unlike("FunctionName", &Value::Null, "a function's name"))?;
    let named = Named::read(&name, None)?;
    if named.qualifier.is_some() {
        return Err(invalid("functionName", &name, "a name without a qualifier"));
    }
    match sent.text("PackageType")?.as_deref() {
        Some("Image") | None => {}
        Some(other) => {
            return Err(Error::aws(
                AwsKind::InvalidParameterValue,
                format!(
                    "PackageType is {other}, expected Image: functions are deployed as container images here, with Code.ImageUri"
                ),
            ));
        }
    }
    let mut code = sent.object("Code")?.unwrap_or_else(Sent::nothing);
    let image = image_uri(&mut code, "Code.")?;
    code.finish("Code.")?;
    check_architectures(sent)?;
    let tags = configuration::take_tags(sent)?;
    let wanted = Wanted::take(sent)?.of_new();
    let record = json!({
        "functionId": named.id,
        "type": "container",
        "provider": {"image": image, "contract": "lambda"},
        "metadata": tags,
    });
    let mut function = parsed(context, &record)?;
    wanted.apply(&mut function)?;
    checked(context, function)
}

/// The image of a function's code; code that is an archive is refused.
fn image_uri(code: &mut Sent, within: &str) -> Result<String, Error> {
    for member in ["ZipFile", "S3Bucket", "S3Key", "S3ObjectVersion"] {
        if code.take(member).is_some() {
            return Err(Error::aws(
                AwsKind::InvalidParameterValue,
                format!(
                    "{within}{member} is set, expected {within}ImageUri: functions are deployed as container images here"
                ),
            ));
        }
    }
    let image = code.text("ImageUri")?.filter(|image| !image.is_empty());
    image.ok_or_else(|| {
        Error::aws(
            AwsKind::InvalidParameterValue,
            format!("{within}ImageUri is not set, expected the reference of a container image"),
        )
    })
}

/// An image runs on the architecture of the nodes.
fn check_architectures(sent: &mut Sent) -> Result<(), Error> {
    let Some(listed) = sent.list("Architectures")? else {
        return Ok(());
    };
    let own = configuration::architecture();
    match listed.iter().all(|named| named == own) {
        true => Ok(()),
        false => Err(unlike("Architectures", &json!(listed), &format!("[{own}]"))),
    }
}

fn parsed(context: &Context, record: &Value) -> Result<Function, Error> {
    let record = record.to_string();
    let parsed = Function::parse(context.space.as_str(), None, record.as_bytes());
    parsed.map_err(|why| Error::aws(AwsKind::InvalidParameterValue, why.to_string()))
}

/// A record that was changed, read as one that a client sent.
fn checked(context: &Context, function: Function) -> Result<Function, Error> {
    let record = serde_json::to_value(&function).expect("a record has string keys only");
    parsed(context, &record)
}

/// Reads a function, changes it, and stores that if nobody else changed it meanwhile. With `revision_id`, only if it is at that.
///
/// # Errors
/// When there is no such function, or the change is refused.
pub(super) async fn change(
    shared: &Shared,
    context: &Context,
    named: &Named,
    (image, wanted_id): (Image, Option<&str>),
    edit: impl Fn(&mut Function) -> Result<(), Error>,
) -> Result<Stored, Error> {
    context.may(Scope::Write)?;
    for _ in 0..TRIES {
        let stored = read(shared, context, named).await?;
        if wanted_id.is_some_and(|wanted| wanted != revision_id(&stored)) {
            return Err(changed_meanwhile());
        }
        let at = stored.revision;
        let mut function = stored.function;
        edit(&mut function)?;
        configuration::note_change(&mut function);
        let function = checked(context, function)?;
        auth::may_register(&context.caller, &function)?;
        let written = match image {
            Image::AsItWas => shared.node.adjust(function, at).await,
            Image::Anew => shared.node.update(function, Some(at)).await,
        };
        match written {
            Ok(stored) => return Ok(stored),
            Err(catalog::Error::Changed(_)) if wanted_id.is_some() => {
                return Err(changed_meanwhile());
            }
            Err(catalog::Error::Changed(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::aws(
        AwsKind::ResourceConflict,
        format!(
            "The operation cannot be performed at this time. Others change function {} all the time.",
            named.id
        ),
    ))
}

pub(super) fn changed_meanwhile() -> Error {
    Error::aws(
        AwsKind::PreconditionFailed,
        "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
    )
}

/// Reads a function from the store.
///
/// # Errors
/// When there is none.
pub(super) async fn read(
    shared: &Shared,
    context: &Context,
    named: &Named,
) -> Result<Stored, Error> {
    if named.qualifier.is_some() {
        return Err(context.not_found(named));
    }
    match shared
        .node
        .get(context.space.as_str(), named.id.as_str())
        .await
    {
        Err(catalog::Error::NotFound(_)) => Err(context.not_found(named)),
        read => Ok(read?),
    }
}

/// Change the image of a function (AWS Lambda's `UpdateFunctionCode`).
#[utoipa::path(
    put,
    path = "/2015-03-31/functions/{name}/code",
    operation_id = "aws_update_function_code",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN")),
    request_body = Value,
    responses(
        (status = 200, description = "Its configuration", body = Value),
        (status = 404, description = "There is no such function"),
        (status = 412, description = "`RevisionId` is not that of the function"),
    ),
)]
pub(super) async fn update_code(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    context: Context,
    body: Bytes,
) -> Result<Response, Error> {
    context.may(Scope::Write)?;
    let named = Named::read(&name, None)?;
    let mut sent = Sent::read(&body)?;
    let image = image_uri(&mut sent, "")?;
    let revision_id = sent.text("RevisionId")?;
    let is_dry = sent.flag("DryRun")?;
    let is_published = sent.flag("Publish")?;
    check_architectures(&mut sent)?;
    sent.finish("")?;
    let edit = |function: &mut Function| match &mut function.provider {
        Provider::Container(container) => {
            container.image.clone_from(&image);
            Ok(())
        }
        _ => Err(Error::aws(
            AwsKind::InvalidParameterValue,
            format!(
                "ImageUri is set, and function {} is of type {}, which has no image",
                named.id,
                function.type_name()
            ),
        )),
    };
    let stored = if is_dry {
        let mut stored = read(&shared, &context, &named).await?;
        if revision_id.is_some_and(|wanted| wanted != configuration::revision_id(&stored)) {
            return Err(changed_meanwhile());
        }
        edit(&mut stored.function)?;
        stored
    } else {
        let on = (Image::Anew, revision_id.as_deref());
        change(&shared, &context, &named, on, edit).await?
    };
    let told = match is_published && !is_dry {
        true => publish_as_it_is(&shared, &context, &stored).await?,
        false => configuration::of(&context, &stored),
    };
    Ok(Json(told).into_response())
}

/// Change a function (AWS Lambda's `UpdateFunctionConfiguration`).
#[utoipa::path(
    put,
    path = "/2015-03-31/functions/{name}/configuration",
    operation_id = "aws_update_function_configuration",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN")),
    request_body = Value,
    responses(
        (status = 200, description = "Its configuration", body = Value),
        (status = 404, description = "There is no such function"),
        (status = 412, description = "`RevisionId` is not that of the function"),
    ),
)]
pub(super) async fn update_configuration(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    context: Context,
    body: Bytes,
) -> Result<Json<Map<String, Value>>, Error> {
    context.may(Scope::Write)?;
    let named = Named::read(&name, None)?;
    let mut sent = Sent::read(&body)?;
    let wanted = Wanted::take(&mut sent)?;
    let revision_id = sent.text("RevisionId")?;
    sent.finish("")?;
    let on = (Image::AsItWas, revision_id.as_deref());
    let edit = |function: &mut Function| wanted.apply(function);
    let stored = change(&shared, &context, &named, on, edit).await?;
    Ok(Json(configuration::of(&context, &stored)))
}

/// Read a function (AWS Lambda's `GetFunction`).
#[utoipa::path(
    get,
    path = "/2015-03-31/functions/{name}",
    operation_id = "aws_get_function",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN, with a qualifier or not"), Qualified),
    responses(
        (status = 200, description = "Its configuration, where its code is, and its tags", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(query): Query<Qualified>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    let named = Named::read(&name, query.qualifier.as_deref())?;
    let found = versions::find(&shared, &context, &named).await?;
    let function = &found.stored.function;
    let mut told = json!({
        "Configuration": found.configuration(&context),
        "Code": configuration::code(function),
        "Tags": configuration::tags(function),
    });
    let limits = function.limits.as_ref();
    if let Some(max) = limits.and_then(|limits| limits.concurrent) {
        told["Concurrency"] = json!({"ReservedConcurrentExecutions": max});
    }
    Ok(Json(told))
}

/// Read the configuration of a function (AWS Lambda's `GetFunctionConfiguration`).
#[utoipa::path(
    get,
    path = "/2015-03-31/functions/{name}/configuration",
    operation_id = "aws_get_function_configuration",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN, with a qualifier or not"), Qualified),
    responses(
        (status = 200, description = "Its configuration", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn get_configuration(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(query): Query<Qualified>,
    context: Context,
) -> Result<Json<Map<String, Value>>, Error> {
    context.may(Scope::Read)?;
    let named = Named::read(&name, query.qualifier.as_deref())?;
    let found = versions::find(&shared, &context, &named).await?;
    Ok(Json(found.configuration(&context)))
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Where the last part ended.
    #[serde(default, rename = "Marker")]
    pub(super) marker: Option<String>,
    /// How many there are at most, from 1 to 10000.
    #[serde(default, rename = "MaxItems")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10_000)]
    pub(super) max_items: Option<String>,
}

impl Page {
    /// The first of these that belong to the page, and where the next one begins. They are in the order of their names.
    ///
    /// # Errors
    /// When it is to have no item, or too many.
    pub(super) fn of<T>(
        &self,
        all: Vec<T>,
        name: impl Fn(&T) -> String,
        len_max: usize,
    ) -> Result<(Vec<T>, Option<String>), Error> {
        let wanted = match self.max_items.as_deref() {
            None => len_max,
            Some(text) => {
                let read = text.parse::<usize>().ok();
                let read = read.filter(|number| (1..=10_000).contains(number));
                read.ok_or_else(|| invalid("maxItems", text, "1 to 10000"))?
            }
        };
        let rest = all.into_iter().skip_while(|item| {
            let marker = self.marker.as_deref().filter(|marker| !marker.is_empty());
            marker.is_some_and(|marker| name(item).as_str() <= marker)
        });
        let mut page: Vec<_> = rest.collect();
        let len = wanted.min(len_max);
        let has_more = page.len() > len;
        page.truncate(len);
        let next = page.last().filter(|_| has_more).map(name);
        Ok((page, next))
    }
}

/// Which functions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OfVersions {
    /// `ALL` would list versions too; those of a function have an operation of their own.
    #[serde(default, rename = "FunctionVersion")]
    function_version: Option<String>,
}

/// List functions (AWS Lambda's `ListFunctions`).
#[utoipa::path(
    get,
    path = "/2015-03-31/functions",
    operation_id = "aws_list_functions",
    tag = "aws",
    params(OfVersions, Page),
    responses((status = 200, description = "The configurations of some of them, by name", body = Value)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(of): Query<OfVersions>,
    Query(page): Query<Page>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    if let Some(which) = of.function_version {
        return Err(Error::aws(
            AwsKind::InvalidParameterValue,
            format!(
                "FunctionVersion is {which}, which is not supported here: ListVersionsByFunction lists the versions of a function"
            ),
        ));
    }
    let mut all = shared.node.list(context.space.as_str()).await?;
    all.sort_by(|one, other| one.function.function_id.cmp(&other.function.function_id));
    let name = |stored: &Stored| stored.function.function_id.to_string();
    let (functions, next) = page.of(all, name, shared.lambda.page_len_max)?;
    let functions: Vec<_> = functions
        .iter()
        .map(|stored| configuration::of(&context, stored))
        .collect();
    Ok(Json(json!({"Functions": functions, "NextMarker": next})))
}

/// Remove a function (AWS Lambda's `DeleteFunction`).
#[utoipa::path(
    delete,
    path = "/2015-03-31/functions/{name}",
    operation_id = "aws_delete_function",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), Qualified),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is no such function"),
        (status = 409, description = "Something needs it"),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(query): Query<Qualified>,
    context: Context,
) -> Result<StatusCode, Error> {
    context.may(Scope::Write)?;
    let named = Named::read(&name, query.qualifier.as_deref())?;
    match &named.qualifier {
        None | Some(Qualifier::Latest) => {}
        Some(Qualifier::Version(version)) => {
            versions::delete(&shared, &context, &named, *version).await?;
            return Ok(StatusCode::NO_CONTENT);
        }
        Some(Qualifier::Alias(name)) => {
            let expected = "the number of a version, or none";
            return Err(invalid("qualifier", name.as_str(), expected));
        }
    }
    let deleted = shared
        .node
        .delete(context.space.as_str(), named.id.as_str(), None)
        .await;
    match deleted {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(catalog::Error::NotFound(_)) => Err(context.not_found(&named)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let all = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let page = |marker: Option<&str>, max: &str| {
            let page = Page {
                marker: marker.map(str::to_owned),
                max_items: Some(max.to_owned()),
            };
            page.of(all.clone(), String::clone, 3)
        };
        let (first, marker) = page(None, "2").unwrap();
        assert_eq!((first, marker.as_deref()), (all[..2].to_vec(), Some("b")));
        let (second, marker) = page(Some("b"), "100").unwrap();
        assert_eq!((second, marker), (all[2..].to_vec(), None));
        let (most, marker) = page(None, "100").unwrap();
        assert_eq!((most.len(), marker.as_deref()), (3, Some("c")));
        assert!(page(None, "0").is_err());
        assert!(page(None, "many").is_err());
    }
}
