"""The Napster cases: our client through OpenNap-ng, TekNap on our hub, and each client with the other's files."""

import filecmp
import threading
from urllib.parse import parse_qs, urlsplit

from lab import napster
from lab.process import Failure, wait_until


def check(holds, what):
    if not holds:
        raise Failure(what)


def same(got, shared):
    check(filecmp.cmp(got, shared, shallow=False), f"{got} is not {shared}")


def through(make, firewalled):
    """Our client to our client through a hub: found, pinged, fetched, and resumed."""

    def run(lab):
        hub = make(lab)
        shared = napster.song(lab.folder("shared") / "Blue Fish.mp3", 3000)
        napster.share(lab, hub, "alice", shared.parent, ["--firewalled"] if firewalled else [])
        if not firewalled:
            # OpenNap-ng hides what sharers behind firewalls have from who, as `find`, has no port either.
            hits = wait_until("the file is found", 20, lambda: napster.find(hub, "blue fish", ["--min-bitrate", "100"]), every=0.5)
            check(hits[0]["bitrate"] == 128 and hits[0]["bytes"] == shared.stat().st_size, f"told of as {hits[0]}")
            check(hits[0]["ping_ms"] is not None, f"alice does not answer a ping: {hits[0]}")
            check(not napster.find(hub, "blue fish", ["--min-bitrate", "192"]), "found beyond its bitrate")
        listen = ["--listen", f"{napster.HOST}:0"]
        into = lab.folder("into")
        same(napster.fetch(lab, hub, "blue fish", into, listen), shared)
        half = lab.folder("half")
        (half / "Blue Fish.mp3.part").write_bytes(shared.read_bytes()[: shared.stat().st_size // 2])
        same(napster.fetch(lab, hub, "blue fish", half, listen), shared)

    return run


def two_teknaps(lab, make):
    """Two real clients on a hub: share, search, whois, browse, a room, a private message, a download."""
    hub = make(lab)
    shared = napster.song(lab.folder("shared") / "Blue Fish.mp3", 2000)
    alice, bob = napster.TekNap(lab, "alice", hub), napster.TekNap(lab, "bob", hub)
    both = [alice, bob]
    alice.share(shared.parent, 1)
    bob.type("/search -bitrate 128 blue fish", r"1 MP3's returned", both)
    bob.type("/search -bitrate 64 blue fish", r"Server found no matches", both)
    bob.type("/whois alice", r"Shared\s*: 1", both)
    bob.type("/browse alice", r"1 MP3's returned", both)
    bob.type("/join #shoal", r"Joined channel #shoal", both)
    alice.type("/join #shoal", r"Joined channel #shoal", both)
    bob.hears(r"alice has joined #shoal", others=both)
    alice.type("ahoy in the room")
    bob.hears(r"<alice> ahoy in the room", others=both)
    bob.type("/msg alice between us")
    alice.hears(r"between us", others=both)
    bob.type("/search blue fish", r"1 MP3's returned", both)
    bob.type("/get 1", r"Finished Getting Blue Fish.mp3", both)
    same(bob.home / "Blue Fish.mp3", shared)


def fetch_from_teknap(lab, make):
    """Our client finds and fetches what a real client shares."""
    hub = make(lab)
    shared = napster.song(lab.folder("shared") / "Blue Fish.mp3", 2000)
    alice = napster.TekNap(lab, "alice", hub)
    alice.share(shared.parent, 1)
    pump(lab, alice)
    hits = wait_until("the file is found", 20, lambda: napster.find(hub, "blue fish"), every=0.5)
    check(hits[0]["sharer"] == "alice" and hits[0]["bitrate"] == 128, f"told of as {hits[0]}")
    same(napster.fetch(lab, hub, "blue fish", lab.folder("into")), shared)
    half = lab.folder("half")
    (half / "Blue Fish.mp3.part").write_bytes(shared.read_bytes()[:400_000])
    same(napster.fetch(lab, hub, "blue fish", half), shared)


def teknap_among_sources(lab, make):
    """A real client, which sends from the beginning whatever it is asked for, as a source of `shoal fetch`."""
    hub = make(lab)
    shared = napster.song(lab.folder("shared") / "Blue Fish.mp3", 20000)
    torrent = lab.path("song.torrent")
    napster.shoal(["torrent", "create", shared, "--output", torrent, "--piece-size", "64KiB"])
    alice = napster.TekNap(lab, "alice", hub)
    alice.share(shared.parent, 1)
    pump(lab, alice)
    hits = wait_until("the file is found", 20, lambda: napster.find(hub, "blue fish"), every=0.5)
    source = parse_qs(urlsplit(hits[0]["link"]).query)["xs"][0]
    # From the beginning, and from the middle on.
    for there in (0, shared.stat().st_size // 2):
        into = lab.folder(f"into-{there}")
        if there:
            (into / shared.name).write_bytes(shared.read_bytes()[:there])
        state = lab.path(f"state-{there}")
        events = napster.shoal(["fetch", torrent, "--source", source, "--dir", into, "--listen", f"{napster.HOST}:0", "--no-dht", "--no-lsd", "--state-dir", state, "--timeout", "40", "--json"])
        check(not any(e.get("state") == "banned" for e in events), f"{events}")
        taken = events[-1]["downloaded"]
        check(taken <= shared.stat().st_size - there + (64 << 10), f"{taken} bytes taken, {there} were there")
        same(into / shared.name, shared)


def fetch_by_teknap(lab, make):
    """A real client finds and fetches what ours shares."""
    hub = make(lab)
    shared = napster.song(lab.folder("shared") / "Blue Fish.mp3", 2000)
    napster.share(lab, hub, "alice", shared.parent)
    bob = napster.TekNap(lab, "bob", hub)
    bob.type("/search blue fish", r"1 MP3's returned")
    bob.type("/browse alice", r"1 MP3's returned")
    bob.type("/search blue fish", r"1 MP3's returned")
    bob.type("/get 1", r"Finished Getting Blue Fish.mp3")
    same(bob.home / "Blue Fish.mp3", shared)


def people(lab, make):
    """Our commands about users, and a real client's, of each other: whois, browse, a room, private messages."""
    hub = make(lab)
    shared = napster.song(lab.folder("shared") / "Blue Fish.mp3", 2000)
    alice = napster.TekNap(lab, "alice", hub)
    alice.share(shared.parent, 1)
    alice.type("/join #shoal", r"Joined channel #shoal")
    alice.direct_browse("on")
    stop = pump(lab, alice)
    who = napster.run(hub, ["whois", "alice"])
    check(who[0]["shared"] == 1 and "TekNap" in who[0]["client"], f"told of as {who[0]}")
    for direct in ([], ["--direct"]):
        hits = napster.run(hub, ["browse", "alice", *direct])
        check(hits[0]["file"].endswith("Blue Fish.mp3") and hits[0]["bytes"] == shared.stat().st_size, f"browsed {direct}: {hits[0]}")
    rooms = napster.run(hub, ["rooms"])
    check(any(r["room"] == "#shoal" for r in rooms), f"the rooms are {rooms}")
    stop()
    lines = "ahoy in the room\n/msg alice between us\n/quit\n"
    seen = napster.run(hub, ["chat", "#shoal", "--nick", "bob"], lines)
    check(any(e["what"] == "member" and e["nick"] == "alice" for e in seen), f"heard {seen}")
    alice.hears(r"<bob> ahoy in the room")
    alice.hears(r"between us")


def pump(lab, client):
    """Reads a real client's terminal while a program of ours is waited for."""
    over = threading.Event()

    def read():
        while not over.is_set():
            client.read(0.05)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def stop():
        over.set()
        thread.join()

    lab.at_close(stop)
    return stop


def cases(add, bound):
    """Adds the cases."""
    opennap, ours, teknap = napster.OpenNap, napster.ShoalHub, napster.TekNap
    add("napster: shoal to shoal through OpenNap-ng, directly", through(opennap, False), [opennap])
    add("napster: shoal to shoal through OpenNap-ng, pushed", through(opennap, True), [opennap])
    for hub in (ours, opennap):
        needs = [teknap] if hub is ours else [teknap, opennap]
        add(f"napster: two TekNaps on {hub.name}", bound(two_teknaps, hub), needs)
        add(f"napster: shoal and TekNap talk on {hub.name}", bound(people, hub), needs)
        add(f"napster: TekNap to shoal through {hub.name}", bound(fetch_from_teknap, hub), needs)
        add(f"napster: TekNap among the sources of shoal fetch through {hub.name}", bound(teknap_among_sources, hub), needs)
        add(f"napster: shoal to TekNap through {hub.name}", bound(fetch_by_teknap, hub), needs)
