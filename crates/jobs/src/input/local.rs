//! Files, folders and globs of this machine, or of a file system that all workers share.

use super::{ContentSource, InputError, InputFile, hidden};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Paths; also what is written `file:///path`.
pub(super) struct Local;

fn path_of(what: &str) -> &str {
    what.strip_prefix("file://").unwrap_or(what)
}

impl ContentSource for Local {
    fn takes(&self, what: &str) -> bool {
        what.starts_with("file://") || !(what.contains("://") || what.starts_with("magnet:"))
    }

    fn expand(&self, what: &str) -> Result<Vec<InputFile>, InputError> {
        let path = Path::new(path_of(what));
        let mut files = Vec::new();
        // A file whose name looks like a pattern is meant before the pattern.
        if path.exists() {
            add(path, &mut files)?;
        } else if what.contains(['*', '?', '[']) {
            let matches = glob::glob(path_of(what)).map_err(|source| InputError::Glob {
                what: what.to_owned(),
                source,
            })?;
            for found in matches {
                let found = found.map_err(|e| {
                    let name = e.path().display().to_string();
                    InputError::io(&name, e.into())
                })?;
                if !is_hidden(&found) {
                    add(&found, &mut files)?;
                }
            }
        } else {
            return Err(InputError::Missing(what.to_owned()));
        }
        if files.is_empty() {
            return Err(InputError::Empty(what.to_owned()));
        }
        Ok(files)
    }

    fn open(&self, name: &str, from: u64, bytes: u64) -> Result<Box<dyn Read + Send>, InputError> {
        let open = || {
            let mut file = File::open(path_of(name))?;
            if from > 0 {
                file.seek(SeekFrom::Start(from))?;
            }
            Ok(file)
        };
        let file = open().map_err(|e| InputError::io(name, e))?;
        Ok(Box::new(file.take(bytes)))
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|n| hidden(&n.to_string_lossy()))
}

/// Adds a file, or all that lies beneath a folder, in order of the names.
fn add(path: &Path, files: &mut Vec<InputFile>) -> Result<(), InputError> {
    let shown = path.display().to_string();
    let meta = fs::metadata(path).map_err(|e| InputError::io(&shown, e))?;
    if meta.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| InputError::io(&shown, e))?;
        let mut inside: Vec<PathBuf> = entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()
            .map_err(|e| InputError::io(&shown, e))?;
        inside.retain(|p| !is_hidden(p));
        inside.sort();
        return inside.iter().try_for_each(|p| add(p, files));
    }
    // Workers may run elsewhere in the tree, so they are told the whole path.
    let whole = fs::canonicalize(path).map_err(|e| InputError::io(&shown, e))?;
    let name = whole
        .into_os_string()
        .into_string()
        .map_err(|_| InputError::Name(shown))?;
    files.push(InputFile {
        name,
        bytes: meta.len(),
        splittable: meta.is_file(),
        unit: 0,
        lead: 0,
        holders: Vec::new(),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Inputs;
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    fn names(inputs: &[&str]) -> Result<Vec<String>, InputError> {
        let inputs: Vec<String> = inputs.iter().map(|s| (*s).to_owned()).collect();
        let files = Inputs::default().expand(&inputs)?;
        Ok(files
            .iter()
            .map(|f| f.name.rsplit('/').next().unwrap_or_default().to_owned())
            .collect())
    }

    #[test]
    fn folders_and_globs_are_sorted_and_hidden_names_skipped() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for name in [
            "b",
            "a",
            "_SUCCESS",
            ".crc",
            "sub/c",
            "sub/_logs/x",
            "[odd]",
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, name).expect("written");
        }
        let at = |tail: &str| format!("{}/{tail}", dir.path().display());
        assert_eq!(
            names(&[&at("")]).expect("a folder"),
            ["[odd]", "a", "b", "c"]
        );
        assert_eq!(
            names(&[&at("[ab]"), &at("sub")]).expect("files"),
            ["a", "b", "c"]
        );
        assert_eq!(names(&[&at("[odd]")]).expect("a file"), ["[odd]"]);
        assert_eq!(
            names(&[&at("*")]).expect("a glob"),
            ["[odd]", "a", "b", "c"]
        );
        assert!(matches!(names(&[&at("none")]), Err(InputError::Missing(_))));
        assert!(matches!(names(&[&at("z*")]), Err(InputError::Empty(_))));
        assert!(matches!(
            names(&[&at("sub/_logs/[")]),
            Err(InputError::Glob { .. })
        ));
        assert!(matches!(names(&["gopher://x"]), Err(InputError::Scheme(_))));
    }

    #[test]
    fn a_range_is_read_and_no_more() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("f");
        fs::write(&path, "0123456789").expect("written");
        let name = path.to_str().expect("text");
        let mut text = String::new();
        let read = Arc::default();
        let reader = Inputs::default().open(name, 3, 4, &read).expect("opens");
        reader.take(4).read_to_string(&mut text).expect("reads");
        assert_eq!((text.as_str(), read.load(Ordering::Relaxed)), ("3456", 4));
    }
}
