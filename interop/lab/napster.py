"""Napster programs: OpenNap-ng, TekNap behind a terminal, and our own commands."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time

from . import net
from .clients.shoal import Shoal, program
from .process import Failure, need_program, wait_until

HOST = "127.0.0.1"
# An MPEG-1 layer III frame of 128 kbit/s at 44.1 kHz without padding has 417 bytes.
FRAME = b"\xff\xfb\x90\x00"
FRAME_BYTES = 417


def song(path, frames):
    """Writes what every program takes for an MP3 of 128 kbit/s, of so many frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f:
        for _ in range(frames):
            # No byte of the body may look like the beginning of a frame.
            f.write(FRAME + os.urandom(FRAME_BYTES - len(FRAME)).replace(b"\xff", b"\x7f"))
    return path


def listens(port):
    try:
        socket.create_connection((HOST, port), 0.2).close()
        return True
    except OSError:
        return False


class OpenNap:
    """OpenNap-ng 0.50: $OPENNAP, or `opennap` in $SHOAL_PEERS or PATH."""

    name = "OpenNap-ng"

    @staticmethod
    def need():
        return os.environ.get("OPENNAP") or need_program("opennap")

    def __init__(self, lab):
        home = lab.folder("opennap")
        self.port = net.free_port(HOST)
        (home / "config").write_text(f"server_name {HOST}\nserver_ports {self.port}\nlisten_addr {HOST}\nmax_searches_per_minute 1000\nstats_port -1\nstats_port2 -1\n")
        for name in ("motd", "users", "bans", "channels", "servers", "filter", "block", "acl", "class"):
            (home / name).touch()
        lab.spawn("opennap", [self.need(), "-D", "-c", home, "-e", home])
        wait_until("OpenNap-ng listens", 10, lambda: listens(self.port))

    @property
    def addr(self):
        return f"{HOST}:{self.port}"


class ShoalHub:
    """`shoal serve napster`."""

    name = "shoal"

    @staticmethod
    def need():
        return program()

    def __init__(self, lab):
        self.port = net.free_port(HOST)
        lab.spawn("shoal-hub", [program(), "serve", "napster", "--listen", self.addr])
        wait_until("the hub listens", 10, lambda: listens(self.port))

    @property
    def addr(self):
        return f"{HOST}:{self.port}"


def share(lab, hub, nick, folder, more=()):
    """`shoal napster share`, once the hub has the list."""
    events = lab.path("share.jsonl")
    argv = [program(), "napster", "share", folder, "--hub", hub.addr, "--nick", nick, "--listen", f"{HOST}:0", "--json", *more]
    lab.spawn(f"shoal-share-{nick}", argv, stdout=events, env=Shoal.env(lab.path("state")))
    wait_until(f"{nick} shares", 20, lambda: events.exists() and '"connected":true' in events.read_text())


def fetch(lab, hub, words, into, more=()):
    """`shoal napster fetch`: the file's path."""
    argv = [program(), "napster", "fetch", *words.split(), "--hub", hub.addr, "--dir", str(into), "--json", *more]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, env={**os.environ, **Shoal.env(lab.path("state"))})
    if done.returncode != 0:
        raise Failure(f"napster fetch {words}: exit {done.returncode}: {done.stderr[-800:]}")
    return json.loads(done.stdout.splitlines()[-1])["path"]


def find(hub, words, more=()):
    """What `shoal find` finds."""
    done = subprocess.run([program(), "find", *words.split(), "--via", "napster", "--hub", hub.addr, "--json", *more], capture_output=True, text=True, timeout=60)
    if done.returncode not in (0, 3):
        raise Failure(f"find {words}: exit {done.returncode}: {done.stderr[-800:]}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [e for e in events if e.get("event") == "found"]


def shoal(words, typed=""):
    """The events of a command that ends well."""
    done = subprocess.run([program(), *words], input=typed, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Failure(f"{words}: exit {done.returncode}: {done.stderr[-800:]}{done.stdout[-1600:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def run(hub, words, typed=""):
    """The events of a `shoal napster` command."""
    return shoal(["napster", *words, "--hub", hub.addr, "--json"], typed)


# What terminals are sent beside text: control sequences, character sets, backspaces.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>78]|[\x08\x0e\x0f]")


class TekNap:
    """TekNap 1.3g, typed to as by a user: $TEKNAP, or `TekNap` in $SHOAL_PEERS or PATH."""

    name = "TekNap"

    @staticmethod
    def need():
        return os.environ.get("TEKNAP") or need_program("TekNap")

    def __init__(self, lab, nick, hub):
        self.nick, self.home, self.raw = nick, lab.folder(f"teknap-{nick}"), b""
        self.data_port = net.free_port(HOST)
        program = self.need()
        env = {"HOME": str(self.home), "PATH": os.environ["PATH"], "TERM": "xterm", "LINES": "50", "COLUMNS": "200"}
        env |= {"NAPPASS": f"pw{nick}", "NAPLIB": str(self.home)}
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.chdir(self.home)
            os.execve(program, ["TekNap", "-n", nick, "-H", HOST, "-N", hub.addr], env)
        self.pid = pid
        lab.at_close(self.end)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        # It ignores what is typed while it starts, and does not say when it has.
        self.hears(r"Created directory")
        self.type(f"/set default_dataport {self.data_port}", r"DEFAULT_DATAPORT set to")
        self.direct_browse("off")
        self.type(f"/set download_directory {self.home}", r"DOWNLOAD_DIRECTORY set to")
        self.type(f"/server {hub.addr}", r"Email Address set to")

    def read(self, seconds=0.0):
        """Takes in what it has shown; its terminal must be read, or it stands still."""
        while select.select([self.terminal], [], [], seconds)[0]:
            try:
                self.raw += os.read(self.terminal, 1 << 16)
            except OSError:
                return

    def text(self):
        return re.sub(" {2,}", " ", CONTROL.sub("", self.raw.decode("latin1")))

    def hears(self, pattern, seconds=20, others=()):
        """Waits until it shows a line with the pattern."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text())):
            if time.monotonic() > end:
                raise Failure(f"{self.nick} does not show /{pattern}/ but: {self.text()[-600:]}")
            for one in (self, *others):
                one.read(0.02)
        return found

    def type(self, line, pattern=None, others=()):
        """Types a line, and waits for its answer if there is to be one."""
        self.read()
        self.raw = b""
        os.write(self.terminal, line.encode() + b"\r")
        return self.hears(pattern, others=others) if pattern else None

    def direct_browse(self, state):
        """Whether it browses, and lets others browse, without the hub."""
        self.type(f"/set default_direct_browse {state}", r"DIRECT_BROWSE set to")

    def share(self, folder, files):
        self.type(f"/share {folder}", rf"Found {files} [Ff]iles")
        self.type("/share -share", rf"Sharing {files} files")

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)
