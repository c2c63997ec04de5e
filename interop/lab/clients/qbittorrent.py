"""Drives qbittorrent-nox over its Web API, with a profile of its own."""

import urllib.parse
import uuid
from pathlib import Path

from .. import net
from ..process import Failure, find_program, need_program, wait_until
from .base import Client, Peer, http_json, pick_address

CONFIG = """\
[LegalNotice]
Accepted=true

[BitTorrent]
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\PeXEnabled=true
Session\\Port={port}
Session\\Interface=lo
Session\\InterfaceName=lo
Session\\InterfaceAddress={ip}
Session\\QueueingSystemEnabled=false
Session\\MultiConnectionsPerIp=true
Session\\SSRFMitigation=false
Session\\BTProtocol=TCP
Session\\DefaultSavePath={root}
Session\\GlobalUPSpeedLimit={up_kib}
Session\\GlobalDLSpeedLimit={down_kib}
Session\\IgnoreLimitsOnLAN=false
Session\\Preallocation=false

[Network]
PortForwardingEnabled=false

[Preferences]
General\\Locale=en
WebUI\\Address=127.0.0.1
WebUI\\Port={web}
WebUI\\LocalHostAuth=false
WebUI\\CSRFProtection=false
WebUI\\HostHeaderValidation=false
WebUI\\UseUPnP=false
"""


class QbittorrentPeer(Peer):
    def __init__(self, process, addr, api):
        super().__init__("qbittorrent", process, addr)
        self.api = api

    def get(self, path):
        return http_json(f"{self.api}/{path}")

    def post(self, path, **fields):
        return http_json(f"{self.api}/{path}", urllib.parse.urlencode(fields).encode())

    def torrent(self):
        torrents = self.get("torrents/info")
        return torrents[0] if torrents else {}

    def uploaded(self):
        return self.torrent().get("uploaded", 0)

    def is_complete(self):
        torrent = self.torrent()
        return torrent.get("progress") == 1 and torrent.get("state") in ("uploading", "stalledUP", "forcedUP")


class Qbittorrent(Client):
    name = "qbittorrent"

    @classmethod
    def need(cls):
        need_program("qbittorrent-nox")

    @classmethod
    def start(cls, lab, what, root, peers, trackers, up_limit=None, down_limit=None, addr=None):
        addr = addr or pick_address()
        web = net.free_port()
        profile = lab.folder("qbittorrent")
        config = profile / "qBittorrent" / "config" / "qBittorrent.conf"
        config.parent.mkdir(parents=True)
        kib = lambda limit: (limit or 0) // 1024
        config.write_text(CONFIG.format(ip=addr[0], port=addr[1], web=web, root=root, up_kib=kib(up_limit), down_kib=kib(down_limit)))
        process = lab.spawn("qbittorrent", [find_program("qbittorrent-nox"), f"--profile={profile}"], env={"HOME": str(profile)})
        peer = QbittorrentPeer(process, addr, f"http://127.0.0.1:{web}/api/v2")

        def answers():
            if process.poll() is not None:
                raise Failure(f"qbittorrent-nox ended with code {process.poll()} at its start")
            try:
                return peer.get("app/webapiVersion")
            except OSError:
                return None

        wait_until("qbittorrent's Web API answers", 30, answers)
        cls.add(peer, what, root)
        torrent = wait_until("qbittorrent lists the torrent", 10, peer.torrent)
        if trackers:
            peer.post("torrents/addTrackers", hash=torrent["hash"], urls="\n".join(trackers))
        if peers:
            # Peers are refused while the files are being checked.
            wait_until("qbittorrent has checked", 60, lambda: "checking" not in peer.torrent().get("state", "checking"))
            peer.post("torrents/addPeers", hashes=torrent["hash"], peers="|".join(f"{ip}:{port}" for ip, port in peers))
        return peer

    @staticmethod
    def add(peer, what, root):
        boundary = uuid.uuid4().hex
        fields = {"savepath": str(root), "root_folder": "true", "contentLayout": "Original"}
        if str(what).startswith("magnet:"):
            fields["urls"] = str(what)
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
        if "urls" not in fields:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="torrents"; filename="t.torrent"\r\nContent-Type: application/x-bittorrent\r\n\r\n'
            parts.append(head.encode() + Path(what).read_bytes() + b"\r\n")
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        answer = http_json(f"{peer.api}/torrents/add", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
        if answer != "Ok.":
            raise Failure(f"qbittorrent did not take the torrent: {answer}")

    @classmethod
    def seed(cls, lab, torrent, root, peers=(), trackers=(), up_limit=None, addr=None):
        peer = cls.start(lab, torrent.file, root, peers, trackers, up_limit, addr=addr)
        peer.wait_complete(60)
        peer.wait_listening()
        return peer

    @classmethod
    def fetch(cls, lab, what, root, peers=(), trackers=(), down_limit=None, up_limit=None, stay=False, addr=None):
        return cls.start(lab, what, root, peers, trackers, up_limit, down_limit, addr)
