#!/usr/bin/env python3
"""Measures downloads from many kinds of source: `./dev bench fetch [--only join|speed] [--rounds N]`.

join: one file from a BitTorrent peer, two Gnutella hosts, two users of a Napster hub and a web seed at once,
all on loopback with capped rates; one Gnutella host is killed, one Napster user sends wrong bytes, the web seed slows
down. The ideal is the time in which the sources that stay could have sent the whole, each at its rate.
speed: one Gnutella host, as fast as it goes, beside curl, which checks nothing.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import fail, find_program, machine, median, size, table  # noqa: E402

HOST = "127.0.0.1"
CHUNK = 32 << 10


class Cap:
    """Bytes a second over all connections of one source; may be changed on the way."""

    def __init__(self, rate):
        self.rate, self.lock, self.ready = rate, threading.Lock(), time.monotonic()

    def take(self, n):
        with self.lock:
            now = time.monotonic()
            self.ready = max(self.ready, now - 0.05) + n / self.rate
            wait = self.ready - now
        # The source is slow on purpose.
        if wait > 0:
            time.sleep(wait)


def serve(handle):
    """Accepts for ever, a thread each; the port."""
    listener = socket.create_server((HOST, 0))

    def run():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=guarded, args=(handle, connection), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    return listener.getsockname()[1]


def guarded(handle, connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 << 10)
    with connection:
        try:
            handle(connection)
        except OSError:
            pass  # The other end goes when it likes.


def web(data, cap):
    def handle(connection):
        stream = connection.makefile("rb")
        while True:
            first, last = 0, len(data) - 1
            line = stream.readline()
            if not line:
                return
            while line.strip():
                name, _, value = line.decode("latin-1").partition(":")
                if name.lower() == "range":
                    a, b = value.strip().removeprefix("bytes=").split("-")
                    first, last = int(a), int(b or last)
                line = stream.readline()
            head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{len(data)}\r\nContent-Length: {last - first + 1}\r\n\r\n"
            connection.sendall(head.encode())
            send(connection, data, first, last + 1, cap)

    return serve(handle)


def send(connection, data, start, end, cap):
    for at in range(start, end, CHUNK):
        part = data[at : min(at + CHUNK, end)]
        cap.take(len(part))
        connection.sendall(part)


def proxy(target, cap):
    """Passes connections on to another port of this machine, what comes back no faster than the cap."""

    def handle(connection):
        with socket.create_connection((HOST, target)) as other:

            def up():
                while part := connection.recv(CHUNK):
                    other.sendall(part)
                other.shutdown(socket.SHUT_WR)

            threading.Thread(target=guarded, args=(lambda _: up(), other), daemon=True).start()
            while part := other.recv(CHUNK):
                cap.take(len(part))
                connection.sendall(part)

    return serve(handle)


class User:
    """A Napster user with one file."""

    def __init__(self, hub, nick, path, data, cap):
        self.nick, self.path, self.data, self.cap = nick, path, data, cap
        port = serve(self.upload)
        self.hub = socket.create_connection((HOST, hub))
        self.say(2, f'{nick} secret {port} "bench" 10')
        self.say(100, f'"{path}" {"0" * 32} {len(data)} 0 0 0')
        threading.Thread(target=guarded, args=(lambda _: self.listen(), self.hub), daemon=True).start()

    def say(self, kind, text):
        self.hub.sendall(struct.pack("<HH", len(text), kind) + text.encode())

    def listen(self):
        stream = self.hub.makefile("rb")
        while head := stream.read(4):
            length, kind = struct.unpack("<HH", head)
            text = stream.read(length).decode()
            if kind == 607:  # Somebody wants the file: yes (608).
                self.say(608, f'{text.split(" ")[0]} "{self.path}"')

    def upload(self, connection):
        connection.sendall(b"1")
        said = b""
        while said.count(b'"') < 2 or not said[-1:].isdigit():
            part = connection.recv(4096)
            if not part:
                return
            said += part
        start = int(said.rsplit(b" ", 1)[1])
        connection.sendall(str(len(self.data)).encode())
        send(connection, self.data, start, len(self.data), self.cap)


def shoal_program():
    return os.environ.get("SHOAL") or find_program("shoal") or fail("there is no shoal: cargo build --release -p shoal")


class Program:
    """shoal with --json, as a process."""

    def __init__(self, folder, *args):
        self.argv = [shoal_program(), *args, "--json"]
        env = {**os.environ, "HOME": folder, "XDG_STATE_HOME": os.path.join(folder, "state")}
        self.process = subprocess.Popen(self.argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def event(self, name):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == name:
                return event
        fail(f"{self.argv}: no event {name}")

    def port(self):
        return int(self.event("listening")["addr"].rsplit(":", 1)[1])

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha1").hexdigest()


def make(path, length):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        for _ in range(0, length, 1 << 20):
            f.write(os.urandom(1 << 20))
        f.truncate(length)


def join(folder, args):
    path = os.path.join(folder, "one", "song.bin")
    make(path, args.size)
    with open(path, "rb") as f:
        data = f.read()
    wrong = bytes(b ^ 1 for b in data[: 1 << 20]) * (len(data) >> 20)
    wrong += data[len(wrong) :]
    rate = args.rate
    programs, rows = [], []
    try:
        limit = str(rate)
        share = Program(folder, "share", "one/song.bin", "--listen", f"{HOST}:0", "--no-dht", "--no-lsd", "--up-limit", limit, "--state-dir", "s1")
        programs.append(share)
        peer = share.port()
        btih = share.event("magnet")["info_hash_v1"]
        gnutella = Program(folder, "gnutella", "serve", "one", "--listen", f"{HOST}:0", "--per-host", "9", "--state-dir", "s2")
        programs.append(gnutella)
        urn = gnutella.event("serving")["urn"]
        host = gnutella.port()
        hub_program = Program(folder, "serve", "napster", "--listen", f"{HOST}:0")
        programs.append(hub_program)
        hub = hub_program.port()
        sha1 = "urn:sha1:" + urn.removeprefix("urn:bitprint:").split(".")[0]
        User(hub, "alice", "song.bin", data, Cap(rate))
        User(hub, "mallory", "song.bin", wrong, Cap(rate))
        for n in range(args.rounds):
            slow = Cap(rate)
            pages = web(data, slow)
            stays = proxy(host, Cap(rate))
            dying_program = Program(folder, "gnutella", "serve", "one", "--listen", f"{HOST}:0", "--per-host", "9", "--state-dir", f"s3-{n}")
            programs.append(dying_program)
            dying_program.event("serving")
            dies = proxy(dying_program.port(), Cap(rate))
            link = f"magnet:?xt=urn:btih:{btih}&xt={urn}&xl={args.size}&x.pe={HOST}:{peer}&ws=http://{HOST}:{pages}/song.bin"
            for port in (stays, dies):
                link += f"&xs=http://{HOST}:{port}/uri-res/N2R%3F{sha1}"
            for nick in ("mallory", "alice"):
                link += f"&xs=napster://{HOST}:{hub}/{nick}/song.bin"
            into = os.path.join(folder, f"got{n}")
            start = time.monotonic()
            fetch = Program(folder, "fetch", link, "--dir", into, "--listen", f"{HOST}:0", "--no-dht", "--no-lsd", "--state-dir", f"s4-{n}")
            programs.append(fetch)
            ideal = args.size / (3 * rate + rate / 8)
            timer = threading.Timer(ideal / 4, lambda p=dying_program, s=slow: (p.stop(), setattr(s, "rate", rate / 8)))
            timer.start()
            banned, last = set(), {}
            for line in fetch.process.stdout:
                event = json.loads(line)
                if event["event"] == "source" and event["state"] == "banned":
                    banned.add(event["source"].split("@")[0])
                if event["event"] == "progress":
                    last = event
                if event["event"] == "complete":
                    break
            took = time.monotonic() - start
            timer.join()
            fetch.stop()
            got = os.path.join(into, "song.bin")
            if not os.path.exists(got) or digest(got) != digest(path):
                fail("the file is not there, or wrong")
            os.remove(got)
            sent = {s["kind"]: s["bytes"] / args.size for s in last.get("by_kind", [])}
            rows.append([took, took / ideal, banned == {"mallory"}, sent])
            shares = ", ".join(f"{kind} {part:.0%}" for kind, part in sent.items())
            print(f"round {n + 1}: {took:.2f} s, {took / ideal:.2f} x the ideal {ideal:.2f} s; banned: {', '.join(banned) or 'nobody'}; {shares}", flush=True)
    finally:
        for program in programs:
            program.stop()
    ratio = median([row[1] for row in rows])
    exact = all(row[2] for row in rows)
    print(f"\nmedian {median([r[0] for r in rows]):.2f} s, {ratio:.2f} x the ideal; goal: within 1.20 x: {'met' if ratio <= 1.2 else 'NOT MET'}; only the liar was banned: {'yes' if exact else 'NO'}")


def timed(argv, folder):
    """Wall, CPU and the greatest resident set of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    env = {**os.environ, "HOME": folder}
    subprocess.run(argv, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def speed(folder, args):
    path = os.path.join(folder, "one", "song.bin")
    make(path, args.speed_size)
    server = Program(folder, "gnutella", "serve", "one", "--listen", f"{HOST}:0", "--state-dir", "s")
    runs = {"curl": [], "shoal": []}
    try:
        urn = server.event("serving")["urn"]
        port = server.port()
        sha1 = "urn:sha1:" + urn.removeprefix("urn:bitprint:").split(".")[0]
        url = f"http://{HOST}:{port}/uri-res/N2R?{sha1}"
        shoal = shoal_program()
        for n in range(args.rounds):
            for name in runs:
                into = os.path.join(folder, f"got-{name}")
                os.makedirs(into, exist_ok=True)
                argv = ["curl", "-s", "-o", f"{into}/song.bin", url]
                if name == "shoal":
                    argv = [shoal, "gnutella", "fetch", urn, "--from", f"{HOST}:{port}", "--dir", into, "--state-dir", "s5"]
                if name == "curl" and not shutil.which("curl"):
                    continue
                runs[name].append(timed(argv, folder))
                if digest(f"{into}/song.bin") != digest(path):
                    fail(f"{name}: the file is wrong")
                shutil.rmtree(into)
    finally:
        server.stop()
    gib = args.speed_size / 2**30
    rows = [[name, median([w for w, _ in r]), median([c for _, c in r]) / gib if r else None] for name, r in runs.items()]
    print(f"{args.speed_size >> 20} MiB from one Gnutella host")
    table(["", "wall s", "CPU s/GiB"], rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", choices=["join", "speed"])
    p.add_argument("--size", type=size, default=256 << 20, help="of the file that is joined (256MiB)")
    p.add_argument("--rate", type=size, default=8 << 20, help="of each source, a second (8MiB)")
    p.add_argument("--speed-size", type=size, default=1 << 30)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--dir", help="scratch folder")
    args = p.parse_args()
    print(machine())
    for name, part in (("join", join), ("speed", speed)):
        if args.only in (None, name):
            with tempfile.TemporaryDirectory(dir=args.dir) as folder:
                part(folder, args)


main()
