//! A value in the open, for as long as it has to be.

use std::fmt;

use zeroize::Zeroizing;

/// A value that was opened, or is to be sealed. Never shown, and overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Plain(Zeroizing<Vec<u8>>);

impl Plain {
    /// The bytes of the value.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Plain {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_not_shown() {
        let plain = Plain::from(b"a secret".to_vec());
        assert_eq!(
            format!("{plain:?} {:?}", Some(&plain)),
            "<redacted> Some(<redacted>)"
        );
        assert_eq!(plain.expose(), b"a secret");
    }
}
