//! The arguments of Hadoop Streaming, generic options (`-D`, `-files`, …) included.

use std::collections::BTreeMap;

/// An argument that cannot be taken: which, why, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {why}")]
pub struct ArgumentError {
    /// The option as it was written.
    pub option: String,
    /// What is wrong with it.
    pub why: String,
    /// What to do instead, if there is something.
    pub hint: Option<String>,
}

impl ArgumentError {
    /// An error without advice.
    pub fn new(option: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            option: option.into(),
            why: why.into(),
            hint: None,
        }
    }

    /// Adds what to do instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a Streaming command line says, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `-input`, in order; each may be a list with commas.
    pub inputs: Vec<String>,
    /// `-output`.
    pub output: Option<String>,
    /// `-mapper`.
    pub mapper: Option<String>,
    /// `-combiner`.
    pub combiner: Option<String>,
    /// `-reducer`.
    pub reducer: Option<String>,
    /// `-partitioner`.
    pub partitioner: Option<String>,
    /// `-inputformat`.
    pub input_format: Option<String>,
    /// `-outputformat`.
    pub output_format: Option<String>,
    /// `-D name=value` and `-jobconf name=value`, and what is another way to write one. The last
    /// word counts.
    pub properties: BTreeMap<String, String>,
    /// `-conf`: files of properties.
    pub conf: Vec<String>,
    /// `-cmdenv name=value`.
    pub environment: Vec<(String, String)>,
    /// `-files` and `-file`: files of this machine unless a scheme is written, with `#NAME`.
    pub files: Vec<String>,
    /// `-archives`, likewise.
    pub archives: Vec<String>,
    /// `-cacheFile`: files of the store unless a scheme is written.
    pub cache_files: Vec<String>,
    /// `-cacheArchive`, likewise.
    pub cache_archives: Vec<String>,
    /// `-libjars`.
    pub libjars: Vec<String>,
    /// `-fs`.
    pub default_fs: Option<String>,
    /// `-lazyOutput`: no part file without a record.
    pub lazy_output: bool,
    /// `-verbose`.
    pub verbose: bool,
    /// `-help` or `-info`.
    pub help: bool,
    /// What is taken and changes nothing, to be told.
    pub ignored: Vec<String>,
}

/// Options that take a value.
const VALUES: &[&str] = &[
    "D",
    "conf",
    "fs",
    "jt",
    "files",
    "archives",
    "libjars",
    "input",
    "output",
    "mapper",
    "combiner",
    "reducer",
    "file",
    "partitioner",
    "inputformat",
    "outputformat",
    "numReduceTasks",
    "inputreader",
    "cmdenv",
    "cacheFile",
    "cacheArchive",
    "io",
    "mapdebug",
    "reducedebug",
    "jobconf",
    "additionalconfspec",
    "dfs",
    "tokenCacheFile",
];

/// `NAME=VALUE`.
fn pair(option: &str, text: &str) -> Result<(String, String), ArgumentError> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err(ArgumentError::new(
            format!("{option} {text}"),
            "expected NAME=VALUE",
        )),
    }
}

/// Splits at commas, but not at those within braces: `a,b{c,d}` is `a` and `b{c,d}`.
pub fn split_commas(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0u32;
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Reads the arguments that follow the name of the Streaming jar.
///
/// # Errors
/// For an option that is unknown, lacks its value, or asks for what cannot be had here.
pub fn parse(words: &[String]) -> Result<Arguments, ArgumentError> {
    let mut all = Arguments::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix('-').filter(|n| !n.is_empty()) else {
            return Err(ArgumentError::new(word, "a word that belongs to no option")
                .hint("commands of more than one word need quotes: -mapper 'python3 map.py'"));
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        // `-Dname=value`, as one word.
        if let Some(text) = word.strip_prefix("-D").filter(|text| !text.is_empty()) {
            let (name, value) = pair("-D", text)?;
            all.properties.insert(name, value);
            continue;
        }
        if !VALUES.contains(&name) {
            all.flag(word, name)?;
            continue;
        }
        let value = words
            .next()
            .ok_or_else(|| ArgumentError::new(word, "needs a value"))?;
        all.take(word, name, value)?;
    }
    Ok(all)
}

impl Arguments {
    fn flag(&mut self, word: &str, name: &str) -> Result<(), ArgumentError> {
        match name {
            "lazyOutput" => self.lazy_output = true,
            "verbose" | "debug" => self.verbose = true,
            "help" | "info" | "h" => self.help = true,
            "background" => {
                return Err(ArgumentError::new(word, "the job runs in this process")
                    .hint("put it into the background with the shell: `hadoop jar … &`"));
            }
            _ => {
                return Err(ArgumentError::new(word, "there is no such option")
                    .hint("hadoop jar hadoop-streaming.jar -help lists them"));
            }
        }
        Ok(())
    }

    fn take(&mut self, word: &str, name: &str, value: &str) -> Result<(), ArgumentError> {
        let text = value.to_owned();
        // Twice is a mistake where only one can count.
        let once = |place: &mut Option<String>| {
            if let Some(first) = place.replace(text.clone()) {
                return Err(ArgumentError::new(
                    word,
                    format!("given twice: {first:?} and {value:?}"),
                ));
            }
            Ok(())
        };
        match name {
            "D" | "jobconf" => {
                let (name, value) = pair(word, value)?;
                self.properties.insert(name, value);
            }
            "conf" | "additionalconfspec" => self.conf.push(text),
            "fs" => once(&mut self.default_fs)?,
            "input" => self.inputs.push(text),
            "output" => once(&mut self.output)?,
            "mapper" => once(&mut self.mapper)?,
            "combiner" => once(&mut self.combiner)?,
            "reducer" => once(&mut self.reducer)?,
            "partitioner" => once(&mut self.partitioner)?,
            "inputformat" => once(&mut self.input_format)?,
            "outputformat" => once(&mut self.output_format)?,
            "files" => self.files.extend(split_commas(value)),
            "archives" => self.archives.extend(split_commas(value)),
            "libjars" => self.libjars.extend(split_commas(value)),
            "file" => self.files.push(text),
            "cacheFile" => self.cache_files.push(text),
            "cacheArchive" => self.cache_archives.push(text),
            "cmdenv" => self.environment.push(pair(word, value)?),
            "numReduceTasks" => {
                let name = "mapreduce.job.reduces".to_owned();
                self.properties.insert(name, text);
            }
            "io" if value == "text" => {}
            "io" => {
                return Err(ArgumentError::new(
                    format!("{word} {value}"),
                    "commands read and write lines of text here, nothing else",
                )
                .hint("write records as key<TAB>value lines, and leave -io out"));
            }
            "inputreader" => {
                return Err(ArgumentError::new(
                    word,
                    "record readers are Java classes, and no Java runs here",
                )
                .hint("let the mapper read lines, or turn the input into lines first"));
            }
            // What runs where is not asked of Hadoop's daemons.
            "jt" | "dfs" | "tokenCacheFile" | "mapdebug" | "reducedebug" => {
                self.ignored.push(format!("{word} {value}"));
            }
            _ => return Err(ArgumentError::new(word, "there is no such option")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn what_mrjob_writes_is_read() {
        let line = words(&[
            "-files",
            "hdfs:///user/u/tmp/job.py#job.py,hdfs:///user/u/tmp/setup-wrapper.sh#setup-wrapper.sh",
            "-D",
            "mapreduce.job.name=x=y",
            "-Dstream.num.map.output.key.fields=2",
            "-partitioner",
            "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
            "-cmdenv",
            "TZ=Europe/Berlin",
            "-input",
            "hdfs:///in/a",
            "-input",
            "hdfs:///in/b",
            "-output",
            "hdfs:///out",
            "-mapper",
            "/bin/sh -ex setup-wrapper.sh python3 job.py --step-num=0 --mapper",
        ]);
        let got = parse(&line).expect("a command line");
        assert_eq!(got.files.len(), 2);
        assert_eq!(got.properties["mapreduce.job.name"], "x=y");
        assert_eq!(got.properties["stream.num.map.output.key.fields"], "2");
        assert_eq!(got.environment, [("TZ".into(), "Europe/Berlin".into())]);
        assert_eq!(got.inputs, ["hdfs:///in/a", "hdfs:///in/b"]);
        assert_eq!(got.output.as_deref(), Some("hdfs:///out"));
        assert!(got.reducer.is_none() && got.partitioner.is_some());
    }

    #[test]
    fn mistakes_name_the_option() {
        let why = |line: &[&str]| parse(&words(line)).expect_err("a mistake");
        assert_eq!(why(&["-mapper"]).to_string(), "-mapper: needs a value");
        assert_eq!(why(&["-maper", "x"]).option, "-maper");
        assert_eq!(why(&["-D", "x"]).option, "-D x");
        assert_eq!(why(&["-io", "typedbytes"]).option, "-io typedbytes");
        assert_eq!(why(&["-output", "a", "-output", "b"]).option, "-output");
        assert!(why(&["-mapper", "python3", "map.py"]).hint.is_some());
        assert!(why(&["-background"]).hint.is_some());
        assert!(why(&["-inputreader", "StreamXmlRecord"]).hint.is_some());
    }

    #[test]
    fn lists_are_split_outside_of_braces() {
        assert_eq!(split_commas("a,b{c,d},,e"), ["a", "b{c,d}", "e"]);
        assert_eq!(split_commas("}a,b"), ["}a", "b"]);
        assert!(split_commas(" , ").is_empty());
    }

    /// Options that may be written in any order, with what they say.
    fn option() -> impl Strategy<Value = Vec<String>> {
        let text = "[^\0]{0,12}";
        prop_oneof![
            ("[a-z.]{1,12}", text).prop_map(|(n, v)| vec!["-D".into(), format!("{n}={v}")]),
            ("[a-z.]{1,12}", text).prop_map(|(n, v)| vec![format!("-D{n}={v}")]),
            text.prop_map(|v| vec!["-input".into(), v]),
            ("[A-Z_]{1,9}", text).prop_map(|(n, v)| vec!["-cmdenv".into(), format!("{n}={v}")]),
            Just(vec!["-lazyOutput".into()]),
            text.prop_map(|v| vec!["-file".into(), v]),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_gets_lost(options in proptest::collection::vec(option(), 0..12)) {
            let count = |name: &str| options.iter().filter(|o| o[0] == name).count();
            let line: Vec<String> = options.iter().flatten().cloned().collect();
            let got = parse(&line).expect("options");
            prop_assert_eq!(got.inputs.len(), count("-input"));
            prop_assert_eq!(got.files.len(), count("-file"));
            prop_assert_eq!(got.environment.len(), count("-cmdenv"));
            prop_assert_eq!(got.lazy_output, count("-lazyOutput") > 0);
            for option in options.iter().rev().filter(|o| o[0].starts_with("-D")) {
                let text = option.last().expect("a word").trim_start_matches("-D");
                let (name, _) = text.split_once('=').expect("a pair");
                prop_assert!(got.properties.contains_key(name));
            }
        }

        #[test]
        fn any_words_are_arguments_or_an_error(
            line in proptest::collection::vec("-?-?[a-zA-Z=#,{}./]{0,16}", 0..12),
        ) {
            let _ = parse(&line);
        }
    }
}
