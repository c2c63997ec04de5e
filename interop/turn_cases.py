"""The TURN cases: coturn's client through our relay."""

from lab import turn
from lab.process import Failure


def check(holds, what):
    if not holds:
        raise Failure(what)


def echoed(lab, options, clients=4, messages=50, to_peer=True):
    """All that coturn's clients send to an echoing peer, or to each other, comes back through our relay."""
    # All are one user.
    relay = turn.ShoalRelay(lab, ["--max-allocations-per-user", "200"])
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
