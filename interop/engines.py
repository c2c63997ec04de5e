"""Hands jobs to other engines, builds modules by other compilers, and compares what comes out with shoal's own.

    ./dev engines [--venv DIR] [--present-only]

Spark: a standalone cluster of a master and a worker on loopback, from the PySpark of PyPI in a virtual
environment (about 500 MB; made if missing, unless --present-only), and a Java. Hadoop: the command
line is run by a program called `hadoop`: a real one with its streaming library below HADOOP_HOME if
there is one.
"""

import argparse
import glob
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "bench"))
from common import find_program  # noqa: E402

MAP = r"""import os, sys
stop = set(open("stop.txt").read().split())
for line in sys.stdin.buffer:
    for word in line.split():
        if word.decode("latin-1") not in stop:
            sys.stdout.buffer.write(word + b"\t1\n")
sys.stderr.write("reporter:counter:words,files,1\n")
assert os.environ["mapreduce_map_input_file"].endswith(".txt"), os.environ
"""
REDUCE = r"""import itertools, sys
lines = (line.rstrip(b"\n").split(b"\t") for line in sys.stdin.buffer)
for key, group in itertools.groupby(lines, key=lambda line: line[0]):
    sys.stdout.buffer.write(key + b"\t" + str(sum(int(line[1]) for line in group)).encode() + b"\n")
"""


class Skip(Exception):
    """What is needed is not here."""


class Cluster:
    """A master and a worker of Spark's on loopback."""

    def __init__(self, home, python, folder):
        self.processes = []
        self.folder = folder
        self.env = {
            **os.environ,
            "SPARK_HOME": home,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_WORKER_DIR": os.path.join(folder, "work"),
            "PYSPARK_PYTHON": python,
            "PYSPARK_DRIVER_PYTHON": python,
        }
        master = self.start("master", ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"])
        self.master = self.said(master, r"Starting Spark master at (spark://\S+)")
        worker = ["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--webui-port", "0", "--cores", "2", "--memory", "1g", self.master]
        self.said(self.start("worker", worker), r"Successfully registered with master (\S+)")

    def start(self, name, command):
        log = os.path.join(self.folder, name + ".log")
        with open(log, "w") as file:
            spark_class = os.path.join(self.env["SPARK_HOME"], "bin", "spark-class")
            self.processes.append(subprocess.Popen([spark_class, *command], env=self.env, stdout=file, stderr=file))
        return log

    def said(self, log, pattern, seconds=90):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with open(log) as file:
                text = file.read()
            if found := re.search(pattern, text):
                return found[1]
            if any(p.poll() is not None for p in self.processes):
                break
            # Spark says where it listens in its log alone, which has to be read again and again.
            time.sleep(0.1)
        raise RuntimeError(f"no {pattern!r} in {log}:\n{text[-3000:]}")

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


class Lab:
    def __init__(self, folder, venv, present_only):
        self.folder, self.venv, self.present_only = folder, venv, present_only
        self.shoal = os.environ.get("SHOAL") or find_program("shoal")
        if not self.shoal:
            raise SystemExit("there is no shoal: cargo build -p shoal")
        self.cluster = None
        rng = random.Random(1)
        words = [f"w{n}".encode() for n in range(300)] + [b"caf\xe9", b"the", b"\xff\xfe", "größe".encode()]
        os.makedirs(self.path("in/deep er"))
        for name in ("in/a.txt", "in/b.txt", "in/deep er/c%20.txt"):
            with open(self.path(name), "wb") as file:
                for _ in range(2000):
                    file.write(b" ".join(rng.choices(words, k=rng.randrange(9))) + rng.choice([b"\n", b"\r\n"]))
                file.write(b"no line feed")
        for name, text in (("map.py", MAP), ("reduce.py", REDUCE), ("stop.txt", "the w7")):
            with open(self.path(name), "w") as file:
                file.write(text)

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, args, env=None, code=0):
        done = subprocess.run([self.shoal, "run", *args], cwd=self.folder, env=env, capture_output=True, text=True, errors="replace")
        if done.returncode != code:
            raise RuntimeError(f"shoal run {' '.join(args)} ended with {done.returncode}:\n{done.stderr[-6000:]}")
        return done

    def spark(self):
        """The cluster, started when first asked for."""
        if self.cluster:
            return self.cluster
        if not shutil.which("java"):
            raise Skip("there is no Java")
        python = os.path.join(self.venv, "bin", "python")
        homes = os.path.join(self.venv, "lib", "python*", "site-packages", "pyspark")
        if not glob.glob(homes):
            if self.present_only:
                raise Skip("there is no PySpark; `./dev engines` gets it")
            if not os.path.exists(python):
                subprocess.run([sys.executable, "-m", "venv", self.venv], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "pyspark"], check=True)
        self.cluster = Cluster(glob.glob(homes)[0], python, self.folder)
        return self.cluster

    def stop(self):
        if self.cluster:
            self.cluster.stop()

    def equal(self, name, job, ordered=False):
        """Runs a job by shoal and by Spark."""
        cluster = self.spark()
        ours, theirs = self.path(name + "-shoal"), self.path(name + "-spark")
        self.run([*job, "--output", ours])
        self.run([*job, "--output", theirs, "--engine", "spark", "--master", cluster.master], cluster.env)
        compare(ours, theirs, ordered)


def parts(folder):
    lines = []
    for part in sorted(glob.glob(os.path.join(folder, "part-*"))):
        with open(part, "rb") as file:
            lines += file.read().split(b"\n")[:-1]
    if not os.path.exists(os.path.join(folder, "_SUCCESS")) or not lines:
        raise RuntimeError(f"{folder} is empty or unfinished")
    return lines


def compare(ours, theirs, ordered):
    ours, theirs = parts(ours), parts(theirs)
    if not ordered:
        ours.sort()
        theirs.sort()
    if ours != theirs:
        first = next((n for n, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        raise RuntimeError(f"{len(ours)} lines and {len(theirs)}, unequal from {first} on: {ours[first:][:3]} {theirs[first:][:3]}")


def streaming(python=sys.executable):
    run = f"{python} -E "
    files = [word for name in ("map.py", "reduce.py", "stop.txt") for word in ("--file", name)]
    return ["--mapper", run + "map.py", "--combiner", run + "reduce.py", "--reducer", run + "reduce.py", *files, "--input", "in"]


def spark_streaming(lab):
    """Python commands with a combiner and side files, three reduce tasks, bytes that are no UTF-8"""
    lab.equal("streaming", [*streaming(), "--reduces", "3"])


def spark_index(lab):
    """A built-in that asks which file its lines come from"""
    lab.equal("index", ["index", "--input", lab.path("in")])


def spark_sort(lab):
    """A sort in total order over four partitions"""
    lab.equal("sort", ["sort", "--reduces", "4", "--input", lab.path("in")], ordered=True)


def spark_secondary_sort(lab):
    """Values in order, numbers backwards, keys of several fields"""
    with open(lab.path("fields.toml"), "w") as file:
        file.write(
            "mapper = { identity = true }\nreducer = { identity = true }\nreduces = 2\norder_values = true\n"
            "partitioner = { fields = [{ first = 1, last = 1 }] }\nmap_fields = { key_fields = 2 }\n"
            "order = [{ first = 2, last = 2, numeric = true, reverse = true }]\ninputs = ['fields']\n"
        )
    rng = random.Random(2)
    with open(lab.path("fields"), "w") as file:
        file.writelines(f"k{rng.randrange(9)}\t{rng.randrange(-50, 50)}{rng.choice(['', '.5'])}\tv{rng.randrange(100)}\n" for _ in range(3000))
    lab.equal("fields", ["fields.toml"])
    for part in glob.glob(lab.path("fields-spark/part-*")):
        rows = [line.split("\t") for line in open(part).read().splitlines()]
        keys = [(-float(number), first, number, value) for first, number, value in rows]
        if keys != sorted(keys, key=lambda k: (k[0], k[1] + "\t" + k[2], k[3])):
            raise RuntimeError(f"{part} is out of order")


def spark_failure(lab):
    """A command that fails fails the job, and what it said is shown"""
    cluster = lab.spark()
    job = ["--mapper", "sh -c 'cat >/dev/null; echo it is broken >&2; exit 7'", "--input", lab.path("in/a.txt"), "--output", lab.path("failed")]
    said = lab.run([*job, "--engine", "spark", "--master", cluster.master], cluster.env, code=1).stderr
    for wanted in ("it is broken", "exited with code 7", "spark-submit failed"):
        if wanted not in said:
            raise RuntimeError(f"no {wanted!r} in {said[-3000:]}")


def hadoop_streaming(lab):
    """The same Python commands by the line for Hadoop Streaming"""
    home = os.environ.get("HADOOP_HOME")
    if not home or not glob.glob(os.path.join(home, "**", "hadoop*streaming*.jar"), recursive=True):
        raise Skip("HADOOP_HOME names no Hadoop with a streaming library")
    ours, theirs = lab.path("hadoop-shoal"), lab.path("hadoop-hadoop")
    lab.run([*streaming(), "--output", ours])
    job = [*streaming()[:-1], "file://" + lab.path("in"), "--output", "file://" + theirs]
    lab.run([*job, "--engine", "hadoop"], os.environ)
    compare(ours, theirs, False)


def module(lab, name, build):
    """Builds an example and runs it beside the built-in, by the engine and as filters."""
    path = lab.path(name + ".wasm")
    subprocess.run([*build, path], cwd=os.path.join(HERE, ".."), check=True, capture_output=True)
    ours, theirs = lab.path(name + "-builtin"), lab.path(name + "-module")
    lab.run(["wordcount", "--input", "in", "--output", ours])
    lab.run([path, "--input", "in", "--output", theirs])
    compare(ours, theirs, False)
    with open(lab.path("in/a.txt"), "rb") as text:
        mapped = subprocess.run([lab.shoal, "task", "map", path], stdin=text, capture_output=True, check=True).stdout
    mapped = b"".join(sorted(mapped.splitlines(keepends=True)))
    tasks = [subprocess.run([lab.shoal, "task", "reduce", what], input=mapped, capture_output=True, check=True).stdout for what in (path, "wordcount")]
    if tasks[0] != tasks[1] or not tasks[0]:
        raise RuntimeError("as filters, the module and the built-in differ")


def module_c(lab):
    """The example in C, built by clang without a libc"""
    if not shutil.which("clang") or not shutil.which("wasm-ld"):
        raise Skip("there is no clang with lld (Debian: clang lld)")
    module(lab, "c", ["clang", "--target=wasm32", "-O2", "-fno-builtin", "-nostdlib", "-Wl,--no-entry", "examples/wasm/wordcount.c", "-o"])


def module_wasi(lab):
    """The example in C, built by clang with wasi-libc"""
    if not shutil.which("clang") or not glob.glob("/usr/lib/llvm-*/lib/clang/*/lib/wasi/libclang_rt.builtins-wasm32.a"):
        raise Skip("there is no clang for WASI (Debian: clang lld wasi-libc libclang-rt-dev-wasm32)")
    module(lab, "wasi", ["clang", "--target=wasm32-wasi", "-O2", "-fno-builtin", "-mexec-model=reactor", "examples/wasm/wordcount.c", "-o"])


def module_assemblyscript(lab):
    """The example in AssemblyScript, built by the compiler from npm"""
    folder = os.path.join(os.path.dirname(lab.venv), "npm")
    compiler = os.path.join(folder, "node_modules", ".bin", "asc")
    if not shutil.which("npm"):
        raise Skip("there is no npm")
    if not os.path.exists(compiler):
        if lab.present_only:
            raise Skip("there is no AssemblyScript; `./dev engines` gets it")
        subprocess.run(["npm", "install", "--silent", "--prefix", folder, "assemblyscript"], check=True, capture_output=True)
    module(lab, "as", [compiler, "examples/wasm/wordcount.ts", "-O3", "--noAssert", "--runtime", "stub", "--outFile"])


CASES = [module_c, module_wasi, module_assemblyscript, spark_streaming, spark_index, spark_sort, spark_secondary_sort, spark_failure, hadoop_streaming]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scratch = os.environ.get("TMPDIR", "/tmp")
    parser.add_argument("--venv", default=os.path.join(scratch, "shoal-bench-mapreduce", "venv"), help="the bench's, so that PySpark is fetched once")
    parser.add_argument("--present-only", action="store_true", help="fetch nothing")
    parser.add_argument("-k", default="", help="only cases with this in their name")
    args = parser.parse_args()
    passed = failed = skipped = 0
    folder = tempfile.mkdtemp(prefix="shoal-engines-")
    lab = Lab(folder, os.path.abspath(args.venv), args.present_only)
    try:
        for case in CASES:
            if args.k not in case.__name__:
                continue
            name, start = f"{case.__name__}: {case.__doc__}", time.monotonic()
            try:
                case(lab)
                passed += 1
                print(f"ok   {name} ({time.monotonic() - start:.1f} s)", flush=True)
            except Skip as why:
                skipped += 1
                print(f"skip {name}: {why}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAIL {name}: {error}", flush=True)
    finally:
        lab.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
