"""The Gnutella cases: shoal with gtk-gnutella and GnutellaBun, in both roles, each on a machine of its
own in a small internet."""

import filecmp
import os
import time

from lab import gnutella
from lab.gnutella import GnutellaBun, GtkGnutella, ShoalNode
from lab.process import Failure, wait_until
from lab.world import Host

MIB = 1 << 20


def check(holds, what):
    if not holds:
        raise Failure(what)


def same(got, shared):
    check(filecmp.cmp(got, shared, shallow=False), f"{got} is not {shared}")


def share(lab, name, size):
    """A folder with one file of random bytes; everybody may read it."""
    folder = lab.folder("shared")
    os.chmod(lab.dir, 0o755)
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def attach(peer, to):
    """The peer connects to a node of ours."""
    if isinstance(peer, GtkGnutella):
        peer.join(to)
    else:
        peer.type(f"connect {to.addr}", r"connected")


def gtkg_gets(gtkg, path, words, seconds=180):
    """gtk-gnutella searches by words, and fetches what is found."""
    gtkg.wants(gnutella.sha1_urn(path), path.name)
    gtkg.search(words)
    same(gtkg.got(path.name, seconds), path)


def bun_gets(bun, path, words, seconds=60):
    """GnutellaBun searches by words, and fetches what is found."""
    number = bun.find(words, path.name, seconds)
    into = bun.home / f"got-{number}.ogg"
    bun.type(f"download {number} {into}")
    wait_until(f"GnutellaBun has {path.name}", seconds, lambda: into.exists() and into.stat().st_size == path.stat().st_size, every=0.2)
    same(into, path)


def gets(peer, path, words):
    (gtkg_gets if isinstance(peer, GtkGnutella) else bun_gets)(peer, path, words)


def fetched(lab, path, sources, more=(), host=None, seconds=120):
    got, events, log = gnutella.fetch(lab, gnutella.sha1_urn(path), sources, host=host, more=more, seconds=seconds)
    same(got, path)
    return events, log


def their_leaf(lab, make):
    """A leaf of theirs on our ultrapeer, beside a leaf of ours: each finds and fetches the other's file."""
    theirs, ours = share(lab, "amber river song.ogg", 3 * MIB // 2), share(lab, "velvet mountain tune.ogg", 400_000)
    up = ShoalNode(lab, ultrapeer=True)
    leaf = ShoalNode(lab, share=ours.parent, connect=[up.addr])
    peer = make(lab, share=theirs.parent, **({"window": True} if make is GtkGnutella else {}))
    attach(peer, up)
    up.wait_links(leaves=2)
    hits = gnutella.find(lab, up, "amber river")
    check(hits[0]["bytes"] == theirs.stat().st_size and hits[0]["addr"] == peer.addr, f"told of as {hits[0]}")
    fetched(lab, theirs, [peer.addr])
    gnutella.find(lab, up, gnutella.sha1_urn(ours), wants=lambda hit: hit["addr"] == leaf.addr)
    gets(peer, ours, "velvet mountain")
    check(up.stats()["leaves"] >= 2, "a leaf left")


def our_leaf(lab, make):
    """A leaf of ours on an ultrapeer of theirs: what it shares is found through it, and it finds theirs."""
    theirs, ours = share(lab, "amber river song.ogg", 700_000), share(lab, "velvet mountain tune.ogg", 400_000)
    up = make(lab, share=theirs.parent, ultrapeer=True)
    leaf = ShoalNode(lab, share=ours.parent, connect=[up.addr])
    leaf.wait_links(ultrapeers=1)
    hits = gnutella.find(lab, up, "amber river")
    check(hits[0]["addr"] == up.addr, f"told of as {hits[0]}")
    fetched(lab, theirs, [up.addr])
    # Its table of words must have come first.
    gnutella.find(lab, up, "velvet mountain", wants=lambda hit: hit["addr"] == leaf.addr)
    seeker = make(lab, **({"window": True} if make is GtkGnutella else {"tls": False}))
    attach(seeker, up)
    gets(seeker, ours, "velvet mountain")


def ultrapeers(lab, make):
    """Two ultrapeers, ours and theirs, and a leaf on each: tables both ways, files found across."""
    theirs, ours = share(lab, "amber river song.ogg", 700_000), share(lab, "velvet mountain tune.ogg", 400_000)
    up = ShoalNode(lab, ultrapeer=True)
    peer = make(lab, ultrapeer=True)
    attach(peer, up)
    up.wait_links(ultrapeers=1)
    ShoalNode(lab, share=ours.parent, connect=[up.addr]).wait_links(ultrapeers=1)
    leaf = make(lab, share=theirs.parent, **({} if make is GtkGnutella else {"tls": False}))
    attach(leaf, peer)
    gnutella.find(lab, up, "amber river", seconds=120, wants=lambda hit: hit["addr"] == leaf.addr)
    gnutella.find(lab, peer, "velvet mountain", seconds=120)
    check(up.stats()["ultrapeers"] >= 1, "the ultrapeer left")


def holds(lab, make):
    """Links of both kinds that last: $SHOAL_HOLD seconds (60)."""
    seconds = float(os.environ.get("SHOAL_HOLD", "60"))
    theirs, ours = share(lab, "amber river song.ogg", 700_000), share(lab, "velvet mountain tune.ogg", 400_000)
    up = ShoalNode(lab, ultrapeer=True, share=ours.parent)
    leaf = make(lab, share=theirs.parent)
    attach(leaf, up)
    peer = make(lab, ultrapeer=True)
    attach(peer, up)
    below = ShoalNode(lab, connect=[peer.addr])
    up.wait_links(ultrapeers=1, leaves=1)
    below.wait_links(ultrapeers=1)
    end = time.monotonic() + seconds
    asked = 0
    while time.monotonic() < end:
        gnutella.find(lab, up, "amber river", seconds=30)
        gnutella.find(lab, peer, "velvet mountain", seconds=30)
        asked += 2
        check(up.stats()["ultrapeers"] >= 1 and up.stats()["leaves"] >= 1, f"a neighbour left: {up.stats()}")
        check(below.stats()["ultrapeers"] >= 1, "our leaf lost its ultrapeer")
        # That a link stays is seen only by time that passes.
        time.sleep(min(15, max(0, end - time.monotonic())))
    return f"{seconds:.0f} s, {asked} searches answered"


def short_answers(lab, make):
    """gtk-gnutella answers with less than is asked for; the file is whole all the same."""
    path = share(lab, "amber river song.ogg", 3 * MIB)
    peer = make(lab, share=path.parent)
    events, log = fetched(lab, path, [peer.addr])
    known = [e for e in events if e["event"] == "file_known"][0]
    check(known.get("tree"), "no hash tree came")


def queued(lab, make):
    """All slots of gtk-gnutella are taken: our downloader waits in its queue, and gets the file."""
    path = share(lab, "amber river song.ogg", 3 * MIB)
    peer = make(lab, share=path.parent, settings={"max_simultaneous_uploads": 2})
    slow = [gnutella.slow_download(lab, peer.addr, gnutella.sha1_urn(path)) for _ in range(2)]
    wait_until("the slow downloads run", 30, lambda: all(s.stat().st_size > 0 for s in slow))
    events, _ = fetched(lab, path, [peer.addr], seconds=300)
    waits = [e for e in events if e["event"] == "source_queued"]
    check(waits, "it never waited")
    return f"waited at place {waits[0].get('position')}"


def alternates(lab, make):
    """gtk-gnutella fetches a file of ours, and shares it from then on: who fetches it from us hears of that,
    and fetches from both."""
    path = share(lab, "amber river song.ogg", 4 * MIB)
    server = gnutella.ShoalServe(lab, path.parent, more=["--max-range", "262144"])
    up = ShoalNode(lab, ultrapeer=True)
    peer = make(lab)
    attach(peer, up)
    up.wait_links(leaves=1)
    peer.get_from(server.addr, gnutella.sha1_urn(path), path.name)
    same(peer.got(path.name, 90), path)
    events, _ = fetched(lab, path, [server.addr])
    known = max(e["known"] for e in events if e["event"] == "file_progress")
    check(known >= 2, f"no other host was told: {known}")
    sources = max(e["sources"] for e in events if e["event"] == "file_progress")
    return f"{known} hosts known, {sources} at once"


def corrupt(lab, make):
    """A host that serves wrong bytes beside gtk-gnutella: found by the hash tree, and dropped."""
    path = share(lab, "amber river song.ogg", 4 * MIB)
    peer = make(lab, share=path.parent)
    wrong = lab.folder("wrong") / path.name
    wrong.write_bytes(path.read_bytes())
    server = gnutella.ShoalServe(lab, wrong.parent)
    # As hashed, by its looks; but not within.
    stat = wrong.stat()
    with open(wrong, "r+b") as f:
        for at in range(1000, stat.st_size, 40_000):
            f.seek(at)
            f.write(b"wrong")
    os.utime(wrong, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    events, _ = fetched(lab, path, [server.addr, peer.addr])
    banned = [e["addr"] for e in events if e["event"] == "source_banned"]
    check(banned == [server.addr], f"dropped: {banned}")


def push_to_theirs(lab, make):
    """A gtk-gnutella that nobody can connect to, on our ultrapeer: it is asked to connect to us."""
    path = share(lab, "amber river song.ogg", MIB)
    up = ShoalNode(lab, ultrapeer=True)
    peer = make(lab, host=Host(lab, firewalled=True), share=path.parent)
    attach(peer, up)
    up.wait_links(leaves=1)
    gnutella.find(lab, up, "amber river")
    host = Host(lab)
    fetched(lab, path, [], host=host, more=["--connect", up.addr, "--words", "amber river", "--listen", f"{host.ip}:6346"])


def push_to_ours(lab, make):
    """A leaf of ours that nobody can connect to: theirs asks it to connect, and gets the file."""
    path = share(lab, "velvet mountain tune.ogg", 400_000)
    up = ShoalNode(lab, ultrapeer=True)
    ShoalNode(lab, host=Host(lab, firewalled=True), share=path.parent, connect=[up.addr], more=["--firewalled"]).wait_links(ultrapeers=1)
    peer = make(lab, window=True)
    attach(peer, up)
    up.wait_links(leaves=2)
    gtkg_gets(peer, path, "velvet mountain", 120)


def secure(lab, make):
    """The link and the transfers between us and gtk-gnutella go by TLS, both ways: ours change to it, and begin with
    it where an answer says that the sharer speaks it."""
    theirs, ours = share(lab, "amber river song.ogg", 700_000), share(lab, "velvet mountain tune.ogg", 3 * MIB)
    up = ShoalNode(lab, ultrapeer=True, share=ours.parent)
    peer = make(lab, share=theirs.parent, window=True)
    attach(peer, up)
    up.wait_links(leaves=1)
    up.says("relation=Leaf tls=true", 10)
    gtkg_gets(peer, ours, "velvet mountain")
    up.says("secure=true", 5)
    _, log = fetched(lab, theirs, [peer.addr])
    check("a host answers" in log and "secure=true" in log and "secure=false" not in log, f"in clear: {log[-800:]}")
    # Only what an answer says makes it begin with TLS: who is named by the user is asked to change.
    host = Host(lab)
    _, log = fetched(lab, theirs, [], host=host, more=["--connect", up.addr, "--words", "amber river", "--listen", f"{host.ip}:6346"])
    check("secure=true" in log and "secure=false" not in log, f"in clear: {log[-800:]}")
    _, log = fetched(lab, theirs, [peer.addr], more=["--no-tls"])
    check("secure=false" in log and "secure=true" not in log, f"by TLS: {log[-800:]}")


def by_hash(lab, make):
    """By urn:sha1 alone: gtk-gnutella asks for nothing but the hash, finds ours and gets it; we find theirs."""
    theirs, ours = share(lab, "amber river song.ogg", 300_000), share(lab, "velvet mountain tune.ogg", 400_000)
    up = ShoalNode(lab, ultrapeer=True, log="shoal_node=trace")
    leaf = ShoalNode(lab, share=ours.parent, connect=[up.addr])
    peer = make(lab, window=True, share=theirs.parent)
    attach(peer, up)
    up.wait_links(leaves=2)
    urn = gnutella.sha1_urn(ours)
    # Its table must have come first, which has its files' hashes.
    gnutella.find(lab, up, urn, wants=lambda hit: hit["addr"] == leaf.addr)
    before = len(up.queries())
    peer.wants(urn, "wanted.bin")
    peer.search(urn)
    same(peer.got("wanted.bin", 120), ours)
    asked = up.queries()[before:]
    # A lone backslash is how it asks for no words.
    check(asked and all(text in ("", "\\\\") and urn in urns for text, urns in asked), f"asked for {asked}")
    # Of a gtk-gnutella that is asked itself; its table has no hashes, so that nobody else passes them on to it.
    far = make(lab, ultrapeer=True, share=theirs.parent)
    gnutella.find(lab, far, gnutella.sha1_urn(theirs), wants=lambda hit: hit["addr"] == far.addr)
    return f"{len(asked)} queries, by hash alone"


def cases(add, bound):
    """Adds the cases."""
    ours, gtkg, bun = ShoalNode, GtkGnutella, GnutellaBun
    for peer in (gtkg, bun):
        add(f"gnutella: {peer.name} as a leaf of shoal", bound(their_leaf, peer), [ours, peer])
        add(f"gnutella: shoal as a leaf of {peer.name}", bound(our_leaf, peer), [ours, peer])
        add(f"gnutella: {peer.name} and shoal as ultrapeers", bound(ultrapeers, peer), [ours, peer])
        add(f"gnutella: links with {peer.name} hold", bound(holds, peer), [ours, peer])
    add("gnutella: by urn:sha1 alone with gtk-gnutella", bound(by_hash, gtkg), [ours, gtkg])
    add("gnutella: short answers of gtk-gnutella", bound(short_answers, gtkg), [ours, gtkg])
    add("gnutella: the queue of gtk-gnutella", bound(queued, gtkg), [ours, gtkg])
    add("gnutella: alternate locations with gtk-gnutella", bound(alternates, gtkg), [ours, gtkg])
    add("gnutella: a corrupt host beside gtk-gnutella", bound(corrupt, gtkg), [ours, gtkg])
    add("gnutella: a firewalled gtk-gnutella is pushed", bound(push_to_theirs, gtkg), [ours, gtkg])
    add("gnutella: a firewalled shoal is pushed by gtk-gnutella", bound(push_to_ours, gtkg), [ours, gtkg])
    add("gnutella: TLS with gtk-gnutella", bound(secure, gtkg), [ours, gtkg])
