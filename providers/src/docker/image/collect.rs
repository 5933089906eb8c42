//! Removes images this node pulled, once they take more disk than allowed; others' images are never touched.

use std::path::{Path, PathBuf};

use bollard::query_parameters::RemoveImageOptionsBuilder;
use serde::{Deserialize, Serialize};

use crate::docker::engine::CallError;
use crate::docker::{Docker, now_seconds};

/// The images this node pulled, oldest first, kept in a file across restarts.
#[derive(Debug)]
pub(super) struct Pulled {
    path: PathBuf,
    images: Vec<PulledImage>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PulledImage {
    id: String,
    at_seconds: u64,
}

const FILE: &str = "pulled-images.json";

impl Pulled {
    /// A file that is missing or can not be read counts as empty: then images stay that could have gone.
    pub(super) fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let images = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the list of pulled images can not be read, they will not be removed");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        Self { path, images }
    }

    pub(super) fn add(&mut self, id: &str) {
        self.images.retain(|image| image.id != id);
        self.images.push(PulledImage {
            id: id.to_owned(),
            at_seconds: now_seconds(),
        });
        self.save();
    }

    fn remove(&mut self, id: &str) {
        self.images.retain(|image| image.id != id);
        self.save();
    }

    /// A few hundred bytes, written after a pull of megabytes.
    fn save(&self) {
        let text = serde_json::to_vec(&self.images).expect("a list of texts and numbers");
        let fresh = self.path.with_extension("json.new");
        let saved = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.path));
        if let Err(error) = saved {
            tracing::warn!(path = %self.path.display(), %error, "the list of pulled images can not be written");
        }
    }
}

/// Removes pulled images, least recently used first, until the rest is within the limit. The engine itself refuses to remove one
/// that a container uses.
pub(super) async fn collect(docker: &Docker) {
    let images = &docker.shared.images;
    let (mut bytes, candidates) = {
        let index = images.index();
        let pulled = images.pulled();
        let mut present: Vec<(String, u64, u64)> = pulled
            .images
            .iter()
            .filter_map(|image| {
                index
                    .image(&image.id)
                    .map(|known| (image.id.clone(), known.bytes, known.used_at))
            })
            .collect();
        // Sorting is stable, so the oldest goes first among those unused since the node started.
        present.sort_by_key(|(_, _, used_at)| *used_at);
        (
            present.iter().map(|(_, bytes, _)| bytes).sum::<u64>(),
            present,
        )
    };
    for (id, size, _) in candidates {
        if bytes <= images.disk_bytes_max {
            return;
        }
        let options = RemoveImageOptionsBuilder::new().force(false).build();
        let name = id.clone();
        let call = docker
            .shared
            .engine
            .call("removing an image", |client| async move {
                client.remove_image(&name, Some(options), None).await
            });
        match call.await {
            Ok(_) | Err(CallError::Answered { status: 404, .. }) => {
                bytes -= size;
                images.index().remove(&id);
                images.pulled().remove(&id);
                tracing::info!(
                    image = id,
                    bytes = size,
                    "removed an unused image, the disk limit of images is reached"
                );
            }
            // 409: in use, or someone tagged it.
            Err(error) => tracing::debug!(image = id, ?error, "an image is not removed"),
        }
    }
}
