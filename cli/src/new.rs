//! `hearth new`: a directory with a function that runs, its test and its Dockerfile.

use std::fs;
use std::io;
use std::path::Path;

use clap::Args;
use protocol::FunctionId;

use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::options::Options;
use crate::template::Language;

const EXAMPLES: &str = "\
Examples:
  hearth new --lang python hello
  cd hello
  # With a container engine, or without one on a node of this machine.
  hearth up
  hearth up --process

Exit codes:
  0 made, 1 it could not be written, 64 bad usage, or there is such a directory";

/// Arguments of `hearth new`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct NewArgs {
    /// The language it is written in
    #[arg(long, value_name = "LANGUAGE", value_enum)]
    lang: Language,

    /// The function's id, and the directory that is made: letters, digits, `.`, `-` and `_`
    #[arg(value_name = "NAME", value_parser = crate::function::function_id)]
    name: FunctionId,
}

/// Makes the directory and says what comes next.
///
/// # Errors
/// When there is something of that name, or a file can not be written; nothing is left then.
pub(crate) fn run(
    options: &Options,
    args: &NewArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    make(Path::new(""), args)?;
    if options.json {
        let made = serde_json::json!({ "functionId": args.name, "directory": args.name });
        return Ok(console.json(&made.to_string())?);
    }
    let files: Vec<_> = args.lang.files().iter().map(|file| file.path).collect();
    let (name, test) = (&args.name, args.lang.test());
    let width = test.len().max("hearth up --process".len());
    console.text(&format!(
        "made {name}/ with {files}; your code goes into {code}\n\
         next:\n  \
         cd {name}\n  \
         {test:width$}  # runs its test\n  \
         {up:width$}  # builds its image, registers it and invokes it\n  \
         {process:width$}  # the same without a container engine, as a command of this machine",
        files = files.join(", "),
        code = args.lang.code(),
        up = "hearth up",
        process = "hearth up --process",
    ))?;
    Ok(())
}

/// Makes the function's directory below `parent`, whole or not at all.
fn make(parent: &Path, args: &NewArgs) -> Result<(), Failure> {
    let dir = parent.join(args.name.as_str());
    let shown = dir.display().to_string();
    fs::create_dir(&dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format!(
            "NAME is {shown}, and there is such a file or directory already; expected a new one"
        )),
        _ => unwritten(&shown, &error),
    })?;
    let written = args.lang.files().iter().try_for_each(|file| {
        let path = dir.join(file.path);
        let folder = path.parent().unwrap_or(&dir);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, file.render(&args.name)))
            .map_err(|error| unwritten(&path.display().to_string(), &error))
    });
    if written.is_err() {
        // It is ours, made a moment ago; half a function would only be in the way of the next try.
        let _ = fs::remove_dir_all(&dir);
    }
    written
}

fn unwritten(path: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot make {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(lang: Language, name: &str) -> NewArgs {
        let name = name.parse().unwrap();
        NewArgs { lang, name }
    }

    #[test]
    fn every_file_is_made() {
        let parent = tempfile::tempdir().unwrap();
        for (lang, name) in [
            (Language::Rust, "in.rust"),
            (Language::Python, "python"),
            (Language::Node, "Node"),
            (Language::Go, "go_1"),
        ] {
            make(parent.path(), &args(lang, name)).unwrap();
            let dir = parent.path().join(name);
            for file in lang.files() {
                let text = fs::read_to_string(dir.join(file.path)).unwrap();
                assert!(!text.is_empty(), "{lang:?} {}", file.path);
            }
            let manifest = fs::read_to_string(dir.join("hearth.toml")).unwrap();
            assert!(manifest.contains(&format!("functionId = \"{name}\"")));
        }
    }

    #[test]
    fn what_is_there_already_stays_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("hello"), "mine").unwrap();
        let failure = make(parent.path(), &args(Language::Go, "hello")).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let message = &failure.message;
        assert!(message.starts_with("NAME is "), "{message}");
        assert!(message.contains("expected a new one"), "{message}");
        let kept = fs::read_to_string(parent.path().join("hello")).unwrap();
        assert_eq!(kept, "mine");
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let nowhere = parent.path().join("nowhere");
        let failure = make(&nowhere, &args(Language::Node, "hello")).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.message.contains("nowhere/hello"), "{failure}");
    }
}
