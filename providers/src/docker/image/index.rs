//! Which digests stand for which image of the engine.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::ImageSummary;

use crate::docker::registry::Reference;

/// The images of the engine as last listed, with what was learned since.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Image id by digest, which is a registry's or the id itself.
    ids: HashMap<String, String>,
    images: HashMap<String, Image>,
    present: Arc<Vec<String>>,
    uses: u64,
}

/// One image.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    created: i64,
    pub(super) bytes: u64,
    /// Grows with each use by a function on this node; 0 before the first.
    pub(super) used_at: u64,
}

/// How every digest begins.
const SHA256: &str = "sha256:";

impl Index {
    /// Takes over a fresh list.
    pub(super) fn replace(&mut self, listed: Vec<ImageSummary>) {
        let before = std::mem::take(&mut self.images);
        self.ids.clear();
        for summary in listed {
            let used_at = before.get(&summary.id).map_or(0, |image| image.used_at);
            let bytes = u64::try_from(summary.size).unwrap_or(0);
            self.images.insert(
                summary.id.clone(),
                Image {
                    created: summary.created,
                    bytes,
                    used_at,
                },
            );
            let digests = summary
                .repo_digests
                .iter()
                .filter_map(|text| Reference::parse(text).digest);
            // An image without one is listed with `<none>`.
            for digest in digests.filter(|digest| digest.starts_with(SHA256)) {
                self.ids.insert(digest.to_owned(), summary.id.clone());
            }
            self.ids.insert(summary.id.clone(), summary.id);
        }
        self.publish();
    }

    /// Adds what a single look found.
    pub(super) fn add(&mut self, digest: &str, id: &str) {
        if !digest.starts_with(SHA256) {
            return;
        }
        self.uses += 1;
        let used_at = self.uses;
        self.images.entry(id.to_owned()).or_default().used_at = used_at;
        self.ids.insert(digest.to_owned(), id.to_owned());
        self.ids.insert(id.to_owned(), id.to_owned());
        self.publish();
    }

    /// The image id for a digest, which now counts as used.
    pub(super) fn use_digest(&mut self, digest: &str) -> Option<String> {
        let id = self.ids.get(digest)?.clone();
        self.uses += 1;
        let used_at = self.uses;
        self.images.entry(id.clone()).or_default().used_at = used_at;
        Some(id)
    }

    /// Forgets an image that the engine no longer has.
    pub(super) fn remove(&mut self, id: &str) {
        self.images.remove(id);
        self.ids.retain(|_, image| image != id);
        self.publish();
    }

    pub(super) fn image(&self, id: &str) -> Option<&Image> {
        self.images.get(id)
    }

    pub(super) fn present(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.present)
    }

    fn publish(&mut self) {
        let mut digests: Vec<(&String, &String)> = self.ids.iter().collect();
        let rank = |id: &str| {
            self.images
                .get(id)
                .map_or((0, 0), |image| (image.used_at, image.created))
        };
        digests.sort_by(|(digest, id), (other_digest, other_id)| {
            rank(other_id)
                .cmp(&rank(id))
                .then_with(|| digest.cmp(other_digest))
        });
        self.present = Arc::new(
            digests
                .into_iter()
                .map(|(digest, _)| digest.clone())
                .collect(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(id: &str, created: i64, digests: &[&str]) -> ImageSummary {
        ImageSummary {
            id: format!("sha256:{id}"),
            created,
            repo_digests: digests.iter().map(|digest| (*digest).to_owned()).collect(),
            ..ImageSummary::default()
        }
    }

    #[test]
    fn an_image_is_present_under_its_id_and_its_digests() {
        let mut index = Index::default();
        index.replace(vec![
            summary("old", 1, &["r/x@sha256:d"]),
            summary("new", 2, &["<none>@<none>"]),
        ]);
        assert_eq!(*index.present(), ["sha256:new", "sha256:d", "sha256:old"]);
        assert_eq!(index.use_digest("sha256:d").as_deref(), Some("sha256:old"));
        index.add("sha256:e", "sha256:other");
        assert_eq!(
            *index.present(),
            [
                "sha256:e",
                "sha256:other",
                "sha256:d",
                "sha256:old",
                "sha256:new"
            ]
        );
        index.remove("sha256:old");
        assert_eq!(index.use_digest("sha256:d"), None);
    }
}
