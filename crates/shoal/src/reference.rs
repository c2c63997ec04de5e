//! Writes `docs/cli.md` from the command tree and the JSON contract, and checks that it is fresh.
//!
//! `UPDATE_DOCS=1 cargo test -p shoal reference` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::cli::Cli;

const HEAD: &str = "\
# The command line

Made from the program itself; do not edit. `UPDATE_DOCS=1 cargo test -p shoal reference` writes it
anew.

Results go to stdout, everything else to stderr. Bars are drawn only on a terminal; elsewhere `-v`
prints a plain line now and then. `NO_COLOR` is honoured. A reader that closes stdout early is no
error.

| exit code | means |
|---|---|
| 0 | done as asked |
| 1 | failed; the message says why |
| 2 | wrong command line |
| 3 | what was named does not exist |
| 4 | nobody reachable, or timed out |
| 5 | refused by the other side |
| 130 | ended by ctrl-C or SIGTERM; what was fetched is kept (a second signal ends at once) |
";

#[test]
fn the_reference_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let fresh = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let folder = path.parent().expect("it lies in docs");
        std::fs::create_dir_all(folder).expect("docs can be made");
        std::fs::write(&path, &fresh).expect("it can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == fresh,
        "docs/cli.md is stale; run: UPDATE_DOCS=1 cargo test -p shoal reference"
    );
}

fn reference() -> String {
    let mut root = Cli::command();
    root.build();
    let mut out = HEAD.to_owned();
    let _ = write!(out, "\n## Global options\n\n");
    let globals = root.get_arguments().filter(|a| a.is_global_set());
    options(&mut out, globals);
    commands(&mut out, &root, "shoal");
    events(&mut out);
    out
}

fn commands(out: &mut String, command: &Command, path: &str) {
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        if sub.get_subcommands().any(|c| c.get_name() != "help") {
            commands(out, sub, &path);
        } else {
            leaf(out, sub, &path);
        }
    }
}

fn leaf(out: &mut String, command: &Command, path: &str) {
    let about = command.get_long_about().or(command.get_about());
    let _ = write!(out, "\n## `{path}`\n\n{}\n\n", plain(about));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let _ = write!(out, "```\n{usage}\n```\n");
    let own = || {
        command
            .get_arguments()
            .filter(|a| !a.is_global_set() && !a.is_hide_set() && a.get_id() != "help")
    };
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in own() {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            let _ = write!(out, "\n{heading}:\n");
        }
        out.push('\n');
        options(out, own().filter(|a| a.get_help_heading() == heading));
    }
    let examples = command.get_after_long_help().map(ToString::to_string);
    if let Some(examples) = examples {
        let examples = examples.trim_start_matches("Examples:").trim_end();
        let _ = write!(out, "\nExamples:\n\n```sh");
        for line in examples.lines() {
            let line = line.trim_start();
            let _ = match line.split_once("   ") {
                Some((command, does)) => writeln!(out, "{command}  # {}", does.trim_start()),
                None => writeln!(out, "{line}"),
            };
        }
        out.push_str("```\n");
    }
}

fn options<'a>(out: &mut String, args: impl Iterator<Item = &'a Arg>) {
    out.push_str("| option | does |\n|---|---|\n");
    for arg in args {
        let mut name = String::new();
        if let Some(short) = arg.get_short() {
            let _ = write!(name, "-{short}, ");
        }
        let values = arg.get_value_names().unwrap_or_default();
        let value = values.first().map(ToString::to_string).unwrap_or_default();
        match arg.get_long() {
            Some(long) => {
                let _ = write!(name, "--{long}");
                if matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
                    let _ = match arg.is_require_equals_set() {
                        true => write!(name, "[={value}]"),
                        false => write!(name, " {value}"),
                    };
                }
            }
            None => name.push_str(&value),
        }
        let mut does = plain(arg.get_long_help().or(arg.get_help()));
        let defaults: Vec<_> = arg
            .get_default_values()
            .iter()
            .map(|v| v.to_string_lossy())
            .collect();
        if !defaults.is_empty() && arg.get_action().takes_values() {
            let _ = write!(does, " (default: {})", defaults.join(", "));
        }
        if let Some(env) = arg.get_env() {
            let _ = write!(does, " (environment: {})", env.to_string_lossy());
        }
        let _ = writeln!(out, "| `{name}` | {} |", does.replace('|', "\\|"));
    }
}

fn plain(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.trim().to_owned()
}

/// The events of `report.rs` and its folder, told in its own doc comments.
fn events(out: &mut String) {
    out.push_str(
        "\n## JSON events\n\nWith `--json` every line of stdout is one object, told apart by \
         `event`. Sizes are bytes, rates bytes\nper second, times seconds. New fields and events \
         may come; names never change. `torrent show` prints one\nobject whose `event` is \
         `torrent` or `magnet`, `sim` one whose `event` is `simulated`.\n",
    );
    events_of(include_str!("report.rs"), "enum Report<'a> {\n", out);
    events_of(
        include_str!("report/files.rs"),
        "enum FileReport<'a> {\n",
        out,
    );
    events_of(include_str!("report/turn.rs"), "enum RelayReport {\n", out);
    events_of(include_str!("report/call.rs"), "enum CallReport {\n", out);
}

fn events_of(source: &str, begin: &str, out: &mut String) {
    let (_, body) = source.split_once(begin).expect("the enum is there");
    let (body, _) = body.split_once("\n}\n").expect("it ends");
    let mut doc = String::new();
    for line in body.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("/// ") {
            if !doc.is_empty() {
                doc.push(' ');
            }
            doc.push_str(text);
        } else if let Some(variant) = line.strip_suffix(" {") {
            let _ = write!(
                out,
                "\n### `{}`\n\n{doc}\n\n| field | is |\n|---|---|\n",
                snake(variant)
            );
            doc.clear();
        } else if let Some((field, kind)) = line.split_once(": ") {
            let null = if kind.starts_with("Option") {
                " (or null)"
            } else {
                ""
            };
            let _ = writeln!(out, "| `{field}` | {}{null} |", doc.trim_end_matches('.'));
            doc.clear();
        }
    }
}

fn snake(variant: &str) -> String {
    let mut out = String::new();
    for c in variant.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
