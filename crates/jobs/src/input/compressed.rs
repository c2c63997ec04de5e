//! Packed input, told by the end of its name and unpacked while it is read.

use std::io::{self, BufReader, Read};

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// `.gz`, members one after another included.
    Gzip,
    /// `.zst`, frames one after another included.
    Zstd,
    /// `.bz2`, streams one after another included.
    Bzip2,
    /// `.lz4`, the frame format, frames one after another included.
    Lz4,
}

impl Compression {
    /// What the end of a path or URL says; a query is not looked at.
    pub fn of(name: &str) -> Self {
        let path = if name.contains("://") {
            name.split(['?', '#']).next().unwrap_or(name)
        } else {
            name
        };
        match path.rsplit('/').next().and_then(|n| n.rsplit_once('.')) {
            Some((_, "gz")) => Self::Gzip,
            Some((_, "zst")) => Self::Zstd,
            Some((_, "bz2")) => Self::Bzip2,
            Some((_, "lz4")) => Self::Lz4,
            _ => Self::None,
        }
    }

    /// A reader of what `packed` holds.
    ///
    /// # Errors
    /// When a decoder cannot be made.
    pub fn unpack(self, packed: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        let buffered = |r| BufReader::with_capacity(128 << 10, r);
        Ok(match self {
            Self::None => packed,
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(packed))),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(buffered(packed))?),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(packed))),
            Self::Lz4 => Box::new(Lz4Frames::new(buffered(packed))),
        })
    }
}

/// lz4 frames to the end of the file; the decoder alone stops after the first, and takes a file
/// that ends within a frame for a whole one.
struct Lz4Frames {
    inner: Option<lz4_flex::frame::FrameDecoder<Packed>>,
}

/// Remembers whether more was wanted than there is.
struct Packed {
    reader: BufReader<Box<dyn Read + Send>>,
    ended: bool,
}

impl Read for Packed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buf)?;
        self.ended |= n == 0 && !buf.is_empty();
        Ok(n)
    }
}

impl Lz4Frames {
    fn new(reader: BufReader<Box<dyn Read + Send>>) -> Self {
        let packed = Packed {
            reader,
            ended: false,
        };
        Self {
            inner: Some(lz4_flex::frame::FrameDecoder::new(packed)),
        }
    }
}

impl Read for Lz4Frames {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        use std::io::BufRead as _;
        loop {
            let Some(decoder) = &mut self.inner else {
                return Ok(0);
            };
            let n = decoder.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            if decoder.get_ref().ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if decoder.get_mut().reader.fill_buf()?.is_empty() {
                self.inner = None;
            } else {
                let rest = self.inner.take().map(|d| d.into_inner());
                self.inner = rest.map(lz4_flex::frame::FrameDecoder::new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn unpack(how: Compression, packed: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        how.unpack(Box::new(io::Cursor::new(packed)))?
            .read_to_end(&mut out)?;
        Ok(out)
    }

    fn lz4(text: &[u8]) -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn bzip2(text: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn packed_files_of_several_parts_come_out_whole() {
        type Pack = fn(&[u8]) -> Vec<u8>;
        let ways: [(Compression, Pack); 4] = [
            (Compression::Gzip, gzip),
            (Compression::Bzip2, bzip2),
            (Compression::Lz4, lz4),
            (Compression::Zstd, |t| {
                zstd::encode_all(t, 1).expect("memory")
            }),
        ];
        let big = "line after line\n".repeat(50_000).into_bytes();
        for (how, pack) in ways {
            let mut packed = pack(b"one\n");
            packed.extend(pack(&big));
            packed.extend(pack(b"three\n"));
            let out = unpack(how, packed.clone()).expect("unpacks");
            assert_eq!(out, [b"one\n", &big[..], b"three\n"].concat(), "{how:?}");
            packed.truncate(packed.len() - 3);
            packed.truncate(packed.len() - 3);
            assert!(unpack(how, packed).is_err(), "{how:?} cut short");
        }
    }

    #[test]
    fn the_end_of_the_name_tells() {
        assert_eq!(Compression::of("a/b.txt.gz"), Compression::Gzip);
        assert_eq!(Compression::of("http://h/a.zst?x=1.gz"), Compression::Zstd);
        assert_eq!(Compression::of("dir.gz/plain"), Compression::None);
        assert_eq!(Compression::of("x.bz2"), Compression::Bzip2);
        assert_eq!(Compression::of("x.lz4"), Compression::Lz4);
    }
}
