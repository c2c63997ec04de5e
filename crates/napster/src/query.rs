//! What 200 asks for.

use shoal_base::words::text_of;
use shoal_content::FileKind;
use shoal_content::keywords::Terms;

use crate::fields::{BadField, Fields, number, put_number, put_quoted};
use crate::file::Facts;

/// How a number shall compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `AT LEAST`
    AtLeast,
    /// `AT BEST`
    AtMost,
    /// `EQUAL TO`
    Equal,
}

/// A bound on a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u64,
}

impl Bound {
    /// Whether `n` is within it.
    pub fn admits(self, n: u64) -> bool {
        match self.compare {
            Compare::AtLeast => n >= self.value,
            Compare::AtMost => n <= self.value,
            Compare::Equal => n == self.value,
        }
    }
}

/// A search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Texts whose words must all be in the path.
    pub contains: Vec<Vec<u8>>,
    /// Texts of whose words none may be in the path.
    pub excludes: Vec<Vec<u8>>,
    /// Results wanted; none if it was not said.
    pub max_results: Option<u32>,
    /// Bounds, each at most twice (a least and a most).
    pub bitrate: Vec<Bound>,
    /// On samples a second.
    pub frequency: Vec<Bound>,
    /// On the sharer's link (0 to 10).
    pub link: Vec<Bound>,
    /// On the size in bytes.
    pub size: Vec<Bound>,
    /// On the length in seconds.
    pub seconds: Vec<Bound>,
    /// Only names of this kind; from `TYPE` and `WMA-FILE`.
    pub content: Option<FileKind>,
    /// Not to be passed on to linked hubs.
    pub local_only: bool,
}

/// Texts and bounds of one kind at most, so that no query is dear.
const MOST: usize = 8;

impl Query {
    /// Reads the data of 200, in whatever order its parts come.
    pub fn parse(data: &[u8]) -> Result<Self, BadField> {
        let mut query = Self::default();
        let mut fields = Fields::new(data);
        while let Some(key) = fields.word() {
            match key.to_ascii_uppercase().as_slice() {
                b"FILENAME" => {
                    let how = fields.text("CONTAINS")?.to_ascii_uppercase();
                    let text = fields.text("text")?.to_vec();
                    let list = match how.as_slice() {
                        b"CONTAINS" => &mut query.contains,
                        b"EXCLUDES" => &mut query.excludes,
                        _ => return Err(BadField::Invalid("FILENAME")),
                    };
                    push(list, text, "FILENAME")?;
                }
                b"MAX_RESULTS" => {
                    let n = fields.number("MAX_RESULTS")?;
                    query.max_results = Some(u32::try_from(n).unwrap_or(u32::MAX));
                }
                b"BITRATE" => push(&mut query.bitrate, bound(&mut fields)?, "BITRATE")?,
                b"FREQ" => push(&mut query.frequency, bound(&mut fields)?, "FREQ")?,
                b"LINESPEED" => push(&mut query.link, bound(&mut fields)?, "LINESPEED")?,
                b"SIZE" => push(&mut query.size, bound(&mut fields)?, "SIZE")?,
                b"DURATION" => push(&mut query.seconds, bound(&mut fields)?, "DURATION")?,
                b"TYPE" => query.content = FileKind::parse(fields.text("TYPE")?),
                b"WMA-FILE" => query.content = FileKind::parse(b"wma"),
                b"LOCAL_ONLY" | b"LOCAL" => query.local_only = true,
                _ => return Err(BadField::Invalid("search")),
            }
        }
        if query.contains.is_empty() {
            return Err(BadField::Missing("FILENAME CONTAINS"));
        }
        Ok(query)
    }

    /// Whether it asks for a file that is known by its path and `facts`. What is unknown is zero there,
    /// as it is in a hub's own list, and compared as such.
    pub fn admits(&self, path: &str, facts: &Facts) -> bool {
        let mut terms = Terms::default();
        for text in &self.contains {
            terms.require(&text_of(text));
        }
        for text in &self.excludes {
            terms.ban(&text_of(text));
        }
        let bounds = [
            (&self.size, facts.size),
            (&self.bitrate, facts.bitrate.into()),
            (&self.frequency, facts.frequency.into()),
            (&self.seconds, facts.seconds.into()),
        ];
        let within = |(bounds, n): &(&Vec<Bound>, u64)| bounds.iter().all(|b| b.admits(*n));
        terms.fit(path)
            && bounds.iter().all(within)
            && self
                .content
                .as_ref()
                .is_none_or(|c| c.is_of(path.as_bytes()))
    }

    /// Appends it as the data of 200.
    pub fn put(&self, out: &mut Vec<u8>) {
        let text = |how: &[u8], text: &[u8], out: &mut Vec<u8>| {
            out.extend_from_slice(b"FILENAME ");
            out.extend_from_slice(how);
            put_quoted(text, out);
            out.push(b' ');
        };
        for t in &self.contains {
            text(b"CONTAINS ", t, out);
        }
        if let Some(n) = self.max_results {
            out.extend_from_slice(b"MAX_RESULTS ");
            put_number(u64::from(n), out);
            out.push(b' ');
        }
        for t in &self.excludes {
            text(b"EXCLUDES ", t, out);
        }
        for (key, bounds) in [
            (&b"LINESPEED "[..], &self.link),
            (b"BITRATE ", &self.bitrate),
            (b"FREQ ", &self.frequency),
            (b"SIZE ", &self.size),
            (b"DURATION ", &self.seconds),
        ] {
            for bound in bounds {
                out.extend_from_slice(key);
                out.extend_from_slice(match bound.compare {
                    Compare::AtLeast => b"\"AT LEAST\" \"",
                    Compare::AtMost => b"\"AT BEST\" \"",
                    Compare::Equal => b"\"EQUAL TO\" \"",
                });
                put_number(bound.value, out);
                out.extend_from_slice(b"\" ");
            }
        }
        if let Some(content) = &self.content {
            out.extend_from_slice(b"TYPE ");
            put_quoted(content.name(), out);
            out.push(b' ');
        }
        if self.local_only {
            out.extend_from_slice(b"LOCAL_ONLY ");
        }
        out.truncate(out.trim_ascii_end().len());
    }
}

fn push<T>(list: &mut Vec<T>, item: T, name: &'static str) -> Result<(), BadField> {
    if list.len() >= MOST {
        return Err(BadField::Invalid(name));
    }
    list.push(item);
    Ok(())
}

fn bound(fields: &mut Fields<'_>) -> Result<Bound, BadField> {
    let compare = match fields.text("comparison")?.to_ascii_uppercase().as_slice() {
        b"AT LEAST" => Compare::AtLeast,
        b"AT BEST" | b"AT MOST" => Compare::AtMost,
        b"EQUAL TO" => Compare::Equal,
        _ => return Err(BadField::Invalid("comparison")),
    };
    let value = number(fields.text("value")?).ok_or(BadField::Invalid("value"))?;
    Ok(Bound { compare, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_teknap_sends_is_understood() {
        let q = Query::parse(
            b"FILENAME CONTAINS \"shoal\" MAX_RESULTS 10  BITRATE \"AT LEAST\" \"64\"",
        )
        .expect("reads");
        assert_eq!(q.contains, [b"shoal"]);
        assert_eq!(q.max_results, Some(10));
        let bound = Bound {
            compare: Compare::AtLeast,
            value: 64,
        };
        assert_eq!(q.bitrate, [bound]);
        assert!(bound.admits(64) && !bound.admits(63));
    }

    #[test]
    fn a_file_of_another_network_is_judged_by_what_is_known_of_it() {
        let admits_of = |facts: Facts, data: &str, path: &str| {
            let query = Query::parse(data.as_bytes()).expect("reads");
            query.admits(
                path,
                &Facts {
                    size: 5000,
                    ..facts
                },
            )
        };
        let admits = |data: &str, path: &str| admits_of(Facts::default(), data, path);
        let song = "x/A Blue Song.mp3";
        assert!(admits("FILENAME CONTAINS \"blue song\" TYPE mp3", song));
        assert!(!admits("FILENAME CONTAINS \"blue song\" TYPE video", song));
        assert!(!admits(
            "FILENAME CONTAINS blue FILENAME EXCLUDES song",
            song
        ));
        assert!(!admits(
            "FILENAME CONTAINS blue SIZE \"AT LEAST\" 6000",
            song
        ));
        assert!(admits("FILENAME CONTAINS blue SIZE \"AT BEST\" 6000", song));
        assert!(!admits(
            "FILENAME CONTAINS blue BITRATE \"AT LEAST\" 64",
            song
        ));
        let sound = Facts {
            bitrate: 128,
            frequency: 44_100,
            seconds: 200,
            ..Facts::default()
        };
        for (bound, fits) in [
            ("BITRATE \"AT LEAST\" 128", true),
            ("BITRATE \"AT LEAST\" 129", false),
            ("FREQ \"EQUAL TO\" 44100", true),
            ("DURATION \"AT BEST\" 199", false),
        ] {
            let data = format!("FILENAME CONTAINS blue {bound}");
            assert_eq!(admits_of(sound, &data, song), fits, "{bound}");
        }
    }

    #[test]
    fn kinds_of_files_are_told_by_their_names() {
        let is = |kind: &str, name: &[u8]| {
            FileKind::parse(kind.as_bytes()).is_none_or(|c| c.is_of(name))
        };
        assert!(
            is("audio", b"a.MP3")
                && is("MP3", b"a.mp3")
                && is("any", b"x")
                && is("video", b"b.x.mkv")
        );
        assert!(!is("audio", b"a.avi") && !is("mp3", b"mp3") && !is("text", b"a.mp3"));
    }

    fn bounds() -> impl Strategy<Value = Vec<Bound>> {
        let how = prop_oneof![
            Just(Compare::AtLeast),
            Just(Compare::AtMost),
            Just(Compare::Equal)
        ];
        let one = (how, any::<u64>()).prop_map(|(compare, value)| Bound { compare, value });
        proptest::collection::vec(one, 0..3)
    }

    fn texts(least: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec("[a-z 0-9]{1,9}".prop_map(String::into_bytes), least..4)
    }

    proptest! {
        #[test]
        fn queries_round_trip(
            contains in texts(1), excludes in texts(0), max_results: Option<u32>,
            bitrate in bounds(), link in bounds(), size in bounds(), local_only: bool,
            content in proptest::option::of("[b-z]{1,4}|audio|application"),
        ) {
            let content = content.and_then(|c| FileKind::parse(c.as_bytes()));
            let q = Query { contains, excludes, max_results, bitrate, link, size, local_only, content, ..Query::default() };
            let mut out = Vec::new();
            q.put(&mut out);
            prop_assert_eq!(Query::parse(&out), Ok(q));
        }

        #[test]
        fn any_bytes_are_read_or_refused(data: Vec<u8>) {
            let _ = Query::parse(&data);
        }
    }
}
