#!/usr/bin/env python3
"""Measures an ultrapeer of shoal beside gtk-gnutella: `./dev bench gnutella [--queries N]`.

Fifty ultrapeers and 300 leaves, all played by this program, each from an address of its own, are linked with
the node over real connections; they send tables of words, then queries, one of each batch from every
ultrapeer. What is routed is what comes out again. CPU seconds are those of the node alone.
gtk-gnutella is $GTKG, or in PATH; without it shoal is measured alone.
"""

import argparse
import ctypes
import os
import random
import selectors
import socket
import struct
import subprocess
import sys
import time
import zlib

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "interop"))
from lab import gnutella, net, world  # noqa: E402
from lab.process import Failure, Lab, Skip, wait_until  # noqa: E402
from lab.usage import cpu_seconds  # noqa: E402

ULTRAPEERS, LEAVES = 50, 300
# A leaf shares a hundred files of three words; the lower a word's number, the more common it is.
WORDS, FILES = 20_000, 100
BITS = 16
GREETING = (
    "User-Agent: bench/1\r\nX-Query-Routing: 0.2\r\nX-Ultrapeer-Query-Routing: 0.1\r\nX-Dynamic-Querying: 0.1\r\n"
    "X-Max-TTL: 4\r\nX-Degree: 50\r\nGGEP: 0.5\r\nVendor-Message: 0.2\r\nPong-Caching: 0.1\r\nBye-Packet: 0.1\r\n"
)


def word(draw):
    return f"word{int(draw.random() * draw.random() * WORDS)}"


def slot(text):
    """A word's place in a table of words (Query Routing Protocol, 0.6)."""
    xor = 0
    for at, byte in enumerate(text.encode()):
        xor ^= byte << (at % 4 * 8)
    return (xor * 0x4F1BBCDC & 0xFFFFFFFF) >> (32 - BITS)


def message(kind, ttl, hops, payload, draw):
    guid = bytearray(draw.randbytes(16))
    guid[8], guid[15] = 0xFF, 0
    return bytes(guid) + struct.pack("<BBBI", kind, ttl, hops, len(payload)) + payload


def table(draw, files):
    """RESET and PATCH of what so many files have: one bit an entry would do, four are understood by all."""
    present = bytearray(1 << (BITS - 1))
    seen = set()
    for _ in range(files * 3):
        text = word(draw)
        # As others do: a word, and what it begins with.
        for cut in range(min(6, max(1, len(text) - 4))):
            seen.add(slot(text[: len(text) - cut]))
    for at in seen:
        # -6 of the infinity 7, in four bits; the first of two in the high half.
        present[at >> 1] |= 0xA0 if at % 2 == 0 else 0x0A
    packed = zlib.compress(bytes(present))
    out = message(0x30, 1, 0, struct.pack("<BIB", 0, 1 << BITS, 7), draw)
    parts = [packed[n : n + 2048] for n in range(0, len(packed), 2048)]
    for n, part in enumerate(parts):
        out += message(0x30, 1, 0, struct.pack("<BBBBB", 1, n + 1, len(parts), 1, 4) + part, draw)
    return out


class Link:
    """One neighbour, played."""

    def __init__(self, ip, to, ultrapeer):
        self.ultrapeer, self.held, self.messages, self.bytes, self.kinds = ultrapeer, b"", 0, 0, {}
        self.socket = socket.socket()
        self.socket.bind((ip, 0))
        self.socket.settimeout(30)
        self.socket.connect(to)
        role = "True" if ultrapeer else "False"
        head = f"GNUTELLA CONNECT/0.6\r\n{GREETING}X-Ultrapeer: {role}\r\nListen-IP: {ip}:6346\r\n\r\n"
        self.socket.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = self.socket.recv(4096)
            if not part:
                raise Failure(f"the node hangs up on {ip}: {answer!r}")
            answer += part
        if b" 200 " not in answer.split(b"\r\n")[0]:
            raise Failure(f"the node refuses {ip}: {answer[:200]!r}")
        self.socket.sendall(b"GNUTELLA/0.6 200 OK\r\n\r\n")
        self.held = answer.split(b"\r\n\r\n", 1)[1]
        self.socket.setblocking(False)
        self.waiting = b""

    def send(self, data=b""):
        self.waiting += data
        while self.waiting:
            try:
                n = self.socket.send(self.waiting)
            except BlockingIOError:
                return
            except OSError:
                # The node hung up: what it said before is read, and the link counted as lost.
                self.waiting = b""
                return
            self.waiting = self.waiting[n:]

    def take(self):
        """Counts what came. False at the end."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self.bytes += len(data)
        held = self.held + data
        at = 0
        while at + 23 <= len(held):
            size = int.from_bytes(held[at + 19 : at + 23], "little")
            if at + 23 + size > len(held):
                break
            kind = held[at + 16]
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            if kind == 0x00 and held[at + 17] <= 1:
                # Whether we live.
                ip = socket.inet_aton(self.socket.getsockname()[0])
                pong = struct.pack("<H", 6346) + ip + bytes(8)
                self.send(held[at : at + 16] + struct.pack("<BBBI", 1, 1, 0, len(pong)) + pong)
            at += 23 + size
        self.held = held[at:]
        return True


class Crowd:
    """All neighbours."""

    def __init__(self, host, to, seed):
        self.draw = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.links, self.lost = [], 0
        for n in range(ULTRAPEERS + LEAVES):
            ip = f"44.21.{n // 200}.{n % 200 + 1}"
            link = Link(ip, to, n < ULTRAPEERS)
            link.send(table(self.draw, FILES * 30 if link.ultrapeer else FILES))
            self.links.append(link)
            self.selector.register(link.socket, selectors.EVENT_READ, link)
            self.read(0)

    def read(self, seconds):
        for key, _ in self.selector.select(seconds):
            if not key.data.take():
                self.selector.unregister(key.fileobj)
                self.lost += 1
        for link in self.links:
            link.send()

    def settle(self, seconds=2.0):
        """Reads until nothing has come for a while."""
        quiet, last = time.monotonic(), -1
        while time.monotonic() - quiet < seconds:
            self.read(0.05)
            count = sum(link.bytes for link in self.links)
            if count != last:
                quiet, last = time.monotonic(), count

    def count(self, kind):
        return sum(link.kinds.get(kind, 0) for link in self.links)

    def query(self, ttl):
        text = f"{word(self.draw)} {word(self.draw)}".encode()
        # As far from where it began as it may be by then: TTL and hops are four together.
        return message(0x80, ttl, 4 - ttl, b"\x80\x00" + text + b"\0", self.draw)


def measure(make, queries, rate):
    with Lab("bench") as lab:
        node = make(lab)
        host = world.Host(lab)
        lines = "".join(f"addr add 44.21.{n // 200}.{n % 200 + 1}/8 dev eth0\n" for n in range(ULTRAPEERS + LEAVES))
        # This program's sockets are made in the other namespace.
        subprocess.run(["ip", "-n", host.namespace, "-batch", "-"], input=lines, text=True, check=True)
        subprocess.run(["ip", "-n", node.host.namespace, "route", "add", "44.21.0.0/16", "dev", "eth0"], check=True)
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{host.namespace}", os.O_RDONLY)
        setns(there)
        try:
            crowd = Crowd(host, (node.host.ip, node.port), seed=1)
        finally:
            setns(here)
        crowd.settle()
        pid = node.process.pid
        before, came = cpu_seconds(pid), crowd.count(0x80)
        begun = time.monotonic()
        sent = 0
        peers = [link for link in crowd.links if link.ultrapeer]
        while sent < queries:
            for n, link in enumerate(peers):
                link.send(crowd.query(1 + (sent + n) % 3))
            sent += len(peers)
            due = begun + sent / rate
            while True:
                crowd.read(max(0, min(0.05, due - time.monotonic())))
                if time.monotonic() >= due:
                    break
        crowd.settle()
        seconds = cpu_seconds(pid) - before
        routed = crowd.count(0x80) - came
        return sent, routed, seconds, crowd.lost


def setns(fd):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def shoal(lab):
    return gnutella.ShoalNode(lab, ultrapeer=True, more=["--no-deflate"], log="error")


def gtkg(lab):
    limits = {f"bandwidth_{way}_limit": "FALSE" for way in ("input", "output", "ginput", "goutput", "glinput", "gloutput")}
    more = {"prefer_compressed_gnet": "FALSE", "up_connections": 50, "max_connections": 60, "max_leaves": 300}
    return gnutella.GtkGnutella(lab, ultrapeer=True, settings=limits | more)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--queries", type=int, default=20_000)
    p.add_argument("--rate", type=float, default=500, help="queries a second in all (500)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", choices=["shoal", "gtk-gnutella"])
    args = p.parse_args()
    net.enter()
    for name, make, peer in (("shoal", shoal, gnutella.ShoalNode), ("gtk-gnutella", gtkg, gnutella.GtkGnutella)):
        if args.only not in (None, name):
            continue
        try:
            peer.need()
            world.need()
        except Skip as skip:
            print(f"{name}: skipped: {skip}")
            continue
        for _ in range(args.rounds):
            sent, routed, seconds, lost = measure(make, args.queries, args.rate)
            rate = (sent + routed) / max(seconds, 0.01)
            print(f"{name}: {sent} queries in, {routed} out, {seconds:.2f} CPU s, {rate:,.0f} messages per CPU second, {lost} links lost", flush=True)


if __name__ == "__main__":
    main()
