#!/usr/bin/env python3
"""Runs mrjob, unmodified, with shoal as its Hadoop: `python3 interop/mrjob_cases.py [-k TEXT]`.

The output of each job has to be that of `-r inline` (`-r local` where inline runs no commands). mrjob is installed from PyPI into a virtual
environment that is kept (in $SHOAL_CACHE or target/mrjob). Prints a line for each case and, last,
`N passed, N failed, N skipped`. Where mrjob cannot be had, all cases are skipped with the reason;
with $CI set that is a failure.
"""

import argparse
import concurrent.futures
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
MRJOB = "mrjob==0.7.4"
# Nothing here takes this long, even on a busy machine.
LONG = 180


class Failure(Exception):
    pass


def check(holds, what):
    if not holds:
        raise Failure(what)


def install():
    """The Python of an environment with mrjob, or the reason why there is none."""
    if sys.version_info >= (3, 13):
        return None, f"{MRJOB} needs the module pipes, which Python {sys.version_info[0]}.{sys.version_info[1]} lacks"
    folder = os.path.join(os.environ.get("SHOAL_CACHE") or os.path.join(ROOT, "target"), "mrjob")
    python = os.path.join(folder, "bin", "python")
    has = [python, "-c", "import mrjob; assert mrjob.__version__ == '0.7.4'"]
    if os.path.exists(python) and subprocess.run(has, stderr=subprocess.DEVNULL).returncode == 0:
        return python, ""
    shutil.rmtree(folder, ignore_errors=True)
    # setuptools, because mrjob asks pkg_resources.
    for command in ([sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", "-q", MRJOB, "setuptools<81"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            return None, f"{' '.join(command)}: {done.stdout.strip()[-300:]}"
    return python, ""


class Lab:
    """A folder with a HADOOP_HOME, a job store and input, and nothing of the user's settings."""

    def __init__(self, python, shoal):
        self.dir = tempfile.mkdtemp(prefix="shoal-mrjob-")
        self.python = python
        self.home = os.path.join(self.dir, "hadoop")
        self.env = {
            "PATH": os.path.join(self.home, "bin") + ":" + os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": self.dir,
            "USER": "tester",
            "LOGNAME": "tester",
            "TMPDIR": self.dir,
            "LC_ALL": "C.UTF-8",
            "HADOOP_HOME": self.home,
            "SHOAL_HADOOP_DIR": os.path.join(self.dir, "store"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.run([shoal, "hadoop", "setup", self.home])
        self.texts = []
        words = "the sea of a shoal is the home of the fish and a shoal of fish is a home".split()
        for n in range(4):
            path = os.path.join(self.dir, f"text{n}")
            with open(path, "w") as file:
                for line in range(300):
                    file.write(" ".join(words[(line * 7 + k * (n + 3)) % len(words)] for k in range(9)) + "\n")
            self.texts.append(path)
        packed = os.path.join(self.dir, "text4.gz")
        with gzip.open(packed, "wt") as file:
            file.write("a packed text of the sea\n" * 50)
        self.texts.append(packed)

    def run(self, command, ok=True):
        done = subprocess.run(command, cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG)
        if ok and done.returncode != 0:
            raise Failure(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        return done

    def job(self, runner, script, *args, inputs=None, ok=True):
        """Runs a job: a script of ours, or the name of one of mrjob's examples."""
        ours = os.path.join(HERE, "mrjobs", script)
        script = [ours] if script.endswith(".py") else ["-m", "mrjob.examples." + script]
        return self.run([self.python, *script, "--no-conf", "-r", runner, *args, *(inputs or self.texts)], ok)

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def lines(done):
    return sorted(done.stdout.splitlines())


def own_counters(done):
    """Counters that the job counted, by step: the ones of no group of Hadoop's."""
    hadoops = ("Counters", "Framework")
    steps, group = [], None
    for line in done.stderr.splitlines():
        if re.match(r"Counters: \d+$", line):
            steps.append({})
        elif steps and (m := re.match(r"\t(\t?)(.*)$", line)):
            if not m[1]:
                group = None if m[2].endswith(hadoops) else m[2]
            elif group:
                name, value = m[2].rsplit("=", 1)
                steps[-1][group, name] = int(value)
    return [step for step in steps if step]


def same(script, *args, inputs=None, steps=1, beside="inline"):
    """A case: the same output, and the same counters, as mrjob's own runner that runs such jobs."""

    def case(lab):
        inline = lab.job(beside, script, *args, inputs=inputs)
        hadoop = lab.job("hadoop", script, *args, inputs=inputs)
        check(lines(inline), f"the job writes nothing with -r {beside}")
        check(lines(hadoop) == lines(inline), f"the output differs:\n{hadoop.stdout[:500]}\n{beside}:\n{inline.stdout[:500]}")
        counted = own_counters(inline), own_counters(hadoop)
        check(counted[0] == counted[1], f"the counters differ: {beside} {counted[0]}, hadoop {counted[1]}")
        ran = len(re.findall(r"Running job: job_\d+_\d{4}", hadoop.stderr))
        check(ran == steps, f"{ran} jobs ran, not {steps}")
        check("No counters found" not in hadoop.stderr, "mrjob found no counters")
        return hadoop

    return case


def counters(lab):
    hadoop = same("tally.py")(lab)
    counted = own_counters(hadoop)
    check(counted and counted[0]["text", "lines"] == 1250, f"the counters are {counted}")


def many_reducers(lab):
    out = "hdfs:///out/of/many"
    inline = lab.job("inline", "tally.py")
    lab.job("hadoop", "tally.py", "-D", "mapreduce.job.reduces=3", "--output-dir", out, "--no-cat-output")
    listed = lab.run(["hadoop", "fs", "-ls", "-C", out]).stdout.split()
    names = [os.path.basename(path) for path in listed]
    check(names == ["_SUCCESS", "part-00000", "part-00001", "part-00002"], f"the output is {names}")
    parts = [lab.run(["hadoop", "fs", "-cat", path]).stdout.splitlines() for path in listed[1:]]
    check(sum(1 for part in parts if part) > 1, "one reducer got everything")
    check(sorted(sum(parts, [])) == lines(inline), "the output differs")


def side_files(lab):
    wanted, inside = os.path.join(lab.dir, "wanted"), os.path.join(lab.dir, "inside")
    with open(wanted, "w") as file:
        file.write("a of fish nothing\n")
    os.mkdir(inside)
    for name in ("one", "two"):
        with open(os.path.join(inside, name), "w") as file:
            file.write(name)
    archive = shutil.make_archive(os.path.join(lab.dir, "some"), "gztar", inside)
    args = ("--wanted", wanted, "--archives", archive + "#archive", "--cmdenv", "SIDE_COLOUR=deep blue")
    hadoop = same("side_files.py", *args)(lab)
    check('["one", "two"], "deep blue"]' in hadoop.stdout, f"the archive or environment is missing: {hadoop.stdout}")


def setup_commands(lab):
    same("tally.py", "--setup", "export PLACE=$PWD", "--setup", "touch made-by-setup")(lab)


def whole_files(lab):
    # Packed ones are unpacked by one runner and not by the other.
    same("whole_files.py", inputs=lab.texts[:4])(lab)


def failing(lab):
    done = lab.job("hadoop", "mr_boom", ok=False)
    check(done.returncode != 0, "a job that raises is a success")
    cause = done.stderr.split("Probable cause of failure:")
    check(len(cause) == 2, f"mrjob found no cause:\n{done.stderr[-2000:]}")
    check("Exception: BOOM" in cause[1] and "Traceback" in cause[1], f"the cause is not the exception:\n{cause[1]}")
    check("missing job ID" not in done.stderr, "mrjob found no job ID")
    check(done.stdout == "", f"a failed job wrote {done.stdout!r}")


def uses_the_store(lab):
    lab.run(["hadoop", "fs", "-mkdir", "-p", "hdfs:///in"])
    lab.run(["hadoop", "fs", "-put", *lab.texts, "hdfs:///in"])
    inline = lab.job("inline", "mr_word_freq_count")
    for inputs in (["hdfs:///in"], ["hdfs:///in/*"]):
        check(lines(lab.job("hadoop", "mr_word_freq_count", inputs=inputs)) == lines(inline), f"the output of {inputs} differs")
    left = lab.run(["hadoop", "fs", "-ls", "-R", "/user/tester"]).stdout.splitlines()
    check(all(line.startswith("d") for line in left), f"files were left: {left}")


CASES = {
    "word count with a combiner": same("mr_word_freq_count"),
    "two steps, values in order, combiner": same("mr_next_word_stats", steps=2),
    "two steps with a file of stop words": same("mr_most_used_word", steps=2),
    "a mapper that ends with a word": same("mr_wc"),
    "one key for all": same("mr_count_lines_right"),
    "a shell command as mapper": same("mr_grep", "-e", "fish", beside="local"),
    "a filter before the mapper": same("mr_words_containing_u_freq_count", inputs=[os.path.join(HERE, "mrjob_cases.py")], beside="local"),
    "counters": counters,
    "three reducers": many_reducers,
    "side files, archives, environment": side_files,
    "setup commands": setup_commands,
    "input files as a whole": whole_files,
    "input and output in the store": uses_the_store,
    "the cause of a failure": failing,
}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", metavar="TEXT", action="append", default=[], help="only cases whose name has TEXT (all of several)")
    p.add_argument("-j", type=int, default=2, metavar="N", help="cases at once (2)")
    args = p.parse_args()
    shoal = os.path.abspath(os.environ.get("SHOAL") or os.path.join(ROOT, "target", "release", "shoal"))
    chosen = {name: case for name, case in CASES.items() if all(k in name for k in args.k)}
    python, why = install()
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    if python is None:
        verdict = "FAIL" if os.environ.get("CI") else "skip"
        counts[verdict] = len(chosen)
        print(f"{verdict}  mrjob: {why}")

    def one(name):
        start = time.monotonic()
        lab = Lab(python, shoal)
        try:
            chosen[name](lab)
            return "ok", "", time.monotonic() - start
        except (Failure, subprocess.TimeoutExpired) as failure:
            return "FAIL", f": {failure}", time.monotonic() - start
        finally:
            lab.close()

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(args.j) as pool:
        futures = {pool.submit(one, name): name for name in chosen} if python else {}
        for future in concurrent.futures.as_completed(futures):
            verdict, why, seconds = future.result()
            counts[verdict] += 1
            print(f"{verdict:4} {seconds:6.1f} s  mrjob: {futures[future]}{why}", flush=True)
    print(f"mrjob took {time.monotonic() - start:.0f} s")
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
