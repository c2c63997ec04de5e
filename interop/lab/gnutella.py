"""Gnutella programs: gtk-gnutella, GnutellaBun, and our own commands, each on a machine of its own."""

import json
import os
import pty
import random
import re
import subprocess
import time
from pathlib import Path

from .clients.shoal import Shoal, last_json_lines, program
from .process import Failure, Skip, need_program, wait_until
from .world import Host

PORT = 6346
# gtk-gnutella takes a build of some age for a danger, and then does not speak with others. Its clock
# is set to a day soon after its release; only it sees that.
BACK = 700 * 24 * 3600
NOBODY = 65534


def sha1_urn(path):
    """Its urn:sha1."""
    import base64
    import hashlib

    return "urn:sha1:" + base64.b32encode(hashlib.sha1(Path(path).read_bytes()).digest()).decode()


class Servent:
    """Anything that others connect to."""

    port = PORT

    @property
    def addr(self):
        return f"{self.host.ip}:{self.port}"


class ShoalNode(Servent):
    """`shoal gnutella node`."""

    name = "shoal"

    @staticmethod
    def need():
        return program()

    def __init__(self, lab, host=None, ultrapeer=False, connect=(), share=None, more=(), log="shoal_node=debug,shoal_gnutella=debug"):
        self.lab, self.host = lab, host or Host(lab)
        self.events_file = lab.path("node.jsonl")
        argv = [program(), "gnutella", "node", "--listen", self.addr, "--json", "--stats-interval", "1"]
        argv += ["--ultrapeer"] if ultrapeer else []
        for addr in connect:
            argv += ["--connect", addr]
        argv += ["--share", share] if share else []
        env = Shoal.env(lab.path("state")) | {"SHOAL_LOG": log}
        self.process = lab.spawn("shoal-node", self.host.inside([*argv, *more]), stdout=self.events_file, env=env)
        wait_until("the node listens", 20, lambda: self.events("listening"))

    def events(self, kind):
        return last_json_lines(self.events_file, lambda e: e.get("event") == kind)

    def stats(self):
        events = self.events("gnutella_stats")
        return events[-1] if events else {}

    def queries(self):
        """What neighbours asked for, as its log has it at `shoal_node=trace`: words as they came, and hashes."""
        log = Path(self.process.log).read_text(errors="replace")
        return re.findall(r'a query .*?text="(.*?)" urns=\[(.*?)\]', log)

    def wait_links(self, ultrapeers=0, leaves=0, seconds=90):
        """Waits for so many neighbours."""

        def there():
            stats = self.stats()
            return stats.get("ultrapeers", 0) >= ultrapeers and stats.get("leaves", 0) >= leaves

        wait_until(f"shoal has {ultrapeers} ultrapeers and {leaves} leaves", seconds, there, every=0.2)


    def says(self, text, seconds):
        """Waits for a line of its log."""
        wait_until(f"shoal says {text!r}", seconds, lambda: text in Path(self.process.log).read_text(errors="replace"), every=0.2)


class ShoalServe(Servent):
    """`shoal gnutella serve`."""

    def __init__(self, lab, folder, more=()):
        self.host = Host(lab)
        events = lab.path("serve.jsonl")
        argv = [program(), "gnutella", "serve", folder, "--listen", self.addr, "--json", *more]
        lab.spawn("shoal-serve", self.host.inside(argv), stdout=events, env=Shoal.env(lab.path("state")))
        wait_until("it serves", 30, lambda: last_json_lines(events, lambda e: e.get("event") == "listening"))


class Fetch:
    """A `shoal gnutella fetch` that runs."""

    def __init__(self, process, events_file):
        self.process, self.events_file = process, events_file

    def events(self, kind):
        return last_json_lines(self.events_file, lambda e: e.get("event") == kind)

    def wait_complete(self, seconds):
        check = self.process.wait(seconds)
        if check != 0:
            raise Failure(f"the fetch ended with code {check}")


def start_fetch(lab, urn, sources, more=()):
    """Begins a fetch, from a machine of its own."""
    events = lab.path("fetch.jsonl")
    argv = [program(), "gnutella", "fetch", urn, "--dir", lab.folder("into"), "--json", *more]
    for source in sources:
        argv += ["--from", source]
    env = Shoal.env(lab.path("state")) | {"SHOAL_LOG": "shoal_node=debug"}
    process = lab.spawn("shoal-fetch", Host(lab).inside(argv), stdout=events, env=env)
    return Fetch(process, events)


def slow_download(lab, addr, urn):
    """Somebody who takes long for a file, from a machine of its own; what has come so far."""
    into = lab.path("slow")
    into.touch()
    argv = [need_program("curl"), "-s", "--limit-rate", "40K", "-A", "slow/1", "-H", "X-Queue: 1.1", "-D", lab.path("slow-head"), "-o", into, f"http://{addr}/uri-res/N2R?{urn}"]
    lab.spawn("slow", Host(lab).inside(argv))
    return into


def find(lab, at, words, seconds=60, more=(), wants=lambda hit: True):
    """What `shoal gnutella find` finds, asked again until there is something; from a machine of its own."""
    end = time.monotonic() + seconds
    seen = []
    while True:
        # gtk-gnutella does not listen to who comes again too soon: another machine each time.
        host = Host(lab)
        argv = [program(), "gnutella", "find", *words.split(), "--connect", at.addr, "--listen", f"{host.ip}:{PORT}", "--json", "--wait", "8", "--limit", "20", *more]
        done = subprocess.run(host.inside(argv), capture_output=True, text=True, timeout=90, env={**os.environ, **Shoal.env(lab.path("state"))})
        seen = [json.loads(line) for line in done.stdout.splitlines()]
        hits = [e for e in seen if e.get("event") == "gnutella_hit" and wants(e)]
        if hits:
            return hits
        if time.monotonic() > end:
            raise Failure(f"{words!r} is not found at {at.addr}: {done.stderr[-400:]} {seen[-3:]}")


def fetch(lab, urn, sources, host=None, more=(), seconds=120, log="shoal_node=debug"):
    """`shoal gnutella fetch`: the file's path, and the events."""
    host = host or Host(lab)
    into = lab.folder("into")
    argv = [program(), "gnutella", "fetch", urn, "--dir", into, "--json", *more]
    for source in sources:
        argv += ["--from", getattr(source, "addr", source)]
    env = {**os.environ, **Shoal.env(lab.path("state")), "SHOAL_LOG": log}
    try:
        done = subprocess.run(host.inside(argv), capture_output=True, text=True, timeout=seconds, env=env)
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace")
        raise Failure(f"gnutella fetch {urn}: not done in {seconds} s: {said[-2500:]}") from late
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0:
        raise Failure(f"gnutella fetch {urn}: exit {done.returncode}: {done.stderr[-1500:]}")
    path = [e["path"] for e in events if e.get("event") == "file_complete"][-1]
    return path, events, done.stderr


class GtkGnutella(Servent):
    """gtk-gnutella built with its GTK interface: $GTKG, or `gtk-gnutella` in $SHOAL_PEERS or PATH.

    Its shell takes orders; searches need a window, which Xvfb gives.
    """

    name = "gtk-gnutella"

    @staticmethod
    def need():
        need_program("cc")
        need_program("curl")
        return os.environ.get("GTKG") or need_program("gtk-gnutella")

    @staticmethod
    def clock(lab):
        """What sets its clock back: a library of a few lines."""
        library = lab.path("clock.so")
        source = Path(__file__).with_name("clock.c")
        subprocess.run([need_program("cc"), "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
        return [f"LD_PRELOAD={library}", f"CLOCK_BACK={BACK}"]

    def __init__(self, lab, host=None, ultrapeer=False, share=None, window=False, settings=()):
        self.lab, self.host = lab, host or Host(lab)
        self.home = lab.folder("gtkg")
        for name in ("config", "complete", "incomplete", "corrupt"):
            (self.home / name).mkdir()
        self.shared = share or lab.folder("gtkg-shared")
        self.configure(ultrapeer, settings)
        self.env = {"HOME": str(self.home), "GTK_GNUTELLA_DIR": str(self.home / "config")}
        if window:
            self.env["DISPLAY"] = display(lab)
        # Not for the programs that start it: they run as somebody else.
        clock = ["env", *self.clock(lab)]
        argv = [*clock, self.need(), "--no-supervise", "--no-restart"] + ([] if window else ["--topless"])
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", self.home], check=True)
        # It runs as somebody else, who must get at all this.
        os.chmod(lab.dir, 0o755)
        self.start(argv)
        for path in filter(Path.is_file, Path(self.shared).iterdir()):
            self.serves(sha1_urn(path))

    def serves(self, urn):
        """Waits until it serves a file, and its hash tree. It says nowhere that its library is ready (what it
        prints of that is no less true before it has begun), and refuses all until then."""
        argv = [need_program("curl"), "-s", "-I", f"http://{self.addr}/uri-res/N2R?{urn}"]

        def there():
            answer = subprocess.run(self.host.inside(argv), capture_output=True, text=True, timeout=30).stdout
            return answer.startswith("HTTP/1.1 200 ") and "x-thex-uri:" in answer.lower()

        wait_until("gtk-gnutella serves its file", 120, there, every=0.5)

    def start(self, argv):
        """Starts it; now and then it dies at once, and is started again."""
        for _ in range(3):
            process = self.lab.spawn("gtk-gnutella", self.host.inside(argv, NOBODY), env=self.env, cwd=self.home)
            wait_until("gtk-gnutella takes orders", 90, lambda: process.poll() is not None or self.shell("status", tolerant=True), every=0.3)
            self.process = process
            if process.poll() is None:
                self.keep_key()
                return
        raise Failure("gtk-gnutella does not start")

    # A key takes it long to make: the first one's serve all.
    keys = {}

    def keep_key(self):
        for name in ("key.pem", "cert.pem"):
            path = self.home / "config" / name
            if path.exists():
                self.keys.setdefault(name, path.read_bytes())

    def configure(self, ultrapeer, settings):
        options = {
            "listen_port": PORT,
            "configured_peermode": 2 if ultrapeer else 0,
            "shared_dirs": f'"{self.shared}"',
            "store_downloading_files_to": f'"{self.home / "incomplete"}"',
            "move_downloading_files_to": f'"{self.home / "complete"}"',
            "move_corrupted_files_to": f'"{self.home / "corrupt"}"',
            "allow_private_network_connection": "TRUE",
            "online_mode": "TRUE",
            # It becomes a leaf otherwise if nobody connects to it soon after its start.
            "allow_firewalled_ultra": "TRUE",
            **{f"enable_{what}": "FALSE" for what in ("dht", "g2", "upnp", "natpmp")},
        }
        options.update(dict(settings))
        text = "".join(f"{key} = {value}\n" for key, value in options.items())
        (self.home / "config" / "config_gnet").write_text(text)
        for name, key in self.keys.items():
            (self.home / "config" / name).write_bytes(key)

    def shell(self, line, tolerant=False):
        """Gives an order; what is answered."""
        argv = [self.need(), "--shell"]
        env = {**os.environ, **self.env}
        done = subprocess.run(self.host.inside(argv, NOBODY), input=line + "\n", capture_output=True, text=True, timeout=30, env=env)
        if done.returncode != 0 and not tolerant:
            raise Failure(f"gtk-gnutella's shell: {line}: {done.stderr[-300:]}{done.stdout[-300:]}")
        return done.stdout if done.returncode == 0 else ""

    def links(self):
        """Its neighbours of the overlay, by their addresses: `U` or `L`, and how it stands with them."""
        lines = (line.split() for line in self.shell("nodes").splitlines())
        found = {}
        for line in lines:
            # Address, flags, country, since when connected, since when it runs, program. The handshake is over
            # when it may be written to.
            if len(line) >= 2 and re.fullmatch(r"[\d.]+:\d+", line[0]) and line[1][:1] in ("U", "L") and line[1][2:4] == "rw":
                found[line[0]] = line[1]
        return found

    def join(self, to, seconds=90):
        """Connects to a node, and waits until it is a neighbour. What it was refused is asked for again."""
        last = [0.0]

        def there():
            if to.addr in self.links():
                return True
            if time.monotonic() - last[0] > 10:
                last[0] = time.monotonic()
                self.shell(f"node add {to.addr}")
            return False

        wait_until(f"gtk-gnutella has {to.addr} for a neighbour", seconds, there, every=0.3)

    def wants(self, urn, name):
        """A download of what has the hash, whoever may have it."""
        self.shell(f"download add magnet:?xt={urn}&dn={name.replace(' ', '+')}")

    def search(self, text):
        """Searches by words, or by one `urn:sha1:`."""
        self.shell(f"search add {text}")

    def get_from(self, addr, urn, name):
        """Fetches from a host that is named."""
        self.shell(f"download add magnet:?xt={urn}&dn={name.replace(' ', '+')}&xs=http://{addr}/uri-res/N2R?{urn}")

    def got(self, name, seconds):
        """The file once it is there."""
        path = self.home / "complete" / name
        wait_until(f"gtk-gnutella has {name}", seconds, path.exists, every=0.3)
        return path


def display(lab):
    """An X server without a screen; its name."""
    xvfb = need_program("Xvfb")
    ready = lab.path("display")
    # Left to choose, it takes the number of another run's: that one's process is not seen from this namespace,
    # and its lock is taken for an old one.
    number = random.randrange(1000, 60000)
    lab.spawn("xvfb", ["sh", "-c", f"exec {xvfb} :{number} -displayfd 3 -nolisten tcp -ac 3>{ready}"])
    wait_until("Xvfb is there", 20, lambda: ready.exists() and ready.read_text().strip())
    return f":{number}"


class GnutellaBun(Servent):
    """GnutellaBun from its sources: $GNUTELLABUN is the folder; npm's `bun` is $BUN or in PATH."""

    name = "GnutellaBun"

    @staticmethod
    def need():
        folder = os.environ.get("GNUTELLABUN")
        if not folder:
            raise Skip("GNUTELLABUN is not set")
        return os.environ.get("BUN") or need_program("bun"), folder

    def __init__(self, lab, host=None, ultrapeer=False, share=None, tls=True):
        bun, folder = self.need()
        self.lab, self.host = lab, host or Host(lab)
        self.home = lab.folder("bun")
        self.downloads = Path(share or self.home / "downloads")
        self.downloads.mkdir(exist_ok=True)
        config = {
            "config": {
                "listen_ip": "0.0.0.0", "listen_port": PORT, "advertised_ip": self.host.ip, "advertised_port": PORT, "blocked_ips": [],
                "gwebcache_urls": ["http://127.0.0.1:9/"], "ultrapeer": ultrapeer, "max_ultrapeer_connections": 64, "max_leaf_connections": 64,
                # Its own runtime cannot be called by TLS on a connection that is there.
                "enable_tls": tls, "max_ttl": 4, "log_ignore": [], "data_dir": str(self.home), "downloads_dir": str(self.downloads),
                "incomplete_downloads_dir": str(self.home / "incomplete"), "download_queue_size": 6, "download_max_active_per_host": 2,
                "download_retry_limit": 10, "download_retry_backoff_sec": 5, "verify_downloads": True,
            },
            "state": {"servent_id_hex": os.urandom(16).hex(), "peers": {}},
        }
        path = self.home / "gnutella.json"
        path.write_text(json.dumps(config))
        self.keyboard, read = pty.openpty()
        lab.at_close(lambda: os.close(self.keyboard))
        argv = [bun, "run", Path(folder) / "bin/gnutella.ts", "run", "--config", path]
        self.process = lab.spawn("gnutella-bun", self.host.inside(argv), cwd=folder, stdin=read)
        os.close(read)
        wait_until("GnutellaBun shows its prompt", 30, lambda: "[0" in Path(self.process.log).read_text(errors="replace"), every=0.1)

    def text(self):
        """What it has shown, without colours and the prompt that it paints again and again."""
        text = Path(self.process.log).read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\[\d+/\d+.\d+\] ?|\r", "", text)

    def hears(self, pattern, seconds=30, since=0):
        return wait_until(f"GnutellaBun shows /{pattern}/", seconds, lambda: re.search(pattern, self.text()[since:]), every=0.1)

    def type(self, line, pattern=None, seconds=30):
        """Types a line, and waits for its answer if there is to be one."""
        since = len(self.text())
        os.write(self.keyboard, line.encode() + b"\n")
        return self.hears(pattern, seconds, since) if pattern else None

    def find(self, words, name, seconds):
        """Asks until the file is among the results; its number."""
        end = time.monotonic() + seconds
        while True:
            self.type(f"query {words}")
            # Its shell tells neither that answers came nor that its list is printed: both are given time.
            time.sleep(3)
            since = len(self.text())
            self.type("results")
            time.sleep(1)
            found = re.search(rf"^\s*(\d+)\s.*{re.escape(name)}", self.text()[since:], re.M)
            if found:
                return found[1]
            if time.monotonic() > end:
                raise Failure(f"GnutellaBun does not find {words!r}: {self.text()[-500:]}")
