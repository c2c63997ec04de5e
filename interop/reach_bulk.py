"""Bulk between nodes behind NATs, what is done to it on the way, and which relay carries it: by `shoal pipe`."""

import hashlib
import json
import os
import statistics
import threading
import time

from lab.clients.shoal import program
from lab.nat import Home
from lab.process import Failure, wait_until
from reach_cases import Call, Overlay, check, events, search_ends

# Reads all; then tells how much, its hash, and the longest time in which nothing came.
SINK = """
import hashlib, json, socket, threading, time
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("127.0.0.1", 7)); s.listen(64)
def serve(c):
    seen, size, gap, last = hashlib.sha256(), 0, 0, None
    while d := c.recv(1 << 20):
        now = time.monotonic(); gap = max(gap, now - (last or now)); last = now
        seen.update(d); size += len(d)
    c.sendall((json.dumps({"bytes": size, "sha256": seen.hexdigest(), "gap": gap}) + "\\n").encode()); c.close()
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""
BLOCK = 1 << 16


def bulk_while(call, act, seconds=10):
    """Sends as fast as it goes for so long, does something after three seconds; what the sink tells, with MiB/s."""
    sent, size, began, acted = hashlib.sha256(), 0, time.monotonic(), False
    block = os.urandom(1 << 20)
    while time.monotonic() < began + seconds:
        if not acted and time.monotonic() > began + 3:
            act()
            acted = True
        at = size % (len(block) - BLOCK)
        piece = block[at : at + BLOCK]
        call.process.stdin.write(piece)
        sent.update(piece)
        size += len(piece)
    call.process.stdin.close()
    line = call.process.stdout.readline()
    if not line.endswith(b"\n"):
        with open(call.log, encoding="utf-8", errors="replace") as f:
            raise Failure(f"it ended: {f.read()[-600:]}")
    told = json.loads(line)
    told["mib_per_s"] = size / (1 << 20) / (time.monotonic() - began)
    check(told["bytes"] == size, f"{told['bytes']} of {size} bytes came")
    check(told["sha256"] == sent.hexdigest(), "other bytes came")
    check(call.process.wait(15) == 0, "it failed")
    return told


def settled(call):
    """The way in use, when the search for better ones is over."""
    wait_until("there is a way", 20, lambda: call.ways() or call.process.poll() is not None)
    search_ends()
    check(call.ways(), "no way was found")
    return call.ways()[-1]


def relay_killed(lab, a, b):
    """The supernode whose relay carries bulk is killed."""
    overlay = Overlay(lab, supernodes=3)
    key = overlay.listener(Home(lab, b), SINK)
    call = Call(overlay, Home(lab, a), key)
    before = settled(call)
    check(before in overlay.supernodes, f"relayed by {before}")
    told = bulk_while(call, overlay.supernodes[before].kill)
    check(call.ways()[-1] != before, "the dead relay is still named")
    check(told["gap"] <= 1.5, f"nothing came for {told['gap']:.2f} s")
    return f"{told['gap']:.2f} s without a byte, all {told['bytes'] >> 20} MiB exact, {told['mib_per_s']:.1f} MiB/s"


def forgotten(lab, a, b, which):
    """A NAT forgets everything in the middle of bulk."""
    overlay = Overlay(lab)
    homes = here, there = Home(lab, a), Home(lab, b)
    call = Call(overlay, here, overlay.listener(there, SINK))
    settled(call)
    told = bulk_while(call, homes[which].forget)
    check(told["gap"] <= 3, f"nothing came for {told['gap']:.2f} s")
    return f"{told['gap']:.2f} s without a byte, all {told['bytes'] >> 20} MiB exact, {told['mib_per_s']:.1f} MiB/s"


def home_killed(lab):
    """The supernode where a node is at home is killed: a third node reaches it anew."""
    overlay = Overlay(lab, supernodes=3)
    key = overlay.listener(Home(lab, "port"))

    def at_home():
        told = {ip: events(process.log, "supernode_stats")[-1:] for ip, process in overlay.supernodes.items()}
        return [ip for ip, last in told.items() if last and last[0]["children"] == 1]

    home = wait_until("it is at home somewhere", 10, at_home)[0]
    caller = Home(lab, "sym")
    overlay.supernodes[home].kill()
    killed = time.monotonic()
    call = Call(overlay, caller, key)
    call.echo(b"hello\n")
    took = time.monotonic() - killed
    check(took <= 5, f"reached {took:.2f} s after its supernode was killed")
    check(call.close() == 0, "it failed")
    return f"reached by a node that begins then, {took:.2f} s after its supernode was killed"


def login(lab):
    """From the start of the program, and so before its login, until it can be reached."""
    overlay = Overlay(lab, supernodes=3)
    told = []
    for kinds, most in ((("open", "port", "sym"), 2), (("noudp", "web"), 5)):
        took = []
        for kind in kinds:
            home = Home(lab, kind)
            argv = [program(), "pipe", "--listen", "--to", "127.0.0.1:7", "--login", overlay.login, "--json"]
            process = lab.spawn(f"listen-{kind}", home.inside([*argv, "--state-dir", lab.folder("listen")]))
            reachable = wait_until(f"{kind} can be reached", 40, lambda p=process: events(p.log, "reachable"), every=0.01)
            took.append(time.monotonic() - process.started)
            check(reachable[0]["relays"], f"{kind} has no relay")
            check(took[-1] <= most, f"{kind}: {took[-1]:.2f} s")
            process.kill()
        told.append(f"{', '.join(kinds)}: " + ", ".join(f"{t:.2f}" for t in took) + " s")
    return "; ".join(told)


def nearest(lab, calls=10):
    """Of three supernodes' relays at 10, 50 and 150 ms, which calls take."""
    overlay = Overlay(lab, supernodes=0)
    # In an order of its own, so that being first counts for nothing.
    relays = {delay: overlay.add(delay) for delay in (150, 10, 50)}
    # Until all three are neighbours, and tell of each other's relays.
    for process in overlay.supernodes.values():
        wait_until("supernodes are linked", 30, lambda p=process: any(e["neighbours"] >= 2 for e in events(p.log, "supernode_stats")))
    key = overlay.listener(Home(lab, "sym"))
    taken, took = [], []
    home = Home(lab, "sym")
    for _ in range(calls):
        began = time.monotonic()
        call = Call(overlay, home, key)
        call.echo(b"hello\n")
        took.append(time.monotonic() - began)
        search_ends()
        taken.append(call.ways()[-1])
        check(call.close() == 0, "it failed")
    best = taken.count(relays[10])
    check(best >= 0.9 * calls, f"{best} of {calls} by the nearest: {taken} of {relays}")
    return f"{best} of {calls} by the relay with the lowest sum of round trips; the first echo after {statistics.median(took):.2f} s"


def capped(lab):
    """A supernode relays no more than its owner allows; where there is another, it is taken."""
    limit = 125_000
    overlay = Overlay(lab, supernodes=0)
    slow = overlay.add(more=["--relay-limit", str(limit)])
    key = overlay.listener(Home(lab, "sym"), SINK)
    relayed = []

    def look(until):
        def bytes_so_far():
            last = events(overlay.supernodes[slow].log, "turn_stats")[-1]
            return last["bytes_up"] + last["bytes_down"]

        first, began = bytes_so_far(), time.monotonic()
        # A rate is measured over time: this is as long as the transfer goes; the figures are told each second.
        time.sleep(until)
        relayed.append((bytes_so_far() - first) / (time.monotonic() - began))

    alone = Call(overlay, Home(lab, "sym"), key)
    settled(alone)
    watch = threading.Thread(target=look, args=(12,))
    told = bulk_while(alone, watch.start, seconds=15)
    watch.join()
    check(relayed[0] <= 1.1 * limit, f"{relayed[0] / limit:.2f} of the limit was relayed")
    check(relayed[0] >= 0.5 * limit, f"only {relayed[0] / limit:.2f} of the limit was used")
    figures = f"{relayed[0] / limit:.2f} of the limit of 1 Mbit/s, {told['mib_per_s']:.2f} MiB/s"
    other = overlay.add()
    key = overlay.listener(Home(lab, "sym"), SINK)
    call = Call(overlay, Home(lab, "sym"), key)
    first = settled(call)
    told = bulk_while(call, lambda: None, seconds=15)
    check(call.ways()[-1] == other, f"not by the other supernode: {call.ways()}, limited is {slow}")
    check(told["mib_per_s"] > 4 * limit / (1 << 20), f"{told['mib_per_s']:.2f} MiB/s")
    return figures + f"; with another supernode {told['mib_per_s']:.1f} MiB/s by that, which was {'left for' if first == slow else 'taken at once, not'} the first"


# Of each type of NAT: how strangers reach who is behind it, and what it does with addresses.
STATES = {
    "open": ("open", "one"),
    "wall": ("punched", "one"),
    "full": ("open", "one"),
    "addr": ("punched", "one"),
    "port": ("punched", "one"),
    "sym": ("punched", "per_peer"),
    "noudp": ("relayed", "unknown"),
    "web": ("relayed", "unknown"),
}


def states(lab, supernodes):
    """`shoal reach` behind each type of NAT."""
    overlay = Overlay(lab, supernodes)
    for process in overlay.supernodes.values():
        most = supernodes - 1
        wait_until("supernodes are linked", 30, lambda p=process: any(e["neighbours"] >= most for e in events(p.log, "supernode_stats")))
    took = []
    for kind, expected in STATES.items():
        argv = [program(), "reach", "--login", overlay.login, "--json", "--state-dir", lab.folder(kind)]
        process = lab.spawn(f"reach-{kind}", Home(lab, kind).inside(argv))
        check(process.wait(40) == 0, f"{kind}: {process.tail()}")
        told = events(process.log, "reachability")[0]
        check((told["state"], told["mapping"]) == expected, f"{kind}: {told}")
        check((told["mapped"] is None) == (told["state"] == "relayed"), f"{kind}: {told}")
        took.append(process.ended - process.started)
    return f"{len(STATES)} types told as what they are, after {min(took):.1f} to {max(took):.1f} s"


def cases(add, bound):
    """Adds the cases."""
    add("reach: bulk, its relay is killed, sym to sym", bound(relay_killed, "sym", "sym"), [])
    add("reach: bulk, its relay is killed, web to sym", bound(relay_killed, "web", "sym"), [])
    for kind in ("port", "sym"):
        for which, name in enumerate(("the source", "the sink")):
            add(f"reach: bulk, the NAT of {name} forgets, {kind} and {kind}", bound(forgotten, kind, kind, which), [])
    add("reach: the home supernode is killed", home_killed, [])
    add("reach: each NAT is told as what it is, by three relays", bound(states, 3), [])
    add("reach: each NAT is told as what it is, by two relays", bound(states, 2), [])
    add("reach: from login to reachable", login, [])
    add("reach: the relay with the lowest sum of round trips", nearest, [])
    add("reach: a supernode's limit holds, and another is taken", capped, [])
