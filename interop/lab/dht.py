"""DHT nodes of three makes in the laboratory: shoal, libtorrent, and bittorrent-dht of npm.

Each driver has the same four verbs: `put`, `get`, `announce`, `peers`. bittorrent-dht is not
Debian's: `prepare` installs it into a cache folder outside the tree, before the network is gone.
"""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

from . import net
from .clients import shoal
from .clients.base import is_listening
from .clients.libtorrent import python
from .process import Failure, Skip, need_program, wait_until

PACKAGE = "bittorrent-dht@11.0.12"
_HOME = "SHOAL_LAB_NPM"
_WHY = "SHOAL_LAB_NPM_WHY"


def prepare():
    """Installs the npm package if it is not there; remembers the reason if that fails."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    home = Path(cache) / "shoal-interop" / PACKAGE
    os.environ[_HOME] = str(home)
    if (home / "node_modules" / "bittorrent-dht").is_dir():
        return
    if not shutil.which("npm") or not shutil.which("node"):
        os.environ[_WHY] = "npm or node is not installed"
        return
    home.mkdir(parents=True, exist_ok=True)
    argv = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home), PACKAGE]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        if done.returncode:
            os.environ[_WHY] = f"npm cannot install {PACKAGE}: {done.stderr.strip()[-200:]}"
    except subprocess.TimeoutExpired:
        os.environ[_WHY] = f"npm took more than 120 s to install {PACKAGE}"


def _ports(count):
    """Addresses with a free UDP port each."""
    found = []
    for _ in range(count):
        ip = net.address()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((ip, 0))
            found.append((ip, s.getsockname()[1]))
    return found


class ShoalNodes:
    """Nodes that stay, and for each order the command a user would give."""

    name = "shoal"

    @staticmethod
    def need():
        pass

    def __init__(self, lab, count, bootstrap=None):
        self.lab = lab
        self.addrs = _ports(count)
        self.logs = []
        self.key = lab.path("dht.key")
        for ip, port in self.addrs:
            events = lab.path("dht-node.jsonl")
            argv = [shoal.program(), "dht", "node", "--listen", f"{ip}:{port}", "--json", "--stats-interval", "1"]
            argv += ["--bootstrap", bootstrap or "{}:{}".format(*self.addrs[0])]
            lab.spawn("shoal-dht", argv, stdout=events)
            self.logs.append(events)

    @property
    def endpoint(self):
        return "{}:{}".format(*self.addrs[0])

    def contacts(self):
        """The fewest contacts that any of them has."""

        def of(log):
            events = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
            return max((e["contacts"] for e in events if e["event"] == "dht_status"), default=0)

        return min(of(log) for log in self.logs)

    def _run(self, verb, args, accept=(0,)):
        argv = [shoal.program(), "dht", verb, "--json", "--timeout", "10", "--listen", f"{net.address()}:0"]
        # Not through its own nodes alone: any of the network is to do.
        argv += ["--bootstrap", self.endpoint, *args]
        ran = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=30)
        if ran.returncode not in accept:
            raise Failure(f"shoal dht {verb} ended with code {ran.returncode}: {ran.stderr.strip()}")
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def put(self, value, mutable=False, salt=""):
        args = ["--key", self.key] if mutable else []
        args += ["--salt", salt] if salt else []
        stored = [e for e in self._run("put", [*args, value]) if e["event"] == "stored"][0]
        return stored["key"] or stored["target"]

    def get(self, name, salt=""):
        events = self._run("get", [name, *(["--salt", salt] if salt else [])], accept=(0, 3))
        values = [e["text"] for e in events if e["event"] == "value"]
        return values[-1] if values else None

    def announce(self, key, port):
        """Announces, at `port` where the program lets us choose; the port it announced."""
        self._run("announce", [key, "--port", str(port)])
        return port

    def peers(self, key):
        events = self._run("peers", [key], accept=(0, 3))
        return sorted(p for e in events if e["event"] == "peers" for p in e["peers"])


class _Driven:
    """Nodes in one process, driven by JSON lines over TCP."""

    def __init__(self, lab, count, bootstrap):
        self.addrs = _ports(count)
        self.turn = 0
        control = net.free_port()
        listen = [f"{ip}:{port}" for ip, port in self.addrs]
        self.process = lab.spawn(f"{self.name}-dht", self.argv(control, bootstrap, listen))
        wait_until(f"the {self.name} nodes listen", 20, lambda: is_listening(("127.0.0.1", control)))
        self.socket = socket.create_connection(("127.0.0.1", control), timeout=30)
        self.file = self.socket.makefile("rw")

    def order(self, do, node=None, **more):
        # Every one has its turn.
        self.turn += 1
        node = self.turn % len(self.addrs) if node is None else node
        self.file.write(json.dumps({"do": do, "node": node, **more}) + "\n")
        self.file.flush()
        line = self.file.readline()
        if not line:
            raise Failure(f"the {self.name} nodes have ended")
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(f"{self.name} cannot {do}: {answer['error']}")
        return answer

    def contacts(self):
        return min(self.order("nodes", node)["nodes"] for node in range(len(self.addrs)))

    def put(self, value, mutable=False, salt=""):
        return self.order("put", value=value, mutable=mutable, salt=salt)["name"]

    def get(self, name, salt=""):
        return self.order("get", name=name, salt=salt).get("value")

    def announce(self, key, port):
        return self.order("announce", key=key, port=port).get("port", port)

    def peers(self, key):
        return self.order("peers", key=key)["peers"]


_HERE = os.path.dirname(os.path.abspath(__file__))


class LibtorrentNodes(_Driven):
    name = "libtorrent"

    @staticmethod
    def need():
        python()

    @staticmethod
    def argv(control, bootstrap, listen):
        script = os.path.join(_HERE, "clients", "dht_lt.py")
        return [python(), "-P", script, "--control", control, "--bootstrap", bootstrap, *listen]


class NpmNodes(_Driven):
    name = "bittorrent-dht"

    @staticmethod
    def need():
        if os.environ.get(_WHY):
            raise Skip(os.environ[_WHY])

    @staticmethod
    def argv(control, bootstrap, listen):
        script = os.path.join(_HERE, "clients", "dht_js.mjs")
        return [need_program("node"), script, os.environ[_HOME], control, bootstrap, *listen]
