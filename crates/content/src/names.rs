//! Telling the files of one torrent apart on disk.
//!
//! Two names can be one on disk: the same name twice, names that differ only in case or Unicode
//! form on a file system that folds them, a file named like a folder. The first file keeps its
//! name, later ones get a number before the extension; folders keep theirs. So no file is ever
//! below another file, and in particular not below a symbolic link.

use crate::path::{Naming, SafePath};
use std::collections::BTreeMap;
use unicode_normalization::UnicodeNormalization;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Folder,
    File,
}

/// What a path before renaming leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A file or a folder.
    Taken,
    /// Nothing.
    Free,
    /// Below a file, which may be a link.
    ThroughFile,
}

/// The names of one torrent.
#[derive(Debug)]
pub(crate) struct Names {
    naming: Naming,
    /// By the number of the folder and the folded name; the number of a node is its place in
    /// `kinds`. Nodes rather than whole paths: the memory stays in proportion to the input.
    nodes: BTreeMap<(usize, Box<str>), usize>,
    kinds: Vec<Node>,
    renamed: BTreeMap<SafePath, SafePath>,
}

const ROOT: usize = 0;

/// A number as small as possible is tried this often before one that is surely new.
const SMALL_NUMBERS: u64 = 8;

impl Names {
    /// Gives every path of `paths` a name of its own.
    pub(crate) fn tell_apart(paths: &mut [SafePath], naming: Naming) -> Self {
        let mut names = Self {
            naming,
            nodes: BTreeMap::new(),
            kinds: vec![Node::Folder],
            renamed: BTreeMap::new(),
        };
        let folders: Vec<usize> = paths.iter().map(|p| names.add_folders(p)).collect();
        let mut taken = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            let folder = folders.get(at).copied().unwrap_or(ROOT);
            if !names.add_file(folder, path) {
                taken.push((at, folder));
            }
        }
        // Rising over all files, so that every try beyond the small numbers meets an earlier name
        // at most once: no input makes this quadratic.
        let mut next = SMALL_NUMBERS + 1;
        for (at, folder) in taken {
            let Some(path) = paths.get_mut(at) else {
                continue;
            };
            let mut small = 1..=SMALL_NUMBERS;
            loop {
                let n = small.next().unwrap_or_else(|| {
                    next += 1;
                    next
                });
                let candidate = path.numbered(n);
                if names.add_file(folder, &candidate) {
                    let before = std::mem::replace(path, candidate.clone());
                    names.renamed.entry(before).or_insert(candidate);
                    break;
                }
            }
        }
        names
    }

    /// What `path` leads to.
    pub(crate) fn place(&self, path: &SafePath) -> Place {
        let mut folder = ROOT;
        let mut ahead = path.components().peekable();
        while let Some(name) = ahead.next() {
            let Some(&node) = self.nodes.get(&(folder, fold(name, self.naming))) else {
                return Place::Free;
            };
            if ahead.peek().is_some() && self.kinds.get(node) == Some(&Node::File) {
                return Place::ThroughFile;
            }
            folder = node;
        }
        Place::Taken
    }

    /// The name that the file or folder at `path` has now.
    pub(crate) fn current(&self, path: &SafePath) -> SafePath {
        self.renamed.get(path).unwrap_or(path).clone()
    }

    /// Adds the folders above `path`; the number of the last.
    fn add_folders(&mut self, path: &SafePath) -> usize {
        let mut folder = ROOT;
        let mut ahead = path.components().peekable();
        while let Some(name) = ahead.next() {
            if ahead.peek().is_some() {
                let key = (folder, fold(name, self.naming));
                folder = *self.nodes.entry(key).or_insert_with(|| {
                    self.kinds.push(Node::Folder);
                    self.kinds.len() - 1
                });
            }
        }
        folder
    }

    /// Takes the name of `path`, unless it is taken.
    fn add_file(&mut self, folder: usize, path: &SafePath) -> bool {
        let key = (folder, fold(path.file_name(), self.naming));
        if self.nodes.contains_key(&key) {
            return false;
        }
        self.nodes.insert(key, self.kinds.len());
        self.kinds.push(Node::File);
        true
    }
}

/// What a name is on a file system that tells as few names apart as any: without case, canonical
/// decomposition, invisible characters and trailing dots and spaces.
fn fold(name: &str, naming: Naming) -> Box<str> {
    if !naming.folds() {
        return name.into();
    }
    let folded = if name.is_ascii() {
        name.to_ascii_lowercase()
    } else {
        let shown = name.chars().filter(|c| !is_ignored(*c));
        let upper = shown.nfd().flat_map(char::to_uppercase);
        upper.flat_map(char::to_lowercase).nfd().collect()
    };
    match folded.trim_end_matches([' ', '.']) {
        "" => folded.into(),
        trimmed => trimmed.into(),
    }
}

/// Characters that HFS+ does not look at in names.
fn is_ignored(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn paths(texts: &[&str]) -> Vec<SafePath> {
        let safe = |t: &&str| SafePath::new(t).expect("safe");
        texts.iter().map(safe).collect()
    }

    fn apart(texts: &[&str], naming: Naming) -> Vec<String> {
        let mut paths = paths(texts);
        Names::tell_apart(&mut paths, naming);
        paths.iter().map(|p| p.as_str().to_owned()).collect()
    }

    #[test]
    fn later_files_get_a_number() {
        let cases: &[(&[&str], &[&str])] = &[
            (
                &["t/a.txt", "t/a.txt", "t/A.TXT"],
                &["t/a.txt", "t/a.1.txt", "t/A.2.TXT"],
            ),
            (
                &["t/a.txt", "t/a.txt", "t/a.1.txt"],
                &["t/a.txt", "t/a.2.txt", "t/a.1.txt"],
            ),
            (&["t/é", "t/e\u{301}"], &["t/é", "t/e\u{301}.1"]),
            (&["t/STRASSE", "t/straße"], &["t/STRASSE", "t/straße.1"]),
            (
                &["t/k", "t/\u{212a}", "t/k\u{feff}"],
                &["t/k", "t/\u{212a}.1", "t/k\u{feff}.2"],
            ),
            (&["t/a", "t/a."], &["t/a", "t/a.1"]),
            (&["t/x", "t/x/y", "T/X/Y"], &["t/x.1", "t/x/y", "T/X/Y.1"]),
            (
                &["a/b", "a/b/c", "a/b/c/d"],
                &["a/b.1", "a/b/c.1", "a/b/c/d"],
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(apart(given, Naming::Download), *expected);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn local_names_differ_in_case() {
        let given = ["t/xt_MARK.h", "t/xt_mark.h", "t/xt_mark.h"];
        let expected = ["t/xt_MARK.h", "t/xt_mark.h", "t/xt_mark.1.h"];
        assert_eq!(apart(&given, Naming::Local), expected);
    }

    #[test]
    fn places_are_files_folders_or_nothing() {
        let mut files = paths(&["t/a", "t/A", "t/d/f"]);
        let names = Names::tell_apart(&mut files, Naming::Download);
        let path = |text| SafePath::new(text).expect("safe");
        assert_eq!(names.current(&path("t/A")).as_str(), "t/A.1");
        assert_eq!(names.current(&path("t/d")).as_str(), "t/d");
        let cases = [
            ("t/A", Place::Taken),
            ("T/d", Place::Taken),
            ("t/gone/x", Place::Free),
            ("t/a/x", Place::ThroughFile),
            ("T/D/F/x/y", Place::ThroughFile),
        ];
        for (text, expected) in cases {
            assert_eq!(names.place(&path(text)), expected, "{text}");
        }
    }

    #[test]
    fn many_collisions_take_no_quadratic_time() {
        // Names so long that their numbered forms collide too.
        let name = |n: u32| format!("t/{}{n:05}", "x".repeat(250));
        let texts: Vec<String> = (0..20_000).map(|n| name(n / 2)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let distinct: BTreeSet<_> = apart(&texts, Naming::Download).into_iter().collect();
        assert_eq!(distinct.len(), texts.len());
    }

    proptest! {
        #[test]
        fn no_two_files_share_a_place(
            texts in prop::collection::vec("[aAé.1]{1,3}(/[aA.1]{1,2}){0,2}", 0..24),
            naming in prop_oneof![Just(Naming::Download), Just(Naming::Portable), Just(Naming::Local)],
        ) {
            let made = texts.iter().map(|t| SafePath::sanitise(t.split('/').map(str::as_bytes), naming));
            let mut files: Vec<SafePath> = made.map(|p| p.expect("short")).collect();
            Names::tell_apart(&mut files, naming);
            let folded = |p: &SafePath| -> Vec<Box<str>> {
                p.components().map(|c| fold(c, naming)).collect()
            };
            let all: BTreeSet<_> = files.iter().map(folded).collect();
            prop_assert_eq!(all.len(), files.len());
            for path in &all {
                for depth in 1..path.len() {
                    prop_assert!(!all.contains(&path[..depth]), "a file below {:?}", path);
                }
            }
        }
    }
}
