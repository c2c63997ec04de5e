"""The TURN cases: coturn's client and headless Chromium through our relay."""

import json
import os
import time

from call_cases import Chromium, modules
from lab import turn
from lab.process import Failure, find_program
from lab.usage import cpu_seconds, private_bytes

HERE = os.path.dirname(os.path.abspath(__file__))


def check(holds, what):
    if not holds:
        raise Failure(what)


def echoed(lab, options, clients=4, messages=50, to_peer=True):
    """All that coturn's clients send to an echoing peer, or to each other, comes back through our relay."""
    # All are one user, and may have to begin anew.
    relay = turn.ShoalRelay(lab, ["--max-allocations-per-user", "600"])
    if to_peer:
        peer = turn.Peer(lab)
        options = [*options, "-e", peer.host, "-r", str(peer.port)]
    sent, received, text = turn.uclient(lab, relay, [*options, "-m", clients, "-n", messages, "-z", 5])
    check(sent >= clients * messages, f"only {sent} messages were sent")
    check(received == sent, f"{sent} messages were sent, {received} came back: {text[-800:]}")


def refused(lab):
    """A client with another secret gets nothing."""
    relay = turn.ShoalRelay(lab)
    relay_secret, turn.SECRET = turn.SECRET, "south"
    try:
        turn.uclient(lab, relay, ["-y", "-c", "-n", 2], seconds=20)
    except Failure as failure:
        check("401" in str(failure) or "Cannot complete Allocation" in str(failure) or "still ran" in str(failure), f"refused, but: {failure}")
    else:
        raise Failure("a wrong secret was taken")
    finally:
        turn.SECRET = relay_secret


def browser(lab, transport):
    """Two ends in Chromium that take no way but our relay echo 200 messages of 1,000 bytes."""
    relay = turn.ShoalRelay(lab)
    url = f"turn:{relay.host}:{relay.port}?transport={transport}"
    out = lab.path("browser.json")
    argv = ["node", os.path.join(HERE, "relay.mjs"), modules(), find_program("chromium"), url, *turn.credential("alice"), 200, 1000]
    process = lab.spawn("browser", argv, stdout=out)
    check(process.wait(90) == 0, f"the browser failed: {process.tail()}")
    with open(out) as f:
        got = json.load(f)
    check((got["echoed"], got["wrong"]) == (200, 0), f"not all came back: {got}")
    check((got["local"], got["remote"], got["protocol"]) == ("relay", "relay", transport), f"another way: {got}")
    return f"open after {got['open_ms']} ms, round trip {got['round_trip_ms']:.1f} ms"


def thousand(lab):
    """A thousand allocations at once, of a user each; data go to a peer and come back by each, twice."""
    relay = turn.ShoalRelay(lab)
    peer = turn.Peer(lab)
    clients = [turn.Client(relay, f"user{n}") for n in range(1000)]
    began = time.monotonic()
    ports = {client.allocate() for client in clients}
    took = time.monotonic() - began
    check(len(ports) == len(clients), f"{len(ports)} ports for {len(clients)} allocations")
    for client in clients:
        client.bind(peer.host, peer.port)
    before = cpu_seconds(relay.process.pid)
    for turn_of in range(2):
        # A hundred at a time: what waits at the peer's one socket is bounded.
        for at in range(0, len(clients), 100):
            some = clients[at : at + 100]
            for n, client in enumerate(some):
                client.send(b"%d %d" % (turn_of, at + n))
            for n, client in enumerate(some):
                got = client.receive()
                check(got == b"%d %d" % (turn_of, at + n), f"client {at + n} got {got}")
    spent = cpu_seconds(relay.process.pid) - before
    memory = private_bytes(relay.process.pid)
    for client in clients:
        client.close()
    return f"got in {took:.2f} s, {memory / 2**20:.0f} MiB, {spent * 1e6 / 4000:.0f} µs of CPU a packet"


def cases(add, bound):
    """Adds the cases."""
    ways = {
        "UDP, channels": [],
        "UDP, even and reserved ports": None,
        "UDP, Send and Data": ["-s"],
        "TCP, channels": ["-t"],
        "TCP, Send and Data": ["-t", "-s"],
        "extra requests": ["-G"],
        "fragmented datagrams": ["-l", "4000"],
    }
    for name, options in ways.items():
        # Without -c each session has a second allocation at the next port.
        options = ["-c", *options] if options is not None else []
        add(f"turn: coturn's client to a peer, {name}", bound(echoed, options), [turn.Uclient])
    add("turn: coturn's clients to each other", bound(echoed, ["-y", "-c"], to_peer=False), [turn.Uclient])
    add("turn: coturn's clients to each other by TCP", bound(echoed, ["-y", "-c", "-t"], to_peer=False), [turn.Uclient])
    add("turn: a hundred of coturn's clients at once", bound(echoed, ["-c"], clients=100, messages=20), [turn.Uclient])
    add("turn: coturn's client with a wrong secret", refused, [turn.Uclient])
    add("turn: a thousand allocations at once", thousand, [turn.Uclient])
    for transport in ("udp", "tcp"):
        add(f"turn: Chromium to Chromium by the relay alone, {transport.upper()}", bound(browser, transport), [Chromium])
