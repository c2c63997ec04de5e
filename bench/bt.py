#!/usr/bin/env python3
"""Download, upload and recheck of one payload by shoal, rqbit, libtorrent and aria2 in turn.

All in page cache, in one network namespace. The other end is the cheapest peer there is
(`shoal-bench seed` with sendfile, `shoal-bench leech` which discards in the kernel), so that the
client decides the time; `--against libtorrent` (or another client) takes a real one instead. The
floor is measured in the same run: recv, SHA-1 and pwrite in a plain loop; sendfile.

Wall: `down` from the first request to the end of the process, `up` from the first unchoke to the
last byte, `check` the whole process on complete files without resume data. CPU: the client's own
process, start included. Memory: peak of private pages (smaps_rollup); `anon` leaves mapped
files out.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from common import bench_program, machine, median, size, table
from lab import clients, net, torrent
from lab.clients.base import last_json_lines, pick_address
from lab.process import Failure, Lab, Skip, wait_until
from lab.usage import MemoryWatch, cpu_seconds

GIB = 1 << 30


def content_args(content):
    info = content.metainfo["info"]
    return ["--info-hash", content.hex, "--total-len", content.size, "--piece-len", info["piece length"]]


class RawSeed:
    """`shoal-bench seed`, with the time of the first request it got."""

    def __init__(self, lab, content):
        self.addr = pick_address()
        self.events = lab.path("raw-seed.jsonl")
        argv = [bench_program(), "seed", *content_args(content), "--file", content.payload, "--listen", "%s:%d" % self.addr]
        self.process = lab.spawn("raw-seed", argv, stdout=self.events)
        wait_until("the raw seed listens", 10, lambda: clients.base.is_listening(self.addr))

    def first_request(self):
        """CLOCK_MONOTONIC seconds of the newest connection's first request."""
        asked = last_json_lines(self.events, lambda e: e["event"] == "asked")
        return asked[-1]["at"] if asked else None


def run_down(lab, client, content, against):
    into = lab.folder("into")
    seed = RawSeed(lab, content) if against == "raw" else clients.BY_NAME[against].seed(lab, content, content.payload.parent)
    fetch = client.fetch(lab, content.file, into, peers=[seed.addr], **options_of(client))
    watch = MemoryWatch(fetch.process.pid)
    fetch.process.wait(300)
    watch.stop()
    if fetch.process.poll() != 0:
        raise Failure(f"{client.name} ended with code {fetch.process.poll()}\n{fetch.process.tail()}")
    difference = torrent.difference(content.payload, into / content.name)
    if difference:
        raise Failure(f"{client.name}: {difference}")
    start = seed.first_request() if against == "raw" else None
    rusage = fetch.process.rusage
    result = {
        "wall": fetch.process.ended - (start or fetch.process.started),
        "process_wall": fetch.process.ended - fetch.process.started,
        "cpu_per_gib": (rusage.ru_utime + rusage.ru_stime) * GIB / content.size,
        "private_mib": watch.peak / 2**20,
        "anon_mib": watch.peak_anonymous / 2**20,
    }
    seed.process.stop(1)
    shutil.rmtree(into)
    return result


def run_up(lab, client, content, against):
    options = {"extra": ["--assume-complete"]} if client is clients.Libtorrent else options_of(client)
    seed = client.seed(lab, content, content.payload.parent, **options)
    watch = MemoryWatch(seed.process.pid)
    cpu = cpu_seconds(seed.process.pid)
    if against == "raw":
        out = lab.path("leech.json")
        argv = [bench_program(), "leech", *content_args(content), "--peer", "%s:%d" % seed.addr]
        leech = lab.spawn("raw-leech", argv, stdout=out)
        if leech.wait(300) != 0:
            raise Failure(f"the raw leech ended with code {leech.poll()}\n{leech.tail()}\n{seed.process.tail()}")
        answer = json.loads(out.read_text().splitlines()[-1])
        wall, process_wall = answer["seconds"], answer["seconds_with_handshake"]
    else:
        into = lab.folder("into")
        leech = clients.BY_NAME[against].fetch(lab, content.file, into, peers=[seed.addr]).process
        leech.wait(300)
        wall = process_wall = leech.ended - leech.started
        shutil.rmtree(into)
    cpu = cpu_seconds(seed.process.pid) - cpu
    watch.stop()
    seed.process.stop(2)
    return {
        "wall": wall,
        "process_wall": process_wall,
        "cpu_per_gib": cpu * GIB / content.size,
        "private_mib": watch.peak / 2**20,
        "anon_mib": watch.peak_anonymous / 2**20,
    }


def run_check(lab, client, content, _against):
    fetch = client.fetch(lab, content.file, content.payload.parent, **options_of(client))
    watch = MemoryWatch(fetch.process.pid)
    fetch.process.wait(120)
    watch.stop()
    if fetch.process.poll() != 0:
        raise Failure(f"{client.name} ended with code {fetch.process.poll()}\n{fetch.process.tail()}")
    rusage = fetch.process.rusage
    wall = fetch.process.ended - fetch.process.started
    return {
        "wall": wall,
        "process_wall": wall,
        "cpu_per_gib": (rusage.ru_utime + rusage.ru_stime) * GIB / content.size,
        "private_mib": watch.peak / 2**20,
        "anon_mib": watch.peak_anonymous / 2**20,
    }


def options_of(client):
    return {"verbose": False} if client is clients.Shoal else {}


def run_floor(lab, test, content):
    """The floor of a test; none for `check`."""
    out = lab.path("floor.json")
    if test == "down":
        into = lab.path("floor.bin")
        argv = ["floor-down", "--file", content.payload, "--out", into, "--piece-len", content.metainfo["info"]["piece length"]]
    elif test == "up":
        into = None
        argv = ["floor-up", "--file", content.payload]
    else:
        return None
    process = lab.spawn("floor", [bench_program(), *argv], stdout=out)
    if process.wait(120) != 0:
        raise Failure(f"the floor ended with code {process.poll()}: {process.tail()}")
    answer = json.loads(out.read_text())
    if into:
        into.unlink()
    return {"wall": answer["seconds"], "cpu_per_gib": answer["cpu_per_gib"]}


TESTS = {"down": run_down, "up": run_up, "check": run_check}
COLUMNS = ["wall", "process_wall", "cpu_per_gib", "private_mib", "anon_mib"]
HEADERS = ["wall s", "process s", "CPU s/GiB", "private MiB", "anon MiB"]


def medians(results):
    return {test: {name: {c: median([r.get(c) for r in runs]) for c in COLUMNS} for name, runs in by.items() if runs} for test, by in results.items()}


def goals(mid):
    """(text, measured, limit) of each goal of the project that this run can judge."""
    out = []
    for test, by in mid.items():
        us = by.get("shoal")
        peers = {n: v for n, v in by.items() if n not in ("shoal", "floor")}
        if not us or not peers:
            continue
        fastest = min(v["wall"] for v in peers.values())
        if test == "down":
            out.append(("down: wall / fastest peer's", us["wall"] / fastest, 0.85))
            out.append(("down: CPU / floor's", us["cpu_per_gib"] / by["floor"]["cpu_per_gib"], 1.15))
        elif test == "up":
            out.append(("up: wall / fastest peer's", us["wall"] / fastest, 0.85))
            out.append(("up: CPU s/GiB", us["cpu_per_gib"], 0.7))
        elif "rqbit" in peers:
            out.append(("check: wall / rqbit's", us["wall"] / peers["rqbit"]["wall"], 0.6))
            out.append(("check: CPU / rqbit's", us["cpu_per_gib"] / peers["rqbit"]["cpu_per_gib"], 1.0))
        out.append((f"{test}: private MiB", us["private_mib"], 24.0))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", type=size, default=GIB, help="payload (1GiB)")
    p.add_argument("--piece-size", type=size, default=1 << 20, help="piece length (1MiB)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--clients", default="shoal,rqbit,libtorrent,aria2")
    p.add_argument("--tests", default="down,up,check")
    p.add_argument("--against", default="raw", help="the other end: raw, or a client's name")
    p.add_argument("--dir", help="scratch folder; its file system is measured too (default: the system's)")
    p.add_argument("--out", help="write all runs as JSON here")
    args = p.parse_args()
    net.enter()

    names = []
    for name in args.clients.split(","):
        try:
            clients.BY_NAME[name].need()
            if name == "shoal":
                clients.shoal.program()
            names.append(name)
        except (Skip, Failure) as why:
            print(f"without {name}: {why}")
    tests = args.tests.split(",")
    results = {test: {name: [] for name in ["floor", *names]} for test in tests}
    print(machine())
    with Lab("bench", base=args.dir) as lab:
        print(f"making {args.size / 2**20:.0f} MiB with pieces of {args.piece_size / 1024:.0f} KiB", flush=True)
        payload = torrent.random_file(lab.folder("payload") / "payload.bin", args.size, seed=1)
        content = torrent.make(payload, lab.path("payload.torrent"), args.piece_size)
        for n in range(args.rounds):
            for test in tests:
                # Each round starts with another client, so that none always runs behind the same.
                order = names[n % len(names) :] + names[: n % len(names)] if names else []
                for name in ["floor", *order]:
                    with Lab("round", base=lab.dir) as run:
                        try:
                            if name == "floor":
                                result = run_floor(run, test, content)
                            else:
                                result = TESTS[test](run, clients.BY_NAME[name], content, args.against)
                        except Failure as failure:
                            print(f"{test} {name}: {failure}", file=sys.stderr, flush=True)
                            continue
                    if result:
                        results[test][name].append(result)
                        print(f"round {n + 1} {test:5} {name:10} {result['wall']:6.2f} s {result['cpu_per_gib']:6.2f} CPU s/GiB", flush=True)
                    time.sleep(0.2)

    mid = medians(results)
    for test in tests:
        print(f"\n{test} (median of {args.rounds}, against {args.against})")
        rows = [[name, *[mid[test][name][c] for c in COLUMNS]] for name in ["floor", *names] if name in mid[test]]
        table([test, *HEADERS], rows)
    judged = goals(mid)
    if judged:
        print("\ngoals")
        table(["goal", "measured", "at most", ""], [[text, got, limit, "met" if got <= limit else "NOT MET"] for text, got, limit in judged])
    if args.out:
        Path(args.out).write_text(json.dumps({"machine": machine(), "args": vars(args), "medians": mid, "runs": results}, indent=1))


main()
