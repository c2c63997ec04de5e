//! What kind of file a name promises, by its ending.

/// A kind of file, told by the ending of its name: a sharer's word for it is worth no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// One ending, in lower case.
    Suffix(Vec<u8>),
    /// `audio`, `video`, `image`, `application` or `text`.
    Class(&'static str),
}

/// The endings of each class.
const CLASSES: &[(&str, &[&str])] = &[
    (
        "audio",
        &[
            "mp3", "ogg", "wma", "wav", "flac", "m4a", "aac", "opus", "mid", "aiff", "ra", "ape",
            "mp2",
        ],
    ),
    (
        "video",
        &[
            "avi", "mpg", "mpeg", "mp4", "mkv", "mov", "wmv", "asf", "webm", "rm", "ogv", "m4v",
        ],
    ),
    (
        "image",
        &[
            "jpg", "jpeg", "gif", "png", "bmp", "tif", "tiff", "webp", "svg", "psd",
        ],
    ),
    (
        "application",
        &[
            "exe", "zip", "rar", "gz", "bz2", "xz", "zst", "7z", "tar", "iso", "deb", "rpm", "msi",
            "jar",
        ],
    ),
    (
        "text",
        &[
            "txt", "pdf", "html", "htm", "doc", "rtf", "md", "epub", "nfo", "tex",
        ],
    ),
];

impl FileKind {
    /// Reads the name of a class or an ending; none for `any` and for what says nothing.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text.is_empty() || text.len() > 12 || text == b"any" {
            return None;
        }
        let class = CLASSES.iter().find(|(name, _)| name.as_bytes() == text);
        Some(class.map_or(Self::Suffix(text), |(name, _)| Self::Class(name)))
    }

    /// Whether a file of this name is of that kind.
    pub fn is_of(&self, name: &[u8]) -> bool {
        let Some(at) = name.iter().rposition(|b| *b == b'.') else {
            return false;
        };
        let suffix = name.get(at + 1..).unwrap_or_default();
        match self {
            Self::Suffix(wanted) => suffix.eq_ignore_ascii_case(wanted),
            Self::Class(class) => CLASSES.iter().any(|(name, suffixes)| {
                name == class
                    && suffixes
                        .iter()
                        .any(|s| suffix.eq_ignore_ascii_case(s.as_bytes()))
            }),
        }
    }

    /// As [`FileKind::parse`] reads it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Suffix(suffix) => suffix,
            Self::Class(class) => class.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_the_kind_of_its_ending() {
        let audio = FileKind::parse(b"Audio").expect("a class");
        assert_eq!(audio, FileKind::Class("audio"));
        assert!(audio.is_of(b"a song.OGG") && !audio.is_of(b"ogg") && !audio.is_of(b"a.txt"));
        let djvu = FileKind::parse(b"djvu").expect("an ending");
        assert!(djvu.is_of(b"book.DjVu") && !djvu.is_of(b"book.djvu.part"));
        assert_eq!(FileKind::parse(b"any"), None);
        assert_eq!(audio.name(), b"audio");
    }
}
