//! `shoal torrent show`: what a .torrent file or magnet link says.

use std::fmt::Write as _;

use serde::Serialize;
use shoal_base::Date;
use shoal_base::id::to_hex;
use shoal_content::{Info, Magnet, Metainfo, PieceHashes};

use crate::cli::ShowArgs;
use crate::failure::{Exit, Outcome};
use crate::selection::shown_files;
use crate::source::{self, Source};
use crate::ui::Ui;
use crate::units::{Size, count};

/// One line of `torrent show --json`.
#[derive(Serialize)]
struct Shown<'a> {
    /// `torrent` or `magnet`.
    event: &'static str,
    name: Option<&'a str>,
    info_hash_v1: Option<String>,
    info_hash_v2: Option<String>,
    /// The public key whose holder names the newest version (BEP 46).
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<String>,
    /// The publisher's salt, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(flatten)]
    content: Option<Content<'a>>,
    trackers: Vec<Vec<String>>,
    web_seeds: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<&'a [String]>,
    magnet: String,
}

/// What only a .torrent file knows.
#[derive(Serialize)]
struct Content<'a> {
    version: &'static str,
    total_size: u64,
    piece_length: u32,
    pieces: u32,
    private: bool,
    comment: Option<&'a str>,
    created_by: Option<&'a str>,
    creation_date: Option<i64>,
    source: Option<&'a str>,
    files: Vec<ShownFile<'a>>,
}

#[derive(Serialize)]
struct ShownFile<'a> {
    path: &'a str,
    length: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    hidden: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    symlink: Option<&'a str>,
}

/// Runs the command.
pub(crate) fn show(args: &ShowArgs, ui: &Ui) -> Outcome<Exit> {
    let text = match source::resolve(&args.file)? {
        Source::Metainfo(metainfo) if ui.is_json() => json(&of_metainfo(&metainfo)),
        Source::Magnet(magnet) if ui.is_json() => json(&of_magnet(&magnet)),
        Source::Metainfo(metainfo) => table(&metainfo),
        Source::Magnet(magnet) => magnet_table(&magnet),
    };
    ui.data(&text);
    Ok(Exit::Ok)
}

fn json(shown: &Shown<'_>) -> String {
    serde_json::to_string(shown).expect("plain data always serialises")
}

fn version(info: &Info) -> &'static str {
    match &*info.hashes {
        PieceHashes::V1(_) => "1",
        PieceHashes::Hybrid { .. } => "hybrid",
        // A torrent has no other.
        _ => "2",
    }
}

fn of_metainfo(m: &Metainfo) -> Shown<'_> {
    let info = &m.info;
    let layout = &info.layout;
    let files = shown_files(layout).filter_map(|n| layout.files().get(n));
    Shown {
        event: "torrent",
        name: Some(&info.name),
        info_hash_v1: info.info_hash_v1().map(|h| h.to_string()),
        info_hash_v2: info.info_hash_v2().map(|h| h.to_string()),
        publisher: None,
        salt: None,
        content: Some(Content {
            version: version(info),
            total_size: layout.stored_len(),
            piece_length: layout.geometry().piece_len(),
            pieces: layout.geometry().pieces(),
            private: info.private,
            comment: m.comment.as_deref(),
            created_by: m.created_by.as_deref(),
            creation_date: m.creation_date,
            source: info.source.as_deref(),
            files: files
                .map(|f| ShownFile {
                    path: f.path.as_str(),
                    length: f.len,
                    executable: f.attr.executable,
                    hidden: f.attr.hidden,
                    symlink: f.attr.symlink.as_ref().map(|s| s.as_str()),
                })
                .collect(),
        }),
        trackers: m.trackers.clone(),
        web_seeds: &m.web_seeds,
        peers: None,
        magnet: m.magnet().to_string(),
    }
}

/// The key and the salt of a link's publisher.
fn publisher(m: &Magnet) -> (Option<String>, Option<String>) {
    let salt = |salt: &[u8]| (!salt.is_empty()).then(|| to_hex(salt));
    let of = m.publisher.as_ref();
    (of.map(|p| to_hex(&p.key)), of.and_then(|p| salt(&p.salt)))
}

fn of_magnet(m: &Magnet) -> Shown<'_> {
    let (publisher, salt) = publisher(m);
    Shown {
        event: "magnet",
        name: m.name.as_deref(),
        info_hash_v1: m.info_hash.map(|h| h.to_string()),
        info_hash_v2: m.info_hash_v2.map(|h| h.to_string()),
        publisher,
        salt,
        content: None,
        trackers: m.trackers.iter().map(|t| vec![t.clone()]).collect(),
        web_seeds: &m.web_seeds,
        peers: Some(&m.peers),
        magnet: m.to_string(),
    }
}

/// Lines of `label  value`; values that a stranger wrote are made harmless to a terminal.
#[derive(Default)]
struct Table(String);

impl Table {
    #[allow(clippy::needless_pass_by_value, reason = "called with temporaries")]
    fn row(&mut self, label: &str, value: impl ToString) {
        let _ = writeln!(self.0, "{label:<12} {}", harmless(&value.to_string()));
    }

    fn maybe(&mut self, label: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.row(label, value);
        }
    }

    fn rows<T: ToString>(&mut self, label: &str, values: impl IntoIterator<Item = T>) {
        let mut label = label;
        for value in values {
            self.row(label, value);
            label = "";
        }
    }
}

/// Control characters, and those that turn the writing direction, escaped.
pub(crate) fn harmless(text: &str) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if bad(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn table(m: &Metainfo) -> String {
    let info = &m.info;
    let layout = &info.layout;
    let geometry = layout.geometry();
    let mut t = Table::default();
    t.row("name", &info.name);
    t.maybe("info-hash", info.info_hash_v1());
    t.maybe("info-hash v2", info.info_hash_v2());
    t.row(
        "size",
        format!(
            "{} ({} bytes)",
            Size(layout.stored_len()),
            layout.stored_len()
        ),
    );
    t.row(
        "pieces",
        format!(
            "{} of {}",
            geometry.pieces(),
            Size(u64::from(geometry.piece_len()))
        ),
    );
    if info.private {
        t.row("private", "yes: only its own trackers may name peers");
    }
    t.maybe("comment", m.comment.as_deref());
    t.maybe("made by", m.created_by.as_deref());
    t.maybe("made on", m.creation_date.map(date));
    t.maybe("source", info.source.as_deref());
    for (n, tier) in m.trackers.iter().enumerate() {
        let label = if n == 0 { "trackers" } else { "" };
        t.row(label, tier.join("  "));
    }
    t.rows("web seeds", &m.web_seeds);
    t.row("magnet", m.magnet());
    let files: Vec<_> = shown_files(layout)
        .filter_map(|n| layout.files().get(n))
        .collect();
    t.row("files", count(files.len() as u64, "file"));
    let digits = files.len().to_string().len();
    for (n, file) in files.iter().enumerate() {
        let _ = write!(
            t.0,
            "  {:>digits$}  {:>10}  {}",
            n + 1,
            Size(file.len),
            file.path
        );
        if let Some(target) = &file.attr.symlink {
            let _ = write!(t.0, " -> {}", harmless(&file.path.link_to(target)));
        }
        t.0.push('\n');
    }
    t.0.truncate(t.0.trim_end().len());
    t.0
}

fn magnet_table(m: &Magnet) -> String {
    let mut t = Table::default();
    t.maybe("name", m.name.as_deref());
    t.maybe("info-hash", m.info_hash);
    t.maybe("info-hash v2", m.info_hash_v2);
    let (key, salt) = publisher(m);
    t.maybe("publisher", key);
    t.maybe("salt", salt);
    t.rows("trackers", &m.trackers);
    t.rows("web seeds", &m.web_seeds);
    t.rows("peers", &m.peers);
    t.row("magnet", m);
    t.0.truncate(t.0.trim_end().len());
    t.0
}

/// A time in seconds since 1970 as a UTC date.
fn date(seconds: i64) -> String {
    let Some(d) = Date::utc(seconds) else {
        return format!("{seconds} s since 1970");
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        d.year, d.month, d.day, d.hour, d.minute, d.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
        assert_eq!(date(i64::MAX), format!("{} s since 1970", i64::MAX));
        assert_eq!(date(i64::MIN), format!("{} s since 1970", i64::MIN));
    }

    #[test]
    fn a_stranger_cannot_disturb_the_terminal() {
        assert_eq!(harmless("a\x1b[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
    }
}
