//! The house rules that no compiler checks: who may depend on whom, module docs, file sizes,
//! what must not stand in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crate → the crates of the house it may use. Arrows only point down.
const MAY_USE: &[(&str, &[&str])] = &[
    ("shoal-base", &[]),
    ("shoal-content", &["shoal-base"]),
    ("shoal-bittorrent", &["shoal-base", "shoal-content"]),
    ("shoal-dht", &["shoal-base"]),
    ("shoal-napster", &["shoal-base", "shoal-content"]),
    ("shoal-gnutella", &["shoal-base"]),
    ("shoal-reach", &["shoal-base"]),
    (
        "shoal-supernode",
        &[
            "shoal-base",
            "shoal-content",
            "shoal-gnutella",
            "shoal-napster",
            "shoal-reach",
        ],
    ),
    ("shoal-call", &["shoal-base", "shoal-supernode"]),
    ("shoal-mapreduce", &["shoal-base"]),
    ("shoal-store", &["shoal-base", "shoal-content"]),
    (
        "shoal-jobs",
        &[
            "shoal-base",
            "shoal-content",
            "shoal-mapreduce",
            "shoal-store",
        ],
    ),
    (
        "shoal-sim",
        &[
            "shoal-base",
            "shoal-content",
            "shoal-bittorrent",
            "shoal-dht",
            "shoal-napster",
            "shoal-reach",
            "shoal-gnutella",
            "shoal-supernode",
            "shoal-mapreduce",
        ],
    ),
    (
        "shoal-node",
        &[
            "shoal-base",
            "shoal-content",
            "shoal-bittorrent",
            "shoal-dht",
            "shoal-napster",
            "shoal-reach",
            "shoal-call",
            "shoal-gnutella",
            "shoal-supernode",
            "shoal-mapreduce",
            "shoal-jobs",
            "shoal-store",
        ],
    ),
    (
        "shoal",
        &[
            "shoal-base",
            "shoal-content",
            "shoal-bittorrent",
            "shoal-dht",
            "shoal-napster",
            "shoal-reach",
            "shoal-call",
            "shoal-gnutella",
            "shoal-supernode",
            "shoal-mapreduce",
            "shoal-jobs",
            "shoal-store",
            "shoal-sim",
            "shoal-node",
        ],
    ),
    (
        "shoal-bench",
        &[
            "shoal-base",
            "shoal-content",
            "shoal-bittorrent",
            "shoal-dht",
            "shoal-call",
            "shoal-node",
            "shoal-store",
        ],
    ),
];

/// Protocol cores are sans-IO, so nothing that opens sockets, files or threads comes in.
const CORES: &[&str] = &[
    "shoal-base",
    "shoal-content",
    "shoal-bittorrent",
    "shoal-dht",
    "shoal-napster",
    "shoal-gnutella",
    "shoal-reach",
    "shoal-call",
    "shoal-supernode",
    "shoal-mapreduce",
    "shoal-sim",
];
const NOT_IN_CORES: &[&str] = &[
    "anyhow",
    "async-std",
    "clap",
    "crossbeam-channel",
    "futures",
    "mio",
    "rand",
    "rustix",
    "signal-hook",
    "socket2",
    "tokio",
    "ureq",
];

/// Lines above which a file shall be split by noun; tests at its foot count.
const LONG_FILE: usize = 620;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Package → names of its dependencies of the given kind.
fn dependencies(kinds: &[Option<&str>]) -> BTreeMap<String, Vec<String>> {
    let mut out = BTreeMap::new();
    for package in metadata()["packages"].as_array().expect("packages") {
        let names = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|d| kinds.contains(&d["kind"].as_str()))
            .map(|d| d["name"].as_str().expect("a name").to_owned())
            .collect();
        out.insert(package["name"].as_str().expect("a name").to_owned(), names);
    }
    out
}

#[test]
fn arrows_between_crates_only_point_down() {
    let rules: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    for (package, dependencies) in dependencies(&[None, Some("dev"), Some("build")]) {
        let Some(allowed) = rules.get(package.as_str()) else {
            panic!("{package} is new: say in MAY_USE what it may use");
        };
        for used in dependencies
            .iter()
            .filter(|d| d.as_str() == "shoal" || d.starts_with("shoal-"))
        {
            assert!(
                allowed.contains(&used.as_str()),
                "{package} must not use {used}"
            );
        }
    }
}

#[test]
fn cores_bring_in_no_input_or_output() {
    let all = dependencies(&[None, Some("build")]);
    for core in CORES {
        for used in &all[*core] {
            assert!(
                !NOT_IN_CORES.contains(&used.as_str()),
                "the core {core} must not use {used}"
            );
        }
    }
}

#[test]
fn cores_carry_the_lints_that_keep_them_pure() {
    for core in CORES {
        let dir = root()
            .join("crates")
            .join(core.trim_start_matches("shoal-"));
        let rules = fs::read_to_string(dir.join("clippy.toml")).expect("a core has a clippy.toml");
        for banned in [
            "std::time::Instant::now",
            "std::net::TcpStream",
            "std::fs::File",
        ] {
            assert!(
                rules.contains(banned),
                "{core}: clippy.toml does not ban {banned}"
            );
        }
    }
}

/// All files below `dir` that git would know, by extension.
fn files(dir: &Path, extensions: &[&str], out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.')
                && !name.starts_with("target")
                && name != "corpus"
                && name != "artifacts"
            {
                files(&path, extensions, out);
            }
        } else if path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| extensions.contains(&e))
        {
            out.push(path);
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    let mut sources = Vec::new();
    files(&root().join("crates"), &["rs"], &mut sources);
    files(&root().join("fuzz"), &["rs"], &mut sources);
    let silent: Vec<_> = sources
        .iter()
        .filter(|path| !path.ends_with("tests.rs"))
        .filter(|path| {
            let text = fs::read_to_string(path).expect("a source file");
            let first = text
                .lines()
                .find(|l| !l.is_empty() && !l.starts_with("#!["));
            !first.is_some_and(|l| l.starts_with("//!"))
        })
        .collect();
    assert!(
        silent.is_empty(),
        "without a //! line at the top: {silent:#?}"
    );
}

#[test]
#[expect(
    clippy::print_stderr,
    reason = "the size report is for whoever runs this"
)]
fn no_file_grows_beyond_reading() {
    let mut sources = Vec::new();
    files(&root().join("crates"), &["rs"], &mut sources);
    let mut sizes: Vec<_> = sources
        .iter()
        .map(|path| {
            (
                fs::read_to_string(path)
                    .expect("a source file")
                    .lines()
                    .count(),
                path,
            )
        })
        .collect();
    sizes.sort();
    let total: usize = sizes.iter().map(|(n, _)| n).sum();
    let at = |share: f64| sizes[((sizes.len() - 1) as f64 * share) as usize].0;
    eprintln!(
        "{} files, {total} lines, median {}, p90 {}, longest {}",
        sizes.len(),
        at(0.5),
        at(0.9),
        at(1.0)
    );
    let long: Vec<_> = sizes
        .iter()
        .filter(|(lines, path)| !path.ends_with("tests.rs") && *lines > LONG_FILE)
        .collect();
    assert!(long.is_empty(), "too long to read: {long:#?}");
}

#[test]
fn nothing_unfinished_or_private_stands_in_a_file() {
    let mut all = Vec::new();
    files(&root(), &["rs", "py", "md", "toml", "sh"], &mut all);
    // Put together here so that this file does not find itself.
    let banned = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["/ho", "me/"].concat(),
        ["/wo", "rk/"].concat(),
    ];
    for path in all {
        let text = fs::read_to_string(&path).expect("a text file");
        for (n, line) in text.lines().enumerate() {
            for word in &banned {
                assert!(
                    !line.contains(word.as_str()),
                    "{}:{}: {word}",
                    path.display(),
                    n + 1
                );
            }
        }
    }
}
