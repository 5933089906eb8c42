//! The help of the whole command as one Markdown page, so that a test can hold the page to what `--help` prints.

use std::fmt::Write;

/// Columns of the generated help, whatever the terminal of whoever generates it.
const WIDTH: usize = 100;

/// Returns a Markdown page with the help of the command and of each subcommand that is not hidden.
///
/// Options that every subcommand takes stand once, with the command itself.
pub fn markdown_help(command: clap::Command) -> String {
    let mut command = command.term_width(WIDTH);
    command.build();
    let mut page = format!("# The command line: `{}`\n", command.get_name());
    page.push_str("\nGenerated from the command's own help; a test compares the two.\n");
    page.push_str("The options for calling the API are shown once, in the first section.\n");
    add(&mut page, &command, "");
    page
}

fn add(page: &mut String, command: &clap::Command, parent: &str) {
    let path = format!("{parent}{}", command.get_name());
    let is_root = parent.is_empty();
    let mut shown = command.clone().mut_args(|arg| {
        let is_hidden = arg.is_hide_set() || (arg.is_global_set() && !is_root);
        arg.hide(is_hidden)
    });
    let help = shown.render_long_help().to_string();
    write!(page, "\n## {path}\n\n```text\n").expect("a String takes all that is written to it");
    for line in help.trim_end().lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page.push_str("```\n");
    let parent = format!("{path} ");
    for subcommand in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        add(page, subcommand, &parent);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::testing::Hearth;

    #[test]
    fn every_subcommand_has_its_section_and_hidden_ones_have_none() {
        let command = Hearth::command().subcommand(clap::Command::new("instance-guard").hide(true));
        let page = markdown_help(command);
        for path in [
            "hearth",
            "hearth function",
            "hearth function register",
            "hearth function list",
            "hearth function get",
            "hearth function delete",
            "hearth function invoke",
            "hearth function logs",
            "hearth execution wait",
            "hearth cluster",
            "hearth ready",
        ] {
            assert!(page.contains(&format!("\n## {path}\n")), "{path}");
        }
        assert!(!page.contains("instance-guard"));
        assert!(!page.contains("## hearth help"));
        assert!(
            page.contains("Usage: hearth function invoke [OPTIONS] <ID>"),
            "{page}"
        );
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_or_ends_in_space() {
        for line in markdown_help(Hearth::command()).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn the_values_of_the_environment_are_not_in_the_help() {
        let page = markdown_help(Hearth::command());
        assert!(page.contains("[env: HEARTH_API]"), "{page}");
        assert_eq!(page.matches("--functions-api <URL>").count(), 1, "{page}");
    }
}
