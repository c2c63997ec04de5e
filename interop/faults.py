#!/usr/bin/env python3
"""What must not break shoal: kill -9, peers that lie, full disks, dying trackers, lost files.

Prints a line for each case and, last, `N passed, N failed, N skipped`. `--quick` takes the
short ones, and fewer kills.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lab import clients, net  # noqa: E402
from lab.clients import base, shoal  # noqa: E402
from lab.process import Failure, Skip, find_program, wait_until  # noqa: E402
from lab.torrent import KIB, MIB  # noqa: E402
from lab import torrent  # noqa: E402
from run import run_cases, summary  # noqa: E402


def bench_program():
    """shoal-bench, for peers with vices."""
    beside = os.path.join(os.path.dirname(shoal.program()), "shoal-bench")
    for place in (os.environ.get("SHOAL_BENCH"), beside):
        if place and os.access(place, os.X_OK):
            return place
    return find_program("shoal-bench") or missing()


def missing():
    raise Failure("there is no shoal-bench: cargo build -p shoal-bench")


class RawSeed:
    """A peer that is not shoal and counts what it sends; `vice` are flags of `shoal-bench seed`."""

    def __init__(self, lab, content, *vice, rate=None):
        info = content.metainfo["info"]
        self.addr = base.pick_address()
        self.events = lab.path("raw-seed.jsonl")
        argv = [bench_program(), "seed", "--info-hash", content.hex, "--total-len", content.size]
        argv += ["--piece-len", info["piece length"], "--file", content.payload, "--listen", "%s:%d" % self.addr, *vice]
        argv += ["--rate", rate] if rate else []
        self.process = lab.spawn("raw-seed", argv, stdout=self.events)
        wait_until("the raw seed listens", 10, lambda: base.is_listening(self.addr))

    def visits(self):
        """What each peer that is gone was given."""
        return base.last_json_lines(self.events, lambda e: e["event"] == "gone")


def payload_of(lab, size, piece_len=256 * KIB):
    payload = torrent.random_file(lab.folder("payload") / "payload.bin", size, seed=5)
    return torrent.make(payload, lab.path("t.torrent"), piece_len)


def check_copy(content, root):
    difference = torrent.difference(content.payload, root / content.name)
    if difference:
        raise Failure(f"the copy is wrong: {difference}")


def kill_case(kills):
    """Killed at random moments, it goes on each time with all but the blocks in flight."""

    def run(lab):
        rng = random.Random(os.environ.get("SHOAL_SEED", kills))
        rate = 8 * MIB
        # Long enough that every kill hits a running transfer.
        content = payload_of(lab, max(32, kills * 8) * MIB + 777)
        into, state = lab.folder("into"), lab.path("state")
        seed = RawSeed(lab, content, rate=rate)
        best, landed = 0, 0
        for n in range(kills):
            fetch = shoal.Shoal.fetch(lab, content.file, into, peers=[seed.addr], state=state)
            wait_until("something arrives", 20, lambda: fetch.progress().get("downloaded", 0) > 0 or fetch.is_complete())
            time.sleep(rng.uniform(0.0, 0.4))
            if fetch.is_complete():
                fetch.process.kill()
                break
            fetch.process.kill()
            landed += 1
            done = fetch.progress()["bytes_done"]
            first = fetch.events("progress")[0]["bytes_done"]
            if first + 2 * MIB < best:
                raise Failure(f"after kill {n} it went on with {first} bytes, had {best}")
            best = max(best, done)
        fetch = shoal.Shoal.fetch(lab, content.file, into, peers=[seed.addr], state=state)
        fetch.wait_complete(120)
        fetch.process.wait(10)
        check_copy(content, into)
        visits = wait_until("the seed saw all of them go", 5, lambda: len(seed.visits()) >= landed + 1 and seed.visits())
        again = sum(v["again"] for v in visits) * 16 * KIB
        oldest = max(v["oldest_again_s"] for v in visits)
        print(f"      {landed} kills of {content.size / MIB:.0f} MiB: {again / MIB:.2f} MiB sent again, the oldest sent {oldest:.2f} s before the kill")
        if landed < kills:
            raise Failure(f"only {landed} of {kills} kills hit a running transfer")
        # In flight: what lay in the sockets' buffers or waited for the disk when the kill came.
        if again > landed * 4 * MIB or oldest > 2.0:
            raise Failure("more was fetched again than was in flight")

    return run


def liar_case(*vice, banned=True, rate=6 * MIB):
    """One bad peer among five honest ones is found out; the rest completes."""

    def run(lab):
        content = payload_of(lab, 48 * MIB + 99)
        into = lab.folder("into")
        honest = [RawSeed(lab, content, rate=rate) for _ in range(5)]
        liar = RawSeed(lab, content, *vice)
        fetch = shoal.Shoal.fetch(lab, content.file, into, peers=[liar.addr, *(s.addr for s in honest)])
        fetch.wait_complete(60)
        fetch.process.wait(10)
        check_copy(content, into)
        shut_out = {e["addr"].rsplit(":", 1)[0] for e in fetch.events("banned")}
        innocent = shut_out & {s.addr[0] for s in honest}
        if innocent:
            raise Failure(f"honest peers were banned: {innocent}")
        if banned and liar.addr[0] not in shut_out:
            raise Failure("the peer that sent corrupt blocks was not banned")

    return run


def full_disk_case(lab):
    """A 64 MiB disk fills up and later grows: paused with the reason, then done by itself."""
    into = lab.folder("small-disk")
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "shoal-lab", into], capture_output=True).returncode != 0:
        raise Skip("mounting a tmpfs is not allowed here")
    lab.at_close(lambda: subprocess.run(["umount", "-l", into], check=False))
    content = payload_of(lab, 100 * MIB)
    seed = RawSeed(lab, content)
    fetch = shoal.Shoal.fetch(lab, content.file, into, peers=[seed.addr])
    paused = wait_until("it is paused", 30, lambda: fetch.events("paused"))
    if "space" not in paused[-1]["reason"].lower() and "full" not in paused[-1]["reason"].lower():
        raise Failure(f"the reason given is {paused[-1]['reason']!r}")
    time.sleep(2)
    if fetch.process.poll() is not None:
        raise Failure(f"it ended with code {fetch.process.poll()}")
    subprocess.run(["mount", "-o", "remount,size=160m", into], check=True)
    fetch.wait_complete(60)
    fetch.process.wait(10)
    check_copy(content, into)


def dead_tracker_case(lab):
    """The only tracker is away when a fetch starts; when it is back, the transfer happens."""
    content = payload_of(lab, 8 * MIB)
    ip, port = base.pick_address()
    argv = [shoal.program(), "serve", "tracker", "--http", f"{ip}:{port}", "--interval", "5"]
    url = f"http://{ip}:{port}/announce"

    def start():
        tracker = lab.spawn("tracker", argv)
        wait_until("the tracker listens", 10, lambda: base.is_listening((ip, port)))
        return tracker

    tracker = start()
    shoal.Shoal.seed(lab, content, content.payload.parent, trackers=[url])
    time.sleep(1)
    tracker.kill()
    into = lab.folder("into")
    fetch = shoal.Shoal.fetch(lab, content.file, into, trackers=[url])
    wait_until("the failed announce is told", 30, lambda: [e for e in fetch.events("tracker") if e.get("error")])
    start()
    fetch.wait_complete(180)
    check_copy(content, into)


def lost_files_case(lab):
    """Two files vanish under a running seeder: it lives, tells of it, serves what it still has, and
    takes back what it lost as soon as another peer has it."""
    payload = torrent.many_files(lab.folder("payload") / "many files", 24 * MIB, seed=6)
    content = torrent.make(payload, lab.path("t.torrent"), 256 * KIB)
    copy = lab.folder("copy") / payload.name
    shutil.copytree(payload, copy)
    seed = shoal.Shoal.seed(lab, content, payload.parent)
    told_before = len(seed.events())
    for path in sorted((p for p in payload.rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)[:2]:
        path.unlink()
    into = lab.folder("into")
    fetch = shoal.Shoal.fetch(lab, content.file, into, peers=[seed.addr], stay=True)
    telling = ("paused", "warning", "checking", "failed")

    def told():
        return [e for e in seed.events()[told_before:] if e["event"] in telling]

    wait_until("the seeder tells of the loss", 30, told)
    wait_until("what it still has is served", 30, lambda: fetch.progress().get("bytes_done", 0) > content.size * 0.8)
    if seed.process.poll() is not None:
        raise Failure(f"the seeder ended with code {seed.process.poll()}")
    clients.Libtorrent.seed(lab, content, copy.parent, peers=[seed.addr, fetch.addr])
    fetch.wait_complete(60)
    difference = torrent.difference(copy, into / copy.name)
    if difference:
        raise Failure(f"the copy is wrong: {difference}")

    def healed():
        return torrent.difference(copy, payload) is None

    wait_until("the seeder's folder is whole again", 60, healed, every=0.5)


class Case:
    def __init__(self, name, run, quick=True, needs=()):
        self.name, self.run, self.quick, self.needs = name, run, quick, needs


CASES = [
    Case("kill -9 five times", kill_case(5)),
    Case("kill -9 twenty times", kill_case(20), quick=False),
    Case("corrupt blocks from one of six peers", liar_case("--corrupt", "1.0")),
    Case("a corrupt block now and then from one of six peers", liar_case("--corrupt", "0.05")),
    Case("one of six peers stalls", liar_case("--stall-after", "20", banned=False)),
    Case("one of six peers talks nonsense", liar_case("--noise", banned=False)),
    Case("one of six peers announces 2 GiB messages", liar_case("--huge", banned=False)),
    Case("the disk fills up and grows", full_disk_case),
    Case("the tracker dies and comes back", dead_tracker_case, quick=False),
    Case("two files deleted under a seeder", lost_files_case, needs=[clients.Libtorrent]),
]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", metavar="TEXT", action="append", default=[], help="only cases whose name has TEXT")
    p.add_argument("--quick", action="store_true", help="the short ones")
    p.add_argument("--shoal", metavar="PATH", help="the binary to test")
    p.add_argument("-j", type=int, default=2, metavar="N", help="cases at once (2)")
    p.add_argument("--keep", action="store_true", help="leave the scratch folders")
    args = p.parse_args()
    if args.shoal:
        os.environ["SHOAL"] = os.path.abspath(args.shoal)
    net.enter()
    chosen = [c for c in CASES if (c.quick or not args.quick) and all(k in c.name for k in args.k)]
    counts = run_cases(chosen, args.j, args.keep)
    print(summary(counts))
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
