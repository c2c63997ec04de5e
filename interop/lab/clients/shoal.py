"""Drives shoal through its command line and its JSON events."""

import os

from ..process import Failure, find_program, wait_until
from .base import Client, Peer, last_json_lines, pick_address

QUIET = ["--no-dht", "--no-lsd", "--no-upnp"]


def program():
    """The binary under test: $SHOAL, or the newest build in the target folder, or in PATH."""
    if os.environ.get("SHOAL"):
        return os.environ["SHOAL"]
    here = os.path.dirname(os.path.abspath(__file__))
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(here, "..", "..", "..", "target")
    builds = [os.path.join(target, profile, "shoal") for profile in ("release", "debug")]
    builds = [b for b in builds if os.access(b, os.X_OK)]
    found = max(builds, key=os.path.getmtime) if builds else find_program("shoal")
    if not found:
        raise Failure("there is no shoal: build it, or give --shoal PATH")
    return os.path.abspath(found)


class ShoalPeer(Peer):
    def __init__(self, process, addr, events_file):
        super().__init__("shoal", process, addr)
        self.events_file = events_file

    def events(self, kind=None):
        """All JSON events so far, or those of one kind."""
        return last_json_lines(self.events_file, lambda e: kind is None or e.get("event") == kind)

    def is_complete(self):
        return bool(self.events("complete"))

    def uploaded(self):
        return self.progress().get("uploaded", 0)

    def progress(self):
        """The newest progress event; empty before the first."""
        events = self.events("progress")
        return events[-1] if events else {}

    def magnet(self):
        """The link that `share` printed."""

        def printed():
            if self.process.poll() is not None:
                raise Failure(f"shoal share ended with code {self.process.poll()}")
            return [e["magnet"] for e in self.events() if e.get("magnet")]

        return wait_until("shoal printed a magnet link", 60, printed)[-1]


class Shoal(Client):
    name = "shoal"

    @classmethod
    def start(cls, lab, verb, args, addr=None, state=None, peers=(), trackers=(), up_limit=None, down_limit=None, verbose=True, dht=()):
        addr = addr or pick_address()
        events = lab.path(f"shoal-{verb}.jsonl")
        state = state or lab.path("shoal-state")
        quiet = [flag for flag in QUIET if not dht or flag != "--no-dht"]
        argv = [program(), verb, *args, *quiet, "--json", "--listen", f"{addr[0]}:{addr[1]}"]
        argv += ["-vv"] if verbose else []
        for ip, port in dht:
            argv += ["--dht-bootstrap", f"{ip}:{port}"]
        for ip, port in peers:
            argv += ["--peer", f"{ip}:{port}"]
        for url in trackers:
            argv += ["--tracker", url]
        if up_limit:
            argv += ["--up-limit", str(up_limit)]
        if down_limit:
            argv += ["--down-limit", str(down_limit)]
        process = lab.spawn(f"shoal-{verb}", argv, stdout=events, env=cls.env(state))
        return ShoalPeer(process, addr, events)

    @staticmethod
    def dht(lab, nodes):
        return {"dht": nodes[:2]}

    @staticmethod
    def env(state):
        """Keeps the program's database in the test's folder."""
        return {"SHOAL_STATE_DIR": str(state), "XDG_STATE_HOME": str(state), "XDG_DATA_HOME": str(state)}

    @classmethod
    def seed(cls, lab, torrent, root, peers=(), trackers=(), up_limit=None, addr=None, **options):
        peer = cls.start(
            lab, "fetch", [str(torrent.file), "--dir", str(root), "--seed"], addr, peers=peers, trackers=trackers, up_limit=up_limit, **options
        )
        peer.wait_complete(60)
        return peer

    @classmethod
    def share(cls, lab, payload, trackers=(), torrent_out=None, extra=(), **options):
        """Seeds with `share`: shoal makes the torrent itself."""
        args = [str(payload), *extra]
        if torrent_out:
            args += ["--torrent-out", str(torrent_out)]
        peer = cls.start(lab, "share", args, trackers=trackers, **options)
        peer.magnet()
        return peer

    @classmethod
    def fetch(cls, lab, what, root, peers=(), trackers=(), down_limit=None, up_limit=None, stay=False, addr=None, extra=(), **options):
        args = [str(what), "--dir", str(root), *extra] + (["--seed"] if stay else [])
        return cls.start(lab, "fetch", args, addr, peers=peers, trackers=trackers, up_limit=up_limit, down_limit=down_limit, **options)
