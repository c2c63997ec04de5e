#!/usr/bin/env python3
"""The main job, shown: one seeder, three downloaders and a tracker as real processes.

Shares a real folder (default: the sources of our own dependencies), kills one downloader with
-9 on the way and starts it again, compares every copy with the original byte for byte and tells
what it took.
"""

import argparse
import hashlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lab.clients import base, shoal  # noqa: E402
from lab.net import free_port  # noqa: E402
from lab.process import Failure, Lab, wait_until  # noqa: E402

MIB = 1 << 20
NAMES = ["anna", "ben", "carla"]
LIMIT = 128 * MIB
TTY = sys.stdout.isatty()


def say(text=""):
    print(text, flush=True)


def bold(text):
    return f"\033[1m{text}\033[0m" if TTY else text


def mib(n):
    return f"{n / MIB:.1f} MiB"


def default_folder():
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    found = sorted((home / "registry" / "src").glob("*"))
    return found[0] if found else None


def plain_files(folder):
    """All files below, without symbolic links."""
    if folder.is_symlink():
        return []
    if folder.is_file():
        return [folder]
    return [p for entry in sorted(folder.iterdir()) for p in plain_files(entry)] if folder.is_dir() else []


def choose(folder, stage, limit):
    """As many of the folder's entries as fit into `limit` bytes, in order, linked below `stage`."""
    total, files = 0, 0
    chosen = stage / folder.name.removeprefix("index.").split("-")[0]
    chosen.mkdir(parents=True)
    for entry in sorted(folder.iterdir()):
        paths = plain_files(entry)
        size = sum(p.stat().st_size for p in paths)
        if total + size > limit:
            continue
        for path in paths:
            place = chosen / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)
        total += size
        files += len(paths)
    return chosen, total, files


def manifest(root):
    """Relative path → SHA-256 of every file."""
    out = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with open(path, "rb") as f:
                out[str(path.relative_to(root))] = hashlib.file_digest(f, "sha256").hexdigest()
    return out


class Screen:
    """Progress bars that stay in place on a terminal, and a line a second elsewhere."""

    def __init__(self):
        self.drawn = 0
        self.last = 0.0

    def draw(self, lines, force=False):
        now = time.monotonic()
        if not force and now - self.last < (0.1 if TTY else 1.0):
            return
        self.last = now
        if TTY:
            sys.stdout.write(f"\033[{self.drawn}A" if self.drawn else "")
            sys.stdout.write("".join(f"\033[2K{line}\n" for line in lines))
            self.drawn = len(lines)
        else:
            sys.stdout.write("  " + " | ".join(" ".join(line.replace("━", "").replace("─", "").split()) for line in lines) + "\n")
        sys.stdout.flush()

    def news(self, text):
        """A line above the bars."""
        if TTY and self.drawn:
            sys.stdout.write(f"\033[{self.drawn}A\033[2K{text}\n")
            self.drawn = 0
        else:
            sys.stdout.write(text + "\n")
        sys.stdout.flush()


def bar(name, progress, note=""):
    done, total = progress.get("bytes_done", 0), progress.get("bytes_total", 0)
    share = done / total if total else 0.0
    width = 30
    filled = int(share * width)
    return f"  {name:6} {'━' * filled}{'─' * (width - filled)} {share * 100:5.1f} %  {progress.get('rate_down', 0) / MIB:6.1f} MiB/s  {progress.get('peers', 0)} peers  {note}"


class Downloader:
    def __init__(self, lab, name, magnet):
        self.lab, self.name, self.magnet = lab, name, magnet
        self.dir = lab.folder(name)
        self.state = lab.path(f"{name}-state")
        self.received = 0
        self.done_after = None
        self.start()

    def start(self):
        self.began = time.monotonic()
        self.peer = shoal.Shoal.fetch(
            self.lab, self.magnet, self.dir, stay=True, addr=("127.0.0.1", free_port()), state=self.state, verbose=False
        )

    def crash(self):
        self.received += self.peer.progress().get("downloaded", 0)
        self.peer.process.kill()


def start_tracker(lab):
    port = free_port()
    argv = [shoal.program(), "serve", "tracker", "--http", f"127.0.0.1:{port}", "--interval", "5"]
    tracker = lab.spawn("tracker", argv)

    def up():
        if tracker.poll() is not None:
            raise Failure(f"the tracker ended with code {tracker.poll()}: {tracker.tail()}")
        return base.is_listening(("127.0.0.1", port))

    wait_until("the tracker listens", 10, up)
    return f"http://127.0.0.1:{port}/announce"


def run(lab, args):
    folder = Path(args.folder).resolve() if args.folder else default_folder()
    if not folder or not folder.is_dir():
        raise Failure("there is no such folder to share; give one: ./dev demo FOLDER")
    content, total, files = choose(folder, lab.folder("shared"), args.limit)
    if not files:
        raise Failure(f"{folder} holds nothing to share")
    say(bold(f"Sharing {files:,} files, {mib(total)}, out of {folder}"))

    tracker = start_tracker(lab)
    seeder = shoal.Shoal.share(
        lab, content, trackers=[tracker], addr=("127.0.0.1", free_port()), up_limit=args.cap, verbose=False
    )
    magnet = seeder.magnet()
    say(f"  the seeder gives at most {mib(args.cap)}/s and prints this link:\n  {magnet}\n")

    start = time.monotonic()
    say(bold("Three downloaders join, each with nothing but the link"))
    downloaders = [Downloader(lab, name, magnet) for name in NAMES]
    victim, screen, crashed_at, back_at = downloaders[1], Screen(), None, None
    kept = None
    while any(d.done_after is None for d in downloaders):
        now = time.monotonic()
        if now - start > args.timeout:
            raise Failure(f"not complete after {args.timeout} s")
        for d in downloaders:
            if d is victim and crashed_at and not back_at:
                continue
            code = d.peer.process.poll()
            if code is not None:
                raise Failure(f"{d.name} ended with code {code}: {d.peer.process.tail()}")
            if d.done_after is None and d.peer.is_complete():
                d.done_after = now - start
        share = victim.peer.progress()
        if not crashed_at and share.get("bytes_done", 0) > 0.4 * max(1, share.get("bytes_total", 0)):
            victim.crash()
            crashed_at = now
            kept = victim.peer.progress()
            screen.news(bold(f"  {victim.name} is killed with -9 at {mib(kept['bytes_done'])}"))
        if crashed_at and not back_at and now - crashed_at > 1.0:
            victim.start()
            back_at = now
            screen.news(bold(f"  {victim.name} starts again: the same command, nothing else"))
        notes = {d: "complete" if d.done_after is not None else "" for d in downloaders}
        if crashed_at and not back_at:
            notes[victim] = "dead"
        screen.draw([bar(d.name, d.peer.progress(), notes[d]) for d in downloaders])
        time.sleep(0.05)
    took = time.monotonic() - start
    screen.draw([bar(d.name, d.peer.progress(), "complete") for d in downloaders], force=True)

    time.sleep(0.5)
    say(bold("\nComparing every copy with the original, byte for byte"))
    want = manifest(content)
    for d in downloaders:
        got = manifest(d.dir / content.name)
        if got != want:
            wrong = [n for n in want if got.get(n) != want[n]] + [n for n in got if n not in want]
            raise Failure(f"{d.name}'s copy differs in {len(wrong)} files, first {wrong[0]}")
        say(f"  {d.name:6} {len(got):,} files equal")

    for d in downloaders:
        d.received += d.peer.progress().get("downloaded", 0)
    received = sum(d.received for d in downloaders)
    sent = seeder.uploaded()
    resumed = (victim.peer.events("progress") or [{}])[0].get("bytes_done", 0)
    say(bold("\nSummary"))
    say(f"  content              {files:,} files, {mib(total)}")
    say(f"  all complete after   {took:.1f} s (the seeder alone would need {3 * total / args.cap:.1f} s for three copies)")
    say(f"  the seeder sent      {mib(sent)}, {sent / total:.2f} times the content; the downloaders gave each other the rest")
    say(f"  {victim.name}'s crash          had {mib((kept or {}).get('bytes_done', 0))} then, went on with {mib(resumed)}")
    say(f"  received in all      {mib(received)} for {mib(3 * total)} wanted")
    if not crashed_at:
        say(f"  (it went too fast to kill {victim.name} on the way: try a larger folder)")
    for d in downloaders:
        d.peer.process.signal(signal.SIGINT)
    say(f"\nRemoving {3 * files:,} copies")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", nargs="?", help="what to share (default: cargo's registry sources)")
    p.add_argument("--limit", type=int, default=LIMIT, help="take at most this many bytes of it")
    p.add_argument("--cap", type=int, default=16 * MIB, help="the seeder's upload limit, bytes a second")
    p.add_argument("--timeout", type=float, default=300)
    p.add_argument("--quick", action="store_true", help="a fifth of it, with a line of counts at the end")
    args = p.parse_args()
    if args.quick:
        args.limit = min(args.limit, 40 * MIB)
        args.cap = 8 * MIB
    with Lab("demo") as lab:
        try:
            run(lab, args)
        except Failure as failure:
            say(f"\nFAILED: {failure}\n{lab.logs()}")
            if args.quick:
                say("0 passed, 1 failed, 0 skipped")
            return 1
        except KeyboardInterrupt:
            return 130
    say(bold("\nAll copies are right."))
    if args.quick:
        say("1 passed, 0 failed, 0 skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
