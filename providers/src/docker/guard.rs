//! Removes a container that was begun and not finished.

use std::sync::Arc;
use std::time::Duration;

use protocol::InstanceId;

use super::Docker;
use super::firewall::Gap;
use crate::Error;
use crate::callers::Badge;
use crate::contract::End;
use crate::secrets::SecretDir;

/// Owns a container from before its creation until [`Guard::disarm`]; dropped earlier, it has a tracked task remove it.
#[derive(Debug)]
pub(super) struct Guard {
    docker: Docker,
    name: String,
    /// The container's id, once the engine confirmed the creation.
    id: Option<InstanceId>,
    /// The files of its secrets, until the creation is confirmed.
    pub(super) secrets: Option<SecretDir>,
    /// Its way through the firewall, until then.
    pub(super) gap: Option<Gap>,
    is_armed: bool,
}

/// The pauses between attempts to remove a container.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Attempts to remove one whose creation may still be under way in the engine.
const LATE_ATTEMPTS: u32 = 5;

impl Guard {
    pub(super) fn new(docker: &Docker, name: &str) -> Self {
        docker.shared.instances.begun().insert(name.to_owned());
        Self {
            docker: docker.clone(),
            name: name.to_owned(),
            id: None,
            secrets: None,
            gap: None,
            is_armed: true,
        }
    }

    /// The engine confirmed the creation. From now on the death of the container is noticed, and told by what is returned.
    pub(super) fn created(&mut self, id: &InstanceId, badge: Option<Badge>) -> Arc<End> {
        let instances = &self.docker.shared.instances;
        let end = instances.insert(id);
        instances.admit(id, badge, self.secrets.take(), self.gap.take());
        self.id = Some(id.clone());
        end
    }

    /// The container is up: its owner removes it.
    ///
    /// # Errors
    /// When it died meanwhile; then it is still removed here.
    pub(super) fn disarm(mut self) -> Result<(), Error> {
        let id = self.id.take();
        // The lock is taken before the name is given up, so that a death is noticed either here or by the watcher.
        let mut begun = self.docker.shared.instances.begun();
        if id.is_some_and(|id| self.docker.shared.instances.end(&id).is_none()) {
            return Err(Error::StartFailed {
                why: "it ended right after it was ready".into(),
            });
        }
        begun.remove(&self.name);
        drop(begun);
        self.is_armed = false;
        Ok(())
    }

    /// Removes it now and waits; a failure is left to the task.
    pub(super) async fn remove(mut self) {
        if self.docker.remove_by_force(&self.name).await.is_ok() {
            self.is_armed = false;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let docker = self.docker.clone();
        let name = std::mem::take(&mut self.name);
        let is_created = self.id.is_some();
        if let Some(id) = self.id.take() {
            docker.shared.instances.remove(&id);
        }
        if !self.is_armed {
            docker.shared.instances.begun().remove(&name);
            return;
        }
        let attempts_min = if is_created { 1 } else { LATE_ATTEMPTS };
        let setup = &docker.shared.setup;
        let removal = setup.stop.clone().run_until_cancelled_owned(remove(
            docker.clone(),
            name,
            attempts_min,
        ));
        setup.tasks.spawn(removal);
    }
}

/// Tries until the engine says that the container is gone.
async fn remove(docker: Docker, name: String, attempts_min: u32) {
    let mut pause = PAUSE_MIN;
    let mut removals = 0;
    loop {
        match docker.remove_by_force(&name).await {
            Ok(()) => removals += 1,
            Err(error) => {
                tracing::debug!(container = name, %error, "a container is not removed yet");
            }
        }
        if removals >= attempts_min {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    docker.shared.instances.begun().remove(&name);
}
