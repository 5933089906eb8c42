//! Function records as clients register them, and where the example functions are.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// A function record under construction.
#[derive(Debug, Clone)]
pub struct Record(Value);

impl Record {
    /// A local command with the `http` contract.
    pub fn command<const N: usize>(id: &str, command: [&str; N]) -> Self {
        Self(json!({
            "functionId": id,
            "type": "process",
            "provider": { "command": command.as_slice() },
        }))
    }

    /// An example function as a local process: `hello`, `sleep`, `crash`.
    pub fn process(id: &str, name: &str) -> Self {
        Self::command(id, [example(name).as_str()])
    }

    /// An example function's image.
    pub fn container(id: &str, name: &str) -> Self {
        Self(json!({
            "functionId": id,
            "type": "container",
            "provider": { "image": image(name) },
        }))
    }

    /// A script that a shell runs in a container for each invocation; see [`crate::Engine::shell_image`].
    pub fn shell(id: &str, image: &str, script: &str) -> Self {
        Self(json!({
            "functionId": id,
            "type": "container",
            "provider": {
                "image": image,
                "contract": "stdio",
                "command": ["/busybox", "sh", "-c", script],
            },
        }))
    }

    /// A webhook.
    pub fn http(id: &str, url: &str) -> Self {
        Self(json!({ "functionId": id, "type": "http", "provider": { "url": url } }))
    }

    /// A function that another cloud runs, or what stands there in place of one.
    pub fn remote(id: &str, type_name: &str, provider: &Value) -> Self {
        Self(json!({ "functionId": id, "type": type_name, "provider": provider }))
    }

    /// One run per invocation.
    #[must_use]
    pub fn stdio(self) -> Self {
        self.set("provider", "contract", json!("stdio"))
    }

    /// Asks AWS Lambda's Runtime API for invocations.
    #[must_use]
    pub fn lambda(self) -> Self {
        self.set("provider", "contract", json!("lambda"))
    }

    /// Reaches nothing beside its node.
    #[must_use]
    pub fn no_network(self) -> Self {
        self.set("sandbox", "network", json!(false))
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let provider = section(&mut self.0, "provider");
        section_of(provider, "env").insert(name.to_owned(), json!(value));
        self
    }

    /// Slots per instance.
    #[must_use]
    pub fn concurrency(self, slots: u32) -> Self {
        self.set("limits", "concurrency", json!(slots))
    }

    /// How long a run may take, in milliseconds.
    #[must_use]
    pub fn timeout_ms(self, milliseconds: u32) -> Self {
        self.set("limits", "timeoutMs", json!(milliseconds))
    }

    /// Memory of an instance, in MiB.
    #[must_use]
    pub fn memory_mb(self, mebibytes: u32) -> Self {
        self.set("limits", "memoryMb", json!(mebibytes))
    }

    /// Bytes of a payload.
    #[must_use]
    pub fn body_bytes(self, bytes: u32) -> Self {
        self.set("limits", "bodyBytes", json!(bytes))
    }

    /// Instances at most.
    #[must_use]
    pub fn max(self, instances: u32) -> Self {
        self.set("scaling", "max", json!(instances))
    }

    /// Instances kept up.
    #[must_use]
    pub fn min(self, instances: u32) -> Self {
        self.set("scaling", "min", json!(instances))
    }

    /// Seconds until an idle instance is stopped.
    #[must_use]
    pub fn idle_seconds(self, seconds: u32) -> Self {
        self.set("scaling", "idleSeconds", json!(seconds))
    }

    /// The form in which it gets events.
    #[must_use]
    pub fn event_format(mut self, format: &str) -> Self {
        self.0["eventFormat"] = json!(format);
        self
    }

    /// May be run twice for one invocation.
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.set("delivery", "idempotent", json!(true))
    }

    /// Where its ends are told, and how often it is tried: a field of `delivery`.
    #[must_use]
    pub fn delivery(self, field: &str, value: Value) -> Self {
        self.set("delivery", field, value)
    }

    /// The function's id.
    pub fn id(&self) -> &str {
        self.0["functionId"]
            .as_str()
            .expect("every constructor sets the id")
    }

    /// Whether its instances are local processes or containers, so that the sandbox can mark them as its own.
    pub(crate) fn is_pooled(&self) -> bool {
        self.0["type"] == "container" || self.0["type"] == "process"
    }

    /// The record as JSON.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Sets one of the function's limits.
    pub fn limit(self, field: &str, value: Value) -> Self {
        self.set("limits", field, value)
    }

    fn set(mut self, name: &str, field: &str, value: Value) -> Self {
        section(&mut self.0, name).insert(field.to_owned(), value);
        self
    }
}

/// The path of an example function's executable.
///
/// # Panics
/// When it was not built.
pub fn example(name: &str) -> String {
    let dir = std::env::var_os("HEARTH_TEST_EXAMPLES").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/examples/bin"
            ))
        },
        PathBuf::from,
    );
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "the example function {name} is not at {}: scripts/images.sh builds it, HEARTH_TEST_EXAMPLES names another directory",
        path.display(),
    );
    let path = path
        .canonicalize()
        .expect("an existing file has a canonical path");
    path.to_str()
        .expect("the checkout's path is UTF-8")
        .to_owned()
}

/// The image of an example function.
pub fn image(name: &str) -> String {
    format!("hearth-example-{name}:latest")
}

fn section<'a>(record: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    section_of(record.as_object_mut().expect("a record is an object"), name)
}

fn section_of<'a>(parent: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    parent
        .entry(name)
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .expect("a section is an object")
}
