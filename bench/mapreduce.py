"""shoal's MapReduce beside other engines, in one run: wall and CPU seconds, peak memory, equal outputs.

    ./dev bench mapreduce [--jobs wordcount,sort,index,grep,small,wasm,streaming] [--engines shoal,duckdb,...] [--size 1G] [--rounds 3]

Input is made here, the same each time: words of a vocabulary of a million, drawn by Zipf and
Mandelbrot's law (frequency of rank r as 1 / (r + 2.7)), the frequent ones short, about twelve to a
line, as natural text has it; and lines of 99 bytes that begin with ten random characters. DuckDB,
polars and PySpark come from PyPI into a virtual environment beside the input; Hadoop's
LocalJobRunner runs from the libraries that PySpark brings. `tcp` is shoal with a master and four workers
of one slot each, all processes of their own; its start is not counted, its peak is the sum of all.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import jobcode
from account import Account
from cluster import Cluster
from common import fail, find_program, machine, median, size, table

ENGINES = ["shoal", "tcp", "duckdb", "polars", "gnu", "hadoop", "spark"]
GOALS = """
goals: word count, sort and index at most 0.6 x the best other engine's wall and CPU; grep at most 1.2 x GNU grep;
small (64 MiB): at least 20 x less CPU than Hadoop's LocalJobRunner and Spark; memory at most the best engine's."""

MAKE_INPUT = r"""
import sys
import numpy as np

def vocabulary(n, rng):
    letters, weights = np.frombuffer(b"etaoinshrdlcumwfgypbvk", np.uint8), np.arange(22, 0, -1.0)
    lens = np.clip(np.round(1.5 + 0.5 * np.log(np.arange(1, n + 1)) + rng.normal(0, 1.4, n)), 1, 18).astype(int)
    text = rng.choice(letters, lens.sum(), p=weights / weights.sum()).tobytes()
    words, seen, at = [], set(), 0
    for n in lens:
        word = text[at : at + n]
        at += n
        while word in seen:
            word += bytes(rng.choice(letters, 1))
        seen.add(word)
        words.append(word)
    return words

def write_text(path, size, seed, words):
    rng = np.random.default_rng(seed)
    p = 1 / (np.arange(1, len(words) + 1) + 2.7)
    edges = np.cumsum(p / p.sum())
    with open(path, "wb") as f:
        done = 0
        while done < size:
            ranks = np.minimum(np.searchsorted(edges, rng.random(120_000)), len(words) - 1)
            picked = [words[r] for r in ranks]
            text = b"\n".join(b" ".join(picked[n : n + 12]) for n in range(0, len(picked), 12)) + b"\n"
            if done + len(text) > size:
                text = text[: text.rindex(b"\n", 0, max(size - done, 200)) + 1]
                done = size
            done += f.write(text)

kind, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "text":
    write_text(path, size, 1, vocabulary(1_000_000, np.random.default_rng(0)))
elif kind == "files":
    words = vocabulary(1_000_000, np.random.default_rng(0))
    for n in range(400):
        write_text(f"{path}/{n:03}.txt", size // 400, 100 + n, words)
else:
    rng = np.random.default_rng(2)
    with open(path, "wb") as f:
        for start in range(0, size // 100, 100_000):
            count = min(100_000, size // 100 - start)
            lines = np.full((count, 100), ord("A"), np.uint8)
            lines[:, :10] = rng.integers(33, 127, (count, 10))
            for digit in range(10):
                lines[:, 20 - digit] = 48 + np.arange(start, start + count) // 10**digit % 10
            lines[:, 30:98] = 65 + (np.arange(start, start + count)[:, None] + np.arange(68)) % 26
            lines[:, 99] = 10
            f.write(lines.tobytes())
"""

# DuckDB takes a delimiter as it is: this must be the byte itself, not an escape of four characters, which are in random data.
READ_LINES = "read_csv('{}', columns={{'line': 'VARCHAR'}}, delim='\x01', quote='', escape='', header=false, auto_detect=false, strict_mode=false{})"
COPY = "COPY ({}) TO '{}' (DELIMITER '\\t', QUOTE '', ESCAPE '', HEADER false)"

DUCKDB = {
    "wordcount": lambda i, o: COPY.format(
        "SELECT w, count(*) FROM (SELECT unnest(string_split(line, ' ')) w FROM " + READ_LINES.format(i, "") + ") WHERE w <> '' GROUP BY w", o
    ),
    "sort": lambda i, o: COPY.format("SELECT line FROM " + READ_LINES.format(i, "") + " ORDER BY line", o),
    "index": lambda i, o: COPY.format(
        "SELECT w, string_agg(f, ',' ORDER BY f) FROM (SELECT DISTINCT unnest(string_split(line, ' ')) w, filename f FROM "
        + READ_LINES.format(i + "/*.txt", ", filename=true") + ") WHERE w <> '' GROUP BY w", o
    ),
    "grep": lambda i, o: COPY.format("SELECT line FROM " + READ_LINES.format(i, "") + " WHERE contains(line, '{pattern}')", o),
}
POLARS_READ = "pl.scan_csv({!r}, separator='\\x01', has_header=False, new_columns=['line'], quote_char=None, schema={{'line': pl.String}}{})"
POLARS_WRITE = ".sink_csv({!r}, separator='\\t', include_header=False, quote_style='never')"
POLARS_WORDS = ".select(pl.col('line').str.split(' ').alias('w'){}).explode('w').filter(pl.col('w') != '')"
POLARS = {
    "wordcount": lambda i, o: POLARS_READ.format(i, "") + POLARS_WORDS.format("") + ".group_by('w').len()" + POLARS_WRITE.format(o),
    "sort": lambda i, o: POLARS_READ.format(i, "") + ".sort('line')" + POLARS_WRITE.format(o),
    "index": lambda i, o: POLARS_READ.format(i + "/*.txt", ", include_file_paths='f'") + POLARS_WORDS.format(", 'f'")
    + ".unique().sort('f').group_by('w', maintain_order=True).agg(pl.col('f')).with_columns(pl.col('f').list.join(','))" + POLARS_WRITE.format(o),
    "grep": lambda i, o: POLARS_READ.format(i, "") + ".filter(pl.col('line').str.contains('{pattern}', literal=True))" + POLARS_WRITE.format(o),
}

SPARK = r"""
import sys
from pyspark import SparkContext
sc = SparkContext("local[2]", "wordcount")
sc.setLogLevel("ERROR")
counts = sc.textFile(sys.argv[1]).flatMap(lambda line: line.split()).map(lambda w: (w, 1)).reduceByKey(lambda a, b: a + b)
counts.map(lambda kv: f"{kv[0]}\t{kv[1]}").saveAsTextFile(sys.argv[2])
"""

HADOOP = r"""
import java.io.IOException;
import java.util.StringTokenizer;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.io.*;
import org.apache.hadoop.mapreduce.*;
import org.apache.hadoop.mapreduce.lib.input.FileInputFormat;
import org.apache.hadoop.mapreduce.lib.output.FileOutputFormat;

public class WordCount {
    public static class Map extends Mapper<Object, Text, Text, LongWritable> {
        private final LongWritable one = new LongWritable(1);
        private final Text word = new Text();
        public void map(Object key, Text line, Context out) throws IOException, InterruptedException {
            StringTokenizer words = new StringTokenizer(line.toString());
            while (words.hasMoreTokens()) { word.set(words.nextToken()); out.write(word, one); }
        }
    }
    public static class Reduce extends Reducer<Text, LongWritable, Text, LongWritable> {
        public void reduce(Text key, Iterable<LongWritable> values, Context out) throws IOException, InterruptedException {
            long sum = 0;
            for (LongWritable value : values) sum += value.get();
            out.write(key, new LongWritable(sum));
        }
    }
    public static void main(String[] args) throws Exception {
        Configuration conf = new Configuration();
        conf.setInt("mapreduce.local.map.tasks.maximum", 2);
        conf.setInt("mapreduce.local.reduce.tasks.maximum", 2);
        Job job = Job.getInstance(conf);
        job.setJarByClass(WordCount.class);
        job.setMapperClass(Map.class);
        job.setCombinerClass(Reduce.class);
        job.setReducerClass(Reduce.class);
        job.setNumReduceTasks(2);
        job.setOutputKeyClass(Text.class);
        job.setOutputValueClass(LongWritable.class);
        FileInputFormat.addInputPath(job, new Path(args[0]));
        FileOutputFormat.setOutputPath(job, new Path(args[1]));
        System.exit(job.waitForCompletion(true) ? 0 : 1);
    }
}
"""


class Lab:
    """The folder of input and engines, and how each engine runs a job."""

    def __init__(self, folder, engines):
        self.folder = os.path.abspath(folder)
        self.out = os.path.join(self.folder, "out")
        self.shoal = os.environ.get("SHOAL") or find_program("shoal") or fail("there is no shoal: cargo build --release -p shoal")
        os.makedirs(self.folder, exist_ok=True)
        self.python = os.path.join(self.folder, "venv", "bin", "python")
        wanted = ["numpy"] + [e for e in ("duckdb", "polars") if e in engines] + ["pyspark"] * bool({"hadoop", "spark"} & set(engines))
        if not os.path.exists(self.python):
            subprocess.run([sys.executable, "-m", "venv", os.path.join(self.folder, "venv")], check=True)
        have = subprocess.run([self.python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout
        self.versions = dict(line.split("==", 1) for line in have.split() if "==" in line)
        missing = [name for name in wanted if name not in self.versions]
        if missing:
            subprocess.run([self.python, "-m", "pip", "install", "-q", *missing], check=True)
        self.script("make_input.py", MAKE_INPUT)
        self.script("spark.py", SPARK)

    def script(self, name, text):
        with open(os.path.join(self.folder, name), "w") as f:
            f.write(text)

    def input(self, kind, bytes_):
        path = os.path.join(self.folder, f"{kind}-{bytes_}")
        if not os.path.exists(path + ".done"):
            print(f"making {kind} of {bytes_} bytes", file=sys.stderr, flush=True)
            if kind == "files":
                os.makedirs(path, exist_ok=True)
            subprocess.run([self.python, os.path.join(self.folder, "make_input.py"), kind, path, str(bytes_)], check=True)
            open(path + ".done", "w").close()
        return path

    def command(self, engine, job, input_, pattern):
        """What to run, and where its output will be."""
        if job in jobcode.ENGINES:
            return jobcode.command(self, engine, job, input_)
        out, file = self.out, os.path.join(self.out, "out.txt")
        job = "wordcount" if job == "small" else job
        if engine in ("shoal", "tcp"):
            extra = ["--pattern", pattern] if job == "grep" else []
            return [self.shoal, "run", job, "--input", input_, "--output", os.path.join(out, "d"), *extra], os.path.join(out, "d")
        if engine == "duckdb":
            sql = DUCKDB[job](input_, file).replace("{pattern}", pattern)
            return [self.python, "-c", f"import duckdb; duckdb.sql({'SET threads=2'!r}); duckdb.sql({sql!r})"], file
        if engine == "polars":
            return [self.python, "-c", "import polars as pl\n" + POLARS[job](input_, file).replace("{pattern}", pattern)], file
        if engine == "gnu":
            lines = {
                "wordcount": f"tr -s '[:space:]' '\\n' <{input_} | LC_ALL=C sort --parallel=2 -S 1G | uniq -c | awk '{{print $2 \"\\t\" $1}}' >{file}",
                "sort": f"LC_ALL=C sort --parallel=2 -S 2G {input_} >{file}",
                "grep": f"LC_ALL=C grep -F {pattern} {input_} >{file} || [ $? = 1 ]",
            }
            return (["bash", "-c", lines[job]], file) if job in lines else None
        if job != "wordcount":
            return None
        if engine == "spark":
            return [self.python, os.path.join(self.folder, "spark.py"), input_, os.path.join(out, "d")], os.path.join(out, "d")
        jars = os.path.join(self.folder, "venv", "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages", "pyspark", "jars", "*")
        if not os.path.exists(os.path.join(self.folder, "WordCount.class")):
            self.script("WordCount.java", HADOOP)
            subprocess.run(["javac", "-cp", jars, "-d", self.folder, os.path.join(self.folder, "WordCount.java")], check=True)
        return ["java", "-Xmx2g", "-cp", f"{self.folder}:{jars}", "WordCount", input_, os.path.join(out, "d")], os.path.join(out, "d")

    def run(self, engine, job, input_, pattern):
        """One measured run: wall s, CPU s, peak MiB, digest of the output; none if it cannot do the job."""
        shutil.rmtree(self.out, ignore_errors=True)
        os.makedirs(self.out)
        if engine == "tcp":
            with Cluster(self.shoal, self.folder) as cluster:
                return self.measure(engine, job, input_, pattern, cluster)
        return self.measure(engine, job, input_, pattern, None)

    def measure(self, engine, job, input_, pattern, cluster):
        prepared = self.command(engine, job, input_, pattern)
        if prepared is None:
            return None
        command, output = prepared
        idle = (0, 0)
        if cluster:
            command = [*command, "--master", cluster.address]
            idle = cluster.usage()
        log = os.path.join(self.folder, f"{engine}.log")
        start = time.monotonic()
        with open(log, "w") as f, Account() as account:
            child = subprocess.Popen(command, stdout=f, stderr=f, preexec_fn=account.enter)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            wall = time.monotonic() - start
            whole = account.cpu_seconds()
        if child.returncode:
            with open(log) as f:
                print(f"{engine} {job} failed:\n{f.read()[-1000:]}", file=sys.stderr)
            return None
        cpu = whole or usage.ru_utime + usage.ru_stime
        peak = usage.ru_maxrss / 1024
        if cluster:
            busy = cluster.usage()
            cpu, peak = cpu + busy[0] - idle[0], peak + busy[1]
        return wall, cpu, peak, digest(output, job == "sort")


def digest(path, ordered):
    """Of all lines in one order; where order is the result, as they are."""
    files = [path]
    if os.path.isdir(path):
        files = sorted(os.path.join(path, name) for name in os.listdir(path) if name.startswith("part"))
    sort = "cat" if ordered else "LC_ALL=C sort -S 1G --parallel=2"
    total = subprocess.run(["bash", "-c", f'cat "$@" | {sort} | sha256sum', "-", *files], check=True, capture_output=True, text=True)
    return total.stdout.split()[0][:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default="wordcount,sort,grep,index,small")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--size", type=size, default=1 << 30, help="of the text for word count and grep")
    parser.add_argument("--records", type=int, default=10_000_000, help="of 100 bytes, to sort")
    parser.add_argument("--index-size", type=size, default=105 << 20, help="of 400 files together")
    parser.add_argument("--pattern", default="ation", help="what grep looks for; no regular expression")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=os.path.join(os.environ.get("TMPDIR", "/tmp"), "shoal-bench-mapreduce"))
    parser.add_argument("--only-input", action="store_true", help="make the input and stop")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    jobs, engines = args.jobs.split(","), args.engines.split(",")
    lab = Lab(args.folder, engines)
    kinds = {
        "wordcount": ("text", args.size),
        "grep": ("text", args.size),
        "sort": ("records", args.records * 100),
        "index": ("files", args.index_size),
        "small": ("text", 64 << 20),
        **dict.fromkeys(jobcode.ENGINES, ("text", 64 << 20)),
    }
    inputs = {job: lab.input(*kinds[job]) for job in jobs}
    if args.only_input:
        return 0
    print(machine() + "; " + ", ".join(f"{n} {lab.versions[n]}" for n in ("duckdb", "polars", "pyspark") if n in lab.versions), flush=True)
    unequal = False
    for job in jobs:
        rows, digests = [], {}
        for engine in jobcode.ENGINES.get(job, engines):
            if engine in ("hadoop", "spark") and job != "small":
                continue
            if engine == "gnu" and job == "wordcount" and args.size > 256 << 20:
                continue
            rounds = args.rounds if engine not in ("hadoop", "spark") else 1
            runs = [r for r in (lab.run(engine, job, inputs[job], args.pattern) for _ in range(rounds)) if r]
            if not runs:
                continue
            digests.setdefault(runs[0][3], []).append(engine)
            rows.append([engine, *(median([r[n] for r in runs]) for n in range(3)), runs[0][3]])
            if args.json:
                print(json.dumps(dict(zip(("job", "engine", "wall_s", "cpu_s", "peak_mib", "digest"), [job, *rows[-1]]))), flush=True)
        print(f"\n{job}: {kinds[job][0]}, {kinds[job][1] / (1 << 20):.0f} MiB, median of {args.rounds}")
        table(["engine", "wall s", "CPU s", "peak MiB", "output"], rows)
        if len(digests) > 1:
            unequal = True
            print(f"outputs differ: {digests}")
        others = [row for row in rows if row[0] not in ("shoal", "tcp")]
        tcp = next((row for row in rows if row[0] == "tcp"), None)
        ours = next((row for row in rows if row[0] == "shoal"), None)
        if ours and others:
            best = [min(row[n] for row in others) for n in (1, 2, 3)]
            print("shoal / best: wall {:.2f}, CPU {:.2f}, memory {:.2f}".format(*(o / b for o, b in zip(ours[1:4], best))))
        if ours and tcp:
            print(f"four workers over TCP / one process: wall {tcp[1] / ours[1]:.2f}, CPU {tcp[2] / ours[2]:.2f}")
    print(GOALS, jobcode.GOALS, sep="\n")
    shutil.rmtree(lab.out, ignore_errors=True)
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
