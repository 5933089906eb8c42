//! How a section is declared: once, with its fields' types, defaults and texts, from which the loader, the error messages and the
//! settings table of the documentation are all derived.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::Secret;

/// One setting of a section.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name within the section.
    pub(super) name: &'static str,
    /// What it is: the field's doc comment.
    pub(super) doc: &'static str,
    /// What its value looks like.
    pub(super) kind: Kind,
}

/// What a setting's value looks like.
#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Path,
    Secret,
    Bool,
    Whole,
    Number,
    Duration,
    Size,
    Address,
    Choice(&'static [&'static str]),
    List,
    /// A table whose keys are the user's, such as host names.
    Map(&'static Kind),
    Section(&'static [Field]),
    /// A list of tables.
    Sections(&'static [Field]),
    /// A table that is the user's altogether.
    Free,
}

impl Kind {
    /// What a right value is, in words for people.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Text | Self::Secret => "a text".into(),
            Self::Path => "a path".into(),
            Self::Bool => "true or false".into(),
            Self::Whole => "a whole number, zero or more".into(),
            Self::Number => "a number such as 0.5".into(),
            Self::Duration => "a duration such as 250ms".into(),
            Self::Size => "a size such as 6MiB".into(),
            Self::Address => "an address such as 127.0.0.1:3000".into(),
            Self::Choice(names) => format!("one of: {}", names.join(", ")),
            Self::List => "a list of texts such as [\"a\", \"b\"]".into(),
            Self::Map(_) | Self::Free => "a table".into(),
            Self::Section(fields) => format!("a table with the keys {}", names(fields)),
            Self::Sections(fields) => {
                format!("a list of tables with the keys {}", names(fields))
            }
        }
    }

    /// The kind of what stands under a key of this table.
    pub(super) fn under(&self, name: &str) -> Option<&Kind> {
        match self {
            Self::Section(fields) => fields
                .iter()
                .find(|field| field.name == name)
                .map(|field| &field.kind),
            Self::Map(kind) => Some(kind),
            _ => None,
        }
    }
}

/// The names of fields, for a message.
pub(super) fn names(fields: &[Field]) -> String {
    fields
        .iter()
        .map(|field| field.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A type that a setting may have.
pub(super) trait Setting {
    const KIND: Kind;
}

macro_rules! kinds {
    ($($kind:ident: $($type:ty),+;)+) => {
        $($(impl Setting for $type { const KIND: Kind = Kind::$kind; })+)+
    };
}

kinds! {
    Text: String;
    Path: PathBuf;
    Secret: Secret;
    Bool: bool;
    Whole: usize, u16, u32, i64;
    Number: f64;
    Duration: Duration;
    Size: ByteSize;
    Address: SocketAddr;
    List: Vec<String>;
}

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;
}

impl<T: Setting> Setting for BTreeMap<String, T> {
    const KIND: Kind = Kind::Map(&T::KIND);
}

/// Declares a section: the struct, its defaults, and the description of its fields.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                pub $field:ident: $type:ty = $default:expr,
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::settings::field::Setting for $name {
            const KIND: $crate::settings::field::Kind = $crate::settings::field::Kind::Section(&[
                $($crate::settings::field::Field {
                    name: stringify!($field),
                    doc: concat!($($doc),*),
                    kind: <$type as $crate::settings::field::Setting>::KIND,
                },)*
            ]);
        }
    };
}

pub(super) use section;

/// Sizes as text that reads back to the very same number; the type's own text is rounded.
pub(super) mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer};

    /// The size in the largest unit that divides it.
    pub(in crate::settings) fn text(size: ByteSize) -> String {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        units
            .iter()
            .find(|(_, bits)| size.0 > 0 && size.0.trailing_zeros() >= *bits)
            .map_or_else(
                || format!("{}B", size.0),
                |(unit, bits)| format!("{}{unit}", size.0 >> bits),
            )
    }

    pub(in crate::settings) fn serialize<S: Serializer>(
        size: &ByteSize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*size))
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ByteSize, D::Error> {
        ByteSize::deserialize(deserializer)
    }

    /// The same for a size that may be left out.
    pub(in crate::settings) mod option {
        use bytesize::ByteSize;
        use serde::{Deserialize, Deserializer, Serializer};

        pub(in crate::settings) fn serialize<S: Serializer>(
            size: &Option<ByteSize>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match size {
                Some(size) => super::serialize(size, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<ByteSize>, D::Error> {
            Option::deserialize(deserializer)
        }
    }
}
