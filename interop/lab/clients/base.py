"""What every driver offers, so that any client can stand on either side of a test."""

import json
import socket
import urllib.request

from .. import net
from ..process import Failure, wait_until


class Peer:
    """A running client with one torrent."""

    def __init__(self, name, process, addr):
        self.name = name
        self.process = process
        self.addr = addr

    @property
    def endpoint(self):
        return f"{self.addr[0]}:{self.addr[1]}"

    def is_complete(self):
        """Whether the client says that it has everything, verified."""
        raise NotImplementedError

    def uploaded(self):
        """Payload bytes it says it has sent."""
        raise NotImplementedError

    def wait_complete(self, seconds=60):
        def done():
            if self.is_complete():
                return True
            code = self.process.poll()
            if code is not None and not self.is_complete():
                raise Failure(f"{self.name} ended with code {code} before it was complete")
            return False

        wait_until(f"{self.name} is complete", seconds, done)

    def wait_listening(self, seconds=20):
        def up():
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended with code {self.process.poll()} at its start")
            return is_listening(self.addr)

        wait_until(f"{self.name} listens on {self.endpoint}", seconds, up)

    def stop(self):
        self.process.stop()


class Client:
    """A driver. `root` is the folder in which the payload lies, or is to lie, under its name."""

    name = "?"
    # Whether it creates the files of zero bytes that a torrent lists.
    makes_empty_files = True

    @classmethod
    def need(cls):
        """Raises Skip when the program is missing."""

    @staticmethod
    def dht(lab, nodes):
        """Options of `seed` and `fetch` that turn the DHT on, which is off without them, and name nodes
        to start from."""
        raise NotImplementedError

    @classmethod
    def seed(cls, lab, torrent, root, peers=(), trackers=(), up_limit=None, addr=None):
        raise NotImplementedError

    @classmethod
    def fetch(cls, lab, what, root, peers=(), trackers=(), down_limit=None, up_limit=None, stay=False, addr=None):
        """`what` is a .torrent path or a magnet link."""
        raise NotImplementedError


def pick_address():
    ip = net.address()
    return ip, net.free_port(ip)


def is_listening(addr):
    """Whether a socket listens on `addr`, without connecting to it."""
    want = f"{addr[1]:04X}"
    ip = socket.inet_aton(addr[0])[::-1].hex().upper()
    mapped = "0000000000000000FFFF0000" + ip
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as f:
                for line in f.readlines()[1:]:
                    fields = line.split()
                    local, port = fields[1].split(":")
                    if fields[3] == "0A" and port == want and (local in (ip, mapped) or not local.strip("0")):
                        return True
        except FileNotFoundError:
            pass
    return False


def http_json(url, data=None, headers=None, timeout=5):
    """One HTTP exchange whose answer is JSON (or empty)."""
    request = urllib.request.Request(url, data=data, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as response:
        body = response.read()
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")


def last_json_lines(path, keep=lambda line: True):
    """The JSON objects in a log of one object a line; other lines are passed over."""
    out = []
    try:
        with open(path, "rb") as f:
            for line in f:
                if line.startswith(b"{"):
                    try:
                        value = json.loads(line)
                    except ValueError:
                        continue
                    if keep(value):
                        out.append(value)
    except FileNotFoundError:
        pass
    return out
