//! The files that `hearth new` makes, by language: they are in the program, under their names in `cli/templates`.

use clap::ValueEnum;
use protocol::FunctionId;

/// A language that there is a template for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// A static program; its image holds nothing else
    Rust,
    /// The standard library's HTTP server
    Python,
    /// Node.js, with its own HTTP server and test runner
    Node,
    /// The standard library; its image holds the program alone
    Go,
}

/// A file of a template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    /// Where it is made, below the function's directory.
    pub(crate) path: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($language:literal: $($path:literal from $source:literal),+ $(,)?) => {
        &[$(File {
            path: $path,
            text: include_str!(concat!("../templates/", $language, "/", $source)),
        }),+]
    };
}

// A file that tools would take for their own while it lies in this repository has another name there. The server of Rust is that of the examples.
const RUST: &[File] = files!("rust":
    "hearth.toml" from "hearth.toml",
    "src/main.rs" from "src/main.rs",
    "src/http.rs" from "../../../examples/hello/src/http.rs",
    "Cargo.toml" from "Cargo.toml.template",
    "Cargo.lock" from "Cargo.lock.template",
    "Dockerfile" from "Dockerfile",
    ".dockerignore" from "dockerignore",
    ".gitignore" from "gitignore",
    "README.md" from "README.md",
);
const PYTHON: &[File] = files!("python":
    "hearth.toml" from "hearth.toml",
    "main.py" from "main.py",
    "test_main.py" from "test_main.py",
    "Dockerfile" from "Dockerfile",
    ".dockerignore" from "dockerignore",
    ".gitignore" from "gitignore",
    "README.md" from "README.md",
);
const NODE: &[File] = files!("node":
    "hearth.toml" from "hearth.toml",
    "main.js" from "main.js",
    "server.js" from "server.js",
    "server.test.js" from "server.test.js",
    "package.json" from "package.json.template",
    "Dockerfile" from "Dockerfile",
    ".dockerignore" from "dockerignore",
    ".gitignore" from "gitignore",
    "README.md" from "README.md",
);
const GO: &[File] = files!("go":
    "hearth.toml" from "hearth.toml",
    "main.go" from "main.go",
    "main_test.go" from "main_test.go",
    "go.mod" from "go.mod.template",
    "Dockerfile" from "Dockerfile",
    ".dockerignore" from "dockerignore",
    ".gitignore" from "gitignore",
    "README.md" from "README.md",
);

impl Language {
    /// The files of its template.
    pub(crate) fn files(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::Python => PYTHON,
            Self::Node => NODE,
            Self::Go => GO,
        }
    }

    /// The command that runs the template's own test.
    pub(crate) fn test(self) -> &'static str {
        match self {
            Self::Rust => "cargo test",
            Self::Python => "python3 -m unittest",
            Self::Node => "node --test",
            Self::Go => "go test",
        }
    }

    /// The file in which the user's code begins.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Rust => "src/main.rs",
            Self::Python => "main.py",
            Self::Node => "server.js",
            Self::Go => "main.go",
        }
    }
}

impl File {
    /// The file's text for a function of this id.
    pub(crate) fn render(&self, id: &FunctionId) -> String {
        self.text
            .replace("{{name}}", id.as_str())
            .replace("{{package}}", &package(id))
    }
}

/// The function's id as a name that Cargo, npm and Go all take for a package: lower case, and a letter first.
fn package(id: &FunctionId) -> String {
    let name = id.as_str().to_ascii_lowercase().replace('.', "-");
    match name.starts_with(|first: char| first.is_ascii_lowercase()) {
        true => name,
        false => format!("fn-{}", name.trim_start_matches(['-', '_'])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_as_their_tools_want() {
        let check = |id: &str, expected: &str| {
            assert_eq!(package(&id.parse().unwrap()), expected, "{id}");
        };
        check("hello", "hello");
        check("send-mail_2", "send-mail_2");
        check("Shop.Orders", "shop-orders");
        check("2fast", "fn-2fast");
        check("_x", "fn-x");
        check("...", "fn-");
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        let id = "hello".parse().unwrap();
        for language in Language::value_variants() {
            for file in language.files() {
                let text = file.render(&id);
                for name in ["{{name}}", "{{package}}"] {
                    assert!(!text.contains(name), "{language:?} {}: {text}", file.path);
                }
                assert!(text.ends_with('\n'), "{language:?} {}", file.path);
            }
        }
    }

    #[test]
    fn each_has_what_every_function_has() {
        for language in Language::value_variants() {
            let has = |path: &str| language.files().iter().any(|file| file.path == path);
            for path in [
                "hearth.toml",
                "Dockerfile",
                ".dockerignore",
                ".gitignore",
                "README.md",
                language.code(),
            ] {
                assert!(has(path), "{language:?} has no {path}");
            }
        }
    }

    /// No Go is installed where these tests run: what `go` would complain of first.
    #[test]
    fn the_module_of_go_is_well_formed() {
        let id = "2Fast.Mail".parse().unwrap();
        let rendered = |path: &str| {
            let file = GO.iter().find(|file| file.path == path);
            file.unwrap().render(&id)
        };
        // Patterns with a method are those of 1.22, the least that the module asks for.
        assert_eq!(
            rendered("go.mod"),
            "module example.com/fn-2fast-mail\n\ngo 1.22\n"
        );
        for path in ["main.go", "main_test.go"] {
            let text = rendered(path);
            let code = text.lines().find(|line| !line.starts_with("//"));
            assert_eq!(code, Some("package main"), "{path}");
            let count = |bracket: char| text.matches(bracket).count();
            assert_eq!(count('('), count(')'), "{path}");
            // As gofmt indents.
            assert!(!text.lines().any(|line| line.starts_with(' ')), "{path}");
        }
    }

    /// Images run as nobody, and say which port they listen on.
    #[test]
    fn images_do_not_run_as_root() {
        for language in Language::value_variants() {
            let dockerfile = language.files().iter().find(|it| it.path == "Dockerfile");
            let text = dockerfile.unwrap().text;
            let last = text.rsplit("FROM ").next().unwrap();
            assert!(last.contains("\nUSER 65532:65532\n"), "{language:?}");
            assert!(last.contains("\nEXPOSE 8080\n"), "{language:?}");
        }
    }
}
