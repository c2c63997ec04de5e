"""Rows of `./dev bench mapreduce` about the code of jobs: the same word count by code that is not built in.

`wasm`: modules built from examples/wasm beside the built-in, and with its sum as the reducer. `streaming`:
commands in Python, run by shoal and by `cat | mapper | sort | reducer`.
"""

import os
import shutil
import subprocess
import sys

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples", "wasm")
GOALS = """wasm: at most 3 x the built-in's CPU; streaming: no slower than cat | mapper | sort | reducer."""

MAPPER = """import sys
for line in sys.stdin:
    for word in line.split():
        print(word, 1, sep="\\t")
"""
REDUCER = """import sys
last, total = None, 0
for line in sys.stdin:
    key, value = line.split("\\t")
    if key != last:
        if last is not None:
            print(last, total, sep="\\t")
        last, total = key, 0
    total += int(value)
if last is not None:
    print(last, total, sep="\\t")
"""
ENGINES = {"wasm": ["shoal", "module", "module+sum"], "streaming": ["shoal", "pipe"]}


def module(folder):
    """The example in C, built; none without a compiler for it."""
    if not shutil.which("clang") or not shutil.which("wasm-ld"):
        print("no clang with lld (Debian: clang lld): no row for modules", file=sys.stderr)
        return None
    out = os.path.join(folder, "wordcount.wasm")
    flags = ["--target=wasm32", "-O2", "-fno-builtin", "-nostdlib", "-Wl,--no-entry"]
    subprocess.run(["clang", *flags, "-o", out, os.path.join(EXAMPLES, "wordcount.c")], check=True)
    return out


def command(lab, engine, job, input_):
    """What to run, and where its output will be; none if it cannot be run here."""
    out = os.path.join(lab.out, "d")
    run = [lab.shoal, "run", "--input", input_, "--output", out]
    if job == "wasm":
        if engine == "shoal":
            return [*run, "wordcount"], out
        code = module(lab.folder)
        if not code:
            return None
        reducer = '{ builtin = "sum" }' if engine == "module+sum" else f"{{ wasm = {code!r} }}"
        lab.script("wasm.toml", f"mapper = {{ wasm = {code!r} }}\ncombiner = {reducer}\nreducer = {reducer}\nassociative = true\n")
        return [*run, os.path.join(lab.folder, "wasm.toml")], out
    lab.script("mapper.py", MAPPER)
    lab.script("reducer.py", REDUCER)
    mapper, reducer = (f"{lab.python} {os.path.join(lab.folder, name)}" for name in ("mapper.py", "reducer.py"))
    if engine == "shoal":
        return [*run, "--mapper", mapper, "--reducer", reducer], out
    file = os.path.join(lab.out, "out.txt")
    return ["bash", "-c", f"cat {input_} | {mapper} | LC_ALL=C sort -k1,1 | {reducer} >{file}"], file
