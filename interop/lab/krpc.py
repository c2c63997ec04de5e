"""KRPC (BEP 5) by hand: a client that asks one question at a time, and impostors that answer
whatever serves them. Independent of the program under test."""

import os
import random
import selectors
import socket
import struct
import threading
import time

from . import bencode, net


def xor(a, b):
    return int.from_bytes(a, "big") ^ int.from_bytes(b, "big")


def compact(addr):
    return socket.inet_aton(addr[0]) + addr[1].to_bytes(2, "big")


def nodes_of(reply):
    """The (identifier, address) pairs of an answer."""
    raw = reply.get(b"nodes", b"")
    for n in range(0, len(raw) - 25, 26):
        yield raw[n : n + 20], (socket.inet_ntoa(raw[n + 20 : n + 24]), int.from_bytes(raw[n + 24 : n + 26], "big"))


def query(own, method, args, read_only=False, tid=None):
    message = {"a": {"id": own, **args}, "q": method, "t": tid or os.urandom(4), "y": "q"}
    if read_only:
        message["ro"] = 1
    return bencode.encode(message)


class Client:
    """Asks, and answers nobody (BEP 43)."""

    def __init__(self, ip=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((ip or net.address(), 0))
        self.addr = self.socket.getsockname()
        self.id = os.urandom(20)

    def message(self, addr, method, args, timeout=1):
        """The whole answer, be it an error; none if there is none in time."""
        tid = os.urandom(4)
        self.socket.sendto(query(self.id, method, args, True, tid), addr)
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                answer = bencode.decode(self.socket.recv(65536))
            except TimeoutError:
                return None
            if answer.get(b"t") == tid:
                return answer
        return None

    def ask(self, addr, method, args, timeout=1):
        """The values of an answer that is no error."""
        answer = self.message(addr, method, args, timeout)
        return answer.get(b"r") if answer else None

    def error(self, addr, method, args):
        """The code of an answer that is an error, 0 of one that is none."""
        answer = self.message(addr, method, args)
        return None if answer is None else answer[b"e"][0] if b"e" in answer else 0


class Impostors:
    """Nodes of one owner: each answers every query as if it were one of the network, names only its
    fellows, holds nothing, and says it stored what it threw away."""

    def __init__(self, members):
        """`members`: identifier of each by address."""
        self.members = members
        self.asked = 0
        self.sockets = {}
        self._selector = selectors.DefaultSelector()
        self._stop = False
        for addr in members:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind(addr)
            s.setblocking(False)
            self.sockets[addr] = s
            self._selector.register(s, selectors.EVENT_READ, addr)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self):
        self._stop = True
        self._thread.join()
        for s in self.sockets.values():
            s.close()

    def introduce(self, nodes):
        """Every one of them asks every node, to be noticed."""
        for addr, own in self.members.items():
            for node in nodes:
                self.sockets[addr].sendto(query(own, "find_node", {"target": os.urandom(20)}), node)
            # The nodes' sockets are not to overflow with it.
            time.sleep(0.002)

    def _serve(self):
        everyone = list(self.members.items())
        while not self._stop:
            for key, _ in self._selector.select(0.1):
                for _ in range(64):
                    try:
                        raw, peer = key.fileobj.recvfrom(65536)
                    except BlockingIOError:
                        break
                    try:
                        message = bencode.decode(raw)
                    except (ValueError, IndexError):
                        continue
                    if message.get(b"y") != b"q":
                        continue
                    self.asked += 1
                    fellows = random.sample(everyone, min(8, len(everyone)))
                    nodes = b"".join(own + compact(addr) for addr, own in fellows)
                    reply = {"id": self.members[key.data], "nodes": nodes, "token": b"whatever"}
                    answer = {"r": reply, "t": message[b"t"], "y": "r", "ip": compact(peer)}
                    key.fileobj.sendto(bencode.encode(answer), peer)


class Forger:
    """Sends datagrams in another's name."""

    def __init__(self):
        # The kernel fills in the header's checksum and length.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send(self, source, to, payload):
        """One datagram that says it is from `source`."""
        udp = struct.pack("!HHHH", source[1], to[1], 8 + len(payload), 0)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, socket.inet_aton(source[0]), socket.inet_aton(to[0]))
        self.socket.sendto(ip + udp + payload, (to[0], 0))
