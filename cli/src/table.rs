//! Tables for humans: aligned columns under a heading, nothing drawn, so that `awk` reads them too.

use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

/// Lays out rows under a heading, columns two spaces apart and no space at a line's end.
pub(crate) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut builder = Builder::default();
    builder.push_record(heading);
    for row in rows {
        builder.push_record(row.map(|cell| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        }));
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    table
        .to_string()
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first 12 characters, as container engines show their ids.
pub(crate) fn short_id(id: &str) -> &str {
    id.char_indices().nth(12).map_or(id, |(end, _)| &id[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_cut_between_characters() {
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("short"), "short");
        assert_eq!(short_id("üüüüüüüüüüüüüü"), "üüüüüüüüüüüü");
    }

    #[test]
    fn columns_are_aligned_and_an_empty_cell_is_a_dash() {
        let rows = [
            ["a".into(), String::new()],
            ["long name".into(), "2".into()],
        ];
        assert_eq!(
            table(["NAME", "COUNT"], rows),
            "NAME       COUNT\na          -\nlong name  2"
        );
    }
}
