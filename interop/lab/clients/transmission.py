"""Drives transmission-daemon over its RPC, with a configuration folder of its own."""

import base64
import json
import urllib.error
from pathlib import Path

from .. import net
from ..process import Failure, Skip, find_program, need_program, wait_until
from ..tracker import Tracker
from .base import Client, Peer, http_json, pick_address


class TransmissionPeer(Peer):
    def __init__(self, process, addr, rpc):
        super().__init__("transmission", process, addr)
        self.rpc = rpc
        self.session = ""

    def call(self, method, **arguments):
        data = json.dumps({"method": method, "arguments": arguments}).encode()
        for _ in range(2):
            try:
                answer = http_json(self.rpc, data, {"X-Transmission-Session-Id": self.session})
                break
            except urllib.error.HTTPError as error:
                if error.code != 409:
                    raise
                self.session = error.headers["X-Transmission-Session-Id"]
        if answer["result"] != "success":
            raise Failure(f"transmission {method}: {answer['result']}")
        return answer["arguments"]

    def torrent(self):
        fields = ["percentDone", "status", "error", "errorString", "peersConnected", "uploadedEver", "metadataPercentComplete"]
        torrents = self.call("torrent-get", fields=fields)["torrents"]
        return torrents[0] if torrents else {}

    def uploaded(self):
        return self.torrent().get("uploadedEver", 0)

    def is_complete(self):
        torrent = self.torrent()
        # Status 1 and 2 are "waiting to check" and "checking".
        return torrent.get("percentDone") == 1 and torrent.get("metadataPercentComplete") == 1 and torrent.get("status") not in (1, 2)


class Transmission(Client):
    name = "transmission"
    makes_empty_files = False

    @classmethod
    def need(cls):
        need_program("transmission-daemon")
        if not net.isolated():
            raise Skip("transmission refuses peers on 127.0.0.0/8, and there is no namespace here")

    @classmethod
    def start(cls, lab, what, root, peers, trackers, up_limit=None, down_limit=None, addr=None, dht=()):
        addr = addr or pick_address()
        config = lab.folder("transmission")
        rpc_port = net.free_port()
        settings = {
            "bind-address-ipv4": addr[0],
            "bind-address-ipv6": "::1",
            "peer-port": addr[1],
            "peer-port-random-on-start": False,
            "port-forwarding-enabled": False,
            "dht-enabled": bool(dht),
            "lpd-enabled": False,
            "utp-enabled": False,
            "pex-enabled": True,
            "rpc-bind-address": "127.0.0.1",
            "rpc-port": rpc_port,
            "rpc-authentication-required": False,
            "rpc-host-whitelist-enabled": False,
            "rpc-whitelist-enabled": False,
            "download-dir": str(root),
            "incomplete-dir-enabled": False,
            "start-added-torrents": True,
            "watch-dir-enabled": False,
            "ratio-limit-enabled": False,
            "speed-limit-up-enabled": bool(up_limit),
            "speed-limit-up": (up_limit or 0) // 1000,
            "speed-limit-down-enabled": bool(down_limit),
            "speed-limit-down": (down_limit or 0) // 1000,
        }
        (config / "dht.bootstrap").write_text("".join(f"{ip} {port}\n" for ip, port in dht))
        (config / "settings.json").write_text(json.dumps(settings))
        argv = [find_program("transmission-daemon"), "--foreground", "--config-dir", config, "--log-error"]
        process = lab.spawn("transmission", argv)
        peer = TransmissionPeer(process, addr, f"http://127.0.0.1:{rpc_port}/transmission/rpc")

        def answers():
            try:
                return peer.call("session-get")
            except OSError:
                return None

        wait_until("transmission's RPC answers", 20, answers)
        trackers = list(trackers)
        if peers:
            # It has no "add peer" command: a tracker that knows just these does it.
            trackers.append(Tracker(lab, fixed=list(peers)).url)
        arguments = {"download-dir": str(root), "paused": True}
        if str(what).startswith("magnet:"):
            arguments["filename"] = str(what)
        else:
            arguments["metainfo"] = base64.b64encode(Path(what).read_bytes()).decode()
        added = peer.call("torrent-add", **arguments)["torrent-added"]
        if trackers:
            peer.call("torrent-set", ids=[added["id"]], trackerAdd=trackers)
        peer.call("torrent-start-now", ids=[added["id"]])
        return peer

    @staticmethod
    def dht(lab, nodes):
        return {"dht": nodes}

    @classmethod
    def seed(cls, lab, torrent, root, peers=(), trackers=(), up_limit=None, addr=None, dht=()):
        peer = cls.start(lab, torrent.file, root, peers, trackers, up_limit=up_limit, addr=addr, dht=dht)
        peer.wait_complete(60)
        peer.wait_listening()
        return peer

    @classmethod
    def fetch(cls, lab, what, root, peers=(), trackers=(), down_limit=None, up_limit=None, stay=False, addr=None, dht=()):
        return cls.start(lab, what, root, peers, trackers, up_limit, down_limit, addr, dht)
