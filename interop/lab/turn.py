"""TURN programs: our relay, coturn's, and coturn's client and echoing peer."""

import base64
import hashlib
import hmac
import os
import re
import secrets
import socket
import struct
import subprocess
import time

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


def credential(user):
    """Name and password of an hour, made with the secret."""
    name = f"{int(time.time()) + 3600}:{user}"
    tag = hmac.new(SECRET.encode(), name.encode(), hashlib.sha1).digest()
    return name, base64.b64encode(tag).decode()


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
    """Runs `turnutils_uclient` at a relay; the messages it sent and got back, and its output.

    Each of its clients binds two channels with numbers that it draws: of a hundred one draws the same twice in one run of 160, which
    any server refuses (RFC 8656, 12.1), and it ends. Then it is run again."""
    for _ in range(2):
        try:
            return uclient_once(lab, relay, options, seconds)
        except Failure as failure:
            if "channel bind: error 400" not in str(failure):
                raise
    return uclient_once(lab, relay, options, seconds)


def uclient_once(lab, relay, options, seconds):
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


# Messages and attributes (RFC 8489, 8656).
COOKIE = 0x2112A442
ALLOCATE, CHANNEL_BIND = 3, 9
USERNAME, INTEGRITY, ERROR, CHANNEL, PEER, REALM_IS, NONCE, RELAYED, TRANSPORT = 0x06, 0x08, 0x09, 0x0C, 0x12, 0x14, 0x15, 0x16, 0x19
UDP_TRANSPORT = b"\x11\0\0\0"
CHANNEL_NUMBER = 0x4000


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def attributes(message):
    """Those of a message, by kind."""
    found, at = {}, 20
    while at + 4 <= len(message):
        kind, length = struct.unpack_from("!HH", message, at)
        found[kind] = message[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return found


def xored(host, port):
    """An IPv4 address as XOR-PEER-ADDRESS has it."""
    address = int.from_bytes(socket.inet_aton(host), "big") ^ COOKIE
    return struct.pack("!BBHI", 0, 1, port ^ COOKIE >> 16, address)


class Client:
    """An allocation by UDP with a socket of its own, and a channel to a peer."""

    def __init__(self, relay, user):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(0.5)
        self.socket.connect((relay.host, relay.port))
        self.name, self.password = credential(user)
        self.realm = self.nonce = self.key = None

    def close(self):
        self.socket.close()

    def exchange(self, message):
        """Sends until there is an answer: relays challenge a network so often a second only."""
        for _ in range(12):
            self.socket.send(message)
            try:
                answer = self.socket.recv(2000)
            except TimeoutError:
                continue
            if answer[4:20] == message[4:20]:
                return answer
        raise Failure("no answer to a request that was sent twelve times")

    def ask(self, method, *asked):
        """Asks, with integrity as soon as the server told what it takes; the answer's attributes."""
        body = b"".join(asked)
        if self.key:
            body += attribute(USERNAME, self.name.encode()) + attribute(REALM_IS, self.realm) + attribute(NONCE, self.nonce)
        length = len(body) + (24 if self.key else 0)
        message = struct.pack("!HHI", method, length, COOKIE) + secrets.token_bytes(12) + body
        if self.key:
            message += attribute(INTEGRITY, hmac.new(self.key, message, hashlib.sha1).digest())
        answer = self.exchange(message)
        told = attributes(answer)
        if ERROR not in told:
            return told
        code = told[ERROR][2] * 100 + told[ERROR][3]
        if code != 401 or self.key:
            raise Failure(f"method {method}: error {code}")
        self.realm, self.nonce = told[REALM_IS], told[NONCE]
        self.key = hashlib.md5(f"{self.name}:{self.realm.decode()}:{self.password}".encode()).digest()
        return self.ask(method, *asked)

    def allocate(self):
        """Gets a relayed address; its port."""
        told = self.ask(ALLOCATE, attribute(TRANSPORT, UDP_TRANSPORT))
        return struct.unpack_from("!H", told[RELAYED], 2)[0] ^ COOKIE >> 16

    def bind(self, host, port):
        self.ask(CHANNEL_BIND, attribute(CHANNEL, struct.pack("!HH", CHANNEL_NUMBER, 0)), attribute(PEER, xored(host, port)))

    def send(self, data):
        self.socket.send(struct.pack("!HH", CHANNEL_NUMBER, len(data)) + data)

    def receive(self):
        """What comes by the channel."""
        got = self.socket.recv(2000)
        channel, length = struct.unpack_from("!HH", got)
        if channel != CHANNEL_NUMBER:
            raise Failure(f"no channel data: {got[:8].hex()}")
        return got[4 : 4 + length]
