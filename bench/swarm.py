#!/usr/bin/env python3
"""One seeder with a capped upload and several leechers of the same client.

The time until all leechers are complete tells how well a client spreads pieces that only one
has. The ideal is payload / cap; the seeder should send little more than the payload once.
"""

import argparse
import json
import time
from pathlib import Path

from common import machine, median, size, table
from lab import clients, net, torrent
from lab.process import Failure, Lab, Skip, wait_until
from lab.tracker import Tracker


def run_swarm(lab, client, content, args):
    tracker = Tracker(lab, interval=2)
    seed = client.seed(lab, content, content.payload.parent, trackers=[tracker.url], up_limit=args.cap)
    wait_until("the seed announced", 30, lambda: tracker.announces)
    start = time.monotonic()
    leeches = []
    for _ in range(args.leechers):
        into = lab.folder("into")
        leeches.append((client.fetch(lab, content.file, into, trackers=[tracker.url], stay=True), into))
    done = {}

    def all_complete():
        for n, (leech, _) in enumerate(leeches):
            if leech.process.poll() is not None:
                raise Failure(f"leecher {n} ended with code {leech.process.poll()}\n{leech.process.tail()}")
            if n not in done and leech.is_complete():
                done[n] = time.monotonic() - start
        return len(done) == len(leeches)

    wait_until("all leechers are complete", args.timeout, all_complete, every=0.1)
    time.sleep(0.5)
    uploaded = seed.uploaded()
    for leech, into in leeches:
        difference = torrent.difference(content.payload, into / content.name)
        if difference:
            raise Failure(difference)
    return {"seconds": max(done.values()), "first": min(done.values()), "seed_sent": uploaded / content.size}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", type=size, default=256 << 20)
    p.add_argument("--piece-size", type=size, default=256 << 10)
    p.add_argument("--cap", type=size, default=32 << 20, help="the seeder's upload limit a second (32MiB)")
    p.add_argument("--leechers", type=int, default=5)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--clients", default="shoal,aria2,libtorrent,rqbit")
    p.add_argument("--timeout", type=float, default=120)
    p.add_argument("--dir", help="scratch folder")
    p.add_argument("--out", help="write all runs as JSON here")
    args = p.parse_args()
    net.enter()

    ideal = args.size / args.cap
    print(machine())
    print(f"{args.size >> 20} MiB, pieces of {args.piece_size >> 10} KiB, {args.leechers} leechers, cap {args.cap / 2**20:g} MiB/s: ideal {ideal:.1f} s")
    results = {}
    with Lab("swarm", base=args.dir) as lab:
        payload = torrent.random_file(lab.folder("payload") / "payload.bin", args.size, seed=1)
        content = torrent.make(payload, lab.path("payload.torrent"), args.piece_size)
        for n in range(args.rounds):
            for name in args.clients.split(","):
                with Lab("round", base=lab.dir) as run:
                    try:
                        clients.BY_NAME[name].need()
                        result = run_swarm(run, clients.BY_NAME[name], content, args)
                    except (Failure, Skip) as why:
                        print(f"round {n + 1} {name:10} {why}", flush=True)
                        continue
                results.setdefault(name, []).append(result)
                print(f"round {n + 1} {name:10} all after {result['seconds']:.1f} s, first {result['first']:.1f} s, seed sent {result['seed_sent']:.2f} x", flush=True)
    print()
    rows = [[n, median([r["seconds"] for r in rs]), median([r["seconds"] for r in rs]) / ideal, median([r["seed_sent"] for r in rs])] for n, rs in results.items()]
    table(["client", "all after s", "x ideal", "seed sent x"], rows)
    if "shoal" in results:
        _, _, ratio, sent = rows[list(results).index("shoal")]
        print(f"\ngoal: within 1.30 x the ideal: {'met' if ratio <= 1.3 else 'NOT MET'}; seed sends at most 1.20 x: {'met' if sent <= 1.2 else 'NOT MET'}")
    if args.out:
        Path(args.out).write_text(json.dumps({"machine": machine(), "args": vars(args), "runs": results}, indent=1))


main()
