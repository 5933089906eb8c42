//! The queues behind an edge under test.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use config::Settings;
use gateway::{Destinations, Emitter, Invocations, Letter, Node, Post};
use protocol::Failure;
use queue::backend::memory;
use queue::delivery::{self, Retry};
use queue::{DeliveryLoop, MemoryQueue, Queue};

use super::ScriptedNode;

/// What is emitted, and what delivers it to the scripted node.
pub(crate) struct Queues {
    pub(crate) custom: Arc<MemoryQueue>,
    pub(crate) system: Arc<MemoryQueue>,
    /// The way into them.
    pub(crate) emitter: Arc<Emitter>,
    /// What was posted to URLs.
    pub(crate) posts: Arc<Posts>,
    _loops: [DeliveryLoop; 2],
}

/// Takes what is posted to URLs, as the script says.
#[derive(Debug, Default)]
pub(crate) struct Posts {
    pub(crate) letters: Mutex<Vec<(String, Letter)>>,
    /// What becomes of the next ones; then all are taken.
    pub(crate) refusals: Mutex<Vec<Failure>>,
}

#[async_trait]
impl Post for Posts {
    async fn post(&self, url: &str, letter: Letter) -> Result<(), Failure> {
        if let Some(failure) = self.refusals.lock().unwrap().pop() {
            return Err(failure);
        }
        let letter = (url.to_owned(), letter);
        self.letters.lock().unwrap().push(letter);
        Ok(())
    }
}

impl Queues {
    /// Starts to deliver; what is emitted goes through the second of the two.
    pub(super) fn start(
        settings: &Settings,
        node: &ScriptedNode,
        hooks: Option<Arc<dyn ::plugins::Hooks>>,
    ) -> (Self, Arc<Emitter>) {
        let posts = Arc::new(Posts::default());
        let destinations = Destinations {
            settings: settings.destinations.clone(),
            post: Arc::clone(&posts) as Arc<dyn Post>,
        };
        let settings = &settings.queue;
        let queue = |len_max| {
            let limits = memory::Limits {
                len_max,
                bytes_max: usize::try_from(settings.bytes_max.as_u64()).unwrap(),
                function_share: settings.function_share,
                lease_timeout: settings.lease_timeout,
            };
            Arc::new(MemoryQueue::new(limits, memory::Meters::none()))
        };
        let (custom, system) = (queue(settings.len_max), queue(settings.system_len_max));
        let node: Arc<dyn Node> = Arc::new(node.clone());
        let emitter = Emitter::new(
            Arc::clone(&node),
            Arc::clone(&custom) as Arc<dyn Queue>,
            Arc::clone(&system),
            destinations,
        );
        let emitter = Arc::new(match hooks {
            Some(hooks) => emitter.with_plugins(hooks),
            None => emitter,
        });
        let start = |queue: &Arc<MemoryQueue>, permits, meters| {
            DeliveryLoop::start(delivery::Args {
                queue: Arc::clone(queue) as Arc<dyn Queue>,
                deliver: Arc::new(Invocations::new(
                    Arc::clone(&node),
                    Arc::clone(&emitter),
                    queue.promise(),
                )),
                permits,
                lease_timeout: settings.lease_timeout,
                retry: Retry {
                    backoff: settings.retry_backoff,
                    backoff_max: settings.retry_backoff_max,
                    until_age: settings.retry_for,
                    attempts_max: settings.attempts_max,
                },
                meters,
            })
        };
        let loops = [
            start(&custom, settings.permits, delivery::Meters::custom()),
            start(&system, settings.system_permits, delivery::Meters::system()),
        ];
        let queues = Self {
            custom,
            system,
            emitter: Arc::clone(&emitter),
            posts,
            _loops: loops,
        };
        (queues, emitter)
    }
}
