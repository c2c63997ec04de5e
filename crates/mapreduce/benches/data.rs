//! The inner loops of map and reduce tasks on one core, without files:
//! `cargo bench -p shoal-mapreduce`.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use shoal_base::Rng;
use shoal_mapreduce::code::{CodeError, Collect};
use shoal_mapreduce::data::order::KeyOrder;
use shoal_mapreduce::data::partition::{Cuts, Partitions};
use shoal_mapreduce::data::reduce::reduce;
use shoal_mapreduce::data::shuffle::Codec;
use shoal_mapreduce::data::{
    Combine, LineWriter, MapOutput, MapPlan, MapTask, MemoryStorage, ReducePlan, Reduction,
    TaskCounters, builtin, fold,
};
use shoal_mapreduce::job::{Code, Fields, Partitioner};
use std::io::Read;
use std::time::Instant;

const MIB: usize = 1 << 20;

fn report(what: &str, bytes: usize, records: u64, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    let s = start.elapsed().as_secs_f64();
    let ns = s * 1e9 / records.max(1) as f64;
    let rate = bytes as f64 / MIB as f64 / s;
    println!("{what:<46} {rate:8.0} MiB/s {ns:8.1} ns a record");
}

/// Text whose words are distributed as in natural language: rank *r* of 400,000 comes up about
/// 1/r as often as the first, frequent words are short.
fn text(bytes: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    let vocabulary = 400_000u32;
    let mut out = Vec::with_capacity(bytes + 100);
    let mut words = 0;
    while out.len() < bytes {
        // Uniform in the logarithm of the rank is 1/r.
        let u = rng.below(1 << 30) as f64 / f64::from(1 << 30);
        let rank = f64::from(vocabulary).powf(u) as u32;
        word(rank, &mut out);
        words += 1;
        out.push(if words % 12 == 0 { b'\n' } else { b' ' });
    }
    out.push(b'\n');
    out
}

fn word(rank: u32, out: &mut Vec<u8>) {
    let mut rest = rank;
    while rest > 0 {
        out.push(b"etaoinshrdlcum"[rest as usize % 14]);
        out.push(b"aeiouy"[rest as usize / 14 % 6]);
        rest /= 84;
    }
}

/// Lines of 99 bytes that begin with ten random ones.
fn lines(count: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    let mut out = Vec::with_capacity(count * 100);
    for n in 0..count {
        for _ in 0..10 {
            out.push(b' ' + rng.below(95) as u8);
        }
        out.extend_from_slice(format!("{n:088}\n").as_bytes());
    }
    out
}

fn builtin(name: &str) -> Code {
    Code::Builtin {
        name: name.to_owned(),
        args: match name {
            "grep" => vec!["daheta".to_owned()],
            _ => Vec::new(),
        },
    }
}

fn plan(partitioner: &Partitioner, cuts: &Cuts, count: u32, codec: Codec) -> MapPlan {
    let order = KeyOrder::bytes();
    MapPlan {
        partitions: Partitions::new(partitioner, count, cuts, &order, b'\t'),
        order,
        order_values: false,
        memory_bytes: 256 * MIB,
        codec,
        served_from_memory_bytes: usize::MAX,
    }
}

fn map(plan: MapPlan, name: &str, combine: Combine, input: &[u8]) -> MapOutput {
    let code = builtin::mapper(&builtin(name), &Fields::default()).expect("a built-in");
    let mut task = MapTask::new(plan, code, combine, Box::new(MemoryStorage));
    task.file("bench/text", 0).expect("a name");
    for chunk in input.chunks(MIB) {
        task.lines(chunk, 0).expect("maps");
    }
    task.finish().expect("writes")
}

/// Counts what comes and drops it.
struct Drop(u64);

impl Collect for Drop {
    fn emit(&mut self, key: &[u8], _: &[u8]) {
        self.0 += key.len() as u64;
    }
    fn count(&mut self, _: &str, _: &str, _: u64) {}
    fn status(&mut self, _: &str) {}
}

fn only_map(name: &str, input: &[u8]) -> Result<u64, CodeError> {
    let mut code = builtin::mapper(&builtin(name), &Fields::default())?;
    let mut out = Drop(0);
    for chunk in input.chunks(MIB) {
        code.lines(chunk, 0, &mut out)?;
    }
    Ok(out.0)
}

fn merge(outputs: &[MapOutput], partitions: u32, reduction: impl Fn() -> Reduction) {
    let plan = ReducePlan {
        order: KeyOrder::bytes(),
        order_values: false,
        memory_bytes: 256 * MIB,
        codec: Codec::None,
    };
    for partition in 0..partitions {
        let runs = outputs
            .iter()
            .map(|o| Box::new(o.runs.section(partition)) as Box<dyn Read + Send>)
            .collect();
        let mut out = LineWriter::new(std::io::sink(), b'\t');
        let mut counters = TaskCounters::default();
        reduce(
            &plan,
            runs,
            reduction(),
            &mut MemoryStorage,
            &mut out,
            &mut counters,
        )
        .expect("merges");
    }
}

fn main() {
    let input = text(64 * MIB, 1);
    let words = builtin::words(&input).count() as u64;
    println!("text: {} MiB, {words} words", input.len() / MIB);
    let all = input.len();
    report("tokenise", all, words, || {
        only_map("wordcount", &input).expect("maps");
    });
    report("grep for what is not there", all, 1, || {
        only_map("grep", &input).expect("maps");
    });
    let none = Cuts::default();
    let hash = |codec| plan(&Partitioner::Hash, &none, 2, codec);
    let sum = || fold::by_name("wordcount").expect("a fold");
    let mut counted = Vec::new();
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        report(&format!("map of word count, {codec:?}"), all, words, || {
            counted.push(map(hash(codec), "wordcount", Combine::Fold(sum()), &input));
        });
        if let Some(last) = counted.last() {
            let entries = &last.runs.index.entries;
            let (raw, stored, keys) = entries.iter().fold((0, 0, 0), |all, e| {
                (all.0 + e.raw_len, all.1 + e.stored_len, all.2 + e.records)
            });
            println!("    {keys} keys, {raw} bytes raw, {stored} stored");
        }
    }
    report("map of an index", all, words, || {
        let fold = fold::by_name("index").expect("a fold");
        map(hash(Codec::Lz4), "index", Combine::Fold(fold), &input);
    });
    let runs: Vec<MapOutput> = (0..16)
        .map(|n| {
            map(
                hash(Codec::Lz4),
                "wordcount",
                Combine::Fold(sum()),
                &text(16 * MIB, n),
            )
        })
        .collect();
    let records = |runs: &[MapOutput]| -> u64 {
        let entries = runs.iter().flat_map(|r| &r.runs.index.entries);
        entries.map(|e| e.records).sum()
    };
    report("merge of 16 word counts", 0, records(&runs), || {
        merge(&runs, 2, || Reduction::Fold(sum()));
    });

    let input = lines(64 * MIB / 99, 1);
    let count = input.len() as u64 / 99;
    println!("lines: {} MiB, {count} of 99 bytes", input.len() / MIB);
    report("take lines", input.len(), count, || {
        only_map("sort", &input).expect("maps");
    });
    let sample = (1..1000)
        .map(|n| input[n * 990..n * 990 + 10].to_vec())
        .collect();
    let cuts = Cuts::from_sample(sample, 4, &KeyOrder::bytes());
    for codec in [Codec::None, Codec::Lz4] {
        report(
            &format!("map of a sort, {codec:?}"),
            input.len(),
            count,
            || {
                map(
                    plan(&Partitioner::Range, &cuts, 4, codec),
                    "sort",
                    Combine::None,
                    &input,
                );
            },
        );
    }
    let runs: Vec<MapOutput> = (0..16)
        .map(|n| {
            let range = plan(&Partitioner::Range, &cuts, 4, Codec::None);
            map(range, "sort", Combine::None, &lines(100_000, n))
        })
        .collect();
    report(
        "merge of 16 sorted runs",
        1_600_000 * 99,
        records(&runs),
        || {
            merge(&runs, 4, || Reduction::Identity);
        },
    );
}
