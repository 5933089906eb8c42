//! The environment that AWS Lambda gives a function, as far as it is the platform's to give.

use std::net::SocketAddr;
use std::time::SystemTime;

use protocol::function::{LAMBDA_VARIABLES, Provider};
use protocol::version::LATEST;
use protocol::{Function, FunctionId};

use super::Lambda;

/// Where the images of AWS have a function's code, and their runtime.
const TASK_ROOT: &str = "/var/task";
const RUNTIME_DIR: &str = "/var/runtime";

/// The zone of AWS's own environment: UTC, written as its C library reads it.
const ZONE: &str = ":UTC";

impl Lambda {
    /// The ARN of a function; the qualifier is a version or an alias.
    pub(crate) fn arn(&self, id: &FunctionId, qualifier: Option<&str>) -> String {
        let Self {
            region, account_id, ..
        } = self;
        let arn = format!("arn:aws:lambda:{region}:{account_id}:function:{id}");
        match qualifier {
            None => arn,
            Some(qualifier) => format!("{arn}:{qualifier}"),
        }
    }

    /// The variables of an instance whose Runtime API is at this address. Those that the record may set come only where it does not.
    pub(crate) fn variables(
        &self,
        function: &Function,
        api: SocketAddr,
    ) -> Vec<(&'static str, String)> {
        let id = function.function_id.as_str();
        let limits = function.limits();
        let slots = limits.concurrency;
        let version = function
            .version
            .map_or_else(|| LATEST.to_owned(), |version| version.to_string());
        let mut variables = vec![
            ("AWS_LAMBDA_RUNTIME_API", api.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", id.to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", version.clone()),
            (
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
                limits.memory_mb.to_string(),
            ),
            ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{id}")),
            ("AWS_LAMBDA_LOG_STREAM_NAME", log_stream(&version)),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
            ("AWS_REGION", self.region.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("LAMBDA_TASK_ROOT", TASK_ROOT.to_owned()),
            ("LAMBDA_RUNTIME_DIR", RUNTIME_DIR.to_owned()),
        ];
        // Its presence alone makes a runtime fork, or ask in several tasks at once.
        if slots > 1 {
            variables.push(("AWS_LAMBDA_MAX_CONCURRENCY", slots.to_string()));
        }
        debug_assert!(
            variables
                .iter()
                .all(|(name, _)| LAMBDA_VARIABLES.contains(name)),
            "what the node sets no record can"
        );
        let (env, handler) = match &function.provider {
            Provider::Container(container) => (&container.env, container.command.first()),
            Provider::Process(process) => (&process.env, None),
            _ => return variables,
        };
        if !env.contains_key("TZ") {
            variables.push(("TZ", ZONE.to_owned()));
        }
        // The command of AWS's images is the handler; a process names it in its arguments, or its record does.
        if let Some(handler) = handler.filter(|_| !env.contains_key("_HANDLER")) {
            variables.push(("_HANDLER", handler.clone()));
        }
        variables
    }
}

/// As AWS names log streams: the day, the version, and what tells this instance from others.
fn log_stream(version: &str) -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let day = now[.."2026-11-28".len()].replace('-', "/");
    let instance = hex::encode(rand::random::<[u8; 16]>());
    format!("{day}/[{version}]{instance}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use config::settings::LambdaSettings;
    use serde_json::json;

    use super::*;

    fn lambda() -> Lambda {
        Lambda::new(&LambdaSettings {
            region: "eu-central-1".into(),
            account_id: "123456789012".into(),
            ..LambdaSettings::default()
        })
    }

    fn variables(record: serde_json::Value) -> HashMap<&'static str, String> {
        let function = serde_json::from_value(record).unwrap();
        let api = SocketAddr::from(([127, 0, 0, 1], 9001));
        lambda().variables(&function, api).into_iter().collect()
    }

    #[test]
    fn arns_are_as_aws_writes_them() {
        let id = "resize.v2".parse().unwrap();
        let arn = "arn:aws:lambda:eu-central-1:123456789012:function:resize.v2";
        assert_eq!(lambda().arn(&id, None), arn);
        for qualifier in ["7", "live", "$LATEST"] {
            let qualified = format!("{arn}:{qualifier}");
            assert_eq!(lambda().arn(&id, Some(qualifier)), qualified);
        }
    }

    #[test]
    fn a_runtime_finds_what_aws_would_tell_it() {
        let given = variables(json!({
            "space": "default", "functionId": "resize", "type": "container", "limits": {"memoryMb": 256},
            "provider": {"image": "i", "contract": "lambda", "command": ["app.handler"]},
        }));
        for (name, expected) in [
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
            ("AWS_LAMBDA_FUNCTION_NAME", "resize"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/resize"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_DEFAULT_REGION", "eu-central-1"),
            ("LAMBDA_TASK_ROOT", "/var/task"),
            ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
            ("TZ", ":UTC"),
            ("_HANDLER", "app.handler"),
        ] {
            assert_eq!(given[name], expected, "{name}");
        }
        let stream = &given["AWS_LAMBDA_LOG_STREAM_NAME"];
        assert_eq!(
            stream.find("/[$LATEST]"),
            Some("2026/11/28".len()),
            "{stream}"
        );
        assert!(!given.contains_key("AWS_LAMBDA_MAX_CONCURRENCY"));
    }

    #[test]
    fn an_instance_of_a_version_knows_which() {
        let given = variables(json!({
            "space": "default", "functionId": "resize", "version": 7, "type": "process",
            "provider": {"command": ["/bootstrap"], "contract": "lambda"},
        }));
        assert_eq!(given["AWS_LAMBDA_FUNCTION_VERSION"], "7");
        assert!(given["AWS_LAMBDA_LOG_STREAM_NAME"].contains("/[7]"));
    }

    #[test]
    fn a_record_has_the_last_word_where_it_may() {
        let given = variables(json!({
            "space": "default", "functionId": "f", "type": "process", "limits": {"concurrency": 4},
            "provider": {"command": ["/bootstrap"], "contract": "lambda", "env": {"TZ": "Europe/Berlin", "_HANDLER": "h"}},
        }));
        assert!(!given.contains_key("TZ") && !given.contains_key("_HANDLER"));
        assert_eq!(given["AWS_LAMBDA_MAX_CONCURRENCY"], "4");
    }
}
