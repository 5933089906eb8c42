//! Images: which are present, how a reference is resolved, how a missing one is pulled, and which are removed again.

mod collect;
mod index;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder};
use config::settings::DockerSettings;
use futures_util::StreamExt;
use protocol::Function;
use protocol::function::Provider;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::collect::Pulled;
use self::index::Index;
use super::Docker;
use super::engine::CallError;
use super::registry::{Reference, credentials};
use crate::Error;

/// What is known of the engine's images.
#[derive(Debug)]
pub(super) struct Images {
    index: Mutex<Index>,
    pulled: Mutex<Pulled>,
    disk_bytes_max: u64,
    /// Images came or went.
    changed: Notify,
    /// Held during a pull: simultaneous starts of one function pull once, and different images come one after the other.
    pulling: tokio::sync::Mutex<()>,
}

/// How often the engine's images are listed, beside its events.
const LIST_INTERVAL: Duration = Duration::from_secs(60);
/// The least pause between two lists: one pull makes several events.
const LIST_PAUSE: Duration = Duration::from_millis(200);

impl Images {
    pub(super) fn load(settings: &DockerSettings, data_dir: &Path) -> Self {
        Self {
            index: Mutex::default(),
            pulled: Mutex::new(Pulled::load(data_dir)),
            disk_bytes_max: settings.image_disk_max.as_u64(),
            changed: Notify::new(),
            pulling: tokio::sync::Mutex::default(),
        }
    }

    /// The digests that are present, most recently used first.
    pub(super) fn present(&self) -> Arc<Vec<String>> {
        self.index().present()
    }

    /// An event said that images came or went.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pulled(&self) -> std::sync::MutexGuard<'_, Pulled> {
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the index fresh and removes what is over the disk limit, until it is cancelled.
pub(super) async fn keep_index(docker: Docker) {
    let images = &docker.shared.images;
    loop {
        docker.shared.engine.until_up().await;
        match list(&docker).await {
            Ok(()) => collect::collect(&docker).await,
            Err(error) => tracing::debug!(?error, "the engine's images can not be listed"),
        }
        tokio::time::sleep(LIST_PAUSE).await;
        let _ = tokio::time::timeout(LIST_INTERVAL, images.changed.notified()).await;
    }
}

async fn list(docker: &Docker) -> Result<(), CallError> {
    let options = ListImagesOptionsBuilder::new()
        .all(false)
        .digests(true)
        .build();
    let call = docker
        .shared
        .engine
        .call("listing images", |client| async move {
            client.list_images(Some(options)).await
        });
    let listed = call.await?;
    docker.shared.images.index().replace(listed);
    Ok(())
}

/// The id of the image a function runs, pulled first if it is missing, and how long the pull took in microseconds.
pub(super) async fn ensure(
    docker: &Docker,
    function: &Function,
) -> Result<(String, Option<u64>), Error> {
    let Provider::Container(container) = &function.provider else {
        return Err(Error::StartFailed {
            why: format!("a function of type {} has no image", function.type_name()),
        });
    };
    let images = &docker.shared.images;
    let wanted = container.digest.as_deref().unwrap_or(&container.image);
    if let Some(id) = images.index().use_digest(wanted) {
        return Ok((id, None));
    }
    let began = Instant::now();
    let _turn = images.pulling.lock().await;
    if let Some(id) = find(docker, &container.image, container.digest.as_deref()).await? {
        return Ok((id, None));
    }
    pull(docker, &container.image, container.digest.as_deref()).await?;
    let pulled = find(docker, &container.image, container.digest.as_deref()).await?;
    let id = pulled.ok_or_else(|| Error::ImageNotFound {
        image: container.image.clone(),
        why: format!("it was pulled, and the engine does not have {wanted} after that"),
    })?;
    images.pulled().add(&id);
    images.changed();
    Ok((id, Some(micros(began))))
}

/// Looks for the image again after the engine said that it does not have `id`.
pub(super) async fn refind(
    docker: &Docker,
    function: &Function,
    id: &str,
) -> Result<String, Error> {
    docker.shared.images.index().remove(id);
    Ok(ensure(docker, function).await?.0)
}

/// Asks the engine for an image by its digest, which is the registry's or the engine's own, or by its tag.
async fn find(docker: &Docker, image: &str, digest: Option<&str>) -> Result<Option<String>, Error> {
    let repository = Reference::parse(image).repository;
    let names = match digest {
        Some(digest) => vec![digest.to_owned(), format!("{repository}@{digest}")],
        None => vec![image.to_owned()],
    };
    for name in names {
        if let Some(inspected) = inspect(docker, &name).await? {
            let id = inspected.id.unwrap_or(name);
            docker
                .shared
                .images
                .index()
                .add(digest.unwrap_or(image), &id);
            return Ok(Some(id));
        }
    }
    Ok(None)
}

async fn inspect(
    docker: &Docker,
    name: &str,
) -> Result<Option<bollard::models::ImageInspect>, Error> {
    let engine = &docker.shared.engine;
    let inspected = engine
        .call("inspecting an image", |client| async move {
            client.inspect_image(name).await
        })
        .await;
    match inspected {
        Ok(image) => Ok(Some(image)),
        Err(CallError::Answered {
            status: 400 | 404, ..
        }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn pull(docker: &Docker, image: &str, digest: Option<&str>) -> Result<(), Error> {
    let settings = &docker.shared.setup.settings;
    let reference = Reference::parse(image);
    let (from, tag) = match digest.or(reference.digest) {
        Some(digest) => (reference.repository, digest),
        // An empty tag would pull all of them.
        None if image.len() == reference.repository.len() => (reference.repository, "latest"),
        None => (image, ""),
    };
    let options = CreateImageOptionsBuilder::new()
        .from_image(from)
        .tag(tag)
        .build();
    let credentials = credentials(&settings.registries, &reference);
    let pulled = docker
        .shared
        .engine
        .call_within(
            settings.pull_timeout,
            "pulling an image",
            |client| async move {
                let mut progress =
                    std::pin::pin!(client.create_image(Some(options), None, credentials));
                while let Some(step) = progress.next().await {
                    step?;
                }
                Ok(())
            },
        )
        .await;
    metrics::counter!("hearth_image_pulls_total", "outcome" => if pulled.is_ok() { "ok" } else { "failed" }).increment(1);
    match pulled {
        Ok(()) => Ok(()),
        Err(CallError::Answered { message, .. }) => Err(Error::ImageNotFound {
            image: image.to_owned(),
            why: message,
        }),
        Err(error) => Err(error.into()),
    }
}

/// The digest of an image that is present: the registry's where it has one, else the engine's id.
pub(super) async fn resolve_present(docker: &Docker, image: &str) -> Result<Option<String>, Error> {
    let Some(inspected) = inspect(docker, image).await? else {
        return Ok(None);
    };
    let repository = Reference::parse(image).full_repository();
    let digests = inspected.repo_digests.unwrap_or_default();
    let of_same_repository = digests
        .iter()
        .find(|digest| Reference::parse(digest).full_repository() == repository);
    let digest = of_same_repository
        .or_else(|| digests.first())
        .and_then(|text| Reference::parse(text).digest);
    let resolved = digest.map(str::to_owned).or_else(|| inspected.id.clone());
    if let (Some(digest), Some(id)) = (&resolved, &inspected.id) {
        docker.shared.images.index().add(digest, id);
    }
    Ok(resolved)
}

/// The digest of an image in its registry, which the engine asks.
pub(super) async fn resolve_remote(docker: &Docker, image: &str) -> Result<String, Error> {
    let settings = &docker.shared.setup.settings;
    let credentials = credentials(&settings.registries, &Reference::parse(image));
    let asked = docker
        .shared
        .engine
        .call_within(
            settings.resolve_timeout,
            "asking a registry",
            |client| async move { client.inspect_registry_image(image, credentials).await },
        )
        .await;
    let not_found = |why: String| Error::ImageNotFound {
        image: image.to_owned(),
        why,
    };
    match asked {
        Ok(found) => found
            .descriptor
            .digest
            .ok_or_else(|| not_found("its registry names no digest".into())),
        Err(CallError::Answered { message, .. }) => Err(not_found(message)),
        // Whether it was the engine or the registry that did not answer in time can not be told from here, unless the engine is down.
        Err(CallError::Unavailable(why)) if docker.shared.engine.is_available() => {
            Err(not_found(why))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
