"""The DHT cases: magnet links that nothing but the DHT resolves, and every make of node storing
and finding what every other stored and finds."""

import hashlib
import time

import dht_attacks
from lab import clients, dht, net
from lab.process import Failure, Skip, wait_until
from lab.torrent import MIB

# Transmission takes part only when it knows more than eight nodes.
NETWORK = 14


def magnet_case(content, check_copy):
    """Both are told of a node of the DHT and of nothing else."""

    def run(lab, giver, taker):
        payload = content(lab, 2 * MIB)
        network = dht.ShoalNodes(lab, NETWORK)
        wait_until("the network has formed", 30, lambda: network.contacts() >= 8)
        nodes = network.addrs
        giver.seed(lab, payload, payload.payload.parent, **giver.dht(lab, nodes))
        into = lab.folder("into")
        # The info-hash and nothing else: no address, no tracker.
        link = f"magnet:?xt=urn:btih:{payload.info_hash.hex()}"
        fetch = taker.fetch(lab, link, into, **taker.dht(lab, nodes))
        fetch.wait_complete(150)
        check_copy(payload, into, taker)

    return run


def matrix_case(lab, makes):
    """Every writer and every reader, for peers, immutable, mutable and salted values."""
    everyone = []
    for make in [dht.ShoalNodes, *makes]:
        # One after the other: the mainline crate does not try again when nobody answers its first query.
        nodes = make(lab, 6, everyone[0].endpoint if everyone else None)
        everyone.append(nodes)
        wait_until(f"the {nodes.name} nodes know others", 60, lambda: nodes.contacts() >= 4, every=0.5)
    failures, cells = [], 0

    def check(writer, reader, what, wanted, read):
        nonlocal cells
        cells += 1
        # Not every program tells truly when it has stored.
        end = time.monotonic() + 15
        found = read()
        while found != wanted and time.monotonic() < end:
            time.sleep(0.5)
            found = read()
        if found != wanted:
            failures.append(f"{reader.name} reads {what} of {writer.name}: {found!r}, not {wanted!r}")

    for n, writer in enumerate(everyone):
        key = hashlib.sha1(writer.name.encode()).hexdigest()
        port = writer.announce(key, 7000 + n)
        plain = f"immutable by {writer.name}"
        immutable = writer.put(plain)
        mutable = writer.put(f"mutable by {writer.name}", mutable=True)
        salted = writer.put(f"salted by {writer.name}", mutable=True, salt="pepper")
        for reader in everyone:
            check(writer, reader, "peers", {port}, lambda: {int(p.rsplit(":", 1)[1]) for p in reader.peers(key)})
            check(writer, reader, "immutable", plain, lambda: reader.get(immutable))
            check(writer, reader, "mutable", f"mutable by {writer.name}", lambda: reader.get(mutable))
            check(writer, reader, "salted", f"salted by {writer.name}", lambda: reader.get(salted, "pepper"))
    if failures:
        raise Failure(f"{len(failures)} of {cells} cells: " + "; ".join(failures))


def cases(add, bound, single, check_copy):
    """Adds the cases."""
    us = clients.Shoal
    run = magnet_case(single, check_copy)
    add(f"DHT alone, {us.name} to {us.name}", bound(run, us, us), [Isolated])
    for other in (clients.Libtorrent, clients.Transmission, clients.Aria2):
        add(f"DHT alone, {other.name} to {us.name}", bound(run, other, us), [Isolated, other])
        add(f"DHT alone, {us.name} to {other.name}", bound(run, us, other), [Isolated, other])
    makes = [dht.LibtorrentNodes, dht.NpmNodes]
    add("DHT: each stores, each finds", bound(matrix_case, makes), [Isolated, *makes])
    # Alone with us: libtorrent and bittorrent-dht send it transaction ids that it does not answer.
    add("DHT: with the mainline crate, each stores, each finds", bound(matrix_case, [dht.CrateNodes]), [Isolated, dht.CrateNodes])
    dht_attacks.cases(add, [Isolated])


class Isolated:
    """A namespace, in which nobody hears of the others but by the DHT."""

    @staticmethod
    def need():
        if not net.isolated():
            raise Skip("there is no namespace here")
