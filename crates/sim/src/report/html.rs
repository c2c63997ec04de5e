//! The page: one file, light and dark, no script.

use super::{Report, number};
use serde_json::Value;
use std::fmt::Write as _;

const STYLE: &str = "\
:root { --bg: #fdfdfb; --fg: #1f2428; --soft: #667078; --line: #dfe3e6; --good: #1a7f4b; --bad: #c0392b;
  --s0: #0b6fb8; --s1: #c2410c; --s2: #13805a; --s3: #8e44ad; --s4: #a67c00; --s5: #5a6572; }
@media (prefers-color-scheme: dark) { :root { --bg: #16191c; --fg: #e6e8ea; --soft: #98a2ab;
  --line: #30363c; --good: #4cc38a; --bad: #ff7b6b; --s0: #58b0f0; --s1: #f59e5b; --s2: #4cc38a;
  --s3: #c792ea; --s4: #e6c04c; --s5: #a8b3bd; } }
body { background: var(--bg); color: var(--fg); font: 16px/1.5 system-ui, sans-serif;
  max-width: 52rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p { margin: .4rem 0; } .soft, figcaption { color: var(--soft); font-size: .92rem; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: .9rem; }
td.num { text-align: right; } .good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
figure { margin: 1.4rem 0 2rem; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; } svg .title { fill: var(--fg);
  font-size: 15px; font-weight: 600; } svg .legend { fill: var(--fg); }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
";

/// Writes the page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = escape(&report.title);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
    );
    if !report.summary.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escape(&report.summary));
    }
    let _ = writeln!(
        out,
        "<p class=\"soft\"><code>shoal sim {}</code>, seed <code>{}</code>, \
         digest <code>{}</code></p>",
        escape(report.experiment),
        report.seed,
        report.digest
    );
    table(&mut out, report);
    checks(&mut out, report);
    for plot in &report.plots {
        let _ = writeln!(
            out,
            "<figure>{}<figcaption>{}</figcaption></figure>",
            plot.svg(),
            escape(&plot.caption)
        );
    }
    if !report.figures.is_empty() {
        out.push_str("<h2>Measured</h2>\n<table>\n");
        for (name, value) in &report.figures {
            // Lists are for programs; the plots show them.
            if !value.is_array() && !value.is_object() {
                row(&mut out, name, &shown(value));
            }
        }
        out.push_str("</table>\n");
    }
    out.push_str("<h2>Options</h2>\n<table>\n");
    for (name, value) in &report.options {
        row(&mut out, name, value);
    }
    out.push_str("</table>\n</body></html>\n");
    out
}

fn table(out: &mut String, report: &Report) {
    if report.table.is_empty() {
        return;
    }
    out.push_str("<h2>Side by side</h2>\n<table>\n");
    for (n, cells) in report.table.iter().enumerate() {
        out.push_str("<tr>");
        for (i, cell) in cells.iter().enumerate() {
            let kind = if n == 0 || i == 0 { "th" } else { "td" };
            let _ = write!(out, "<{kind}>{}</{kind}>", escape(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

fn checks(out: &mut String, report: &Report) {
    if report.checks.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Against theory</h2>\n<table>\n<tr><th></th><th>what</th><th>expected</th>\
         <th>measured</th></tr>\n",
    );
    for check in &report.checks {
        let (class, word) = if check.holds {
            ("good", "holds")
        } else {
            ("bad", "fails")
        };
        let _ = writeln!(
            out,
            "<tr><td class=\"{class}\">{word}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&check.what),
            escape(&check.expected),
            escape(&check.measured)
        );
    }
    out.push_str("</table>\n");
}

fn row(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(
        out,
        "<tr><td>{}</td><td class=\"num\">{}</td></tr>",
        escape(&name.replace('_', " ")),
        escape(value)
    );
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), number),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Text as HTML and SVG may hold it.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
