"""Nodes behind NATs reach each other: `shoal pipe` in the NAT laboratory."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time

from lab.clients.shoal import program
from lab.nat import TYPES, Home, join_by_ipv6, meets
from lab.process import Failure, wait_until
from lab.world import Host

ECHO = """
import socket, threading
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("127.0.0.1", 7)); s.listen(64)
def serve(c):
    while d := c.recv(65536): c.sendall(d)
    c.close()
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


def check(holds, what):
    if not holds:
        raise Failure(what)


def events(path, kind):
    """The events of a kind that a program has told so far."""
    with open(path, encoding="utf-8", errors="replace") as f:
        lines = [json.loads(line) for line in f if line.startswith("{") and line.endswith("}\n")]
    return [line for line in lines if line["event"] == kind]


def search_ends():
    """Waits as long as better ways are found in, and more: nothing tells that none will be."""
    time.sleep(4)


class Overlay:
    """A login server and supernodes with relays, at ports that strict firewalls let through."""

    def __init__(self, lab, supernodes=2, delay=0):
        self.lab = lab
        desk = Host(lab, delay=delay)
        self.login = f"{desk.ip}:443"
        argv = [program(), "serve", "login", "--with-list", "--listen", self.login, "--dir", lab.folder("login"), "--names-per-host", "200"]
        self.desk = lab.spawn("login", desk.inside([*argv, "--json"]))
        wait_until("the login server listens", 20, lambda: events(self.desk.log, "listening"))
        self.supernodes, self.hosts = {}, {}
        for _ in range(supernodes):
            self.add(delay)

    def add(self, delay=0, more=()):
        """One more supernode; its address."""
        host, n = Host(self.lab, delay=delay), len(self.supernodes)
        argv = [program(), "supernode", "node", "--login", self.login, "--supernode", "--keep-role", "--json", "--stats-interval", "1", *more]
        argv += ["--listen", f"{host.ip}:443", "--relay", f"{host.ip}:3478", "--relay", f"{host.ip}:80"]
        process = self.lab.spawn(f"supernode{n}", host.inside([*argv, "--state-dir", self.lab.folder(f"sn{n}")]))
        wait_until("a supernode listens", 20, lambda: len(events(process.log, "listening")) >= 3)
        self.supernodes[host.ip], self.hosts[host.ip] = process, host
        return host.ip

    def listener(self, home, service=ECHO):
        """`shoal pipe --listen` there, before a service that echoes, or another; its key."""
        self.lab.spawn(f"service-{home.kind}", home.inside([sys.executable, "-c", service]))
        argv = [program(), "pipe", "--listen", "--to", "127.0.0.1:7", "--login", self.login, "--json"]
        process = self.lab.spawn(f"listen-{home.kind}", home.inside([*argv, "--state-dir", self.lab.folder("listen")]))
        told = wait_until(f"{home.kind} can be reached", 40, lambda: events(process.log, "reachable"))
        check(told[0]["relays"], f"{home.kind} has no relay: {told}")
        return told[0]["node"]


class Call:
    """`shoal pipe KEY`: what is written comes back."""

    def __init__(self, overlay, home, key):
        self.log = overlay.lab.path(f"call-{home.kind}.log")
        argv = [program(), "pipe", key, "--login", overlay.login, "--state-dir", overlay.lab.folder("call"), "-v"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(home.inside(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        overlay.lab.at_close(self.process.kill)

    def ways(self):
        """What it said of its ways: (relay or None)."""
        with open(self.log, encoding="utf-8", errors="replace") as f:
            lines = [line.strip() for line in f if " Reached " in line]
        return [None if " directly" in line else line.split("relayed by ")[1].split(":")[0] for line in lines]

    def echo(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()
        back = b""
        while len(back) < len(data):
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                with open(self.log, encoding="utf-8", errors="replace") as f:
                    raise Failure(f"it ended: {f.read()[-600:]}")
            back += piece
        check(back == data, "something else came back")

    def close(self):
        self.process.stdin.close()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            raise Failure("it does not end") from None


def pairs(lab):
    """Every ordered pair of types: direct exactly where that is possible."""
    overlay = Overlay(lab)
    keys = {}
    for kind in TYPES:
        keys[kind] = overlay.listener(Home(lab, kind))
    homes = {kind: Home(lab, kind) for kind in TYPES}
    faults, took, setup = [], [], {"direct": 0, "relayed": 0}

    def calls(a):
        home = homes[a]
        for b, key in keys.items():
            try:
                began = time.monotonic()
                call = Call(overlay, home, key)
                call.echo(b"hello\n")
                took.append(time.monotonic() - began)
                if meets(a, b):
                    wait_until(f"{a} to {b} is direct", 10, lambda c=call: c.ways()[-1:] == [None])
                else:
                    # Time for a direct way to be found wrongly: that there is none is what is shown.
                    time.sleep(1.5)
                    check(None not in call.ways(), f"{a} to {b} is direct: {call.ways()}")
                call.echo(b"again\n")
                check(call.close() == 0, f"{a} to {b}: it failed")
                setup["relayed" if call.ways()[-1] else "direct"] += 1
            except Exception as failure:  # noqa: BLE001 - a thread's is told by nobody else
                faults.append(f"{a} to {b}: {failure!r}")

    threads = [threading.Thread(target=calls, args=(kind,)) for kind in TYPES]
    [t.start() for t in threads]
    [t.join() for t in threads]
    check(not faults, f"{len(faults)} of {len(TYPES) ** 2}: " + "; ".join(faults[:6]))
    slow = sorted(took)
    return (
        f"{setup['direct']} direct, {setup['relayed']} relayed; from the program's start to the first echo "
        f"{statistics.median(took):.2f} s, at most {slow[-1]:.2f} s"
    )


def gap_while(call, act, seconds=10):
    """Echoes every 20 ms, does something after two seconds; the longest time without an echo."""
    worst, began, acted = 0.0, time.monotonic(), False
    while time.monotonic() < began + seconds:
        if not acted and time.monotonic() > began + 2:
            act()
            acted = True
        at = time.monotonic()
        call.echo(b"%.6f\n" % at)
        worst = max(worst, time.monotonic() - at)
        # One echo each packet of speech, as in a call.
        time.sleep(0.02)
    return worst


def relay_killed(lab):
    """The supernode whose relay is in use is killed: the connection goes on by another."""
    overlay = Overlay(lab, supernodes=3)
    key = overlay.listener(Home(lab, "sym"))
    call = Call(overlay, Home(lab, "sym"), key)
    call.echo(b"hello\n")
    # So that the way in use is the one to lose.
    search_ends()
    before = call.ways()[-1]
    check(before in overlay.supernodes, f"relayed by {before}")
    gap = gap_while(call, overlay.supernodes[before].kill)
    check(call.ways()[-1] != before, "the dead relay is still named")
    check(gap <= 1.5, f"nothing came for {gap:.2f} s")
    check(call.close() == 0, "it failed")
    return f"{gap:.2f} s without an echo"


def forgotten(lab, a, b):
    """A NAT forgets everything while data flows."""
    overlay = Overlay(lab)
    there, here = Home(lab, b), Home(lab, a)
    key = overlay.listener(there)
    call = Call(overlay, here, key)
    call.echo(b"hello\n")
    # So that the way in use is the one to lose.
    search_ends()
    gaps = [gap_while(call, home.forget) for home in (here, there)]
    check(max(gaps) <= 3, f"nothing came for {max(gaps):.2f} s")
    check(call.close() == 0, "it failed")
    return " and ".join(f"{gap:.2f}" for gap in gaps) + " s without an echo"


def silence(lab):
    """Nothing is said for longer than mappings last."""
    overlay = Overlay(lab)
    key = overlay.listener(Home(lab, "port", lifetime=30))
    call = Call(overlay, Home(lab, "port", lifetime=30), key)
    call.echo(b"hello\n")
    wait_until("it is direct", 10, lambda: call.ways()[-1:] == [None])
    # Mappings of 30 s run out twice: the silence is what is tested.
    time.sleep(75)
    began = time.monotonic()
    call.echo(b"still there?\n")
    check(time.monotonic() - began < 1, "it took a while")
    check(call.ways() in ([None], call.ways()[:1] + [None]), f"ways changed: {call.ways()}")
    check(call.close() == 0, "it failed")


def nobody(lab):
    """Whoever is not there is given up within half a minute, with the leg that failed."""
    overlay = Overlay(lab, supernodes=1)
    began = time.monotonic()
    call = Call(overlay, Home(lab, "port"), "58" * 32)
    code = call.process.wait(40)
    took = time.monotonic() - began
    with open(call.log, encoding="utf-8") as f:
        text = f.read()
    check(code == 4 and took < 31, f"exit {code} after {took:.0f} s: {text}")
    check("signalling" in text, f"no leg is named: {text}")


def by_ipv6(lab):
    """Two symmetric NATs of IPv4, and a path of IPv6 between firewalls: that is taken."""
    overlay = Overlay(lab)
    here, there = Home(lab, "sym"), Home(lab, "sym")
    join_by_ipv6(here, there)
    call = Call(overlay, here, overlay.listener(there))
    call.echo(b"hello\n")
    wait_until("it is direct", 15, lambda: call.ways()[-1:] == [None])
    call.echo(b"directly\n")
    check(call.close() == 0, "it failed")


def cases(add, bound):
    """Adds the cases."""
    add("reach: every ordered pair of NAT types", pairs, [])
    add("reach: the relay in use is killed", relay_killed, [])
    add("reach: NATs forget, port and port", bound(forgotten, "port", "port"), [])
    add("reach: NATs forget, sym and sym", bound(forgotten, "sym", "sym"), [])
    add("reach: 75 s of silence, mappings of 30 s", silence, [])
    add("reach: sym and sym, with a path of IPv6", by_ipv6, [])
    add("reach: who is not there is named as the reason", nobody, [])
