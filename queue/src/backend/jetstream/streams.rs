//! The streams: how they are called, what they must be like, and that they are.

use config::settings::JetStreamSettings;
use protocol::NodeId;
use serde_json::{Map, Value, json};

use super::api::{Api, Failed};
use super::{OpenError, Options};
use crate::backend::DeliveryId;

/// How long the last sign of life of a node is kept.
const NODES_KEPT_SECONDS: u64 = 3_600;

/// What names a record: its first delivery, and whether that has others beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BatchKey {
    pub(super) id: DeliveryId,
    pub(super) is_one: bool,
}

/// The names of the streams, and of what is in them.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Deliveries that wait or run.
    pub(super) held: String,
    /// Dead letters.
    pub(super) dead: String,
    /// The nodes' signs of life.
    pub(super) nodes: String,
    prefix: String,
}

impl Names {
    pub(super) fn new(stream: &str, cluster: &str) -> Self {
        // A dot would divide a subject, and no stream may have one.
        let cluster = cluster.replace('.', "=");
        let name = |what| format!("{stream}-{cluster}-{what}");
        Self {
            held: name("held"),
            dead: name("dead"),
            nodes: name("nodes"),
            prefix: format!("{stream}.{cluster}"),
        }
    }

    /// The subject of a record of deliveries.
    pub(super) fn batch(&self, key: BatchKey) -> String {
        let kind = if key.is_one { "one" } else { "many" };
        format!("{}.held.{kind}.{}", self.prefix, key.id)
    }

    /// The subjects of all records of deliveries.
    pub(super) fn batches(&self) -> String {
        format!("{}.held.>", self.prefix)
    }

    /// The subjects of all records of several deliveries.
    pub(super) fn batches_of_many(&self) -> String {
        format!("{}.held.many.*", self.prefix)
    }

    /// The subject of the mark that a node leaves while it looks through all records.
    pub(super) fn mark(&self, node: &NodeId) -> String {
        let node = node.as_str().replace('.', "=");
        format!("{}.held.mark.{node}", self.prefix)
    }

    /// Which record has this subject.
    pub(super) fn batch_key(&self, subject: &str) -> Option<BatchKey> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".held.")?;
        let (kind, id) = rest.split_once('.')?;
        let is_one = match kind {
            "one" => true,
            "many" => false,
            _ => return None,
        };
        let id = id.parse().ok()?;
        Some(BatchKey { id, is_one })
    }

    /// The subject of a dead letter.
    pub(super) fn letter(&self, id: DeliveryId) -> String {
        format!("{}.dead.{id}", self.prefix)
    }

    /// The subjects of all dead letters.
    pub(super) fn letters(&self) -> String {
        format!("{}.dead.*", self.prefix)
    }

    /// The subject of a session's signs of life.
    pub(super) fn node(&self, session: &str) -> String {
        format!("{}.node.{session}", self.prefix)
    }

    /// The subjects of all sessions' signs of life.
    pub(super) fn all_nodes(&self) -> String {
        self.node("*")
    }

    /// Whose sign of life that is.
    pub(super) fn session<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.prefix)?.strip_prefix(".node.")
    }

    /// Where a session is asked to cancel what it holds.
    pub(super) fn cancel(&self, session: &str) -> String {
        format!("{}.cancel.{session}", self.prefix)
    }
}

/// Makes the streams that are missing, changes what may be changed, and refuses a stream that is something else.
///
/// # Errors
/// [`OpenError::Stream`] names the stream and the field; [`OpenError::Failed`] when JetStream does not answer, or refuses.
pub(super) async fn ensure(api: &Api, names: &Names, options: &Options) -> Result<(), OpenError> {
    for (stream, wanted) in configs(names, options) {
        let found = api.stream(&stream).await?;
        let exists = found.is_some();
        if let Some(found) = found {
            let found = &found["config"];
            match compare(&stream, found, &wanted)? {
                false => continue,
                true => tracing::info!(
                    stream,
                    "the settings of a stream are changed to those of this node"
                ),
            }
            let merged = merge(found, &wanted);
            refused(&stream, api.configure(&stream, exists, &merged).await)?;
            continue;
        }
        tracing::info!(stream, "a stream is made");
        refused(
            &stream,
            api.configure(&stream, exists, &Value::Object(wanted)).await,
        )?;
    }
    Ok(())
}

/// Whether several servers of that version keep a stream as ADR 0029 needs it: the expected sequence of a subject is checked in the
/// order in which records are stored, and a server that was killed does not lead with less than it acknowledged.
pub(super) fn keeps_replicas(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (2, 11),
        _ => false,
    }
}

fn refused(stream: &str, configured: Result<(), Failed>) -> Result<(), OpenError> {
    /// "no suitable peers for placement" and "insufficient resources": too few servers are up.
    const TOO_FEW: [u64; 2] = [10_005, 10_023];
    match configured {
        Err(Failed::Refused { code, why }) if TOO_FEW.contains(&code) => Err(OpenError::Away(
            format!("NATS can not keep stream {stream} yet: {why} ({code})"),
        )),
        Err(Failed::Refused { code, why }) => Err(OpenError::Refused {
            stream: stream.to_owned(),
            why: format!("{why} ({code})"),
        }),
        other => Ok(other?),
    }
}

/// Fields of a stream that can be changed while it holds something, without losing anything of it.
const CHANGEABLE: [&str; 7] = [
    "discard",
    "max_msgs",
    "max_bytes",
    "max_age",
    "num_replicas",
    "max_msg_size",
    "duplicate_window",
];

/// Whether a stream has to be changed.
fn compare(stream: &str, found: &Value, wanted: &Map<String, Value>) -> Result<bool, OpenError> {
    let mut differs = false;
    for (field, value) in wanted {
        // What is off is left out by some versions.
        if found.get(field).unwrap_or(&Value::Bool(false)) == value {
            continue;
        }
        if !CHANGEABLE.contains(&field.as_str()) {
            return Err(OpenError::Stream {
                stream: stream.to_owned(),
                field: field.clone(),
                found: found.get(field).unwrap_or(&Value::Null).to_string(),
                wanted: value.to_string(),
            });
        }
        differs = true;
    }
    Ok(differs)
}

/// What the stream has, with our fields in place of its own.
fn merge(found: &Value, wanted: &Map<String, Value>) -> Value {
    let mut merged = found.as_object().cloned().unwrap_or_default();
    for (field, value) in wanted {
        merged.insert(field.clone(), value.clone());
    }
    Value::Object(merged)
}

fn configs(names: &Names, options: &Options) -> [(String, Map<String, Value>); 3] {
    let JetStreamSettings {
        replicas,
        len_max,
        bytes_max,
        ..
    } = &options.settings;
    let config = |name: &str, subject: String, own: Value| {
        let mut config = json!({
            "name": name,
            "subjects": [subject],
            "retention": "limits",
            "storage": "file",
            "num_replicas": replicas,
            // A record takes the place of the one before it.
            "max_msgs_per_subject": 1,
            "deny_delete": false,
            "sealed": false,
        });
        if let (Some(config), Value::Object(own)) = (config.as_object_mut(), own) {
            config.extend(own);
        }
        let config = config.as_object().cloned().unwrap_or_default();
        (name.to_owned(), config)
    };
    let held = json!({
        // What is full refuses, and drops nothing.
        "discard": "new",
        "max_msgs": len_max,
        "max_bytes": bytes_max.as_u64(),
        "max_age": 0,
    });
    // The nodes drop what is beyond that, and count it; the stream refuses what would be far beyond.
    let dead = json!({
        "discard": "new",
        "max_msgs": options.dead_len_max.saturating_mul(2),
        "max_bytes": options.dead_bytes_max.saturating_mul(2).min(i64::MAX as u64),
        "max_age": 0,
    });
    let nodes = json!({
        "discard": "old",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": NODES_KEPT_SECONDS * 1_000_000_000,
    });
    [
        config(&names.held, names.batches(), held),
        config(&names.dead, names.letters(), dead),
        config(&names.nodes, names.all_nodes(), nodes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_record() {
        let names = Names::new("hearth", "a.b");
        assert_eq!(names.held, "hearth-a=b-held");
        for is_one in [true, false] {
            let key = BatchKey {
                id: DeliveryId::random(),
                is_one,
            };
            assert_eq!(names.batch_key(&names.batch(key)), Some(key));
        }
        assert_eq!(names.batch_key(&names.mark(&"n.1".parse().unwrap())), None);
        assert_eq!(names.session(&names.node("n1-x")), Some("n1-x"));
    }

    #[test]
    fn replicas_need_a_server_that_keeps_them() {
        let check = |version, keeps| assert_eq!(keeps_replicas(version), keeps, "{version}");
        check("2.9.10", false);
        check("2.10.29", false);
        check("2.11.0", true);
        check("2.15.1", true);
        check("2.12.0-RC.1", true);
        check("3.0.0", true);
        check("", false);
        check("next", false);
    }

    #[test]
    fn a_stream_that_is_something_else_is_refused_by_its_field() {
        let found = json!({ "storage": "memory", "max_msgs": 5, "max_bytes": 7 });
        let wanted = |wanted: Value| wanted.as_object().cloned().unwrap();
        let compare = |value| compare("s", &found, &wanted(value));
        assert!(!compare(json!({ "max_msgs": 5 })).unwrap());
        assert!(compare(json!({ "max_msgs": 6 })).unwrap());
        let error = compare(json!({ "storage": "file" }))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("storage") && error.contains("memory"),
            "{error}"
        );
        let merged = merge(&found, &wanted(json!({ "max_msgs": 6 })));
        assert_eq!(
            merged,
            json!({ "storage": "memory", "max_msgs": 6, "max_bytes": 7 })
        );
    }
}
