"""The supernode cases: a real OpenNap client as a child of a supernode, both ways."""

from lab import napster
from lab.process import wait_until
from lab.supernode import Overlay
from napster_cases import check, pump, same


def hub_and_far(lab):
    """A supernode that is a hub, and another supernode that is its neighbour."""
    overlay = Overlay(lab)
    hub = overlay.node("hub", ["--supernode", "--keep-role", "--napster", f"{napster.HOST}:0"])
    overlay.node("other", ["--supernode", "--keep-role"])
    wait_until("they are neighbours", 20, lambda: any(e["neighbours"] for e in hub.events("supernode_stats")))
    return overlay, hub


def fetch_from_teknap(lab):
    """Any peer of the overlay finds and fetches what TekNap shares."""
    overlay, hub = hub_and_far(lab)
    shared = napster.song(lab.folder("shared") / "Blue Fish.mp3", 2000)
    alice = napster.TekNap(lab, "alice", hub)
    alice.share(shared.parent, 1)
    pump(lab, alice)
    # The first that asks makes the supernode fetch it: until then nobody knows its hash.
    hits = wait_until("the file is found", 40, lambda: overlay.find("blue fish"), every=0.5)
    check(hits[0]["bytes"] == shared.stat().st_size and hits[0]["sharer"] == "hub", f"told of as {hits[0]}")
    same(overlay.fetch("blue fish", lab.folder("into")), shared)


def fetch_by_teknap(lab):
    """TekNap finds and fetches what peers of the overlay share."""
    overlay, hub = hub_and_far(lab)
    shared = napster.song(lab.folder("shared") / "Blue Fish.mp3", 2000)
    far = overlay.node("far", ["--share", shared.parent])
    wait_until("the peer has a supernode", 20, lambda: far.events("home"))
    bob = napster.TekNap(lab, "bob", hub)
    bob.type("/search blue fish", r"1 MP3's returned")
    bob.type("/whois overlay", r"the overlay")
    bob.type("/search blue fish", r"1 MP3's returned")
    bob.type("/get 1", r"Finished Getting Blue Fish.mp3")
    same(bob.home / "Blue Fish.mp3", shared)
    check(hub.events("lent"), "the hub did not send it")


def cases(add):
    """Adds the cases."""
    add("supernode: a peer of the overlay fetches from TekNap", fetch_from_teknap, [napster.TekNap])
    add("supernode: TekNap fetches from a peer of the overlay", fetch_by_teknap, [napster.TekNap])
