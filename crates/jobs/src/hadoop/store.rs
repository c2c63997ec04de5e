//! The job store: what `hdfs://` and bare paths mean. It is a folder of this machine, below which
//! lies what Hadoop's users know: `/user/NAME`, `/tmp` and so on.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::input::{ContentSource, InputError, InputFile, Inputs};

/// Braces in a pattern stand for at most this many words.
const BRACES_MAX: usize = 1000;

/// Why a path means nothing here.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A path that would leave the store, or is no text for one.
    #[error("`{path}': {why}")]
    Path {
        /// As it was written.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another file system.
    #[error("`{path}': No FileSystem for scheme \"{scheme}\"")]
    Scheme {
        /// As it was written.
        path: String,
        /// Its scheme.
        scheme: String,
    },
    /// Nothing there.
    #[error("`{0}': No such file or directory")]
    Missing(String),
    /// The folder of the store cannot be used.
    #[error("cannot use the job store {}", path.display())]
    Root {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A store, seen by one user.
#[derive(Debug, Clone)]
pub struct JobStore {
    /// Canonical.
    root: PathBuf,
    user: String,
    /// Paths without a scheme are this machine's (`-fs file:///`).
    local: bool,
}

/// A path as it was written, and the file it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// What stood before the path: `hdfs://`, `hdfs://HOST`, `file://`, or nothing.
    prefix: String,
    /// What a relative path was relative to; empty for others.
    base: String,
    /// The whole path, beginning with a slash.
    path: String,
    /// The file of this machine.
    pub real: PathBuf,
    /// Whether it lies in the store.
    pub stored: bool,
}

impl Location {
    /// A file of this machine: a path, or what is written `file:///path`.
    ///
    /// # Errors
    /// When it is empty, or another scheme's.
    pub fn local(written: &str) -> Result<Self, StoreError> {
        let (path, prefix) = match scheme(written) {
            None => (written, ""),
            Some(("file", rest)) => match rest.strip_prefix("//") {
                None => (rest, "file://"),
                Some(rest) => {
                    let path = rest.get(rest.find('/').unwrap_or(rest.len())..);
                    (path.unwrap_or(""), "file://")
                }
            },
            Some((scheme, _)) => {
                return Err(StoreError::Scheme {
                    path: written.to_owned(),
                    scheme: scheme.to_owned(),
                });
            }
        };
        // Fails for an empty path alone.
        let real = std::path::absolute(path).map_err(|_| StoreError::Path {
            path: written.to_owned(),
            why: "an empty path",
        })?;
        Ok(Self {
            prefix: prefix.to_owned(),
            base: String::new(),
            path: real.to_string_lossy().into_owned(),
            real,
            stored: false,
        })
    }

    /// The path in the form in which it was written.
    pub fn shown(&self) -> String {
        if !self.base.is_empty() {
            let below = self.path.strip_prefix(&self.base);
            return match below.map(|rest| rest.trim_start_matches('/')) {
                Some("") => ".".to_owned(),
                Some(rest) => rest.to_owned(),
                None => self.path.clone(),
            };
        }
        format!("{}{}", self.prefix, self.path)
    }

    /// A URI that means the same wherever it is written.
    pub fn uri(&self) -> String {
        let scheme = if self.stored { "hdfs://" } else { "file://" };
        format!("{scheme}{}", self.path)
    }

    /// Its last name; empty for the root.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it is a root, which is never removed or moved.
    pub fn is_root(&self) -> bool {
        self.path == "/"
    }

    /// What is called `name` in it.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self {
            path: format!("{}/{name}", self.path.trim_end_matches('/')),
            real: self.real.join(name),
            ..self.clone()
        }
    }

    /// The folder it lies in.
    #[must_use]
    pub fn parent(&self) -> Self {
        let path = self.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        Self {
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            real: self.real.parent().unwrap_or(&self.real).to_owned(),
            ..self.clone()
        }
    }
}

/// The parts of a path below a root: no empty ones, no `.`, and never `..`.
fn normal(written: &str, path: &str) -> Result<String, StoreError> {
    let refuse = |why| StoreError::Path {
        path: written.to_owned(),
        why,
    };
    if path.contains('\0') {
        return Err(refuse("a path has no NUL byte"));
    }
    let mut out = String::new();
    for part in path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        if part == ".." {
            return Err(refuse("paths with .. are refused"));
        }
        out.push('/');
        out.push_str(part);
    }
    Ok(out)
}

/// `SCHEME:REST` of a URI.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.chars();
    let plain = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (plain && rest.starts_with('/')).then_some((scheme, rest))
}

impl JobStore {
    /// The store in a folder, which is made if need be, for a user, whose own folder is made too.
    ///
    /// # Errors
    /// [`StoreError::Root`] when it cannot be made.
    pub fn open(root: &Path, user: &str) -> Result<Self, StoreError> {
        let open = || {
            std::fs::create_dir_all(root)?;
            std::fs::canonicalize(root)
        };
        let canonical = open().map_err(|source| StoreError::Root {
            path: root.to_owned(),
            source,
        })?;
        let this = Self {
            root: canonical,
            user: user.to_owned(),
            local: false,
        };
        if let Ok(home) = this.locate(".") {
            std::fs::create_dir_all(&home.real).map_err(|source| StoreError::Root {
                path: home.real.clone(),
                source,
            })?;
        }
        Ok(this)
    }

    /// Takes the value of `-fs` or `fs.defaultFS`: whether bare paths are the store's or this
    /// machine's.
    ///
    /// # Errors
    /// For the URI of another file system.
    pub fn set_default(&mut self, fs: &str) -> Result<(), StoreError> {
        self.local = match fs {
            "local" => true,
            _ => match scheme(fs) {
                Some(("file", _)) => true,
                Some(("hdfs", _)) | None => false,
                Some((scheme, _)) => {
                    return Err(StoreError::Scheme {
                        path: fs.to_owned(),
                        scheme: scheme.to_owned(),
                    });
                }
            },
        };
        Ok(())
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whose paths relative ones are.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The user's folder in the store.
    pub fn home(&self) -> String {
        format!("/user/{}", self.user.replace('/', "_"))
    }

    /// What a path or URI means; it need not exist.
    ///
    /// # Errors
    /// When it would leave the store, or is another file system's.
    pub fn locate(&self, written: &str) -> Result<Location, StoreError> {
        match scheme(written) {
            Some(("hdfs", rest)) => {
                let (host, path) = match rest.strip_prefix("//") {
                    None => ("", rest),
                    Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
                };
                // `hdfs:/path` is written back with both slashes.
                self.stored(written, format!("hdfs://{host}"), path)
            }
            Some(("file", _)) => Location::local(written),
            Some((scheme, _)) => Err(StoreError::Scheme {
                path: written.to_owned(),
                scheme: scheme.to_owned(),
            }),
            None if self.local => Location::local(written),
            None if written.is_empty() => Err(StoreError::Path {
                path: written.to_owned(),
                why: "an empty path",
            }),
            None if written.starts_with('/') => self.stored(written, String::new(), written),
            None => {
                let base = self.home();
                let path = format!("{base}/{written}");
                let mut found = self.stored(written, String::new(), &path)?;
                found.base = base;
                Ok(found)
            }
        }
    }

    fn stored(&self, written: &str, prefix: String, path: &str) -> Result<Location, StoreError> {
        let path = normal(written, path)?;
        Ok(Location {
            prefix,
            base: String::new(),
            real: self.root.join(path.trim_start_matches('/')),
            path: if path.is_empty() {
                "/".to_owned()
            } else {
                path
            },
            stored: true,
        })
    }

    /// What a path or pattern (`*`, `?`, `[…]`, `{…}`) means: everything that is there, in order of
    /// the names.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when nothing is there.
    pub fn find(&self, written: &str) -> Result<Vec<Location>, StoreError> {
        let missing = || StoreError::Missing(written.to_owned());
        let literal = self.locate(written)?;
        // Also what is a link to nothing.
        if literal.real.symlink_metadata().is_ok() {
            return Ok(vec![literal]);
        }
        if !literal.path.contains(['*', '?', '[', '{']) {
            return Err(missing());
        }
        let root = if literal.stored {
            self.root.clone()
        } else {
            PathBuf::from("/")
        };
        let escaped = glob::Pattern::escape(&root.to_string_lossy());
        let mut found = Vec::new();
        for pattern in braces(&literal.path) {
            let pattern = format!("{}{pattern}", escaped.trim_end_matches('/'));
            let options = glob::MatchOptions {
                require_literal_separator: true,
                ..glob::MatchOptions::default()
            };
            let matches = glob::glob_with(&pattern, options).map_err(|_| StoreError::Path {
                path: written.to_owned(),
                why: "it is no pattern",
            })?;
            // What cannot be looked into matches nothing.
            for real in matches.flatten() {
                let Some(below) = real.strip_prefix(&root).ok().and_then(Path::to_str) else {
                    continue;
                };
                found.push(Location {
                    path: format!("/{below}"),
                    real,
                    ..literal.clone()
                });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup();
        if found.is_empty() {
            return Err(missing());
        }
        Ok(found)
    }
}

/// `a{b,c}d` is `abd` and `acd`. What has no closing brace stands for itself.
fn braces(pattern: &str) -> Vec<String> {
    let mut open = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(text) = open.pop() {
        let inner = text.find('}').and_then(|end| {
            let begin = text.get(..end)?.rfind('{')?;
            Some((
                text.get(..begin)?,
                text.get(begin + 1..end)?,
                text.get(end + 1..)?,
            ))
        });
        match inner {
            Some((head, words, tail)) if open.len() + done.len() < BRACES_MAX => {
                let words: Vec<_> = words.split(',').collect();
                open.extend(words.iter().rev().map(|word| format!("{head}{word}{tail}")));
            }
            _ => done.push(text),
        }
    }
    done
}

/// Reads `hdfs://` names out of a store.
#[derive(Debug)]
pub struct StoreInputs(pub JobStore);

impl ContentSource for StoreInputs {
    fn takes(&self, what: &str) -> bool {
        scheme(what).is_some_and(|(scheme, _)| scheme == "hdfs")
    }

    fn expand(&self, what: &str) -> Result<Vec<InputFile>, InputError> {
        let found = self.0.find(what).map_err(|e| input_error(what, &e))?;
        let mut files = Vec::new();
        for place in found.into_iter().filter(|p| !hidden(p.name())) {
            let path = place.real.to_string_lossy().into_owned();
            // An empty folder adds nothing, as in Hadoop; if all are, there are no splits.
            match Inputs::default().expand(&[path]) {
                Ok(inside) => files.extend(inside),
                Err(InputError::Empty(_)) => {}
                Err(e) => return Err(e),
            }
        }
        for file in &mut files {
            if let Ok(below) = Path::new(&file.name).strip_prefix(self.0.root()) {
                file.name = format!("hdfs:///{}", below.display());
            }
        }
        Ok(files)
    }

    fn open(&self, name: &str, from: u64, bytes: u64) -> Result<Box<dyn Read + Send>, InputError> {
        let place = self.0.locate(name).map_err(|e| input_error(name, &e))?;
        let path = place.real.to_string_lossy().into_owned();
        let plain = Inputs::default();
        plain.source(&path)?.open(&path, from, bytes)
    }
}

fn hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

fn input_error(what: &str, error: &StoreError) -> InputError {
    match error {
        StoreError::Missing(_) => InputError::Missing(what.to_owned()),
        other => InputError::Scheme(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
