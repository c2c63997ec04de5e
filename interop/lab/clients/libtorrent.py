"""Drives libtorrent (Debian's python3-libtorrent) in a process of its own."""

import json
import os
import subprocess
import sys

from ..process import Skip
from .base import Client, Peer, last_json_lines, pick_address

_python = []


def python():
    """An interpreter that has the binding: this one, or the system's."""
    if not _python:
        for candidate in (sys.executable, "/usr/bin/python3"):
            if os.path.exists(candidate) and subprocess.run([candidate, "-c", "import libtorrent"], capture_output=True).returncode == 0:
                _python.append(candidate)
                break
        else:
            _python.append(None)
    if _python[0] is None:
        raise Skip("python3-libtorrent is not installed")
    return _python[0]


class LibtorrentPeer(Peer):
    def __init__(self, process, addr, events_file):
        super().__init__("libtorrent", process, addr)
        self.events_file = events_file

    def events(self, kind=None):
        return last_json_lines(self.events_file, lambda e: kind is None or e.get("event") == kind)

    def is_complete(self):
        return bool(self.events("complete"))

    def uploaded(self):
        return self.progress().get("uploaded", 0)

    def progress(self):
        events = self.events("progress")
        return events[-1] if events else {}

    def most_peers(self):
        """How many peers it had at once, at most."""
        return max((len(e["peers"]) for e in self.events("progress")), default=0)


class Libtorrent(Client):
    name = "libtorrent"

    @classmethod
    def need(cls):
        python()

    @classmethod
    def start(cls, lab, what, root, peers=(), trackers=(), up_limit=None, down_limit=None, stay=False, addr=None, trace=False, extra=()):
        addr = addr or pick_address()
        events = lab.path("libtorrent.jsonl")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lt_peer.py")
        argv = [python(), "-P", script, str(what), "--dir", str(root), "--listen", f"{addr[0]}:{addr[1]}"]
        for ip, port in peers:
            argv += ["--peer", f"{ip}:{port}"]
        for url in trackers:
            argv += ["--tracker", url]
        if up_limit:
            argv += ["--up-limit", str(up_limit)]
        if down_limit:
            argv += ["--down-limit", str(down_limit)]
        argv += (["--stay"] if stay else []) + (["--trace"] if trace else []) + list(extra)
        process = lab.spawn("libtorrent", argv, stdout=events)
        return LibtorrentPeer(process, addr, events)

    @staticmethod
    def dht(lab, nodes):
        settings = {
            "enable_dht": True,
            "dht_bootstrap_nodes": ",".join(f"{ip}:{port}" for ip, port in nodes),
            # All of the laboratory's nodes share a subnet.
            "dht_restrict_routing_ips": False,
            "dht_restrict_search_ips": False,
            # Its first announce may come before it knows a node; the next would be in 15 minutes.
            "dht_announce_interval": 5,
        }
        return {"extra": [arg for name, value in settings.items() for arg in ("--setting", f"{name}={json.dumps(value)}")]}

    @classmethod
    def seed(cls, lab, torrent, root, peers=(), trackers=(), up_limit=None, addr=None, **options):
        peer = cls.start(lab, torrent.file, root, peers, trackers, up_limit, stay=True, addr=addr, **options)
        # It hashes all of the payload first.
        peer.wait_complete(180)
        return peer

    @classmethod
    def fetch(cls, lab, what, root, peers=(), trackers=(), down_limit=None, up_limit=None, stay=False, addr=None, **options):
        return cls.start(lab, what, root, peers, trackers, up_limit, down_limit, stay, addr, **options)
