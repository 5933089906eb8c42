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

/// The first 12 characters of a container's id, as engines show them; ids of other instances are short and stay whole.
pub(crate) fn short_id(id: &str) -> &str {
    let is_container = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_container { &id[..12] } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_containers_are_cut() {
        assert_eq!(short_id(&"0123456789abcdef".repeat(4)), "0123456789ab");
        assert_eq!(
            short_id("process-1795317267278-0"),
            "process-1795317267278-0"
        );
        assert_eq!(short_id(&"ü".repeat(32)), "ü".repeat(32));
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
