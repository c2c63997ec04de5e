"""Attacks on running nodes of the DHT, on sockets: what SECURITY.md says that they bring.

The nodes live on 198.18.0.0/15, which is nobody's and which they take for the Internet, so that
all their limits hold; all of it is on the loopback of the laboratory's namespace.
"""

import hashlib
import json
import os
import random
import socket
import subprocess
import threading
import time

from lab import bencode, krpc
from lab.clients import shoal
from lab.process import Failure, wait_until

PORT = 6881


# Networks of a case: its nodes' are from 0, attackers' from 20, users' from 60.
NETWORKS = 80
ATTACKERS, USERS = 20, 60


class Internet:
    """Networks of /24, `NETWORKS` for each case so that they keep apart, and nodes in the first."""

    def __init__(self, lab, case, count):
        self.lab = lab
        self.base = case * NETWORKS
        self.nodes = []
        self._add([self.host(n) for n in range(NETWORKS)])
        for n in range(count):
            self.start(n)
        wait_until("the network has formed", 30, lambda: all(self.status(n).get("contacts", 0) >= min(8, count - 1) for n in range(count)))

    @staticmethod
    def _add(addresses):
        lines = "\n".join(f"addr replace {a}/32 dev lo" for a in addresses)
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)

    def host(self, network, number=1):
        network += self.base
        return f"198.{18 + network // 256}.{network % 256}.{number}"

    def own_network(self, network):
        """All addresses of one /24."""
        hosts = [self.host(network, number) for number in range(1, 255)]
        self._add(hosts)
        return hosts

    def start(self, n):
        events, contacts = self.lab.path("node.jsonl"), self.lab.path("contacts")
        addr = (self.host(n), PORT)
        argv = [shoal.program(), "dht", "node", "--listen", f"{addr[0]}:{PORT}", "--bootstrap", f"{self.host(0)}:{PORT}"]
        argv += ["--json", "--stats-interval", "1", "--contacts", contacts]
        process = self.lab.spawn("node", argv, stdout=events)
        self.nodes.append((addr, process, events, contacts))

    @property
    def addrs(self):
        return [node[0] for node in self.nodes]

    def status(self, n):
        lines = [line for line in self.nodes[n][2].read_text().splitlines() if '"dht_status"' in line]
        return json.loads(lines[-1]) if lines else {}

    def run(self, user, verb, *args, accept=(0,)):
        """What a user does, and what it printed."""
        argv = [shoal.program(), "dht", verb, "--json", "--listen", f"{self.host(USERS + user)}:0", "--timeout", "15"]
        argv += ["--bootstrap", f"{self.host(0)}:{PORT}", *[str(a) for a in args]]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        if ran.returncode not in accept:
            raise Failure(f"dht {verb} ended with code {ran.returncode}: {ran.stderr.strip()}")
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def client(self, user):
        return krpc.Client(self.host(USERS + user))

    def get(self, user, name):
        return [e["text"] for e in self.run(user, "get", name, accept=(0, 3)) if e["event"] == "value"]

    def table(self, n):
        """Ends a node, and reads whom it knew."""
        _, process, _, contacts = self.nodes[n]
        process.stop()
        raw = contacts.read_bytes()
        return [addr for _, addr in krpc.nodes_of(bencode.decode(raw[raw.index(b"d3:id4") :]))]


def demand(holds, what):
    if not holds:
        raise Failure(what)


def sybils_case(lab):
    """Thirty machines in as many networks, all nearer to a key than any honest node."""
    internet = Internet(lab, 0, 16)
    value = "what they want to hide"
    target = hashlib.sha1(b"%d:%s" % (len(value), value.encode())).digest()
    near = lambda n: target[:-1] + bytes([target[-1] ^ (n + 1)])
    impostors = krpc.Impostors({(internet.host(ATTACKERS + n), PORT): near(n) for n in range(30)})
    try:
        for _ in range(5):
            impostors.introduce(internet.addrs)
            time.sleep(1)
        known = internet.client(0)
        named = {addr for node in internet.addrs for _, addr in krpc.nodes_of(known.ask(node, "find_node", {"target": target}) or {})}
        demand(named & set(impostors.members), "no node names an impostor: this attacks nothing")
        before = impostors.asked
        for n in range(3):
            internet.run(1 + n, "put", value)
            internet.run(1 + n, "announce", target.hex(), "--port", 7001 + n)
            demand(internet.get(5 + n, target.hex()) == [value], "the value is not found")
            peers = internet.run(10 + n, "peers", target.hex(), accept=(0, 3))
            wanted = f"{internet.host(USERS + 1 + n)}:{7001 + n}"
            demand(any(wanted in e.get("peers", []) for e in peers), f"{wanted} is not found")
        demand(impostors.asked > before, "no lookup came near an impostor: this attacks nothing")
        return f"{len(named & set(impostors.members))} impostors known, asked {impostors.asked - before} times; 3 values and 3 peers found"
    finally:
        impostors.stop()


def poison_case(lab):
    """One owner of a whole /24, with an identifier near every node's for each address."""
    internet = Internet(lab, 1, 12)
    client = internet.client(0)
    name = internet.run(1, "put", "kept")[-1]["target"]
    ids = [client.ask(addr, "ping", {})[b"id"] for addr in internet.addrs]
    near = lambda n: ids[n % len(ids)][:-1] + bytes([n])
    evil = internet.own_network(ATTACKERS)
    impostors = krpc.Impostors({(ip, PORT): near(n) for n, ip in enumerate(evil)})
    try:
        for _ in range(10):
            impostors.introduce(internet.addrs)
            time.sleep(1)
        for n in range(4):
            demand(internet.get(5 + n, name) == ["kept"], "the value is not found")
        most = max(len(set(internet.table(n)) & set(impostors.members)) for n in range(len(internet.nodes)))
        demand(most <= 10, f"a table holds {most} nodes of one /24")
        demand(most > 0, "no table holds an impostor: this attacks nothing")
        return f"{most} of 254 in the table that holds most, asked {impostors.asked} times; 4 lookups not turned"
    finally:
        impostors.stop()


def token_case(lab):
    """Announces and puts with no token, a made-up one, and one of another address."""
    internet = Internet(lab, 2, 2)
    node = internet.addrs[1]
    honest, thief = internet.client(0), internet.client(1)
    key = os.urandom(20)
    token = honest.ask(node, "get_peers", {"info_hash": key})[b"token"]
    value = {"v": "x", "target": hashlib.sha1(b"1:x").digest()}
    for wrong in ({}, {"token": os.urandom(len(token))}, {"token": b""}, {"token": token}):
        announced = thief.error(node, "announce_peer", {"info_hash": key, "port": 7001, **wrong})
        demand(announced == 203, f"a stranger's announce with {wrong} is answered with {announced}, not 203")
        put = thief.error(node, "put", {**value, **wrong})
        demand(put == 203, f"a stranger's put with {wrong} is answered with {put}, not 203")
    demand(b"values" not in honest.ask(node, "get_peers", {"info_hash": key}), "something was stored without a token")
    demand(b"v" not in honest.ask(node, "get", {"target": value["target"]}), "something was stored without a token")
    accepted = honest.error(node, "announce_peer", {"info_hash": key, "port": 7001, "token": token})
    demand(accepted == 0, f"whoever owns the token is refused with {accepted}")


def flood_case(lab):
    """Twenty thousand queries from one address, as fast as they go."""
    internet = Internet(lab, 3, 4)
    node = internet.addrs[1]
    flooder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flooder.bind((internet.host(ATTACKERS), 0))
    answers, stop = [0], threading.Event()

    def hear():
        flooder.settimeout(0.2)
        while not stop.is_set():
            try:
                flooder.recv(65536)
                answers[0] += 1
            except TimeoutError:
                pass

    threading.Thread(target=hear, daemon=True).start()
    other, missed, worst = internet.client(1), 0, 0.0
    start = time.monotonic()
    for n in range(20_000):
        flooder.sendto(krpc.query(os.urandom(20), "get_peers", {"info_hash": os.urandom(20)}), node)
        if n % 1000 == 0:
            asked = time.monotonic()
            # One more try is any client's.
            if not (other.ask(node, "ping", {}) or other.ask(node, "ping", {})):
                missed += 1
            worst = max(worst, time.monotonic() - asked)
    took = time.monotonic() - start
    time.sleep(0.5)
    stop.set()
    most = 60 + 20 * (took + 1)
    demand(answers[0] <= most, f"the flooder got {answers[0]} answers in {took:.1f} s, more than {most:.0f}")
    demand(missed == 0, f"{missed} of 20 honest pings were not answered")
    demand(internet.status(1)["memory"] < 1_000_000, "the node holds more than a megabyte")
    return f"{answers[0]} of 20,000 answered in {took:.1f} s; 20 honest pings answered, the slowest after {worst * 1e3:.1f} ms"


def amplification_case(lab):
    """A thousand queries of each kind in the name of a victim, who counts what comes."""
    internet = Internet(lab, 4, 10)
    node = internet.addrs[1]
    # Something to be asked for: a value as long as may be, and a key with many peers.
    big = "x" * 990
    client = internet.client(0)
    stored = client.ask(node, "get", {"target": bytes(20)})
    target = hashlib.sha1(b"990:" + big.encode()).digest()
    demand(client.error(node, "put", {"v": big, "token": stored[b"token"], "target": target}) == 0, "nothing was stored")
    key = os.urandom(20)
    for ip in internet.own_network(USERS + 1)[:60]:
        peer = krpc.Client(ip)
        token = peer.ask(node, "get_peers", {"info_hash": key})[b"token"]
        demand(peer.error(node, "announce_peer", {"info_hash": key, "port": 7001, "token": token}) == 0, "nothing was announced")
    forger = krpc.Forger()
    kinds = [
        ("ping", {}),
        ("find_node", {"target": bytes(20)}),
        ("get_peers", {"info_hash": key}),
        ("get_peers", {"info_hash": key, "scrape": 1}),
        ("sample_infohashes", {"target": bytes(20)}),
        ("get", {"target": target}),
        ("nonsense", {}),
    ]
    factors = []
    for number, (method, args) in enumerate(kinds):
        # A victim of its own for each, so that no limit of another helps.
        victim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        victim.bind((internet.host(ATTACKERS + number), PORT))
        victim.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sent = got = answers = 0
        for n in range(1000):
            payload = krpc.query(os.urandom(20), method, args, tid=b"a")
            forger.send(victim.getsockname(), node, payload)
            sent += len(payload)
            time.sleep(0.001)
        victim.settimeout(1)
        try:
            while True:
                got += len(victim.recv(65536))
                answers += 1
        except TimeoutError:
            pass
        victim.close()
        demand(answers > 0, f"{method} was not answered at all: this attacks nothing")
        demand(got <= 8 * sent, f"{method}: {sent} bytes in another's name brought that one {got}")
        # As if every query were answered, which is what an attacker with many victims gets.
        factors.append(f"{method} {got / sent:.2f} ({got / answers / (sent / 1000):.1f} each of {answers} answered)")
    return "bytes back for each byte: " + ", ".join(factors)


def puts_case(lab):
    """Oversized values and salts, broken signatures, replays of what was signed before."""
    internet = Internet(lab, 5, 2)
    node = internet.addrs[1]
    client = internet.client(0)
    token = lambda target: client.ask(node, "get", {"target": target})[b"token"]

    def put(item, **more):
        target = hashlib.sha1(item["k"] + item.get("salt", b"")).digest() if "k" in item else hashlib.sha1(bencode.encode(item["v"])).digest()
        return client.error(node, "put", {**item, "token": token(target), "target": target, **more})

    def signed(value):
        """A genuine item, as a node tells it."""
        event = [e for e in internet.run(1, "put", "--key", lab.dir / "owner.key", "--salt", "s", value) if e["event"] == "stored"][0]
        reply = client.ask(node, "get", {"target": bytes.fromhex(event["target"])})
        return {"k": reply[b"k"], "sig": reply[b"sig"], "seq": reply[b"seq"], "v": reply[b"v"], "salt": b"s"}

    old, new = signed("first"), signed("second")
    holds = lambda: client.ask(node, "get", {"target": hashlib.sha1(new["k"] + b"s").digest()})[b"v"]
    wrong = [
        ("a value of 1,001 bytes", 205, {"v": "x" * 997}),
        ("a salt of 65 bytes", 207, {**new, "salt": b"s" * 65}),
        ("a changed value", 206, {**new, "seq": new["seq"] + 1}),
        ("a changed signature", 206, {**new, "sig": bytes(64)}),
        ("another's key", 206, {**new, "k": bytes(32)}),
        ("the signed value from before", 302, old),
    ]
    for what, code, item in wrong:
        answer = put(item)
        demand(answer == code, f"{what} is answered with {answer}, not {code}")
        demand(holds() == b"second", f"{what} changed what is stored")
    answer = put(new, cas=old["seq"])
    demand(answer == 301, f"a wrong cas is answered with {answer}, not 301")
    demand(put(new) == 0, "the newest value is refused")
    raw = b"d1:ad2:id20:" + bytes(20) + b"1:v2000000000:xe1:q3:put1:t2:aa1:y1:qe"
    client.socket.sendto(raw, node)
    client.socket.sendto(random.randbytes(60_000), node)
    demand(client.ask(node, "ping", {}) is not None, "the node is gone")


ATTACKS = {
    "Sybils around a key": sybils_case,
    "table poisoning": poison_case,
    "token forgery": token_case,
    "flood from one address": flood_case,
    "amplification by a spoofed source": amplification_case,
    "oversized and out-of-order puts": puts_case,
}


def cases(add, needs):
    """Adds the cases."""
    for name, run in ATTACKS.items():
        add(f"DHT attack: {name}", run, needs)
