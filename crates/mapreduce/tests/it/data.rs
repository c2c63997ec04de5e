//! Map tasks, shuffle and reduce tasks joined, at budgets so small that everything spills.

use proptest::prelude::*;
use shoal_mapreduce::code::{CodeError, Collect, ReduceCode};
use shoal_mapreduce::data::order::KeyOrder;
use shoal_mapreduce::data::partition::{Cuts, Partitions};
use shoal_mapreduce::data::shuffle::Codec;
use shoal_mapreduce::data::{
    Combine, DataError, LineWriter, MapOutput, MapPlan, MapTask, MemoryStorage, ReducePlan,
    Reduction, TaskCounters, builtin, reduce,
};
use shoal_mapreduce::job::{Code, Fields, Order, Partitioner};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// How a job runs here.
#[derive(Debug, Clone, Copy)]
struct How {
    memory: usize,
    served_from_memory: usize,
    codec: Codec,
    partitions: u32,
    splits: usize,
}

fn how() -> impl Strategy<Value = How> {
    let codecs = prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd)];
    // Budgets from "every few records spill" to "all fits".
    let memory = prop_oneof![300..2000usize, Just(1 << 20)];
    (
        memory,
        prop_oneof![Just(0), Just(1 << 20)],
        codecs,
        1..4u32,
        1..5usize,
    )
        .prop_map(
            |(memory, served_from_memory, codec, partitions, splits)| How {
                memory,
                served_from_memory,
                codec,
                partitions,
                splits,
            },
        )
}

fn code(name: &str) -> Code {
    Code::Builtin {
        name: name.to_owned(),
        args: Vec::new(),
    }
}

struct Job<'a> {
    mapper: Code,
    combine: &'a dyn Fn() -> Combine,
    reduction: &'a dyn Fn() -> Reduction,
    partitioner: Partitioner,
    cuts: Cuts,
    order_values: bool,
}

fn map_output(job: &Job<'_>, how: How, files: &[(&str, u32, &[u8])]) -> MapOutput {
    let order = KeyOrder::new(&Order::Bytes, b'\t');
    let partitions = Partitions::new(&job.partitioner, how.partitions, &job.cuts, &order, b'\t');
    let plan = MapPlan {
        partitions,
        order,
        order_values: job.order_values,
        memory_bytes: how.memory,
        codec: how.codec,
        served_from_memory_bytes: how.served_from_memory,
    };
    let mapper = builtin::mapper(&job.mapper, &Fields::default()).expect("a mapper");
    let mut task = MapTask::new(plan, mapper, (job.combine)(), Box::new(MemoryStorage));
    for (name, input, text) in files {
        task.file(name, *input).expect("a name");
        task.lines(text, 0).expect("maps");
    }
    task.finish().expect("writes")
}

fn reduced(job: &Job<'_>, how: How, outputs: &[MapOutput]) -> Result<Vec<Vec<u8>>, DataError> {
    let plan = ReducePlan {
        order: KeyOrder::bytes(),
        order_values: job.order_values,
        memory_bytes: how.memory,
        codec: Codec::None,
    };
    (0..how.partitions)
        .map(|partition| {
            let runs = outputs
                .iter()
                .map(|o| Box::new(o.runs.section(partition)) as Box<dyn Read + Send>)
                .collect();
            let mut out = LineWriter::new(Vec::new(), b'\t');
            let mut counters = TaskCounters::default();
            reduce(
                &plan,
                runs,
                (job.reduction)(),
                &mut MemoryStorage,
                &mut out,
                &mut counters,
            )?;
            Ok(out.finish()?.0)
        })
        .collect()
}

/// Runs a job over texts, each a file of its own, in as many map tasks as asked for.
fn run(job: &Job<'_>, how: How, files: &[(&str, u32, &[u8])]) -> Vec<Vec<u8>> {
    let size = files.len().div_ceil(how.splits).max(1);
    let outputs: Vec<MapOutput> = files
        .chunks(size)
        .map(|files| map_output(job, how, files))
        .collect();
    reduced(job, how, &outputs).expect("reduces")
}

fn lines(parts: &[Vec<u8>]) -> Vec<String> {
    let text = String::from_utf8(parts.concat()).expect("text");
    text.lines().map(str::to_owned).collect()
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("([a-c]{1,10}[ \n]){0,60}", 1..6)
}

fn named(texts: &[String]) -> Vec<(&str, u32, &[u8])> {
    const NAMES: [&str; 6] = ["f", "b", "d", "a", "e", "c"];
    let named = texts.iter().zip(NAMES);
    named
        .map(|(text, name)| (name, 0, text.as_bytes()))
        .collect()
}

fn fold(name: &'static str, combine: bool) -> impl Fn() -> Combine {
    move || {
        if combine {
            builtin::combine(&code(name)).expect("associative")
        } else {
            Combine::None
        }
    }
}

/// A combiner that is code: adds numbers, and emits its keys in the wrong order.
#[derive(Default)]
struct Adding(BTreeMap<Vec<u8>, u64>);

impl ReduceCode for Adding {
    fn records(&mut self, batch: &[u8], _: &mut dyn Collect) -> Result<(), CodeError> {
        for record in shoal_mapreduce::batch::Records::new(batch) {
            let (key, value) = record.expect("whole");
            let value: u64 = String::from_utf8_lossy(value).parse().expect("a number");
            *self.0.entry(key.to_vec()).or_default() += value;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        for (key, value) in self.0.iter().rev() {
            out.emit(key, value.to_string().as_bytes());
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn words_are_counted(texts in texts(), how in how(), combiner in 0..3) {
        let by_code = || Combine::Code(Box::new(|| Ok(Reduction::Code(Box::new(Adding::default())))));
        let by_fold = fold("wordcount", combiner == 1);
        let combine: &dyn Fn() -> Combine = if combiner == 2 { &by_code } else { &by_fold };
        let job = Job {
            mapper: code("wordcount"),
            combine,
            reduction: &|| builtin::reduction(&code("wordcount"), &Fields::default()).expect("known"),
            partitioner: Partitioner::Hash,
            cuts: Cuts::default(),
            order_values: false,
        };
        let parts = run(&job, how, &named(&texts));
        let mut slow: BTreeMap<&str, u64> = BTreeMap::new();
        for word in texts.iter().flat_map(|text| text.split_whitespace()) {
            *slow.entry(word).or_default() += 1;
        }
        let mut got = lines(&parts);
        for part in &parts {
            prop_assert!(lines(std::slice::from_ref(part)).is_sorted());
        }
        got.sort();
        let slow: Vec<String> = slow.iter().map(|(word, n)| format!("{word}\t{n}")).collect();
        prop_assert_eq!(got, slow);
    }

    #[test]
    fn an_index_names_each_words_files_in_order(texts in texts(), how in how(), combine: bool) {
        let job = Job {
            mapper: code("index"),
            combine: &fold("index", combine),
            reduction: &|| builtin::reduction(&code("index"), &Fields::default()).expect("known"),
            partitioner: Partitioner::Hash,
            cuts: Cuts::default(),
            order_values: false,
        };
        let files = named(&texts);
        let mut slow: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (text, (name, ..)) in texts.iter().zip(&files) {
            for word in text.split_whitespace() {
                slow.entry(word).or_default().insert(name);
            }
        }
        let slow: Vec<String> = slow
            .iter()
            .map(|(word, names)| {
                let names: Vec<&str> = names.iter().copied().collect();
                format!("{word}\t{}", names.join(","))
            })
            .collect();
        let mut got = lines(&run(&job, how, &files));
        got.sort();
        prop_assert_eq!(got, slow);
    }

    #[test]
    fn lines_are_sorted_over_all_partitions(texts in texts(), how in how()) {
        let mut slow: Vec<String> = texts.iter().flat_map(|t| t.lines().map(str::to_owned)).collect();
        let sample = slow.iter().step_by(2).map(|l| l.clone().into_bytes()).collect();
        let job = Job {
            mapper: code("sort"),
            combine: &|| Combine::None,
            reduction: &|| Reduction::Identity,
            partitioner: Partitioner::Range,
            cuts: Cuts::from_sample(sample, how.partitions, &KeyOrder::bytes()),
            order_values: false,
        };
        let got = lines(&run(&job, how, &named(&texts)));
        slow.sort();
        prop_assert_eq!(got, slow);
    }

    #[test]
    fn inputs_are_joined(
        left in proptest::collection::vec((0..5u8, "[a-c]{0,3}"), 0..20),
        right in proptest::collection::vec((0..5u8, "[a-c]{0,3}"), 0..20),
        how in how(),
    ) {
        let text = |side: &[(u8, String)]| -> String {
            side.iter().map(|(key, rest)| format!("{key}\t{rest}\n")).collect()
        };
        let (l, r) = (text(&left), text(&right));
        let job = Job {
            mapper: code("join"),
            combine: &|| Combine::None,
            reduction: &|| builtin::reduction(&code("join"), &Fields::default()).expect("known"),
            partitioner: Partitioner::Hash,
            cuts: Cuts::default(),
            order_values: true,
        };
        // The right side comes first: what is left is told by the input's number.
        let files = [("r", 1, r.as_bytes()), ("l", 0, l.as_bytes())];
        let mut got = lines(&run(&job, how, &files));
        got.sort();
        let mut slow = Vec::new();
        for (key, a) in &left {
            for (_, b) in right.iter().filter(|(other, _)| other == key) {
                let both: Vec<&str> = [a.as_str(), b].into_iter().filter(|s| !s.is_empty()).collect();
                let value = both.join("\t");
                slow.push(if value.is_empty() { key.to_string() } else { format!("{key}\t{value}") });
            }
        }
        slow.sort();
        prop_assert_eq!(got, slow);
    }

    #[test]
    fn a_damaged_run_is_named(texts in texts(), how in how(), cut: bool, at: usize, bit in 0..8u32) {
        let job = Job {
            mapper: code("sort"),
            combine: &|| Combine::None,
            reduction: &|| Reduction::Identity,
            partitioner: Partitioner::Hash,
            cuts: Cuts::default(),
            order_values: false,
        };
        let good = map_output(&job, how, &named(&texts));
        let mut bytes = Vec::new();
        good.runs.section(0).read_to_end(&mut bytes).expect("in memory");
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1u8 << bit;
        }
        let runs: Vec<Box<dyn Read + Send>> =
            vec![Box::new(good.runs.section(0)), Box::new(std::io::Cursor::new(bytes))];
        let plan = ReducePlan {
            order: KeyOrder::bytes(),
            order_values: false,
            memory_bytes: how.memory,
            codec: Codec::None,
        };
        let mut out = LineWriter::new(Vec::new(), b'\t');
        let mut counters = TaskCounters::default();
        let result = reduce(&plan, runs, Reduction::Identity, &mut MemoryStorage, &mut out, &mut counters);
        let named = matches!(result, Err(DataError::Run { run: 1, .. }));
        prop_assert!(named, "{result:?}");
    }
}
