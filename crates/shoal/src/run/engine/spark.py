"""A MapReduce job of shoal on Spark: pipe, repartition and sort within partitions, pipe.

Submitted by `shoal run --engine spark` together with `job.json`, the job's side files and the
`shoal` program that runs its code. Lines stay bytes all the way.

    spark-submit --files shoal,job.json,… spark.py PARTITIONS     (0: as many as the cluster likes)
"""

import bisect
import decimal
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import zlib

from pyspark import SparkFiles
from pyspark.sql import SparkSession, functions

# Map output that is sorted at once for the combiner, in bytes.
COMBINED_AT_ONCE = 64 << 20
# Keys of a sample for each partition of a range.
SAMPLED = 100


def pipe(phase, lines, environment, arguments=()):
    """What a phase of the job makes of lines. RDD.pipe would take them for UTF-8."""
    folder = SparkFiles.getRootDirectory()
    command = [os.path.join(folder, "shoal"), "task", phase, os.path.join(folder, "job.json"), *arguments]
    fed = []

    def feed():
        try:
            with process.stdin as to:
                for line in lines:
                    to.write(line + b"\n")
        except BrokenPipeError:
            pass  # It has enough, or failed and says so.
        except BaseException as error:
            fed.append(error)
            process.kill()

    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=1 << 18, env={**os.environ, **environment}
        )
        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        try:
            for line in process.stdout:
                yield line.removesuffix(b"\n")
            code = process.wait()
            feeder.join()
        finally:
            process.kill()
            said.seek(0)
            text = said.read()[-65536:].decode(errors="replace")
            sys.stderr.write(text)
        if fed:
            raise fed[0]
        if code:
            raise RuntimeError(f"shoal task {phase} exited with code {code}:\n{text[-4000:]}")


class Reversed:
    """Orders the other way round."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value

    def __lt__(self, other):
        return other.value < self.value


def fields(key, separator, part):
    """The fields of a key that a part names."""
    words = key.split(separator)
    return separator.join(words[part["first"] - 1 : part.get("last")])


def number(text):
    """As `sort -n` reads it."""
    sign, whole, fraction = re.match(rb"\s*(-?)(\d*)(?:\.(\d*))?", text).groups()
    return decimal.Decimal(f"{sign.decode()}{whole.decode() or 0}.{(fraction or b'').decode() or 0}")


def orderer(job):
    """What keys are sorted by: their bytes, or parts of them and then their bytes."""
    parts = job["order"] if isinstance(job["order"], str) else job["order"]["fields"]
    if parts == "bytes":
        return lambda key: key
    separator = bytes([job["map_fields"]["separator"]])

    def order(key):
        out = []
        for part in parts:
            value = fields(key, separator, part)
            value = number(value) if part["numeric"] else value
            out.append(Reversed(value) if part["reverse"] else value)
        return (*out, key)

    return order


def partitioner(job, count, keys, order):
    """Which partition gets a key."""
    rule = job["partitioner"]
    if rule == "range" and count > 1:
        keys = keys.cache()
        fraction = min(1.0, SAMPLED * count / max(1, keys.count()))
        sample = sorted(keys.sample(False, fraction, 1).map(order).collect())
        cuts = [sample[len(sample) * n // count] for n in range(1, count)] if sample else []
        return lambda key: bisect.bisect_right(cuts, order(key))
    if isinstance(rule, dict):
        separator = bytes([job["map_fields"]["separator"]])
        return lambda key: zlib.crc32(separator.join(fields(key, separator, part) for part in rule["fields"])) % count
    return lambda key: zlib.crc32(key) % count


def plain_path(url):
    """A file's name as a mapper expects it."""
    return "/" + urllib.parse.unquote(url[5:]).lstrip("/") if url.startswith("file:") else urllib.parse.unquote(url)


def main():
    spark = SparkSession.builder.getOrCreate()
    with open(SparkFiles.get("job.json"), "rb") as file:
        job = json.load(file)
    separator, key_fields = bytes([job["map_fields"]["separator"]]), job["map_fields"]["key_fields"]
    order = orderer(job)

    def cut(line):
        """A record: its key, which sorts it together with its value if that matters, and its value."""
        words = line.split(separator, key_fields)
        key, value = separator.join(words[:key_fields]), b"".join(words[key_fields:])
        return ((key, value), b"") if job["order_values"] else ((key,), value)

    def joined(records):
        for key, value in records:
            yield key[0] + separator + (key[1] if job["order_values"] else value)

    def by_key(key):
        return (order(key[0]), *key[1:])

    def map_rows(rows):
        for (url, number), group in itertools.groupby(rows, key=lambda row: (row[1], row[2])):
            environment = {"mapreduce_map_input_file": plain_path(url)}
            yield from pipe("map", (row[0] for row in group), environment, ["--from-input", str(number)])

    def combine(records):
        size, heap = 0, []
        for record in records:
            heap.append(record)
            size += len(record[0][0]) + len(record[1]) + 100
            if size > COMBINED_AT_ONCE:
                yield from combine_heap(heap)
                size, heap = 0, []
        yield from combine_heap(heap)

    def combine_heap(heap):
        heap.sort(key=lambda record: by_key(record[0]))
        return map(cut, pipe("combine", joined(heap), {}))

    def reduce(number, records):
        return pipe("reduce", joined(records), {"mapreduce_task_partition": str(number)})

    frames = [
        spark.read.option("lineSep", "\n")
        .option("recursiveFileLookup", "true")
        .text(what)
        .select(functions.col("value").cast("binary"), functions.col("_metadata.file_path"), functions.lit(number))
        for number, what in enumerate(job["inputs"])
    ]
    lines = spark.sparkContext.union([frame.rdd for frame in frames]).mapPartitions(map_rows)
    if job["reducer"]:
        count = int(sys.argv[1]) or spark.sparkContext.defaultParallelism
        records = lines.map(cut)
        if job["combiner"] or job["associative"]:
            records = records.mapPartitions(combine)
        place = partitioner(job, count, records.map(lambda record: record[0][0]), order)
        records = records.repartitionAndSortWithinPartitions(count, lambda key: place(key[0]), True, by_key)
        lines = records.mapPartitionsWithIndex(reduce)
    out = spark.createDataFrame(lines.map(lambda line: (line,)), "value binary", verifySchema=False)
    out.select(functions.col("value").cast("string")).write.text(job["output"])
    spark.stop()


if __name__ == "__main__":
    main()
