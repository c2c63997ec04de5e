//! What a library costs: the index of many files in memory, small files scanned and scanned again,
//! one large file beside the programs that make one hash each.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use shoal_base::Rng;
use shoal_content::TigerRoot;
use shoal_content::keywords::{LocalFile, LocalFiles, Search, Terms};
use shoal_store::library::{Audience, Library, ScanOptions, View};

use crate::print_json;

/// Different words that names are made of; the n-th is as frequent as 1/n.
const WORDS: usize = 50_000;
/// Hits that a search takes at most.
const HITS: usize = 100;
const SEARCHES: u32 = 2000;

/// What is measured.
#[derive(Args)]
pub(crate) struct LibraryBench {
    /// Small files, of 1 to 8 KiB
    #[arg(long, default_value_t = 1_000_000)]
    files: u32,
    /// Files of the index that is measured alone
    #[arg(long, default_value_t = 1_000_000)]
    indexed: u32,
    /// MiB of the large file
    #[arg(long, default_value_t = 1024)]
    large: u64,
    /// Where the files are made, in a folder that is removed afterwards [default: the system's]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs all three.
pub(crate) fn run(args: &LibraryBench) -> anyhow::Result<()> {
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = base.join(format!("shoal-bench-library-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let measured = (|| -> anyhow::Result<()> {
        if args.indexed > 0 {
            print_json(&index(args.indexed));
        }
        if args.files > 0 {
            print_json(&small_files(&dir, args.files)?);
        }
        if args.large > 0 {
            print_json(&large_file(&dir, args.large)?);
        }
        Ok(())
    })();
    fs::remove_dir_all(&dir)?;
    measured
}

/// Names as of a collection of music.
struct Names {
    rng: Rng,
}

impl Names {
    fn word(&mut self) -> String {
        // The inverse of Zipf's distribution with exponent 1.
        let u = self.rng.below(1 << 30) as f64 / f64::from(1 << 30);
        let rank = (WORDS as f64).powf(u) as usize;
        Self::spell(rank)
    }

    /// A word of four to nine letters for each number.
    fn spell(mut n: usize) -> String {
        const PARTS: [&str; 16] = [
            "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so",
            "tu", "va",
        ];
        let mut word = String::new();
        loop {
            word.push_str(PARTS[n % 16]);
            n /= 16;
            if n == 0 {
                return word + "n";
            }
        }
    }

    fn words(&mut self, n: usize) -> String {
        let words: Vec<String> = (0..n).map(|_| self.word()).collect();
        words.join(" ")
    }

    /// Twelve files in a folder, four folders in one.
    fn path(&mut self, n: u32, folder: &mut (String, String)) -> String {
        if n.is_multiple_of(48) {
            folder.0 = self.words(2);
        }
        if n.is_multiple_of(12) {
            folder.1 = self.words(3);
        }
        let (track, title) = (n % 12 + 1, self.words(3));
        format!("{}/{}/{track:02} {title}.mp3", folder.0, folder.1)
    }
}

fn memory() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Processor time of this process, in seconds.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn micros(took: Duration, n: u32) -> f64 {
    took.as_secs_f64() * 1e6 / f64::from(n.max(1))
}

/// The mean and the longest time of searches, and their hits.
fn search(files: &LocalFiles, terms: &[Terms]) -> Value {
    let mut longest = Duration::ZERO;
    let mut hits = 0_u64;
    let begun = Instant::now();
    for (n, terms) in terms.iter().enumerate() {
        let this = Instant::now();
        let mut taken = 0;
        files.search(&Search::words(terms.clone()), n, |_| {
            taken += 1;
            taken < HITS
        });
        hits += taken as u64;
        longest = longest.max(this.elapsed());
    }
    json!({
        "us": micros(begun.elapsed(), terms.len() as u32),
        "longest_us": micros(longest, 1),
        "hits": hits as f64 / terms.len() as f64,
    })
}

fn index(n: u32) -> Value {
    let mut names = Names {
        rng: Rng::from_seed(1),
    };
    let mut folder = Default::default();
    let mut sample = Vec::new();
    let before = memory();
    let begun = Instant::now();
    let mut files = LocalFiles::default();
    let mut bytes = 0;
    for at in 0..n {
        let path = names.path(at, &mut folder);
        bytes += path.len();
        let mut sha1 = [0; 20];
        let mut tiger = [0; 24];
        names.rng.fill(&mut sha1);
        names.rng.fill(&mut tiger);
        let file = LocalFile {
            size: u64::from(at),
            sha1,
            tiger: TigerRoot(tiger),
        };
        files.add(1, &path, &file);
        if at.is_multiple_of((n / SEARCHES).max(1)) {
            sample.push((path, file));
        }
    }
    let built = begun.elapsed();
    let held = memory().saturating_sub(before);
    let words = |path: &str, begin: bool| {
        let parts: Vec<&str> = path.split(['/', ' ']).collect();
        let (one, two) = (parts.get(1).copied(), parts.get(6).copied());
        let (one, two) = (one.unwrap_or_default(), two.unwrap_or_default());
        let two = if begin {
            two.get(..4).unwrap_or(two)
        } else {
            two
        };
        Terms::parse(&format!("{one} {two}{}", if begin { "*" } else { "" }))
    };
    let two: Vec<Terms> = sample.iter().map(|(p, _)| words(p, false)).collect();
    let beginnings: Vec<Terms> = sample.iter().map(|(p, _)| words(p, true)).collect();
    let common = Terms::parse(&format!("{} {} mp3", Names::spell(1), Names::spell(2)));
    let rare = Terms::parse(&format!("{} -mp3", Names::spell(1)));
    let (two, beginnings) = (search(&files, &two), search(&files, &beginnings));
    let common = search(&files, &vec![common; 100]);
    let nothing = search(&files, &vec![rare; 20]);
    let begun = Instant::now();
    for (path, file) in &sample {
        files.remove(1, path);
        files.add(1, path, file);
    }
    let changed = micros(begun.elapsed(), sample.len() as u32 * 2);
    json!({
        "measured": "index",
        "files": files.len(),
        "words": files.words(),
        "path_bytes": bytes as f64 / f64::from(n),
        "build_s": built.as_secs_f64(),
        "memory_mib": held as f64 / f64::from(1 << 20),
        "bytes_a_file": held as f64 / f64::from(n),
        "two_words": two,
        "word_and_beginning": beginnings,
        "three_most_common": common,
        "common_without_all": nothing,
        "change_us": changed,
    })
}

fn small_files(dir: &Path, n: u32) -> anyhow::Result<Value> {
    let root = dir.join("small");
    let mut names = Names {
        rng: Rng::from_seed(2),
    };
    let mut folder = Default::default();
    let mut bytes = 0_u64;
    let mut data = vec![0_u8; 8 << 10];
    let begun = Instant::now();
    for at in 0..n {
        let path = root.join(names.path(at, &mut folder));
        if at.is_multiple_of(12) {
            fs::create_dir_all(path.parent().context("a folder")?)?;
        }
        let len = (1 << 10) + names.rng.below(7 << 10);
        names.rng.fill(data.get_mut(..16).context("room")?);
        fs::write(&path, data.get(..len).context("room")?)?;
        bytes += len as u64;
    }
    let made = begun.elapsed();
    let mut library = Library::open(&dir.join("state"))?;
    library.add(&root, Audience::Everyone, false)?;
    let mut scan = || -> anyhow::Result<Value> {
        let (begun, cpu_before) = (Instant::now(), cpu());
        let report = library.scan(&[], &ScanOptions::default(), |_| true)?;
        anyhow::ensure!(report.done.files == u64::from(n), "not all files were seen");
        Ok(json!({
            "wall_s": begun.elapsed().as_secs_f64(),
            "cpu_s": cpu() - cpu_before,
            "hashed": report.done.hashed,
            "memory_mib": memory() as f64 / f64::from(1 << 20),
        }))
    };
    let first = scan()?;
    let again = scan()?;
    let begun = Instant::now();
    let files = library.local_files(&View::Owner)?;
    let loaded = begun.elapsed();
    let database = fs::metadata(dir.join("state/hashes.redb"))?.len();
    Ok(json!({
        "measured": "small files",
        "files": n,
        "mib": bytes as f64 / f64::from(1 << 20),
        "make_s": made.as_secs_f64(),
        "scan": first,
        "rescan": again,
        "load_index_s": loaded.as_secs_f64(),
        "loaded": files.len(),
        "database_bytes_a_file": database as f64 / f64::from(n),
    }))
}

fn large_file(dir: &Path, mib: u64) -> anyhow::Result<Value> {
    let root = dir.join("large");
    fs::create_dir_all(&root)?;
    let path = root.join("file");
    let mut file = fs::File::create(&path)?;
    let mut rng = Rng::from_seed(3);
    let mut block = vec![0; 1 << 20];
    for _ in 0..mib {
        rng.fill(block.get_mut(..4096).context("room")?);
        file.write_all(&block)?;
    }
    drop(file);
    let gib = mib as f64 / 1024.0;
    let mut others = serde_json::Map::new();
    for program in ["sha1sum", "sha256sum", "tthsum", "rhash"] {
        // Read once before, so that all find it in memory.
        let begun = Instant::now();
        let ran = match program {
            "rhash" => Command::new(program)
                .args(["--sha1", "--tth", "--btih"])
                .arg(&path)
                .output(),
            _ => Command::new(program).arg(&path).output(),
        };
        if ran.is_ok_and(|ran| ran.status.success()) {
            others.insert(
                program.to_owned(),
                json!(mib as f64 / begun.elapsed().as_secs_f64()),
            );
        }
    }
    let mut library = Library::open(&dir.join("state-large"))?;
    library.add(&root, Audience::Everyone, false)?;
    let (begun, cpu_before) = (Instant::now(), cpu());
    let report = library.scan(&[], &ScanOptions::default(), |_| true)?;
    anyhow::ensure!(report.done.bytes_hashed == mib << 20, "not all was hashed");
    Ok(json!({
        "measured": "large file",
        "mib": mib,
        "mib_s": mib as f64 / begun.elapsed().as_secs_f64(),
        "cpu_s_a_gib": (cpu() - cpu_before) / gib,
        "others_mib_s": others,
    }))
}
