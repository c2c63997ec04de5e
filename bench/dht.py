#!/usr/bin/env python3
"""The Mainline DHT: a network of shoal's nodes, then the same network of libtorrent's, on loopback.

All nodes of a network share a process that JSON lines drive; each has sockets of its own. Orders
come from random nodes, one at a time. Times are of the first peer or value for lookups, of the end
for puts. Datagrams are the kernel's count over the whole network, each counted once, less what the
idle network sends in that time. Who is nearest is judged by a client that is neither.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

from common import bench_program, machine, median, table
from lab import dht, net
from lab.krpc import Client, nodes_of, xor
from lab.process import Failure, Lab, wait_until
from lab.usage import cpu_seconds, private_bytes

NEAREST = 8


class ShoalNodes(dht.Driven):
    name = "shoal"

    @staticmethod
    def argv(control, bootstrap, listen):
        return [bench_program(), "dht-nodes", "--control", control, "--bootstrap", bootstrap, *listen]


MAKES = {"shoal": ShoalNodes, "libtorrent": dht.LibtorrentNodes}


def datagrams():
    """UDP datagrams that this namespace has sent."""
    with open("/proc/self/net/snmp") as f:
        names, values = [line.split() for line in f if line.startswith("Udp:")]
    return int(values[names.index("OutDatagrams")])


def nearest(client, target, start):
    """The identifiers nearest to `target` of those that answered; one node is asked at a time, the
    nearest known first."""
    known, answered, asked = {start: None}, set(), set()

    def distance(addr):
        return xor(known[addr], target) if known[addr] else -1

    while True:
        alive = [a for a in sorted(known, key=distance) if a not in asked or a in answered][:NEAREST]
        addr = next((a for a in alive if a not in asked), None)
        if addr is None:
            return {known[a] for a in alive}
        asked.add(addr)
        reply = client.ask(addr, "find_node", {"target": target})
        if reply is None:
            continue
        answered.add(addr)
        known[addr] = reply[b"id"]
        for found, node in nodes_of(reply):
            known.setdefault(node, found)


def memory_of(make, count, lab):
    with Lab("few", base=lab.dir) as few:
        nodes = make(few, count)
        wait_until("the nodes answer", 30, lambda: nodes.order("nodes", 0))
        time.sleep(2)
        return private_bytes(nodes.process.pid)


def measure(lab, make, args):
    rng = random.Random(args.seed)
    few = memory_of(make, 2, lab)
    nodes = make(lab, args.nodes)
    wait_until("every node knows others", 60, lambda: nodes.contacts() >= NEAREST, every=0.5)
    time.sleep(args.settle)

    before, cpu, start = datagrams(), cpu_seconds(nodes.process.pid), time.monotonic()
    time.sleep(args.idle)
    idle_rate = (datagrams() - before) / (time.monotonic() - start)
    idle_cpu = (cpu_seconds(nodes.process.pid) - cpu) / (time.monotonic() - start)

    def orders(make_order):
        """Runs `args.count` of an order from random nodes: milliseconds, datagrams each, answers."""
        before, start, answers = datagrams(), time.monotonic(), []
        for n in range(args.count):
            answers.append(nodes.order(node=rng.randrange(args.nodes), **make_order(n)))
            # What is still under way belongs to this order.
            time.sleep(args.pause)
        extra = datagrams() - before - idle_rate * (time.monotonic() - start)
        return [a.get("ms") for a in answers], extra / args.count, answers

    keys = [rng.randbytes(20) for _ in range(args.count)]
    values = [f"value {n} of {make.name}" for n in range(args.count)]
    put_ms, put_datagrams, puts = orders(lambda n: {"do": "put", "value": values[n]})
    get_ms, get_datagrams, gets = orders(lambda n: {"do": "get", "name": puts[n]["name"]})
    # libtorrent does not tell when an announce has ended.
    _, announce_datagrams, _ = orders(lambda n: {"do": "announce", "key": keys[n].hex(), "port": 7000 + n, "settle": args.pause})
    time.sleep(1)
    peers_ms, peers_datagrams, peers = orders(lambda n: {"do": "peers", "key": keys[n].hex()})
    missed = [n for n in range(args.count) if gets[n].get("value") != values[n]] + [n for n in range(args.count) if not peers[n]["peers"]]
    if missed:
        raise Failure(f"{len(missed)} of {2 * args.count} lookups found nothing")

    client = Client()
    replies = [client.ask(addr, "ping", {}) for addr in nodes.addrs]
    if None in replies:
        raise Failure(f"{replies.count(None)} nodes did not answer a ping")
    ids = [reply[b"id"] for reply in replies]
    recalls = []
    for _ in range(args.count):
        target = rng.randbytes(20)
        truth = set(sorted(ids, key=lambda i: xor(i, target))[:NEAREST])
        recalls.append(len(truth & nearest(client, target, rng.choice(nodes.addrs))) / NEAREST)

    return {
        "peers_ms": median(peers_ms),
        "peers_datagrams": peers_datagrams,
        "get_ms": median(get_ms),
        "get_datagrams": get_datagrams,
        "put_ms": median(put_ms),
        "put_datagrams": put_datagrams,
        "replicas": statistics.mean(p["stored"] for p in puts),
        "announce_datagrams": announce_datagrams,
        "recall": statistics.mean(recalls),
        "idle_datagrams": idle_rate / args.nodes,
        "idle_cpu_ms": idle_cpu / args.nodes * 1e3,
        "memory_mb": (private_bytes(nodes.process.pid) - few) / (args.nodes - 2) / 1e6,
    }


# What is measured, how it is called, and the goal.
ROWS = [
    ("peers_ms", "get_peers, first peer, ms", None),
    ("get_ms", "get immutable, ms", None),
    ("put_ms", "put immutable, ms", None),
    ("peers_datagrams", "get_peers, datagrams", 30),
    ("get_datagrams", "get immutable, datagrams", 15),
    ("put_datagrams", "put immutable, datagrams", 45),
    ("replicas", "put at nodes", None),
    ("announce_datagrams", "announce, datagrams", None),
    ("recall", "recall of the 8 nearest", 0.97),
    ("idle_datagrams", "idle datagrams/s a node", 0.5),
    ("idle_cpu_ms", "idle CPU ms/s a node", None),
    ("memory_mb", "private MB a node", 1),
]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nodes", type=int, default=100)
    p.add_argument("--count", type=int, default=30, help="orders of each kind (30)")
    p.add_argument("--settle", type=float, default=20, help="seconds for the tables to fill (20)")
    p.add_argument("--idle", type=float, default=20, help="seconds of idleness that are measured (20)")
    p.add_argument("--pause", type=float, default=0.25, help="seconds after each order (0.25)")
    p.add_argument("--makes", default="shoal,libtorrent")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--dir", help="scratch folder")
    p.add_argument("--out", help="write the results as JSON here")
    args = p.parse_args()
    net.enter()
    if not net.isolated():
        raise Failure("this counts all datagrams of a namespace, and there is none here")

    print(machine())
    print(f"{args.nodes} nodes, {args.count} orders of each kind")
    results = {}
    for name in args.makes.split(","):
        make = MAKES[name]
        with Lab("dht", base=args.dir) as lab:
            if hasattr(make, "need"):
                make.need()
            results[name] = measure(lab, make, args)
    print()
    goal = [f"{'≥' if key == 'recall' else '≤'} {limit}" if limit else "" for key, _, limit in ROWS]
    table(["", *results, "goal"], [[text, *(r[key] for r in results.values()), goal[n]] for n, (key, text, _) in enumerate(ROWS)])
    if "shoal" in results:
        ours = results["shoal"]
        missed = [text for key, text, limit in ROWS if limit and (ours[key] < limit if key == "recall" else ours[key] > limit)]
        print(f"\ngoals: {'NOT MET: ' + ', '.join(missed) if missed else 'all met'}")
    if args.out:
        Path(args.out).write_text(json.dumps({"machine": machine(), "args": vars(args), "results": results}, indent=1))


main()
