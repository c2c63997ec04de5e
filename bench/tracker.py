#!/usr/bin/env python3
"""Trackers side by side: shoal beside aquatic_udp (UDP) and opentracker (HTTP), in turn on
loopback, and the memory of a million peers.

CPU is that of the tracker's process, from /proc; the load is the same program for both. Peers that
are not installed (on the PATH, or in the folder $SHOAL_PEERS) are skipped, and said so. Needs nothing but Python.

    bench/tracker.py [udp] [http] [memory] [--rounds N] [--seconds S] [--workers N] [--json]
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "..", "target")
HOST = "127.0.0.1"


def find(name, *places):
    """A program by $NAME_IN_CAPITALS, in the build's folder, or on the PATH."""
    given = os.environ.get(name.upper().replace("-", "_"))
    places = [given, *places, shutil.which(name), os.path.join(os.environ.get("SHOAL_PEERS", ""), name)]
    return next((os.path.abspath(p) for p in places if p and os.access(p, os.X_OK)), None)


def built(name):
    return [os.path.join(TARGET, profile, name) for profile in ("release", "profiling")]


def free_port():
    """A port that is free for both UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind((HOST, port))
            except OSError:
                continue
            return port


class Tracker:
    """A tracker's process while it serves."""

    def __init__(self, name, command, port, udp):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.address = f"{HOST}:{port}"
        self._wait(port, udp)

    def _wait(self, port, udp):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended with {self.process.returncode}")
            try:
                if udp:
                    with socket.socket(type=socket.SOCK_DGRAM) as s:
                        s.settimeout(0.2)
                        s.connect((HOST, port))
                        s.send(bytes.fromhex("00000417271019800000000000000001"))
                        s.recv(100)
                else:
                    socket.create_connection((HOST, port), 0.2).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self.name} does not answer")

    def cpu(self):
        """CPU seconds so far, of all threads."""
        tasks = f"/proc/{self.process.pid}/task"
        nanoseconds = 0
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/schedstat") as f:
                nanoseconds += int(f.read().split()[0])
        return nanoseconds / 1e9

    def rss(self):
        """Resident memory in MiB."""
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def shoal(port, options, udp):
    kind = "--udp" if udp else "--http"
    address = f"{HOST}:{port}"
    program = find("shoal", *built("shoal"))
    if not program:
        raise SystemExit("there is no shoal: cargo build --release")
    command = [program, "serve", "tracker", kind, address]
    return Tracker("shoal", [*command, "--workers", str(options.workers)], port, udp)


def aquatic(port, options, folder):
    program = find("aquatic_udp")
    text = subprocess.run([program, "-p"], check=True, capture_output=True, text=True).stdout
    text = text.replace('"0.0.0.0:3000"', f'"{HOST}:{port}"')
    text = re.sub(r"(?m)^socket_workers = .*$", f"socket_workers = {options.workers}", text)
    path = os.path.join(folder, "aquatic.toml")
    with open(path, "w") as f:
        f.write(text)
    return Tracker("aquatic_udp", [program, "-c", path], port, True)


def info_hash(torrent):
    """The info-hash that shoal-bench announces for a torrent's number."""
    state, out = torrent + 1, b""
    while len(out) < 20:
        state = (state * 0x9E3779B97F4A7C15 & 2**64 - 1) ^ (state >> 29)
        out += state.to_bytes(8, "big")[:4]
    return out.hex()


def opentracker(port, folder):
    # Debian's build serves listed torrents only, and reads the list as another user.
    path = os.path.join(folder, "whitelist")
    os.chmod(folder, 0o755)
    with open(path, "w") as f:
        f.writelines(f"{info_hash(n)}\n" for n in range(1000))
    command = [find("opentracker"), "-i", HOST, "-p", str(port), "-P", str(port), "-d", "/", "-u", "nobody", "-w", path]
    return Tracker("opentracker", command, port, False)


def load_udp(tracker, options, folder, seeders):
    """Drives the tracker with aquatic's load tester; gives answers."""
    program = find("aquatic_udp_load_test")
    text = subprocess.run([program, "-p"], check=True, capture_output=True, text=True).stdout
    text = text.replace('"127.0.0.1:3000"', f'"{tracker.address}"')
    text = re.sub(r"(?m)^duration = .*$", f"duration = {options.seconds}", text)
    text = re.sub(r"(?m)^peer_seeder_probability = .*$", f"peer_seeder_probability = {seeders}", text)
    path = os.path.join(folder, "load.toml")
    with open(path, "w") as f:
        f.write(text)
    out = subprocess.run([program, "-c", path], capture_output=True, text=True).stdout
    report = out[out.index("load test report") :]
    seconds = float(re.search(r"Test ran for (\d+) seconds", report)[1])
    rate = float(re.search(r"Average responses per second: ([\d.]+)", report)[1])
    errors = float(re.search(r"Error responses:\s+([\d.]+)", report)[1])
    told = [float(x) for x in re.findall(r"Peers per announce response: ([\d.]+)", out)]
    return {"answers": rate * seconds, "errors": errors * seconds, "seconds": seconds, "peers": told[-1] if told else None}


def bench_program():
    program = find("shoal-bench", *built("shoal-bench"))
    if not program:
        raise SystemExit("there is no shoal-bench: cargo build --release -p shoal-bench")
    return program


def load_http(tracker, options, close):
    command = [bench_program(), "tracker-http", "--tracker", tracker.address, "--seconds", str(options.seconds)]
    command += ["--peers", "200000"] + (["--close"] if close else [])
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"answers": result["answered"], "errors": result["failed"], "seconds": result["seconds"], "peers": None}


def measure(start, load):
    """One run: answers a second and a CPU second, memory at its end."""
    tracker = start()
    try:
        before = tracker.cpu()
        result = load(tracker)
        cpu = tracker.cpu() - before
        return {
            "name": tracker.name,
            "per_second": result["answers"] / result["seconds"],
            "per_cpu_second": result["answers"] / cpu,
            "cpu_seconds": cpu,
            "errors": result["errors"],
            "peers_told": result["peers"],
            "rss_mib": tracker.rss(),
        }
    finally:
        tracker.stop()


def compare(title, starts, load, options):
    """Runs all in turn, round after round, and prints medians and the ratio to the last."""
    runs = []
    for n in range(options.rounds):
        # Each goes first as often as the other.
        for start in starts if n % 2 == 0 else starts[::-1]:
            runs.append(measure(start, load))
    names = list(dict.fromkeys(r["name"] for r in runs[: len(starts)]))
    rows = {}
    for name in names:
        own = [r for r in runs if r["name"] == name]
        keys = ("per_second", "per_cpu_second", "rss_mib")
        rows[name] = {key: statistics.median(r[key] for r in own) for key in keys}
        rows[name]["all_per_cpu_second"] = [round(r["per_cpu_second"]) for r in own]
        rows[name]["errors"] = sum(r["errors"] for r in own)
        rows[name]["peers_told"] = own[-1]["peers_told"]
    print(f"\n{title}", file=sys.stderr)
    for name, row in rows.items():
        told = "" if row["peers_told"] is None else f"  {row['peers_told']:5.1f} peers told"
        print(
            f"  {name:12} {row['per_second']:9.0f}/s  {row['per_cpu_second']:9.0f} a CPU second"
            f"  {row['rss_mib']:7.1f} MiB{told}  {row['errors']:.0f} errors  {row['all_per_cpu_second']}",
            file=sys.stderr,
        )
    result = {"title": title, "rows": rows}
    if len(rows) > 1 and "shoal" in rows:
        other = next(name for name in rows if name != "shoal")
        result["ratio"] = rows["shoal"]["per_cpu_second"] / rows[other]["per_cpu_second"]
        print(f"  shoal / {other}: {result['ratio']:.2f}", file=sys.stderr)
    return result


def udp(options, folder):
    if not find("aquatic_udp_load_test"):
        print("skipped: UDP, for want of aquatic_udp_load_test (cargo install aquatic_udp_load_test)", file=sys.stderr)
        return []
    starts = [lambda: shoal(free_port(), options, True)]
    if find("aquatic_udp"):
        starts.append(lambda: aquatic(free_port(), options, folder))
    else:
        print("skipped: aquatic_udp is not installed (cargo install aquatic_udp)", file=sys.stderr)
    # With the tester's own mix, three in four are seeders, whom shoal tells of no seeders. Without
    # seeders both tell the same number of peers.
    return [
        compare(f"UDP, {title}", starts, lambda t: load_udp(t, options, folder, seeders), options)
        for title, seeders in (("three in four are seeders", 0.75), ("no seeders", 0.0))
    ]


def http(options, folder):
    starts = [lambda: shoal(free_port(), options, False)]
    if find("opentracker"):
        starts.append(lambda: opentracker(free_port(), folder))
    else:
        print("skipped: opentracker is not installed (apt-get install opentracker)", file=sys.stderr)
    results = [compare("HTTP, a connection for each announce", starts, lambda t: load_http(t, options, True), options)]
    # opentracker keeps no connections.
    results.append(compare("HTTP, connections kept", starts[:1], lambda t: load_http(t, options, False), options))
    return results


def memory(options, folder):
    """A million peers in a thousand swarms."""
    starts = [lambda: shoal(free_port(), options, True)]
    if find("aquatic_udp"):
        starts.append(lambda: aquatic(free_port(), options, folder))
    if find("opentracker"):
        starts.append(lambda: opentracker(free_port(), folder))
    print("\nMemory, a million peers in a thousand swarms", file=sys.stderr)
    rows = {}
    for start in starts:
        tracker = start()
        try:
            before = tracker.rss()
            command = [bench_program(), "tracker-fill", "--tracker", tracker.address]
            filled = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            after = tracker.rss()
        finally:
            tracker.stop()
        if filled["refused"]:
            raise SystemExit(f"{tracker.name} refused {filled['refused']} announces")
        each = (after - before) * 2**20 / filled["peers"]
        rows[tracker.name] = {"before_mib": before, "after_mib": after, "bytes_per_peer": each}
        print(f"  {tracker.name:12} {before:6.1f} MiB empty, {after:6.1f} MiB full: {each:5.1f} bytes a peer", file=sys.stderr)
    return [{"title": "memory", "rows": rows}]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help="udp, http, memory; all if none is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print all results as one JSON list on stdout")
    options = parser.parse_args()
    kinds = {"udp": udp, "http": http, "memory": memory}
    unknown = [w for w in options.what if w not in kinds]
    if unknown:
        parser.error(f"no such measurement: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as folder:
        results = [r for kind in options.what or kinds for r in kinds[kind](options, folder)]
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
