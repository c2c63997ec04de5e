#!/usr/bin/env python3
"""Bulk over connections between nodes: directly, beside plain quinn (on tokio, with the same cryptography), and by one of
our relays. Two processes on loopback in a network namespace of their own, in turn.

Wall time is the source's, from the first byte written until all has arrived. CPU is that of each process meanwhile.

    bench/reach.py [--rounds N] [--size SIZE] [--only quinn,direct,relayed] [--json]
"""

import argparse
import json
import sys

from common import Failure, bench_program, machine, median, size, table
from lab import net, turn
from lab.process import Lab, wait_until
from turn import cpu

KINDS = ("quinn", "direct", "relayed")


def lines(path):
    """The JSON objects that a process has printed so far."""
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.startswith("{") and line.endswith("}\n")]


def end(lab, name, argv):
    out = lab.path(f"{name}.json")
    out.touch()
    return lab.spawn(name, [bench_program(), "bulk", *argv], stdout=out), out


def result(process, out, seconds):
    if process.wait(seconds) != 0:
        raise Failure(f"{process.name}: {process.tail()}")
    return lines(out)[-1]


def measure(kind, length):
    with Lab("bench-reach") as lab:
        host = net.address()
        relay, by = None, []
        # Directly too: no node tells where it is before it has looked for relays.
        if kind != "quinn":
            relay = turn.ShoalRelay(lab)
            by = ["--relay", f"{relay.host}:{relay.port}", "--secret", turn.SECRET]
        ours = "quinn" if kind == "quinn" else "reach"
        sink, told = end(lab, "sink", [f"{ours}-sink", "--listen", f"{host}:0", *by])
        where = wait_until("the sink tells where it is", 20, lambda: lines(told))[0]
        to = ["--listen", f"{net.address()}:0", "--to", where["listening"], "--key", where["key"], "--len", length]
        relayed = ["--relayed"] if kind == "relayed" else []
        before = cpu(relay.process.pid) if relay else 0
        source, sent = end(lab, "source", [f"{ours}-source", *to, *by, *relayed])
        took, came = result(source, sent, 300), result(sink, told, 20)
        if came["bytes"] != length:
            raise Failure(f"{came['bytes']} bytes of {length} came")
        gib = length / (1 << 30)
        row = {"mib_per_s": length / (1 << 20) / took["seconds"], "wall": took["seconds"]}
        row |= {"source": took["cpu"] / gib, "sink": came["cpu"] / gib, "more": took["more"]}
        row["relay"] = (cpu(relay.process.pid) - before) / gib if kind == "relayed" else None
        return row


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--size", type=size, default=1 << 30)
    p.add_argument("--only", default=",".join(KINDS))
    p.add_argument("--json", action="store_true")
    options = p.parse_args()
    net.enter()
    kinds = options.only.split(",")
    runs = {kind: [] for kind in kinds}
    try:
        for n in range(options.rounds):
            # Each goes first as often as the others.
            for kind in kinds[n % len(kinds) :] + kinds[: n % len(kinds)]:
                run = measure(kind, options.size)
                runs[kind].append(run)
                print(f"  {kind:8} {run['mib_per_s']:7.1f} MiB/s  {run['more']}", file=sys.stderr)
    except Failure as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    keys = ("mib_per_s", "wall", "source", "sink", "relay")
    rows = {kind: {key: median([r[key] for r in runs[kind]]) for key in keys} for kind in kinds}
    if options.json:
        print(json.dumps({"machine": machine(), "size": options.size, "rows": rows, "runs": runs}))
        return 0
    print(machine())
    table(["", "MiB/s", "wall s", "source CPU s/GiB", "sink", "relay"], [[kind, *rows[kind].values()] for kind in kinds])
    if "quinn" in rows and "direct" in rows:
        pairs = zip(runs["direct"], runs["quinn"])
        print(f"  direct / quinn: {median([a['mib_per_s'] / b['mib_per_s'] for a, b in pairs]):.2f} (median of the rounds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
