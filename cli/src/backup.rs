//! `hearth export` and `hearth import`: the whole configuration of a cluster as one document.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::options::Options;

/// Arguments of `hearth export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Where to write it, for its owner's eyes only; standard output without
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Arguments of `hearth import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// What `hearth export` wrote; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Writes the configuration.
///
/// # Errors
/// When the node does not give it, or it can not be written.
pub(crate) async fn export(
    options: &Options,
    args: &ExportArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let answer = Api::config(options)?
        .call(Call::get(&["v1", "export"]))
        .await?
        .accept()?;
    let Some(file) = &args.out else {
        return Ok(console.json(&answer.text())?);
    };
    let shown = file.display();
    let write = || {
        let mut made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        made.write_all(answer.text().as_bytes())?;
        made.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        Failure::new(Exit::Failed, format!("cannot write {shown}: {error}"))
    })?;
    Ok(console.text(&format!("the configuration is in {shown}"))?)
}

#[derive(Deserialize)]
struct Imported {
    imported: usize,
}

/// Reads a configuration into a cluster that has none.
///
/// # Errors
/// When the file can not be read, or the node refuses it.
pub(crate) async fn import(
    options: &Options,
    args: &ImportArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let document = console.read(&args.file)?;
    let call = Call::new(Method::POST, &["v1", "import"], Some(document));
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Imported { imported } = answer.json()?;
    Ok(console.text(&format!("imported {imported} records"))?)
}
