//! Properties of a job: names that Hadoop renamed, numbers and flags, and files of them (`-conf`).

use std::collections::BTreeMap;

use super::arguments::ArgumentError;

/// Names since Hadoop 2, and what Hadoop 1 called them. Either may be set; tasks see both.
const RENAMED: &[(&str, &str)] = &[
    ("mapreduce.job.name", "mapred.job.name"),
    ("mapreduce.job.reduces", "mapred.reduce.tasks"),
    ("mapreduce.job.maps", "mapred.map.tasks"),
    ("mapreduce.job.priority", "mapred.job.priority"),
    ("mapreduce.map.maxattempts", "mapred.map.max.attempts"),
    ("mapreduce.reduce.maxattempts", "mapred.reduce.max.attempts"),
    ("mapreduce.task.timeout", "mapred.task.timeout"),
    (
        "mapreduce.map.speculative",
        "mapred.map.tasks.speculative.execution",
    ),
    (
        "mapreduce.reduce.speculative",
        "mapred.reduce.tasks.speculative.execution",
    ),
    (
        "mapreduce.input.fileinputformat.split.minsize",
        "mapred.min.split.size",
    ),
    (
        "mapreduce.input.fileinputformat.split.maxsize",
        "mapred.max.split.size",
    ),
    (
        "mapreduce.input.lineinputformat.linespermap",
        "mapred.line.input.format.linespermap",
    ),
    ("mapreduce.task.io.sort.mb", "io.sort.mb"),
    (
        "mapreduce.output.fileoutputformat.compress",
        "mapred.output.compress",
    ),
    (
        "mapreduce.output.fileoutputformat.compress.codec",
        "mapred.output.compression.codec",
    ),
    (
        "mapreduce.map.output.compress",
        "mapred.compress.map.output",
    ),
    (
        "mapreduce.map.output.key.field.separator",
        "map.output.key.field.separator",
    ),
    (
        "mapreduce.partition.keypartitioner.options",
        "mapred.text.key.partitioner.options",
    ),
    (
        "mapreduce.partition.keycomparator.options",
        "mapred.text.key.comparator.options",
    ),
    (
        "mapreduce.job.output.key.comparator.class",
        "mapred.output.key.comparator.class",
    ),
    (
        "mapreduce.job.output.group.comparator.class",
        "mapred.output.value.groupfn.class",
    ),
    (
        "mapreduce.output.textoutputformat.separator",
        "mapred.textoutputformat.separator",
    ),
    (
        "mapreduce.map.skip.maxrecords",
        "mapred.skip.map.max.skip.records",
    ),
    ("mapreduce.job.user.name", "user.name"),
    ("fs.defaultFS", "fs.default.name"),
];

/// Properties by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Of these. One that is set by one of two names is known by both; if they differ, the new
    /// one counts.
    pub fn new(mut all: BTreeMap<String, String>) -> Self {
        for (new, old) in RENAMED {
            let value = all.get(*new).or_else(|| all.get(*old)).cloned();
            if let Some(value) = value {
                all.insert((*new).to_owned(), value.clone());
                all.insert((*old).to_owned(), value);
            }
        }
        Self(all)
    }

    /// One of them, by the name since Hadoop 2. An empty one is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A whole number.
    ///
    /// # Errors
    /// When it is none, or negative.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ArgumentError> {
        self.get(name)
            .map(|text| {
                text.trim().parse().map_err(|_| {
                    ArgumentError::new(
                        format!("-D {name}={text}"),
                        "expected a whole number, 0 or more",
                    )
                })
            })
            .transpose()
    }

    /// A flag.
    ///
    /// # Errors
    /// When it is neither `true` nor `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ArgumentError> {
        self.get(name)
            .map(|text| match text.trim().to_ascii_lowercase().as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(ArgumentError::new(
                    format!("-D {name}={text}"),
                    "expected true or false",
                )),
            })
            .transpose()
    }

    /// A separator, which is one byte.
    ///
    /// # Errors
    /// When it is longer.
    pub fn separator(&self, name: &str) -> Result<Option<u8>, ArgumentError> {
        self.get(name)
            .map(|text| match text.as_bytes() {
                [byte] => Ok(*byte),
                // What a shell makes of it is one byte, but files of properties are often so written.
                b"\\t" => Ok(b'\t'),
                _ => Err(ArgumentError::new(
                    format!("-D {name}={text}"),
                    "a separator is one byte here",
                )),
            })
            .transpose()
    }

    /// All of them.
    pub fn into_all(self) -> BTreeMap<String, String> {
        self.0
    }
}

/// Reads a file of properties in Hadoop's XML: `<configuration><property><name>…<value>…`.
///
/// # Errors
/// When it is not that; the message says where.
pub fn parse_conf(text: &str) -> Result<BTreeMap<String, String>, String> {
    // A document type could stand for entities of any size; Hadoop's files have none.
    let document = roxmltree::Document::parse(text).map_err(|e| e.to_string())?;
    let root = document.root_element();
    if root.tag_name().name() != "configuration" {
        return Err(format!(
            "its root is <{}>, not <configuration>",
            root.tag_name().name()
        ));
    }
    let mut all = BTreeMap::new();
    let properties = root.children().filter(|n| n.has_tag_name("property"));
    for property in properties {
        let of = |tag: &str| {
            let node = property.children().find(|n| n.has_tag_name(tag))?;
            Some(node.text().unwrap_or_default().trim().to_owned())
        };
        let Some(name) = of("name").filter(|name| !name.is_empty()) else {
            let at = document.text_pos_at(property.range().start);
            return Err(format!("the property at {at} has no name"));
        };
        all.insert(name, of("value").unwrap_or_default());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pairs: &[(&str, &str)]) -> Properties {
        let pair = |(n, v): &(&str, &str)| ((*n).to_owned(), (*v).to_owned());
        Properties::new(pairs.iter().map(pair).collect())
    }

    #[test]
    fn either_name_sets_both_and_the_new_one_counts() {
        let old = of(&[("mapred.reduce.tasks", "3")]);
        assert_eq!(old.number("mapreduce.job.reduces"), Ok(Some(3)));
        let both = of(&[("mapred.reduce.tasks", "3"), ("mapreduce.job.reduces", "4")]);
        assert_eq!(both.number("mapreduce.job.reduces"), Ok(Some(4)));
        assert_eq!(both.into_all()["mapred.reduce.tasks"], "4");
    }

    #[test]
    fn values_of_the_wrong_kind_are_named() {
        let bad = of(&[
            ("mapreduce.job.reduces", "-1"),
            ("stream.x", "ab"),
            ("f", "yes"),
        ]);
        let why = bad.number("mapreduce.job.reduces").expect_err("negative");
        assert_eq!(why.option, "-D mapreduce.job.reduces=-1");
        assert!(bad.separator("stream.x").is_err() && bad.flag("f").is_err());
        assert_eq!(bad.flag("none"), Ok(None));
        assert_eq!(of(&[("s", "\t")]).separator("s"), Ok(Some(b'\t')));
    }

    #[test]
    fn files_of_properties_are_read() {
        let text = "<?xml version=\"1.0\"?>\n<configuration>\n<property><name> a.b </name>\
                    <value>1 &lt; 2</value><final>true</final></property>\
                    <property><name>e</name></property></configuration>";
        let got = parse_conf(text).expect("properties");
        assert_eq!(got["a.b"], "1 < 2");
        assert_eq!(got["e"], "");
        assert!(
            parse_conf("<x/>")
                .expect_err("another root")
                .contains("<x>")
        );
        assert!(parse_conf("<configuration><property/></configuration>").is_err());
        assert!(parse_conf("a=b").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_properties_or_an_error(text in "[<>/a-z&;!\"= ]{0,60}") {
            let _ = parse_conf(&text);
        }
    }
}
