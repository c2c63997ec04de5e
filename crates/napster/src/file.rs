//! What is said of one shared file, and the three messages that say it.

use crate::fields::{BadField, Fields, number, put_number};

/// What a sharer tells of a file, without its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Length in bytes.
    pub size: u64,
    /// Kilobits a second; zero if unknown.
    pub bitrate: u32,
    /// Samples a second; zero if unknown.
    pub frequency: u32,
    /// Length in seconds; zero if unknown.
    pub seconds: u32,
    /// MD5 of the file's first 300,000 bytes or so, if the client computed it. Says nothing of
    /// the rest, and nothing that its sharer did not choose to say.
    pub md5: Option<[u8; 16]>,
}

/// Reads a checksum; anything but 32 hexadecimal digits (and what may follow a `-`) is none.
pub fn parse_md5(field: &[u8]) -> Option<[u8; 16]> {
    let digits = field.get(..32)?;
    if field.get(32).is_some_and(|b| *b != b'-') {
        return None;
    }
    let mut out = [0u8; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).ok()?;
        if !pair.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        *byte = u8::from_str_radix(text, 16).ok()?;
    }
    (out != [0; 16]).then_some(out)
}

/// Appends a checksum; 32 zeros if there is none.
pub fn put_md5(md5: Option<[u8; 16]>, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let Some(md5) = md5 else {
        out.extend_from_slice(&[b'0'; 32]);
        return;
    };
    for byte in md5 {
        for nibble in [byte >> 4, byte & 15] {
            out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
        }
    }
}

impl Facts {
    /// Reads `md5 size bitrate frequency seconds`, as in 100, 201, 212 and 870.
    pub fn parse(fields: &mut Fields<'_>) -> Result<Self, BadField> {
        let md5 = parse_md5(fields.text("checksum")?);
        Ok(Self {
            md5,
            size: fields.number("size")?,
            bitrate: small(fields.text("bitrate")?),
            frequency: small(fields.text("frequency")?),
            seconds: small(fields.text("seconds")?),
        })
    }

    /// Appends `md5 size bitrate frequency seconds`.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_md5(self.md5, out);
        for n in [
            self.size,
            u64::from(self.bitrate),
            u64::from(self.frequency),
            u64::from(self.seconds),
        ] {
            out.push(b' ');
            put_number(n, out);
        }
    }
}

/// A number that only describes; what is no number, or too large, is unknown.
fn small(field: &[u8]) -> u32 {
    number(field)
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(0)
}

/// Reads 100: one file with its whole path.
pub fn parse_share(data: &[u8]) -> Result<(&[u8], Facts), BadField> {
    let mut fields = Fields::new(data);
    let path = fields.text("file")?;
    Ok((path, Facts::parse(&mut fields)?))
}

/// Reads 10300: a file of another kind than MP3, `"file" size md5 type`.
pub fn parse_share_other(data: &[u8]) -> Result<(&[u8], Facts), BadField> {
    let mut fields = Fields::new(data);
    let path = fields.text("file")?;
    let size = fields.number("size")?;
    let md5 = parse_md5(fields.text("checksum")?);
    let facts = Facts {
        size,
        md5,
        ..Facts::default()
    };
    Ok((path, facts))
}

/// Reads 870: calls `each` with the folder and every file in it. Files before a bad one count.
pub fn parse_share_folder<'a>(
    data: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8], Facts),
) -> Result<(), BadField> {
    let mut fields = Fields::new(data);
    let folder = fields.text("folder")?;
    while !fields.is_empty() {
        let name = fields.text("file")?;
        let facts = Facts::parse(&mut fields)?;
        each(folder, name, facts);
    }
    Ok(())
}

/// Cuts a path after its last separator, of either kind.
pub fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    let cut = path.iter().rposition(|b| matches!(b, b'\\' | b'/'));
    path.split_at(cut.map_or(0, |at| at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn facts_round_trip(size: u64, bitrate: u32, frequency: u32, seconds: u32, md5: Option<[u8; 16]>) {
            let md5 = md5.filter(|m| *m != [0; 16]);
            let facts = Facts { size, bitrate, frequency, seconds, md5 };
            let mut out = b"\"d\\\" \"f.mp3\" ".to_vec();
            facts.put(&mut out);
            let mut seen = Vec::new();
            parse_share_folder(&out, |d, f, facts| seen.push((d, f, facts))).expect("reads");
            prop_assert_eq!(seen, vec![(&b"d\\"[..], &b"f.mp3"[..], facts)]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(data: Vec<u8>) {
            let _ = parse_share(&data);
            let _ = parse_share_other(&data);
            let _ = parse_share_folder(&data, |_, _, _| {});
        }
    }

    #[test]
    fn a_checksum_that_was_not_computed_is_none() {
        let (path, facts) =
            parse_share(b"\"a\\b.mp3\" NOMD5COMPUTED 834000 128 44100 52").expect("reads");
        assert_eq!(
            (split_path(path).1, facts.md5, facts.size),
            (&b"b.mp3"[..], None, 834_000)
        );
    }
}
