"""DHT nodes of four makes in the laboratory: shoal, libtorrent, bittorrent-dht of npm, and the crate
mainline.

Each driver has the same four verbs: `put`, `get`, `announce`, `peers`. The last two makes are not
Debian's: their `prepare`, called before the network is gone, puts them into a cache folder outside
the tree.
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


class Driven:
    """Nodes in one process, driven by JSON lines over TCP; without `bootstrap` they start from their first."""

    def __init__(self, lab, count, bootstrap=None):
        self.addrs = _ports(count)
        self.turn = 0
        control = net.free_port()
        listen = [f"{ip}:{port}" for ip, port in self.addrs]
        bootstrap = bootstrap or listen[0]
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


class LibtorrentNodes(Driven):
    name = "libtorrent"

    @staticmethod
    def need():
        python()

    @staticmethod
    def argv(control, bootstrap, listen):
        script = os.path.join(_HERE, "clients", "dht_lt.py")
        return [python(), "-P", script, "--control", control, "--bootstrap", bootstrap, *listen]


class _Fetched(Driven):
    """Nodes of a make that has to be fetched first. Why that failed is remembered in the environment,
    since the script starts again in its namespace."""

    # Kept in a cache folder under this name.
    version = "?"

    @classmethod
    def home(cls):
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        return Path(cache) / "shoal-interop" / cls.version

    @classmethod
    def _why(cls):
        return "SHOAL_LAB_NO_" + cls.name.upper().replace("-", "_")

    @classmethod
    def need(cls):
        if os.environ.get(cls._why()):
            raise Skip(os.environ[cls._why()])

    @classmethod
    def prepare(cls):
        """Fetches what is not there."""
        why = cls._fetch()
        if why:
            os.environ[cls._why()] = why

    @classmethod
    def _run_tool(cls, argv, seconds):
        """Why a command failed; none if it did not."""
        if not shutil.which(argv[0]):
            return f"{cls.name}: {argv[0]} is not installed"
        try:
            done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"{argv[0]} took more than {seconds} s for {cls.version}"
        return f"{argv[0]} cannot make {cls.version}: {done.stderr.strip()[-200:]}" if done.returncode else None


class NpmNodes(_Fetched):
    name = "bittorrent-dht"
    version = "bittorrent-dht@11.0.12"

    @classmethod
    def _fetch(cls):
        if (cls.home() / "node_modules" / "bittorrent-dht").is_dir():
            return None
        cls.home().mkdir(parents=True, exist_ok=True)
        return cls._run_tool(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", cls.home(), cls.version], 120)

    @classmethod
    def argv(cls, control, bootstrap, listen):
        script = os.path.join(_HERE, "clients", "dht_js.mjs")
        return [need_program("node"), script, cls.home(), control, bootstrap, *listen]


class CrateNodes(_Fetched):
    name = "mainline"
    version = "mainline-8.0.1"

    @classmethod
    def _fetch(cls):
        # cargo itself sees whether there is anything to do.
        package = os.path.join(_HERE, "..", "peers", "mainline-crate", "Cargo.toml")
        return cls._run_tool(["cargo", "build", "-q", "--locked", "--manifest-path", package, "--target-dir", cls.home()], 300)

    @classmethod
    def argv(cls, control, bootstrap, listen):
        return [cls.home() / "debug" / "mainline-crate-nodes", control, bootstrap, *listen]
