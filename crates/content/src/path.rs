//! Paths that are safe to create below a download folder.
//!
//! Names come from strangers. A [`SafePath`] is relative, has no `.` or `..`, no separator inside
//! a component, no NUL and no over-long component, so that joined to a folder it stays inside it
//! (as long as no component is a symbolic link: the layout never puts a file below one).
//! [`Naming`] says how much further a name is changed. Collisions between the files of one
//! torrent are resolved where the torrent is read.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Longest component in bytes: what Linux, macOS and Windows file systems take.
pub const MAX_COMPONENT_LEN: usize = 255;

/// Longest path in bytes: leaves 1 KiB of Linux' `PATH_MAX` to the download folder.
pub const MAX_PATH_LEN: usize = 3072;

/// A file extension up to this long survives when a component is cut to size.
const MAX_EXTENSION_LEN: usize = 16;

/// How far names are changed before they reach a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Naming {
    /// For what comes from strangers: control characters and backslashes become `_`, characters
    /// that turn the writing direction vanish, names that differ only in case or in their
    /// Unicode form are told apart. On Windows, its own rules too.
    #[default]
    Download,
    /// Like `Download`, with the rules of Windows on every system: for disks that are shared
    /// with it.
    Portable,
    /// For files that are already on this machine's disk: a name is kept unless this system
    /// could not store it or it could leave the folder.
    Local,
}

impl Naming {
    fn keeps_odd_characters(self) -> bool {
        self == Self::Local && !cfg!(windows)
    }

    fn follows_windows(self) -> bool {
        self == Self::Portable || cfg!(windows)
    }

    /// Whether names that differ only in case or Unicode form count as the same.
    pub fn folds(self) -> bool {
        self != Self::Local || cfg!(any(windows, target_os = "macos"))
    }
}

/// Why something is not a path that can be made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No component at all.
    #[error("empty")]
    Empty,
    /// Longer than [`MAX_PATH_LEN`].
    #[error("{0} bytes long, at most {MAX_PATH_LEN} are supported")]
    TooLong(usize),
    /// Has a component that would have to be changed.
    #[error("has a component that is not a safe file name")]
    Unsafe,
}

/// A relative path whose every component is safe on disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafePath(Box<str>);

impl SafePath {
    /// Makes a path of components as they came from a stranger, changing what is not safe.
    /// Components that say nothing (empty, `.`, `..`) are left out, as libtorrent does; if all
    /// are, the path is `_`.
    pub fn sanitise<'a>(
        components: impl IntoIterator<Item = &'a [u8]>,
        naming: Naming,
    ) -> Result<Self, PathError> {
        let mut text = String::new();
        let mut any = false;
        for raw in components {
            any = true;
            if let Some(name) = sanitise_component(raw, naming) {
                if !text.is_empty() {
                    text.push('/');
                }
                text.push_str(&name);
            }
            if text.len() > MAX_PATH_LEN {
                return Err(PathError::TooLong(text.len()));
            }
        }
        match (any, text.is_empty()) {
            (false, _) => Err(PathError::Empty),
            (true, true) => Ok(Self("_".into())),
            (true, false) => Ok(Self(text.into())),
        }
    }

    /// Takes components joined by `/` that are safe already.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > MAX_PATH_LEN {
            return Err(PathError::TooLong(text.len()));
        }
        let safe = |part: &str| {
            sanitise_component(part.as_bytes(), Naming::Local).is_some_and(|clean| clean == part)
        };
        if text.split('/').all(safe) {
            Ok(Self(text.into()))
        } else {
            Err(PathError::Unsafe)
        }
    }

    /// The path for the file system; relative.
    pub fn as_path(&self) -> &Path {
        Path::new(&*self.0)
    }

    /// The components joined by `/`, unlike [`fmt::Display`] without escapes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components; at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path without its last component; none if it has only one.
    pub fn parent(&self) -> Option<Self> {
        let (head, _) = self.0.rsplit_once('/')?;
        Some(Self(head.into()))
    }

    /// This path followed by `below`.
    pub fn join(&self, below: &Self) -> Result<Self, PathError> {
        Self::new(&format!("{}/{}", self.0, below.0))
    }

    /// Whether this path is `folder` itself or lies below it.
    pub fn starts_with(&self, folder: &Self) -> bool {
        self.as_path().starts_with(folder.as_path())
    }

    /// The same path with `.n` put before the extension of its last component.
    pub fn numbered(&self, n: u64) -> Self {
        let name = self.file_name();
        let head = self.0.len() - name.len();
        let (stem, extension) = split_extension(name);
        let tail = format!(".{n}{extension}");
        let room = MAX_COMPONENT_LEN - tail.len();
        // A stem that ends in a dot or space only does so where the rules allow it.
        let stem = cut(stem, room).trim_end_matches([' ', '.']);
        let stem = if stem.is_empty() { "_" } else { stem };
        Self(format!("{}{stem}{tail}", self.0.get(..head).unwrap_or_default()).into())
    }

    /// The text of a symbolic link at `self` that leads to `target`, both relative to one folder.
    pub fn link_to(&self, target: &Self) -> String {
        let from: Vec<_> = self.components().collect();
        let to: Vec<_> = target.components().collect();
        let folder = from.len() - 1;
        let common = from
            .iter()
            .take(folder)
            .zip(to.iter().take(to.len() - 1))
            .take_while(|(a, b)| a == b)
            .count();
        let ups = std::iter::repeat_n("..", folder - common);
        let downs = to.iter().skip(common).copied();
        ups.chain(downs).collect::<Vec<_>>().join("/")
    }
}

impl AsRef<Path> for SafePath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl FromStr for SafePath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}

/// For people: characters that could disturb a terminal are escaped.
impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.chars().any(|c| c.is_control() || turns_text(c)) {
            return f.pad(&self.0);
        }
        let mut shown = String::new();
        for c in self.0.chars() {
            if c.is_control() || turns_text(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        f.pad(&shown)
    }
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Unicode's invisible marks that change the writing direction, with which `exe.txt` can be made
/// to look like `txt.exe`.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A safe name made of `raw`; none if it says nothing.
pub(crate) fn sanitise_component(raw: &[u8], naming: Naming) -> Option<String> {
    let mut name = String::new();
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '/' | '\0' => name.push('_'),
                _ if naming.keeps_odd_characters() => name.push(c),
                '\\' => name.push('_'),
                _ if c.is_control() => name.push('_'),
                _ if turns_text(c) => {}
                '<' | '>' | ':' | '"' | '|' | '?' | '*' if naming.follows_windows() => {
                    name.push('_');
                }
                _ => name.push(c),
            }
        }
        if !chunk.invalid().is_empty() {
            name.push('_');
        }
    }
    if naming.follows_windows() && is_windows_device(&name) {
        name.insert(0, '_');
    }
    if name.len() > MAX_COMPONENT_LEN {
        let (stem, extension) = split_extension(&name);
        name = format!(
            "{}{extension}",
            cut(stem, MAX_COMPONENT_LEN - extension.len())
        );
    }
    if naming.follows_windows() {
        name.truncate(name.trim_end_matches([' ', '.']).len());
    }
    (!matches!(name.as_str(), "" | "." | "..")).then_some(name)
}

/// Splits `name` before the dot of a short extension.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && (2..=MAX_EXTENSION_LEN).contains(&(name.len() - dot)) => {
            name.split_at(dot)
        }
        _ => (name, ""),
    }
}

/// The longest head of `text` of at most `len` bytes that ends at a character.
fn cut(text: &str, len: usize) -> &str {
    text.get(..text.floor_char_boundary(len)).unwrap_or(text)
}

/// Whether Windows takes `name` for a device, whatever its extension.
fn is_windows_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end_matches(' ');
    if ["con", "prn", "aux", "nul", "conin$", "conout$"]
        .iter()
        .any(|device| stem.eq_ignore_ascii_case(device))
    {
        return true;
    }
    let mut chars = stem.chars();
    let port: String = chars.by_ref().take(3).collect();
    let numbered = matches!(chars.next(), Some('0'..='9' | '¹' | '²' | '³'));
    numbered
        && chars.next().is_none()
        && ["com", "lpt"]
            .iter()
            .any(|device| port.eq_ignore_ascii_case(device))
}

#[cfg(test)]
mod tests;
