//! Which files of a torrent are wanted: globs and numbers.

use shoal_content::Layout;

/// Why a selection cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectionError {
    /// A number or range past the last file, zero, or backwards.
    #[error("{0:?} names no files; they are numbered from 1 to {1}")]
    OutOfRange(String, usize),
    /// A pattern that no file matches.
    #[error("no file matches {0:?}")]
    NoMatch(String),
}

/// Whether `selection` is written as numbers (`1,3-5`) rather than as a glob.
fn is_numbers(selection: &str) -> bool {
    selection.bytes().any(|b| b.is_ascii_digit())
        && selection
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b',' || b == b'-')
}

/// The indices of the files that `selections` name, sorted; every selection must name one.
///
/// Padding is not counted and never named; files count from one, as `torrent show` does.
pub(crate) fn select(layout: &Layout, selections: &[String]) -> Result<Vec<usize>, SelectionError> {
    let shown: Vec<usize> = shown_files(layout).collect();
    let mut wanted = Vec::new();
    for selection in selections {
        let before = wanted.len();
        if is_numbers(selection) {
            for part in selection.split(',').filter(|p| !p.is_empty()) {
                let bad = || SelectionError::OutOfRange(part.to_owned(), shown.len());
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let first: usize = first.parse().map_err(|_| bad())?;
                let last: usize = match last {
                    "" => shown.len(),
                    last => last.parse().map_err(|_| bad())?,
                };
                let range = first
                    .checked_sub(1)
                    .and_then(|first| shown.get(first..last));
                match range {
                    Some(files) if !files.is_empty() => wanted.extend_from_slice(files),
                    _ => return Err(bad()),
                }
            }
        } else {
            wanted.extend(shown.iter().copied().filter(|n| {
                layout
                    .files()
                    .get(*n)
                    .is_some_and(|f| matches(selection, f.path.as_str()))
            }));
        }
        if wanted.len() == before {
            return Err(SelectionError::NoMatch(selection.clone()));
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}

/// The indices of the files people see: all but padding.
pub(crate) fn shown_files(layout: &Layout) -> impl Iterator<Item = usize> {
    let files = layout.files().iter().enumerate();
    files.filter(|(_, f)| !f.attr.pad).map(|(n, _)| n)
}

/// Whether `pattern` matches `path` or its end after any `/`, so that `*.iso` and `docs/*` need
/// not name the torrent's own folder.
fn matches(pattern: &str, path: &str) -> bool {
    let pattern = pattern.as_bytes();
    let path = path.as_bytes();
    let starts = path
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'/')
        .map(|(n, _)| n + 1);
    std::iter::once(0)
        .chain(starts)
        .any(|from| glob(pattern, &path[from..]))
}

/// Glob: `?` is one character and `*` any run within a component, `**` any run.
///
/// Keeps one point to come back to for each kind of star, so that no pattern takes more than
/// (pattern × text)² steps.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if a mismatch follows: after the star, one byte further in the text.
    let mut star: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize)> = None;
    loop {
        let rest = &pattern[p..];
        if rest.starts_with(b"**") {
            p += 2;
            // `**/` also matches no folder at all.
            if pattern[p..].starts_with(b"/") && (t == 0 || text[t - 1] == b'/') {
                p += 1;
            }
            double = Some((p, t));
            star = None;
            continue;
        }
        match (rest.first(), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                p += 1;
                star = Some((p, t));
                continue;
            }
            (Some(b'?'), Some(c)) if *c != b'/' => {
                p += 1;
                t += 1;
                // A character of several bytes counts once.
                while text.get(t).is_some_and(|b| b & 0xc0 == 0x80) {
                    t += 1;
                }
                continue;
            }
            (Some(a), Some(b)) if a == b && *a != b'?' => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        match (&mut star, &mut double) {
            (Some((after, from)), _) if text.get(*from).is_some_and(|c| *c != b'/') => {
                *from += 1;
                (p, t) = (*after, *from);
            }
            (_, Some((after, from))) if *from < text.len() => {
                *from += 1;
                (p, t) = (*after, *from);
                star = None;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_content::{FileAttr, SafePath};

    fn layout() -> Layout {
        let file = |path: &str, pad| {
            let attr = FileAttr {
                pad,
                ..FileAttr::default()
            };
            (SafePath::new(path).expect("safe"), 10, attr)
        };
        let files = [
            file("top/a.iso", false),
            file("top/.pad/6", true),
            file("top/docs/readme.txt", false),
            file("top/docs/de/lies.txt", false),
            file("top/é.bin", false),
        ];
        Layout::new(files, 16).expect("small")
    }

    fn pick(selections: &[&str]) -> Result<Vec<usize>, SelectionError> {
        let owned: Vec<String> = selections.iter().map(|s| (*s).to_owned()).collect();
        select(&layout(), &owned)
    }

    #[test]
    fn files_are_picked_by_glob_or_number_never_padding() {
        for (selections, expected) in [
            (&["*.iso"][..], &[0][..]),
            (&["*.txt"], &[2, 3]),
            (&["docs/*"], &[2]),
            (&["docs/**"], &[2, 3]),
            (&["top/**/*.txt"], &[2, 3]),
            (&["**"], &[0, 2, 3, 4]),
            (&["?.bin"], &[4]),
            (&["readme.txt", "*.iso"], &[0, 2]),
            (&["1"], &[0]),
            (&["2-3"], &[2, 3]),
            (&["1,4"], &[0, 4]),
            (&["3-"], &[3, 4]),
            (&["1-4", "*"], &[0, 2, 3, 4]),
        ] {
            assert_eq!(pick(selections).as_deref(), Ok(expected), "{selections:?}");
        }
    }

    #[test]
    fn selections_that_name_nothing_are_refused() {
        for bad in ["0", "5", "3-2", "9-", "1-9", "-1", "nothing*", "", "--"] {
            assert!(pick(&[bad]).is_err(), "{bad}");
        }
    }

    /// The obvious recursive definition.
    fn model(p: &[u8], t: &[u8]) -> bool {
        if let Some(rest) = p.strip_prefix(b"**") {
            return (0..=t.len()).any(|n| model(rest, &t[n..]));
        }
        match (p.first(), t.first()) {
            (None, None) => true,
            (Some(b'*'), _) => {
                model(&p[1..], t) || (t.first().is_some_and(|c| *c != b'/') && model(p, &t[1..]))
            }
            (Some(b'?'), Some(c)) => *c != b'/' && model(&p[1..], &t[1..]),
            (Some(a), Some(b)) => a == b && model(&p[1..], &t[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn glob_agrees_with_its_definition(p in "[ab/]?(\\*\\*?|\\?|[ab]){0,5}", t in "[ab/]{0,8}") {
            // `**/` matching nothing is an addition of ours; the pattern above has none.
            prop_assert_eq!(glob(p.as_bytes(), t.as_bytes()), model(p.as_bytes(), t.as_bytes()));
        }

        #[test]
        fn any_selection_is_used_or_refused(s in ".{0,12}") {
            let _ = select(&layout(), &[s]);
        }
    }
}
