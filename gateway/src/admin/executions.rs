//! Executions, read and cancelled on any node; the functions API has the same.

use std::sync::Arc;
use std::time::Duration;

use actors::executions::Filter;
use axum::extract::State;
use protocol::api::{self, Errors, ExecutionDetail, Executions, InvokeError};
use protocol::execution::Status;
use protocol::{Execution, ExecutionId, FunctionId, Space};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Line, Query, Segments};
use crate::destinations;
use crate::error::Error;
use crate::surface::Shared;

/// Executions of a page where the request does not say, and at most.
const PAGE_LEN: usize = 100;
const PAGE_LEN_MAX: usize = 1_000;

/// An error, as the listener words it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ExecutionError)]
#[expect(dead_code, reason = "it is described and not made")]
enum Worded {
    Functions(InvokeError),
    Config(Errors),
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// Only those of this function.
    function: Option<String>,
    /// Only those that are so: `queued`, `running`, `succeeded` and so on.
    status: Option<String>,
    /// Only those that were accepted since, in milliseconds since 1970.
    since: Option<u64>,
    /// Only those after this one; `next` of the page before.
    after: Option<String>,
    /// How many; 100 where it is not said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// List the executions of a space, the newest first.
#[utoipa::path(
    get,
    operation_id = "list_executions",
    path = "/v1/spaces/{space}/executions",
    tag = "executions",
    params(("space" = Space, Path, description = "The space"), Page),
    responses((status = 200, description = "A page of them", body = Executions)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    Query(page): Query<Page>,
) -> Result<Line<api::Executions>, Error> {
    let space = parse_space(&space)?;
    Ok(Line(page.read(&shared, &space).await?))
}

impl Page {
    /// Those of one function.
    pub(crate) fn of_function(self, id: &FunctionId) -> Self {
        Self {
            function: Some(id.to_string()),
            ..self
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// When a parameter is wrong, or the store's.
    pub(crate) async fn read(
        self,
        shared: &Shared,
        space: &Space,
    ) -> Result<api::Executions, Error> {
        let limit = self.limit.unwrap_or(PAGE_LEN);
        if !(1..=PAGE_LEN_MAX).contains(&limit) {
            let why = format!("limit is {limit}, expected 1 to {PAGE_LEN_MAX}");
            return Err(Error::invalid(why));
        }
        let function_id = self.function.map(|id| id.parse::<FunctionId>());
        let function_id = function_id.transpose();
        let function_id =
            function_id.map_err(|error| Error::invalid(format!("function: {error}")))?;
        let filter = Filter {
            function_id,
            status: self.status.as_deref().map(parse_status).transpose()?,
            since_ms: self.since,
        };
        let after = self.after.as_deref().map(parse_id).transpose();
        let after = after.map_err(|why| Error::invalid(format!("after: {why}")))?;
        let executions = shared.node.executions();
        Ok(executions.list(space, &filter, after, limit).await?)
    }
}

/// Read an execution, with its result.
#[utoipa::path(
    get,
    operation_id = "read_execution",
    path = "/v1/spaces/{space}/executions/{id}",
    tag = "executions",
    params(("space" = Space, Path, description = "The space"), ("id" = ExecutionId, Path, description = "Its id")),
    responses(
        (status = 200, description = "The execution", body = ExecutionDetail),
        (status = 404, description = "There is none", body = Worded),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
) -> Result<Line<api::ExecutionDetail>, Error> {
    let (space, id) = named(&space, &id)?;
    let (execution, result) = shared.node.executions().get(&space, id).await?;
    let function_id = &execution.function_id;
    let logs = format!("/v1/spaces/{space}/functions/{function_id}/logs?invocation={id}");
    Ok(Line(api::ExecutionDetail {
        execution,
        result,
        logs,
    }))
}

/// Cancel an execution, whether it waits or runs.
#[utoipa::path(
    delete,
    operation_id = "cancel_execution",
    path = "/v1/spaces/{space}/executions/{id}",
    tag = "executions",
    params(("space" = Space, Path, description = "The space"), ("id" = ExecutionId, Path, description = "Its id")),
    responses(
        (status = 200, description = "The execution, cancelled, or as it ended before", body = Execution),
        (status = 404, description = "There is none", body = Worded),
        (status = 409, description = "It ended otherwise", body = Worded),
    ),
)]
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
) -> Result<Line<Execution>, Error> {
    let (space, id) = named(&space, &id)?;
    let (execution, untold) = shared.node.executions().cancel(&space, id).await?;
    let Some(untold) = untold else {
        return Ok(Line(execution));
    };
    let told = destinations::tell_execution(&shared.emitter, untold, None, None, Duration::ZERO);
    // It is cancelled in any case, and told by the node that sweeps if not by this one.
    let told = told.await.unwrap_or_else(|failure| {
        tracing::info!(execution = %id, error = %failure, "a cancelled execution is told of later");
        Vec::new()
    });
    Ok(Line(Execution { told, ..execution }))
}

fn named(space: &str, id: &str) -> Result<(Space, ExecutionId), Error> {
    let space = parse_space(space)?;
    let id = parse_id(id).map_err(Error::invalid)?;
    Ok((space, id))
}

fn parse_space(space: &str) -> Result<Space, Error> {
    let parsed = space.parse::<Space>();
    parsed.map_err(|error| Error::invalid(format!("space: {error}")))
}

fn parse_id(id: &str) -> Result<ExecutionId, String> {
    let parsed = id.parse::<ExecutionId>();
    parsed.map_err(|error| error.to_string())
}

fn parse_status(text: &str) -> Result<Status, Error> {
    let found = Status::ALL
        .into_iter()
        .find(|status| status.as_str() == text);
    found.ok_or_else(|| {
        let all = Status::ALL.map(Status::as_str).join(", ");
        Error::invalid(format!("status is \"{text}\", expected one of: {all}"))
    })
}
