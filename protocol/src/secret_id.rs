//! What names a cluster secret without telling it.

use sha2::{Digest, Sha256};

/// How many hex digits a name has: enough that no two secrets of a cluster share one.
const DIGITS: usize = 16;

/// Names a cluster secret: the first 16 hex digits of a SHA-256 over the cluster's id and the secret, without the white space around it. Who
/// reads it can not get back to a secret that nobody can guess.
pub fn secret_id(cluster_id: &str, secret: &[u8]) -> String {
    let mut hash = Sha256::new_with_prefix(b"hearth cluster secret id\0");
    hash.update((cluster_id.len() as u64).to_be_bytes());
    hash.update(cluster_id);
    hash.update(secret.trim_ascii());
    let mut id = hex::encode(hash.finalize());
    id.truncate(DIGITS);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_follows_from_cluster_and_secret_and_from_nothing_around_it() {
        let id = secret_id("hearth", b"one secret");
        assert_eq!(id.len(), DIGITS);
        assert_eq!(id, secret_id("hearth", b" one secret\n"));
        assert_ne!(id, secret_id("hearth", b"one secrets"));
        assert_ne!(id, secret_id("hearth1", b"one secret"));
        // What older nodes said stays true.
        assert_eq!(secret_id("", b""), "122f5bb36273227d");
    }
}
