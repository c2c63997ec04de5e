"""Drives aria2c, one process for one download."""

import json

from .. import net
from ..process import find_program, need_program
from ..tracker import Tracker
from .base import Client, Peer, http_json, pick_address


class Aria2Peer(Peer):
    def __init__(self, process, addr, rpc):
        super().__init__("aria2", process, addr)
        self.rpc = rpc

    def call(self, method, *params):
        body = json.dumps({"jsonrpc": "2.0", "id": "1", "method": f"aria2.{method}", "params": list(params)}).encode()
        return http_json(self.rpc, body, {"Content-Type": "application/json"})["result"]

    def uploaded(self):
        return sum(int(d["uploadLength"]) for d in self.call("tellActive"))

    def is_complete(self):
        if self.process.poll() is not None:
            return self.process.poll() == 0
        try:
            downloads = self.call("tellActive")
        except OSError:
            return False
        return any(d.get("seeder") == "true" and "verifiedLength" not in d and "bittorrent" in d and "info" in d["bittorrent"] for d in downloads)


class Aria2(Client):
    name = "aria2"

    @classmethod
    def need(cls):
        need_program("aria2c")

    @classmethod
    def start(cls, lab, what, root, peers, trackers, stay, up_limit=None, down_limit=None, addr=None, extra=()):
        addr = addr or pick_address()
        rpc_port = net.free_port()
        trackers = list(trackers)
        if peers:
            trackers.append(Tracker(lab, fixed=list(peers)).url)
        argv = [
            find_program("aria2c"),
            "--no-conf",
            f"--dir={root}",
            f"--listen-port={addr[1]}",
            f"--interface={addr[0]}",
            "--enable-dht6=false",
            "--bt-enable-lpd=false",
            "--enable-peer-exchange=true",
            "--disable-ipv6=true",
            "--file-allocation=none",
            "--check-integrity=true",
            "--allow-overwrite=true",
            "--follow-torrent=mem",
            "--summary-interval=0",
            "--console-log-level=notice",
        ]
        if any(t.startswith("udp:") for t in trackers):
            # Its UDP tracker client comes with the DHT's socket; it knows no DHT node to talk to.
            argv += ["--enable-dht=true", f"--dht-listen-port={addr[1]}", f"--dht-file-path={lab.path('dht')}"]
        else:
            argv.append("--enable-dht=false")
        if stay:
            # With RPC it never ends by itself, which is what a seed needs and a one-shot does not.
            argv += ["--enable-rpc=true", f"--rpc-listen-port={rpc_port}", "--bt-hash-check-seed=true", "--seed-ratio=0.0"]
        else:
            argv += ["--seed-time=0", "--bt-hash-check-seed=false"]
        argv += extra
        if up_limit:
            argv.append(f"--max-overall-upload-limit={up_limit}")
        if down_limit:
            argv.append(f"--max-overall-download-limit={down_limit}")
        if trackers:
            argv.append("--bt-tracker=" + ",".join(trackers))
        process = lab.spawn("aria2", [*argv, what], cwd=lab.dir)
        return Aria2Peer(process, addr, f"http://127.0.0.1:{rpc_port}/jsonrpc")

    @staticmethod
    def dht(lab, nodes):
        ip, port = nodes[0]
        extra = ["--enable-dht=true", f"--dht-listen-port={net.free_port()}", f"--dht-file-path={lab.path('dht')}"]
        return {"extra": [*extra, f"--dht-entry-point={ip}:{port}"]}

    @classmethod
    def seed(cls, lab, torrent, root, peers=(), trackers=(), up_limit=None, addr=None, **options):
        peer = cls.start(lab, torrent.file, root, peers, trackers, True, up_limit=up_limit, addr=addr, **options)
        peer.wait_listening()
        peer.wait_complete(60)
        return peer

    @classmethod
    def fetch(cls, lab, what, root, peers=(), trackers=(), down_limit=None, up_limit=None, stay=False, addr=None, **options):
        return cls.start(lab, what, root, peers, trackers, stay, up_limit, down_limit, addr, **options)
