//! Holds the documentation to what is built: the page of the command line, links, commands, and the tests that promises name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use node::args::Arguments;
use node::telemetry::meters::{METERS, Meter};

/// Set to write the generated page instead of comparing it.
const REGENERATE: &str = "HEARTH_REGENERATE";

/// What plugins export: names like those of metrics that are none.
const EXPORTS_OF_PLUGINS: [&str; 3] = ["hearth_alloc", "hearth_handle", "hearth_hooks"];

#[test]
fn the_page_of_the_command_line_is_what_help_prints() {
    let path = root().join("docs/cli.md");
    let expected = cli::markdown_help(Arguments::command());
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let is_same = read(&path) == expected;
    assert!(
        is_same,
        "docs/cli.md is not what the help prints: run this test with {REGENERATE}=1"
    );
}

/// docs/operations.md has the flags of the Event Gateway as the code has them.
#[test]
fn the_flags_of_the_original_are_those_of_the_code() {
    let path = root().join("docs/operations.md");
    let mut page = read(&path);
    let table = node::args::original::table();
    let head = table.lines().next().unwrap();
    let begin = page.find(head).unwrap();
    let end = begin + page[begin..].find("\n\n").unwrap() + 1;
    if std::env::var_os(REGENERATE).is_some() {
        page.replace_range(begin..end, &table);
        std::fs::write(&path, &page).unwrap();
    } else {
        assert_eq!(
            page[begin..end],
            table,
            "the table is another one: run this test with {REGENERATE}=1"
        );
    }
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in links(&read(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let is_there = target.exists()
                && (fragment.is_empty() || anchors(&read(&target)).contains(fragment));
            if !is_there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
}

/// In docs/guarantees.md a line "- `path/file.rs`: `name`, `name`" says which tests hold a promise; in docs/event-gateway.md the last
/// cell of a row says it of a rule, with a semicolon between files.
#[test]
fn every_promise_and_rule_names_tests_that_exist() {
    for (page, at_least) in [("docs/guarantees.md", 40), ("docs/event-gateway.md", 80)] {
        let text = read(&root().join(page));
        let named: Vec<_> = text.lines().flat_map(named_tests).collect();
        let wrong: Vec<_> = named
            .iter()
            .filter(|(file, name)| !has_test(file, name))
            .collect();
        assert!(
            wrong.is_empty(),
            "{page} names what is not there: {wrong:#?}"
        );
        let count = named.len();
        assert!(
            count > at_least,
            "only {count} tests were found: has {page} another form now?"
        );
    }
}

/// The tests that a line names, each with its file.
fn named_tests(line: &str) -> Vec<(&str, &str)> {
    let cells = line
        .strip_suffix(" |")
        .and_then(|row| row.rsplit_once(" | "));
    let named = match cells {
        Some((_, last)) => last,
        None if line.starts_with("- `") => line,
        None => return Vec::new(),
    };
    if !named.contains(".rs`: `") {
        return Vec::new();
    }
    let mut file = "";
    let mut tests = Vec::new();
    for span in named.split('`').skip(1).step_by(2) {
        match span.ends_with(".rs") {
            true => file = span,
            false => tests.push((file, span)),
        }
    }
    tests
}

fn has_test(file: &str, name: &str) -> bool {
    let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
    source.contains(&format!("fn {name}(")) || source.contains(&format!("fn {name}<"))
}

/// Shell blocks are what people copy, so a `hearth` command in them must be one that the binary takes.
#[test]
fn documented_commands_are_taken_by_the_command_line() {
    let mut checked = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        for command in commands(&read(&page)) {
            checked += 1;
            if let Err(error) = Arguments::command().try_get_matches_from(words(&command))
                && error.exit_code() != 0
            {
                wrong.push(format!("{}: {command}\n{error}", page.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "commands that are refused:\n{}",
        wrong.join("\n")
    );
    assert!(checked > 10, "only {checked} commands were found");
}

/// Every metric of the code stands in the list that is registered at the start, and every one of that list is in the code. The
/// page has that list as its table, and names no other.
#[test]
fn every_metric_is_explained() {
    let path = root().join("docs/operations.md");
    let mut page = read(&path);
    let head = "| metric | labels | what it says |\n|---|---|---|\n";
    let begin = page.find(head).unwrap() + head.len();
    let end = begin + page[begin..].find("\n\n").unwrap() + 1;
    let table: String = METERS.iter().map(Meter::row).collect();
    if std::env::var_os(REGENERATE).is_some() {
        page.replace_range(begin..end, &table);
        std::fs::write(&path, &page).unwrap();
    } else {
        assert_eq!(
            page[begin..end],
            table,
            "the table is another one: run this test with {REGENERATE}=1"
        );
    }
    let listed: HashSet<String> = METERS.iter().map(|meter| meter.name.to_owned()).collect();
    let crates = [
        "accounts",
        "actors",
        "cluster",
        "config",
        "gateway",
        "limits",
        "node",
        "plugins",
        "providers",
        "queue",
    ];
    let sources = crates
        .iter()
        .flat_map(|name| files(&root().join(name).join("src"), ".rs"));
    let used: HashSet<String> = sources
        .filter(|source| !source.ends_with("telemetry/meters.rs"))
        .flat_map(|source| names_of_metrics(&read(&source)))
        .collect();
    let missing: Vec<_> = used.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&used).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "node/src/telemetry/meters.rs lacks {missing:?} and has {gone:?} too many"
    );
    let unknown: Vec<_> = names_of_metrics(&page)
        .into_iter()
        .filter(|name| !listed.contains(name))
        .collect();
    assert!(
        unknown.is_empty(),
        "docs/operations.md speaks of {unknown:?}"
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), ".md");
    pages.push(root().join("README.md"));
    pages
}

/// The files below a folder with this ending, build output and hidden folders aside.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// The targets of a page's links; what stands in code blocks is none.
fn links(page: &str) -> Vec<String> {
    let mut is_code = false;
    let mut links = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            let targets = line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split_once(')'));
            links.extend(targets.map(|(target, _)| target.to_owned()));
        }
    }
    links
}

/// What the headings of a page are called in links to them.
fn anchors(page: &str) -> HashSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The `hearth` commands of the `sh` blocks of a page, continued lines joined.
fn commands(page: &str) -> Vec<String> {
    let mut is_shell = false;
    let mut commands = Vec::new();
    let joined = page.replace("\\\n", " ");
    for line in joined.lines().map(str::trim) {
        if let Some(kind) = line.strip_prefix("```") {
            is_shell = !is_shell && kind == "sh";
        } else if is_shell && line.starts_with("hearth ") {
            commands.push(line.to_owned());
        }
    }
    commands
}

/// Splits a command as a shell would, as far as our pages need it: what follows a pipe, a redirection or a `#` is left out.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '|' | '>' | '<' | '&' | ';') => break,
            (None, '#') if word.is_none() => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The names of metrics in a text: quoted ones in code, those in backticks on a page.
fn names_of_metrics(text: &str) -> HashSet<String> {
    let spans = text.split(['"', '`']);
    let is_name = |span: &&str| {
        // Those of Event Gateway keep their names.
        let prefixes = ["hearth_", "gateway_"].into_iter();
        let mut rest = prefixes.filter_map(|prefix| span.strip_prefix(prefix));
        let rest = rest.next().unwrap_or_default();
        let is_plain = rest.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        !rest.is_empty() && is_plain && !EXPORTS_OF_PLUGINS.contains(span)
    };
    spans.filter(is_name).map(str::to_owned).collect()
}
