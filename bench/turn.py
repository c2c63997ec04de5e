#!/usr/bin/env python3
"""Relays side by side: shoal beside coturn, in turn, in a network namespace of their own, under the same load from
coturn's own client and peer.

CPU is that of the relay's process, from /proc. A GiB is one of payload that came in, each byte of which goes out once
(the peer echoes, so that half of it goes each way). Needs coturn (Debian: coturn).

    bench/turn.py [--rounds N] [--tests udp,send,tcp,many] [--json]
"""

import argparse
import json
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "interop"))

from lab import net, turn  # noqa: E402
from lab.clients.shoal import program  # noqa: E402
from lab.process import Failure, Lab, Skip, find_program, wait_until  # noqa: E402

# name: what it is, uclient's options, clients, messages of each, their length
TESTS = {
    "udp": ("channel data by UDP, 20 clients, 1,000 bytes", ["-c"], 20, 4000, 1000),
    "small": ("channel data by UDP, 20 clients, 160 bytes (voice)", ["-c"], 20, 4000, 160),
    "send": ("Send and Data indications by UDP, 20 clients, 1,000 bytes", ["-c", "-s"], 20, 4000, 1000),
    "tcp": ("channel data by TCP, 20 clients, 1,000 bytes", ["-c", "-t"], 20, 4000, 1000),
    "many": ("channel data by UDP, 1,000 clients, 1,000 bytes", ["-c"], 1000, 80, 1000),
}
GIB = 1 << 30


def cpu(pid):
    """CPU seconds so far, of all threads."""
    tasks = f"/proc/{pid}/task"
    nanoseconds = 0
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/schedstat") as f:
            nanoseconds += int(f.read().split()[0])
    return nanoseconds / 1e9


def rss(pid):
    """Resident memory in MiB."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


class Shoal(turn.ShoalRelay):
    def __init__(self, lab):
        super().__init__(lab, ["--max-allocations-per-user", "10000"])


class Coturn:
    """coturn with as few extras as it has."""

    name = "coturn"

    def __init__(self, lab):
        self.host = net.address()
        self.port = net.free_port(self.host)
        argv = [find_program("turnserver"), "-n", "-L", self.host, "-E", self.host, "-p", self.port, "-r", turn.REALM]
        argv += ["--use-auth-secret", f"--static-auth-secret={turn.SECRET}", "--allow-loopback-peers", "--no-tls", "--no-dtls"]
        argv += ["--no-cli", "--no-rfc5780", "--log-file", "/dev/null", "--simple-log", "--pidfile", lab.path("pid")]
        self.process = lab.spawn("coturn", argv)
        wait_until("coturn answers", 10, lambda: turn.answers(self.host, self.port))


def measure(make, test):
    _, options, clients, messages, length = TESTS[test]
    with Lab("bench-turn") as lab:
        relay, peer = make(lab), turn.Peer(lab)
        before, start = cpu(relay.process.pid), time.monotonic()
        options = [*options, "-e", peer.host, "-r", peer.port, "-m", clients, "-n", messages, "-l", length, "-z", 1]
        sent, received, _ = turn.uclient(lab, relay, options, seconds=240)
        seconds = time.monotonic() - start
        used = cpu(relay.process.pid) - before
        relayed = (sent + received) * length
        return {
            "name": relay.name,
            "cpu_s_per_gib": used / (relayed / GIB),
            "cpu_us_per_packet": used / (sent + received) * 1e6,
            "mib_per_s": relayed / seconds / (1 << 20),
            "lost": 1 - received / max(sent, 1),
            "rss_mib": rss(relay.process.pid),
        }


def compare(test, options):
    makes = [Shoal, Coturn] if find_program("turnserver") else [Shoal]
    runs = []
    for n in range(options.rounds):
        # Each goes first as often as the other.
        for make in makes if n % 2 == 0 else makes[::-1]:
            runs.append(measure(make, test))
    title = TESTS[test][0]
    print(f"\n{title}", file=sys.stderr)
    rows = {}
    for make in makes:
        own = [r for r in runs if r["name"] == make.name]
        keys = ("cpu_s_per_gib", "cpu_us_per_packet", "mib_per_s", "lost", "rss_mib")
        row = rows[make.name] = {key: statistics.median(r[key] for r in own) for key in keys}
        row["all_cpu_s_per_gib"] = [round(r["cpu_s_per_gib"], 2) for r in own]
        print(
            f"  {make.name:8} {row['cpu_s_per_gib']:6.2f} CPU s/GiB  {row['cpu_us_per_packet']:5.2f} us a packet"
            f"  {row['mib_per_s']:6.1f} MiB/s  {100 * row['lost']:5.2f} % lost  {row['rss_mib']:6.1f} MiB"
            f"  {row['all_cpu_s_per_gib']}",
            file=sys.stderr,
        )
    result = {"test": test, "title": title, "rows": rows}
    if len(rows) == 2:
        result["ratio"] = rows["shoal"]["cpu_s_per_gib"] / rows["coturn"]["cpu_s_per_gib"]
        print(f"  shoal / coturn: {result['ratio']:.2f}", file=sys.stderr)
    return result


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--tests", default=",".join(TESTS))
    p.add_argument("--json", action="store_true")
    options = p.parse_args()
    net.enter()
    try:
        turn.Uclient.need()
    except Skip as skip:
        print(f"skipped: {skip} (Debian: coturn)", file=sys.stderr)
        return 0
    if not find_program("turnserver"):
        print("skipped: coturn's own relay is not installed; shoal alone", file=sys.stderr)
    results = []
    try:
        for test in options.tests.split(","):
            results.append(compare(test, options))
    except Failure as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"program": program(), "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
