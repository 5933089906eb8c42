//! The settings table of the documentation, written from the sections themselves.

use std::fmt::Write;

use super::Settings;
use super::field::{Field, Kind, Setting};
use super::load::VARIABLE_PREFIX;

/// Returns the page with all settings: key, variable, default, and what it is.
pub fn table() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         This page is generated from the code. Each setting can stand in the TOML file of `hearth node`, in an environment variable,\n\
         or in a flag where there is one; a flag beats the environment, which beats the file. Unknown keys are refused.\n\
         `hearth settings` prints those in effect. A list in a variable is `a,b` or `[\"a\", \"b\"]`.\n",
    );
    let defaults = toml::Table::try_from(Settings::default())
        .expect("settings are tables of texts, numbers and lists");
    let Kind::Section(sections) = Settings::KIND else {
        return page;
    };
    for section in sections {
        let _ = write!(
            page,
            "\n## [{}]\n\n{}\n\n",
            section.name,
            section.doc.trim()
        );
        page.push_str("| key | variable | default | what it is |\n|---|---|---|---|\n");
        rows(
            &mut page,
            section.name,
            &section.kind,
            defaults.get(section.name),
        );
    }
    page
}

fn rows(page: &mut String, key: &str, kind: &Kind, default: Option<&toml::Value>) {
    match kind {
        Kind::Section(fields) => {
            for field in *fields {
                let key = format!("{key}.{}", field.name);
                let default = default.and_then(|table| table.get(field.name));
                match &field.kind {
                    Kind::Section(_) | Kind::Map(_) => rows(page, &key, &field.kind, default),
                    _ => {
                        row(page, &key, &variable(&key), field, default);
                        rows(page, &key, &field.kind, None);
                    }
                }
            }
        }
        // The items of a list have no variables of their own.
        Kind::Sections(fields) => {
            for field in *fields {
                let of_item = format!("{key}[].{}", field.name);
                row(page, &of_item, &variable(key), field, None);
            }
        }
        Kind::Map(kind) => rows(page, &format!("{key}.<HOST>"), kind, None),
        _ => {}
    }
}

fn row(page: &mut String, key: &str, variable: &str, field: &Field, default: Option<&toml::Value>) {
    let default = shown(default, &field.kind);
    let doc = field.doc.trim().replace('|', "\\|");
    let _ = writeln!(page, "| `{key}` | `{variable}` | {default} | {doc} |");
}

fn variable(key: &str) -> String {
    format!(
        "{VARIABLE_PREFIX}{}",
        key.to_ascii_uppercase().replace('.', "__")
    )
}

fn shown(default: Option<&toml::Value>, kind: &Kind) -> String {
    match (default, kind) {
        (None, _) => "none".into(),
        (Some(toml::Value::Array(items)), _) if items.is_empty() => "none".into(),
        (Some(toml::Value::String(text)), _) => format!("`{text}`"),
        (Some(value), _) => format!("`{value}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page in the documentation is this table; `HEARTH_REGENERATE=1` writes it anew.
    #[test]
    fn the_documentation_has_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
        if std::env::var_os("HEARTH_REGENERATE").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).unwrap();
            std::fs::write(path, table()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == table(),
            "docs/settings.md is old: run this test with HEARTH_REGENERATE=1"
        );
    }

    #[test]
    fn every_setting_is_described() {
        for line in table().lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line.split(" | ").collect();
            assert!(
                cells.len() == 4 && cells[3].trim_end_matches(" |").ends_with('.'),
                "{line}"
            );
        }
    }
}
