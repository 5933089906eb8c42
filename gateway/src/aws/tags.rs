//! Tags of functions, which are the metadata of their records.

use std::sync::Arc;

use accounts::Scope;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use http::{StatusCode, Uri};
use protocol::Function;
use serde_json::{Value, json};

use super::deploy::{Image, change, read};
use super::name::{Named, invalid};
use super::sent::Sent;
use super::{Context, configuration};
use crate::admin::Segments;
use crate::error::Error;
use crate::surface::Shared;

/// Read the tags of a function (AWS Lambda's `ListTags`).
#[utoipa::path(
    get,
    path = "/2017-03-31/tags/{arn}",
    operation_id = "aws_list_tags",
    tag = "aws",
    params(("arn" = String, Path, description = "The ARN of a function")),
    responses(
        (status = 200, description = "Its tags", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(arn): Segments<String>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    let named = Named::read(&arn, None)?;
    let stored = read(&shared, &context, &named).await?;
    Ok(Json(json!({"Tags": configuration::tags(&stored.function)})))
}

/// Add tags to a function (AWS Lambda's `TagResource`).
#[utoipa::path(
    post,
    path = "/2017-03-31/tags/{arn}",
    operation_id = "aws_tag_resource",
    tag = "aws",
    params(("arn" = String, Path, description = "The ARN of a function")),
    request_body = Value,
    responses(
        (status = 204, description = "It has them"),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn add(
    State(shared): State<Arc<Shared>>,
    Segments(arn): Segments<String>,
    context: Context,
    body: Bytes,
) -> Result<StatusCode, Error> {
    context.may(Scope::Write)?;
    let named = Named::read(&arn, None)?;
    let mut sent = Sent::read(&body)?;
    let tags = configuration::take_tags(&mut sent)?;
    sent.finish("")?;
    let edit = |function: &mut Function| {
        let all = function.metadata.get_or_insert_default();
        all.extend(tags.clone());
        Ok(())
    };
    change(&shared, &context, &named, (Image::AsItWas, None), edit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take tags from a function (AWS Lambda's `UntagResource`).
#[utoipa::path(
    delete,
    path = "/2017-03-31/tags/{arn}",
    operation_id = "aws_untag_resource",
    tag = "aws",
    params(
        ("arn" = String, Path, description = "The ARN of a function"),
        ("tagKeys" = Vec<String>, Query, description = "Their names"),
    ),
    responses(
        (status = 204, description = "It has none of them"),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Segments(arn): Segments<String>,
    uri: Uri,
    context: Context,
) -> Result<StatusCode, Error> {
    context.may(Scope::Write)?;
    let named = Named::read(&arn, None)?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
    let pairs = pairs.map_err(|error| Error::invalid(error.body_text()))?.0;
    let pairs = pairs.into_iter().filter(|(name, _)| name == "tagKeys");
    let names: Vec<_> = pairs.map(|(_, key)| key).collect();
    if names.is_empty() || names.iter().any(|name| name.starts_with("aws:")) {
        let expected = "one or more names of tags, none of which begins with aws:";
        return Err(invalid("tagKeys", &names.join(","), expected));
    }
    let edit = |function: &mut Function| {
        if let Some(all) = &mut function.metadata {
            all.retain(|name, _| !names.contains(name));
        }
        Ok(())
    };
    change(&shared, &context, &named, (Image::AsItWas, None), edit).await?;
    Ok(StatusCode::NO_CONTENT)
}
