#!/usr/bin/env python3
"""Measures `shoal serve napster` beside OpenNap-ng: `./dev bench napster [--users N --files N --searchers N]`.

Registers files, then searches, from this process over loopback; CPU seconds are those of the hub alone.
OpenNap-ng is taken from $OPENNAP or PATH (program `opennap`, built with
CFLAGS="-O2 -fcommon -std=gnu89 -w"); without it shoal is measured alone.
"""

import argparse
import itertools
import json
import os
import random
import re
import resource
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import find_program  # noqa: E402

HOST = "127.0.0.1"
# Words as unequal in frequency as in a language.
WORDS = [f"w{k:x}{'aeiou'[k % 5]}{k * 7919 % 997:x}" for k in range(5000)]
WEIGHTS = list(itertools.accumulate(1 / (k + 10) for k in range(len(WORDS))))


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def message(kind, data):
    return struct.pack("<HH", len(data), kind) + data


class Hub:
    def __init__(self, name, argv, port, cwd=None):
        self.name, self.port = name, port
        self.process = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((HOST, port), 0.2).close()
                return
            except OSError:
                if time.monotonic() > end:
                    raise SystemExit(f"{name} does not listen") from None
                # A hub does not say when it listens: it is tried until it does, not measured meanwhile.
                time.sleep(0.05)

    def cpu(self):
        nanoseconds = 0
        tasks = f"/proc/{self.process.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/schedstat") as f:
                nanoseconds += int(f.read().split()[0])
        return nanoseconds / 1e9

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) * 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def shoal(folder):
    port = free_port()
    program = os.environ.get("SHOAL") or find_program("shoal")
    if not program:
        raise SystemExit("there is no shoal: set $SHOAL")
    options = ["--searches-per-minute", "0", "--lines-per-minute", "0", "--max-connections", "20000"]
    return Hub("shoal", [program, "serve", "napster", "-q", "--listen", f"{HOST}:{port}", *options], port)


def opennap_program():
    return os.environ.get("OPENNAP") or find_program("opennap")


def opennap(folder):
    port = free_port()
    home = tempfile.mkdtemp(dir=folder)
    limits = """max_connections 20000
max_clones 0
max_searches_per_minute 1000000
max_searches 100000
evaluate_search_abuse_after_tags 100000000
evaluate_search_abuse_after_secs 100000000
max_shared 100000
stats_port -1
stats_port2 -1
compression_level 0
client_queue_length 100000000
max_tags_per_minute 1000000000
flood_commands 0
login_interval 0
log_level 0
connection_hard_limit 20000
"""
    with open(os.path.join(home, "config"), "w") as f:
        f.write(f"server_name {HOST}\nserver_ports {port}\nlisten_addr {HOST}\n{limits}")
    for name in ("motd", "users", "bans", "channels", "servers", "filter", "block", "acl", "class"):
        open(os.path.join(home, name), "w").close()
    return Hub("OpenNap-ng", [opennap_program(), "-D", "-c", home, "-e", home], port, cwd=home)


class Client:
    def __init__(self, port, nick):
        self.socket = socket.create_connection((HOST, port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.socket.sendall(message(2, f'{nick} pw 6699 "bench" 9'.encode()))
        self.wait(3)

    def wait(self, kind):
        """Reads to the next message of a kind; how many came before it."""
        seen = 0
        while True:
            while len(self.buffer) >= 4:
                length, got = struct.unpack_from("<HH", self.buffer)
                if len(self.buffer) < 4 + length:
                    break
                self.buffer = self.buffer[4 + length :]
                if got == kind:
                    return seen
                if got == 201:
                    seen += 1
            data = self.socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the hub closed the connection")
            self.buffer += data


def words(rng, n):
    return " ".join(rng.choices(WORDS, cum_weights=WEIGHTS, k=n))


def wait_files(hub, client, want):
    end = time.monotonic() + 120
    while True:
        client.socket.sendall(message(214, b""))
        while True:
            while len(client.buffer) < 4 or len(client.buffer) < 4 + struct.unpack_from("<H", client.buffer)[0]:
                client.buffer += client.socket.recv(1 << 16)
            length, kind = struct.unpack_from("<HH", client.buffer)
            data = client.buffer[4 : 4 + length]
            client.buffer = client.buffer[4 + length :]
            if kind == 214:
                break
        if int(data.split()[1]) >= want:
            return int(data.split()[1])
        if time.monotonic() > end:
            raise SystemExit(f"{hub.name} has {data.decode()} (users, files, GB), not {want} files")
        # It says how many files it has only when asked; this is before what is measured.
        time.sleep(0.05)


def fill(hub, users, files, rng):
    """Logs users in and shares their files: CPU seconds and memory for it."""
    clients = []
    probe = Client(hub.port, "probe")
    for n in range(users):
        clients.append(Client(hub.port, f"user{n}"))
    cpu, rss, start = hub.cpu(), hub.rss(), time.monotonic()
    for n, client in enumerate(clients):
        data = b"".join(
            message(100, f'"C:\\Music\\user {n}\\{words(rng, 5)}.mp3" NOMD5COMPUTED {rng.randrange(1, 9 << 20)} 128 44100 {k}'.encode())
            for k in range(files)
        )
        client.socket.sendall(data)
    held = wait_files(hub, probe, users * files)
    return clients, {
        "users": users,
        "files": held,
        "register_seconds": time.monotonic() - start,
        "files_per_cpu_second": held / (hub.cpu() - cpu),
        "bytes_per_file": (hub.rss() - rss) / held,
    }


def search(hub, clients, searchers, seconds, rng):
    """So many clients search at once, each one search at a time."""
    asked = {}
    times, hits = [], 0
    poll = select.epoll()
    by_fd = {}
    cpu, start = hub.cpu(), time.perf_counter()

    def ask(client):
        query = f'FILENAME CONTAINS "{words(rng, 2)}" MAX_RESULTS 100'
        asked[client.socket.fileno()] = time.perf_counter()
        client.socket.sendall(message(200, query.encode()))

    for client in clients[:searchers]:
        by_fd[client.socket.fileno()] = client
        poll.register(client.socket.fileno(), select.EPOLLIN)
        ask(client)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for fd, _ in poll.poll(1):
            client = by_fd[fd]
            client.buffer += client.socket.recv(1 << 18)
            while len(client.buffer) >= 4:
                length, kind = struct.unpack_from("<HH", client.buffer)
                if len(client.buffer) < 4 + length:
                    break
                client.buffer = client.buffer[4 + length :]
                if kind == 201:
                    hits += 1
                elif kind == 202:
                    times.append(time.perf_counter() - asked[fd])
                    ask(client)
    took = time.perf_counter() - start
    used = hub.cpu() - cpu
    times.sort()
    return {
        "searchers": searchers,
        "searches": len(times),
        "hits_per_search": hits / len(times),
        "searches_per_second": len(times) / took,
        "searches_per_cpu_second": len(times) / used,
        "hits_per_cpu_second": hits / used,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
    }


def measure(start, options, folder):
    hub = start(folder)
    rng = random.Random(7)
    try:
        clients, row = fill(hub, options.users, options.files, rng)
        for client in clients:
            client.buffer = b""
        alone = search(hub, clients, 1, options.seconds, rng)
        for client in clients:
            client.socket.setblocking(True)
        crowd = search(hub, clients[1:], options.searchers, options.seconds, rng)
    finally:
        hub.stop()
    return {"name": hub.name, **row, "one": alone, "many": crowd}


def show(row):
    print(
        f"{row['name']:11} {row['users']} users, {row['files']} files: {row['files_per_cpu_second']:.0f} registered a CPU second, "
        f"{row['bytes_per_file']:.0f} bytes a file"
    )
    for key in ("one", "many"):
        s = row[key]
        print(
            f"            {s['searchers']} searching: {s['searches_per_cpu_second']:.0f} searches a CPU second at "
            f"{s['hits_per_search']:.1f} hits, p50 {s['p50_ms']:.3f} ms, p99 {s['p99_ms']:.3f} ms"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--files", type=int, default=1000, help="of each user")
    parser.add_argument("--searchers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=["shoal", "opennap"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    starts = {"shoal": shoal, "opennap": opennap}
    if options.only:
        starts = {options.only: starts[options.only]}
    if "opennap" in starts and not opennap_program():
        print("skipped: OpenNap-ng, for there is no program opennap ($OPENNAP, PATH)", file=sys.stderr)
        del starts["opennap"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for n in range(options.rounds):
            order = list(starts.values())
            for start in order if n % 2 == 0 else order[::-1]:
                rows.append(measure(start, options, folder))
                if not options.json:
                    show(rows[-1])
    if options.rounds > 1 and not options.json:
        for name in {row["name"] for row in rows}:
            own = [row["many"]["searches_per_cpu_second"] for row in rows if row["name"] == name]
            print(f"{name}: median {statistics.median(own):.0f} searches a CPU second")
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
