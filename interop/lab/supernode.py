"""An overlay of supernodes: a login server with the list, and nodes, all of ours."""

import json
import os
import subprocess

from . import net
from .clients.shoal import Shoal, program
from .process import Failure, wait_until

HOST = "127.0.0.1"


class Overlay:
    """`shoal serve login --with-list`, and who logs in there."""

    def __init__(self, lab):
        self.lab = lab
        self.login = f"{HOST}:{net.free_port(HOST)}"
        events = lab.path("login.jsonl")
        argv = [program(), "serve", "login", "--with-list", "--listen", self.login, "--dir", lab.folder("login"), "--json"]
        lab.spawn("shoal-login", argv, stdout=events)
        wait_until("the login server listens", 20, lambda: events.exists() and "listening" in events.read_text())

    def node(self, name, more=()):
        """`shoal supernode node`."""
        return Node(self, name, more)

    def fetch(self, words, into):
        """`shoal supernode fetch` into an empty folder: the file's path."""
        argv = [program(), "supernode", "fetch", *words.split(), "--login", self.login, "--listen", f"{HOST}:0", "--dir", str(into), "--json"]
        env = {**os.environ, **Shoal.env(self.lab.path("state-asker"))}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=90, env=env)
        if done.returncode != 0:
            raise Failure(f"supernode fetch {words}: exit {done.returncode}: {done.stderr[-800:]}")
        return next(path for path in into.iterdir() if path.is_file())

    def find(self, words):
        """What `shoal supernode find` finds."""
        argv = [program(), "supernode", "find", *words.split(), "--login", self.login, "--limit", "1", "--wait", "3", "--json"]
        env = {**os.environ, **Shoal.env(self.lab.path("state-asker"))}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
        if done.returncode not in (0, 3):
            raise Failure(f"supernode find {words}: exit {done.returncode}: {done.stderr[-800:]}")
        events = map(json.loads, done.stdout.splitlines())
        return [e for e in events if e.get("event") == "supernode_hit"]


class Node:
    """A node; what it tells is read from a file."""

    def __init__(self, overlay, name, more):
        lab = overlay.lab
        self.file = lab.path(f"node-{name}.jsonl")
        argv = [program(), "supernode", "node", "--login", overlay.login, "--name", name, "--listen", f"{HOST}:0", "--json", "--stats-interval", "1", *more]
        lab.spawn(f"shoal-{name}", argv, stdout=self.file, env=Shoal.env(lab.path(f"state-{name}")))
        wait_until(f"{name} listens", 20, lambda: self.events("listening"))

    def events(self, name):
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        # The last line may not be whole yet.
        whole = [line for line in lines if line.endswith("}")]
        return [e for e in map(json.loads, whole) if e.get("event") == name]

    @property
    def hub(self):
        """Where OpenNap clients connect to."""
        return next(e["addr"] for e in self.events("listening") if e["proto"] == "napster")

    @property
    def addr(self):
        """The same, as the hubs of `lab.napster` tell it."""
        return self.hub
