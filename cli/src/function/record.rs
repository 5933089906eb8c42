//! The record to register: built from the options, or read from a file.

use std::path::Path;

use protocol::function::{
    self, ContainerProvider, DeliverySpec, HttpProvider, LimitsSpec, ProcessProvider, Provider,
    SandboxSpec, ScalingSpec,
};
use protocol::{Function, FunctionId, RateSpec};
use serde_json::Value;

use super::register::{Contract, EventFormat, RegisterArgs};
use crate::console::{Console, shown};
use crate::failure::Failure;
use crate::options::Options;

/// A record on its way to the API.
#[derive(Debug)]
pub(super) struct Record {
    /// The function's id.
    pub(super) id: FunctionId,
    /// The record as JSON.
    pub(super) body: Vec<u8>,
}

/// Builds the record from the options, or reads it from the file they name.
///
/// # Errors
/// When a value is out of range, or the file holds no record.
pub(super) fn read(
    options: &Options,
    args: &RegisterArgs,
    console: &mut Console<'_>,
) -> Result<Record, Failure> {
    match (&args.file, &args.id) {
        (Some(path), id) => from_file(path, id.as_ref(), console.read(path)?),
        (None, Some(id)) => from_options(options, args, id),
        (None, None) => Err(Failure::usage("neither an id nor --file is given")),
    }
}

fn from_options(
    options: &Options,
    args: &RegisterArgs,
    id: &FunctionId,
) -> Result<Record, Failure> {
    let function = Function {
        space: options.space.clone(),
        function_id: id.clone(),
        version: None,
        provider: provider(args)?,
        limits: unless_default(LimitsSpec {
            memory_mb: args.memory_mb,
            cpus: args.cpus,
            timeout_ms: args.timeout_ms,
            concurrency: args.concurrency,
            body_bytes: args.body_bytes,
            rate: args.rate.map(|per_second| RateSpec {
                per_second,
                burst: args.burst,
            }),
            concurrent: args.concurrent,
        }),
        scaling: unless_default(ScalingSpec {
            min: args.min,
            max: args.max,
            idle_seconds: args.idle_seconds,
        }),
        delivery: unless_default(DeliverySpec {
            idempotent: args.idempotent.then_some(true),
            attempts: args.attempts,
            max_age_seconds: args.max_age_seconds,
            on_success: args.on_success.clone(),
            on_failure: args.on_failure.clone(),
        }),
        sandbox: unless_default(SandboxSpec {
            read_only_root: args.read_only_root.then_some(true),
            capabilities: (!args.capability.is_empty()).then(|| args.capability.clone()),
            network: args.no_network.then_some(false),
        }),
        event_format: args.event_format.map(|format| match format {
            EventFormat::Envelope => function::EventFormat::Envelope,
            EventFormat::CloudeventsBinary => function::EventFormat::CloudeventsBinary,
            EventFormat::CloudeventsStructured => function::EventFormat::CloudeventsStructured,
            EventFormat::Raw => function::EventFormat::Raw,
        }),
        metadata: None,
    };
    let body = serde_json::to_vec(&function).expect("a record has a JSON form");
    // The node checks the same, but asking it for a mistake that is plain from here would hide it behind the network.
    Function::parse(options.space.as_str(), None, &body)
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Record {
        id: id.clone(),
        body,
    })
}

fn provider(args: &RegisterArgs) -> Result<Provider, Failure> {
    let command = if args.arguments.is_empty() {
        args.command.clone()
    } else {
        args.arguments.clone()
    };
    let contract = args.contract.map(|contract| match contract {
        Contract::Http => function::Contract::Http,
        Contract::Stdio => function::Contract::Stdio,
        Contract::Lambda => function::Contract::Lambda,
    });
    let env = args.env.iter().cloned().collect();
    let secrets = args.secret.clone();
    match (&args.image, &args.url) {
        (Some(image), _) => Ok(Provider::Container(ContainerProvider {
            image: image.clone(),
            digest: None,
            contract,
            port: args.port,
            entrypoint: Vec::new(),
            command,
            working_directory: None,
            env,
            secrets,
        })),
        (None, Some(url)) => Ok(Provider::Http(HttpProvider { url: url.clone() })),
        (None, None) if !args.process => Err(no_source(args, &command)),
        (None, None) if command.is_empty() => Err(Failure::usage("--process needs a command")
            .hint("give it after two hyphens: hearth function register count --process --contract stdio -- wc -w")),
        (None, None) => Ok(Provider::Process(ProcessProvider { command, contract, env, secrets })),
    }
}

/// Names what can run, with the command that was meant or else the shortest one.
fn no_source(args: &RegisterArgs, command: &[String]) -> Failure {
    let id = args.id.as_ref().map_or("hello", FunctionId::as_str);
    let example = match command {
        [] => format!("hearth function register {id} --image {id}:latest"),
        command => format!(
            "hearth function register {id} --process -- {}",
            command.join(" ")
        ),
    };
    Failure::usage(
        "what the function runs is missing: give one of --image IMAGE, --process -- COMMAND, --url URL or --file FILE",
    )
    .hint(format!("for example: {example}"))
    .hint("hearth function register --help has more examples")
}

/// A part of the record is sent only if something in it was set.
fn unless_default<T: Default + PartialEq>(spec: T) -> Option<T> {
    (spec != T::default()).then_some(spec)
}

/// Reads only what the request needs, the id, and sends all else as it is: the node may know more than this version.
fn from_file(path: &Path, id: Option<&FunctionId>, body: Vec<u8>) -> Result<Record, Failure> {
    let shown = shown(path);
    let mut record: Value = serde_json::from_slice(&body)
        .map_err(|error| Failure::usage(format!("the record in {shown} is not JSON: {error}")))?;
    let Some(fields) = record.as_object_mut() else {
        return Err(Failure::usage(format!(
            "the record in {shown} is not a JSON object"
        )));
    };
    let own = match fields.get("functionId") {
        None => None,
        Some(Value::String(text)) => Some(
            super::function_id(text)
                .map_err(|error| Failure::usage(format!("functionId in {shown}: {error}")))?,
        ),
        Some(other) => {
            return Err(Failure::usage(format!(
                "functionId in {shown} is {other}, expected a text"
            )));
        }
    };
    match (id, own) {
        (Some(id), Some(own)) if *id != own => Err(Failure::usage(format!(
            "the record in {shown} is of \"{own}\", not of \"{id}\""
        ))),
        (_, Some(own)) => Ok(Record { id: own, body }),
        (Some(id), None) => {
            fields.insert("functionId".to_owned(), Value::String(id.to_string()));
            Ok(Record {
                id: id.clone(),
                body: record.to_string().into_bytes(),
            })
        }
        (None, None) => Err(Failure::usage(format!(
            "the record in {shown} has no functionId, and no ID is given"
        ))),
    }
}
