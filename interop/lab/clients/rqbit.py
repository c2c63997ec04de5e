"""Drives rqbit (`cargo install rqbit`): its one-shot `download`, which also seeds."""

from .. import net
from ..process import find_program, need_program
from .base import Client, Peer, http_json, pick_address


class RqbitPeer(Peer):
    def __init__(self, process, addr, api, stay):
        super().__init__("rqbit", process, addr)
        self.api = api
        self.stay = stay

    def stats(self):
        try:
            return http_json(f"{self.api}/torrents/0/stats/v1")
        except OSError:
            return {}

    def uploaded(self):
        return self.stats().get("uploaded_bytes", 0)

    def is_complete(self):
        if not self.stay:
            return self.process.poll() == 0
        stats = self.stats()
        return bool(stats.get("finished")) and stats.get("state") == "live"


class Rqbit(Client):
    name = "rqbit"

    @classmethod
    def need(cls):
        need_program("rqbit")

    @classmethod
    def start(cls, lab, what, root, peers, trackers, stay, up_limit=None, down_limit=None, addr=None, extra=()):
        addr = addr or pick_address()
        web = net.free_port()
        argv = [find_program("rqbit"), "-v", "warn", "--disable-dht", "--disable-dht-persistence", "--disable-lsd"]
        argv += ["--disable-upnp-port-forward", "--ipv4-only", "--listen-ip", "0.0.0.0", "--listen-port", addr[1]]
        argv += ["--http-api-listen-addr", f"127.0.0.1:{web}", *extra]
        if up_limit:
            argv += ["--ratelimit-upload", up_limit]
        if down_limit:
            argv += ["--ratelimit-download", down_limit]
        if trackers:
            file = lab.path("rqbit-trackers")
            file.write_text("\n".join(trackers) + "\n")
            argv += ["--trackers-filename", file]
        argv += ["download", "-o", root, "--overwrite"]
        argv += [] if stay else ["-e"]
        if peers:
            argv += ["--initial-peers", ",".join(f"{ip}:{port}" for ip, port in peers)]
        home = lab.folder("rqbit-home")
        process = lab.spawn("rqbit", [*argv, what], env={"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)})
        return RqbitPeer(process, addr, f"http://127.0.0.1:{web}", stay)

    @classmethod
    def seed(cls, lab, torrent, root, peers=(), trackers=(), up_limit=None, addr=None, **options):
        peer = cls.start(lab, torrent.file, root, peers, trackers, True, up_limit=up_limit, addr=addr, **options)
        peer.wait_complete(60)
        return peer

    @classmethod
    def fetch(cls, lab, what, root, peers=(), trackers=(), down_limit=None, up_limit=None, stay=False, addr=None, **options):
        return cls.start(lab, what, root, peers, trackers, stay, up_limit, down_limit, addr, **options)
