//! What is done in one way to the records of a space, of whatever kind: they are listed, printed and deleted.

use serde_json::Value;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::table::table;

/// How records of one kind are listed.
pub(crate) struct List<'a, const N: usize> {
    /// Where they are.
    pub(crate) path: &'a [&'a str],
    /// The member of the answer that has them.
    pub(crate) member: &'static str,
    /// What is said when there are none.
    pub(crate) none: String,
    /// The names of the columns.
    pub(crate) heading: [&'static str; N],
    /// The columns of a record, also of one that this version does not know.
    pub(crate) row: fn(&Value) -> [String; N],
}

impl<const N: usize> List<'_, N> {
    /// Prints a line for each, in the order of the lines.
    ///
    /// # Errors
    /// When the node can not be asked, or its answer not be printed.
    pub(crate) async fn print(
        self,
        options: &Options,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let call = Call::get(self.path);
        let answer = Api::config(options)?.call(call).await?.accept()?;
        if options.json {
            return Ok(console.json(&answer.text())?);
        }
        let records = answer.list(self.member)?;
        if records.is_empty() {
            writeln!(console.err, "{}", self.none)?;
            return Ok(());
        }
        let mut rows: Vec<_> = records.iter().map(self.row).collect();
        rows.sort();
        Ok(console.text(&table(self.heading, rows))?)
    }
}

/// Prints what a call is answered with, as JSON.
///
/// # Errors
/// When the node can not be asked, or refuses.
pub(crate) async fn get(
    options: &Options,
    call: Call<'_>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let answer = Api::config(options)?.call(call).await?.accept()?;
    Ok(console.json(&answer.text())?)
}

/// Deletes the record with this id, and says so.
///
/// # Errors
/// When the node can not be asked, or refuses.
pub(crate) async fn delete(
    options: &Options,
    call: Call<'_>,
    id: &str,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let answer = Api::config(options)?.call(call).await?.accept()?;
    let shown = if options.json {
        answer.text()
    } else {
        format!("deleted {id} from space {}", options.space)
    };
    Ok(console.text(&shown)?)
}

/// A text of a record; nothing where it is none.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
