//! `hearth build`: the image of a function's directory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use crate::console::Console;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::options::{self, Options};

const EXAMPLES: &str = "\
Examples:
  hearth build
  # For a cluster: nodes get the image from the registry.
  hearth build --push registry.example.com/team/hello
  # The image's name is all that goes to standard output.
  hearth function register hello --image \"$(hearth build)\"

The image is built by docker, or by podman where there is no docker. It is named hearth/NAME, with its content's hash as tag.

Exit codes:
  0 built, 1 the build failed, 64 bad usage or hearth.toml, 69 there is no container engine";

/// Arguments of `hearth build`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct BuildArgs {
    #[command(flatten)]
    pub(crate) source: Source,

    #[command(flatten)]
    pub(crate) how: How,
}

/// The function's directory.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// The function's directory, which has a hearth.toml
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,

    /// How long a build, or a push, may take
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = options::duration)]
    pub(crate) build_timeout: Duration,
}

/// How images are built.
#[derive(Debug, Clone, Args)]
pub(crate) struct How {
    /// The program that builds images [default: docker, or podman where there is no docker]
    #[arg(
        long,
        value_name = "PROGRAM",
        env = "HEARTH_ENGINE",
        hide_env_values = true
    )]
    engine: Option<OsString>,

    /// Push the image to a registry under this name, so that every node can have it
    #[arg(long, value_name = "REGISTRY/NAME")]
    push: Option<String>,
}

/// Builds the image and prints its name.
///
/// # Errors
/// When there is no engine, or the build fails.
pub(crate) async fn run(
    options: &Options,
    args: &BuildArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let manifest = Manifest::read(&args.source.dir, console)?;
    let image = image(&manifest, &args.source, &args.how, console).await?;
    if options.json {
        let built = serde_json::json!({ "image": image });
        return Ok(console.json(&built.to_string())?);
    }
    Ok(console.text(&image)?)
}

/// Builds the image, pushes it if that is asked for, and returns the name that nodes find it by.
///
/// # Errors
/// When there is no engine, the build fails, or the registry does not take the image.
pub(crate) async fn image(
    manifest: &Manifest,
    source: &Source,
    how: &How,
    console: &mut Console<'_>,
) -> Result<String, Failure> {
    let name = manifest.image_name()?;
    let engine = Engine::find(how.engine.as_deref()).await?;
    let began = Instant::now();
    let limit = source.build_timeout;
    let image = engine
        .build(&manifest.dir, manifest.dockerfile(), &name, limit)
        .await?;
    writeln!(console.err, "built {image} in {:.1?}", began.elapsed())?;
    let Some(target) = &how.push else {
        return Ok(image);
    };
    let tag = image.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let pushed = format!("{target}:{tag}");
    engine.tag(&image, &pushed).await?;
    engine.push(&pushed, limit).await?;
    writeln!(console.err, "pushed {pushed}")?;
    Ok(pushed)
}
