"""TURN programs: our relay, coturn's, and coturn's client and echoing peer."""

import os
import re
import socket
import subprocess

from . import net
from .clients.shoal import program
from .process import Failure, need_program, wait_until

SECRET = "north"
REALM = "shoal"
# Length of a Binding request and how it begins.
BINDING = bytes.fromhex("000100002112a442") + b"shoal-lab-01"


def answers(host, port):
    """Whether a STUN server answers there by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.2)
        try:
            s.connect((host, port))
            s.send(BINDING)
            return s.recv(500)[:2] == b"\x01\x01"
        except OSError:
            return False


class ShoalRelay:
    """`shoal serve turn`."""

    name = "shoal"

    @staticmethod
    def need():
        return program()

    def __init__(self, lab, more=()):
        self.host = net.address()
        self.port = net.free_port(self.host)
        secret = lab.path("secret")
        secret.write_text(SECRET + "\n")
        allow = ["--allow-private", "--allow-peer", "127.0.0.0/8"]
        argv = [program(), "serve", "turn", "--listen", f"{self.host}:{self.port}", "--secret-file", secret, "--realm", REALM]
        self.process = lab.spawn("shoal-relay", [*argv, *allow, *more])
        wait_until("the relay answers", 10, lambda: answers(self.host, self.port))


class Peer:
    """coturn's `turnutils_peer`, which echoes."""

    def __init__(self, lab):
        self.host = net.address()
        self.port = net.free_port(self.host)
        lab.spawn("turnutils_peer", [need_program("turnutils_peer"), "-p", str(self.port), "-L", self.host])
        # It answers nothing but echoes everything.
        wait_until("the peer echoes", 10, self._echoes)

    def _echoes(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            try:
                s.connect((self.host, self.port))
                s.send(b"echo")
                return s.recv(100) == b"echo"
            except OSError:
                return False


class Uclient:
    """coturn's `turnutils_uclient`."""

    name = "turnutils_uclient"

    @staticmethod
    def need():
        need_program("turnutils_peer")
        return need_program("turnutils_uclient")


def uclient(lab, relay, options, seconds=60):
    """Runs `turnutils_uclient` at a relay; the messages it sent and got back, and its output."""
    argv = [Uclient.need(), "-W", SECRET, "-u", "alice", "-p", str(relay.port), *map(str, options), relay.host]
    with open(lab.path("uclient.log"), "w+b") as log:
        try:
            code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=seconds, cwd=os.fspath(lab.folder("uclient"))).returncode
        except subprocess.TimeoutExpired:
            code = "none: it still ran"
        log.seek(0)
        text = log.read().decode(errors="replace")
    totals = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)\n", text)
    if code != 0 or not totals:
        raise Failure(f"{' '.join(argv)}: exit {code}: {text[-1500:]}")
    sent, received = map(int, totals[-1])
    return sent, received, text
