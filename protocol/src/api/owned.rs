//! Bodies of `/api/v1/functions`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::FunctionId;

/// `POST /api/v1/functions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionCreated {
    /// Says that it is done.
    pub message: String,
    /// The id of the function.
    pub function_id: FunctionId,
}

/// One of `GET /api/v1/functions/me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnedFunction {
    /// The id of the function.
    pub id: FunctionId,
    /// Its image, where it runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// `GET /api/v1/functions/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnedFunctionDetail {
    /// The id of the function.
    pub function_id: FunctionId,
    /// Its image, where it runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// `DELETE /api/v1/functions/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FunctionDeleted {
    /// Says that it is done.
    pub message: String,
}
