//! Executions, read and cancelled on any node; the functions API has the same.

use std::sync::Arc;
use std::time::Duration;

use actors::executions::Filter;
use axum::extract::State;
use protocol::execution::Status;
use protocol::{Execution, ExecutionId, FunctionId, Space, api};
use serde::Deserialize;

use super::{Line, Query, Segments};
use crate::destinations;
use crate::error::Error;
use crate::surface::Shared;

/// Executions of a page where the request does not say, and at most.
const PAGE_LEN: usize = 100;
const PAGE_LEN_MAX: usize = 1_000;

/// Which executions of a space are asked for.
#[derive(Deserialize)]
pub(crate) struct Page {
    function: Option<String>,
    status: Option<String>,
    since: Option<u64>,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/spaces/{space}/executions?function=&status=&since=&limit=&after=`
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

/// `GET /v1/spaces/{space}/executions/{id}`
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

/// `DELETE /v1/spaces/{space}/executions/{id}`
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
