"""The interop cases: what shoal and the clients of the world must do together.

Every case gets a `Lab`, ends quietly when its claim holds, and raises `Failure` when not. All
results are compared byte for byte. "Us" is shoal; `run.py --us libtorrent` puts another client
in its place, which tests the harness.
"""

import os
import socket
import subprocess
import sys
import time

import call_cases
import call_groups
import call_lab
import call_pairs
import dht_cases
import gnutella_cases
import mapping_cases
import napster_cases
import overlay_cases
import reach_bulk
import reach_cases
import sound_cases
import supernode_cases
import turn_cases
from lab import clients, net, torrent
from lab.process import Failure, Skip, find_program, need_program, wait_until
from lab.torrent import KIB, MIB
from lab.tracker import Tracker

GIB = 1024 * MIB


class Case:
    def __init__(self, name, run, needs=(), extra=False):
        self.name = name
        self.run = run
        self.needs = needs
        # Only with --all: needs a program that Debian does not have, or takes long.
        self.extra = extra


def single(lab, size=24 * MIB, piece_len=256 * KIB, **options):
    payload = torrent.random_file(lab.folder("payload") / "one file.bin", size + 12345, seed=1)
    return torrent.make(payload, lab.path("t.torrent"), piece_len, **options)


def many(lab, total=10 * MIB, **options):
    payload = torrent.many_files(lab.folder("payload") / "many files", total, seed=2)
    return torrent.make(payload, lab.path("t.torrent"), 64 * KIB, **options)


def check_copy(content, root, taker=None):
    """Fails unless `root` holds the payload, byte for byte."""
    without_empty = taker is not None and not taker.makes_empty_files
    difference = torrent.difference(content.payload, root / content.name, without_empty)
    if difference:
        raise Failure(f"the copy is wrong: {difference}")


def transfer(lab, content, giver, taker, what=None, seconds=60, give=None, take=None, connect=True):
    """`giver` seeds, `taker` fetches `what` (default: the .torrent); returns both and the copy."""
    into = lab.folder("into")
    seed = giver.seed(lab, content, content.payload.parent, **(give or {}))
    fetch = taker.fetch(lab, what or content.file, into, peers=[seed.addr] if connect else (), **(take or {}))
    fetch.wait_complete(seconds)
    check_copy(content, into, taker)
    return seed, fetch, into


def magnet_case(make):
    def run(lab, giver, taker):
        content = make(lab)
        # A client that dials needs nothing in the link; the others learn of the peer by a tracker.
        transfer(lab, content, giver, taker, what=content.magnet())

    return run


def torrent_case(make):
    def run(lab, giver, taker):
        transfer(lab, make(lab), giver, taker)

    return run


def share_case(lab, other):
    """`shoal share` makes torrent and magnet link itself; the other fetches by the link."""
    payload = torrent.many_files(lab.folder("payload") / "shared things", 8 * MIB, seed=3)
    out = lab.path("out.torrent")
    seed = clients.Shoal.share(lab, payload, torrent_out=out)
    for what in (seed.magnet(), out):
        into = lab.folder("into")
        fetch = other.fetch(lab, what, into, peers=[seed.addr])
        fetch.wait_complete(60)
        difference = torrent.difference(payload, into / payload.name, not other.makes_empty_files)
        if difference:
            raise Failure(f"the copy by {what} is wrong: {difference}")
        fetch.stop()


def pex_case(lab, middle, end, seed_class=clients.Libtorrent):
    """A seeds; B knows A, takes slowly and gives next to nothing; C knows only B, and gets all from
    A. (Were B complete, it would have no more to do with A, and not tell of it.)"""
    content = single(lab, 8 * MIB)
    root_b, root_c = lab.folder("b"), lab.folder("c")
    # Slow enough that A is seen to have both at once.
    a = seed_class.seed(lab, content, content.payload.parent, up_limit=2 * MIB)
    b = middle.fetch(lab, content.file, root_b, peers=[a.addr], up_limit=20 * KIB, down_limit=100 * KIB, stay=True)
    c = end.fetch(lab, content.file, root_c, peers=[b.addr])
    c.wait_complete(150)
    check_copy(content, root_c)
    if a.most_peers() < 2:
        raise Failure("C finished, but never met A")


def shoal_tracker(lab, *args):
    """Runs `shoal serve tracker`; returns its HTTP and UDP announce URLs."""
    ip = net.address()
    http_port = net.free_port(ip)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((ip, 0))
        udp_port = s.getsockname()[1]
    argv = [clients.shoal.program(), "serve", "tracker", "--http", f"{ip}:{http_port}", "--udp", f"{ip}:{udp_port}", "--interval", "5", *args]
    tracker = lab.spawn("shoal-tracker", argv, env=clients.Shoal.env(lab.path("state")))

    def up():
        if tracker.poll() is not None:
            raise Failure(f"shoal serve tracker ended with code {tracker.poll()}")
        return clients.base.is_listening((ip, http_port))

    wait_until("the tracker listens", 10, up)
    return f"http://{ip}:{http_port}/announce", f"udp://{ip}:{udp_port}/announce"


def tracker_case(scheme):
    """Both announce to our tracker and have no other way to each other."""

    def run(lab, giver, taker):
        http, udp = shoal_tracker(lab)
        url = http if scheme == "http" else udp
        content = single(lab, 4 * MIB)
        into = lab.folder("into")
        giver.seed(lab, content, content.payload.parent, trackers=[url])
        taker.fetch(lab, content.file, into, trackers=[url]).wait_complete(90)
        check_copy(content, into)

    return run


def everyone_case(lab, names):
    """One seed and every client that is here in one swarm, brought together by our tracker."""
    http, udp = shoal_tracker(lab)
    content = single(lab, 16 * MIB)
    here = []
    for client in names:
        try:
            client.need()
            here.append(client)
        except Skip:
            pass
    clients.Shoal.seed(lab, content, content.payload.parent, trackers=[udp])
    fetches = []
    for n, client in enumerate([clients.Shoal, *here]):
        into = lab.folder("into")
        fetches.append((client.fetch(lab, content.file, into, trackers=[http if n % 2 else udp], stay=True), into))
    for fetch, into in fetches:
        fetch.wait_complete(120)
        check_copy(content, into)


def nginx(lab, root, rate=0):
    """A web server with ranges over `root`, `rate` bytes a second for each connection; returns
    its base URL and its log."""
    ip = net.address()
    port = net.free_port(ip)
    run = lab.folder("nginx")
    os.chmod(lab.dir, 0o755)
    config = run / "nginx.conf"
    temp = "".join(f"  {kind}_temp_path {run}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(
        f"{user}daemon off;\nmaster_process off;\npid {run}/pid;\nerror_log {run}/error.log;\n"
        f"events {{ worker_connections 64; }}\nhttp {{\n  access_log {run}/access.log;\n{temp}"
        f"  server {{ listen {ip}:{port}; location / {{ root {root}; limit_rate {rate}; }} }}\n}}\n"
    )
    lab.spawn("nginx", [need_program("nginx"), "-p", run, "-e", f"{run}/error.log", "-c", config])
    wait_until("nginx listens", 10, lambda: clients.base.is_listening((ip, port)))
    return f"http://{ip}:{port}/", run / "access.log"


def web_seed_case(make, beside=None):
    def run(lab, us):
        content = make(lab)
        url, log = nginx(lab, content.payload.parent, rate=2 * MIB if beside else 0)
        # BEP 19: for one file the URL may name it; for folders it ends with a slash.
        listed = content.variant(lab.path("web.torrent"), url_list=[url])
        into = lab.folder("into")
        peers = []
        if beside:
            seed = beside.seed(lab, content, content.payload.parent, up_limit=4 * MIB)
            peers = [seed.addr]
        us.fetch(lab, listed.file, into, peers=peers).wait_complete(60)
        check_copy(content, into)
        if b" 206 " not in log.read_bytes() and b" 200 " not in log.read_bytes():
            raise Failure("the web seed served nothing")
        if beside and not wait_until("the peer gave its part", 2, lambda: seed.progress().get("uploaded", 0) > 0):
            raise Failure("the peer beside the web seed gave nothing")

    return run


def private_case(lab, giver, taker):
    tracker = Tracker(lab)
    content = single(lab, 4 * MIB, private=True)
    into = lab.folder("into")
    giver.seed(lab, content, content.payload.parent, trackers=[tracker.url])
    taker.fetch(lab, content.file, into, trackers=[tracker.url]).wait_complete(60)
    check_copy(content, into)


def private_no_pex_case(lab, us):
    """In a private torrent we tell nobody of other peers: C, which knows only us, never meets A."""
    content = single(lab, 4 * MIB, private=True)
    a = clients.Libtorrent.seed(lab, content, content.payload.parent)
    b = us.fetch(lab, content.file, lab.folder("b"), peers=[a.addr], up_limit=20 * KIB, stay=True)
    clients.Libtorrent.fetch(lab, content.file, lab.folder("c"), peers=[b.addr])
    b.wait_complete(60)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if a.most_peers() > 1:
            raise Failure("a private torrent's peer was told of another")
        time.sleep(0.5)


def sparse_case(lab, giver, taker):
    """Over 4 GiB: data at the start, on both sides of 4 GiB and at the end. The taker has the
    zeros already (a hole of the right length), finds that out by checking, and fetches the rest."""
    size = 4 * GIB + 37 * MIB + 5
    islands = [0, 4 * GIB - MIB // 2, 4 * GIB + 9 * MIB + 3, size - MIB]
    payload = torrent.sparse_file(lab.folder("payload") / "big.img", size, islands, seed=4)
    content = torrent.make(payload, lab.path("t.torrent"), 4 * MIB)
    into = lab.folder("into")
    with open(into / "big.img", "wb") as f:
        f.truncate(size)
    seed = giver.seed(lab, content, payload.parent)
    taker.fetch(lab, content.file, into, peers=[seed.addr]).wait_complete(120)
    for at in islands:
        with open(payload, "rb") as a, open(into / "big.img", "rb") as b:
            a.seek(max(0, at - MIB)), b.seek(max(0, at - MIB))
            if a.read(3 * MIB) != b.read(3 * MIB):
                raise Failure(f"the copy is wrong near byte {at}")
    if (into / "big.img").stat().st_size != size:
        raise Failure("the copy has another length")


def fast_case(lab, us):
    """libtorrent logs what it hears: we must speak the fast extension's messages (BEP 6)."""
    content = single(lab, 4 * MIB)
    into = lab.folder("into")
    seed = us.seed(lab, content, content.payload.parent)
    fetch = clients.Libtorrent.fetch(lab, content.file, into, peers=[seed.addr], trace=True)
    fetch.wait_complete(60)
    check_copy(content, into)
    log = fetch.process.log.read_text(errors="replace")
    if "<== HAVE_ALL" not in log:
        raise Failure("as a seed we did not say HAVE_ALL")
    seed = clients.Libtorrent.seed(lab, content, content.payload.parent, trace=True)
    into = lab.folder("into")
    us.fetch(lab, content.file, into, peers=[seed.addr]).wait_complete(60)
    check_copy(content, into)

    def heard():
        text = seed.process.log.read_text(errors="replace")
        return "<== HAVE_NONE" in text

    wait_until("libtorrent heard HAVE_NONE from us", 5, heard)


def bound(run, *args, **kwargs):
    return lambda lab: run(lab, *args, **kwargs)


def all_cases(us):
    """Every case, `us` in shoal's place."""
    ours = us is clients.Shoal
    lt = clients.Libtorrent
    cases = []

    def add(name, run, needs=(), extra=False):
        cases.append(Case(name, run, needs, extra))

    for other in clients.OTHERS:
        extra = other is clients.Rqbit
        n = other.name
        both = {f"{n} to {us.name}": (other, us), f"{us.name} to {n}": (us, other)}
        for way, (giver, taker) in both.items():
            add(f"one file, {way}", bound(torrent_case(single), giver, taker), [other], extra)
            add(f"many files, {way}", bound(torrent_case(many), giver, taker), [other], extra)
            add(f"magnet link, {way}", bound(magnet_case(single), giver, taker), [other], extra)
        if ours:
            add(f"shared folder, {us.name} to {n}", bound(share_case, other), [other], extra)
            for scheme in ("http", "udp"):
                add(f"{scheme} tracker, {n} to {us.name}", bound(tracker_case(scheme), other, us), [other], extra)
                add(f"{scheme} tracker, {us.name} to {n}", bound(tracker_case(scheme), us, other), [other], extra)
    if ours:
        add(f"one file, {us.name} to {us.name}", bound(torrent_case(single), us, us))
        add(f"magnet link to many files, {us.name} to {us.name}", bound(magnet_case(many), us, us))
        add(f"http tracker, {us.name} to {us.name}", bound(tracker_case("http"), us, us))
        add(f"udp tracker, {us.name} to {us.name}", bound(tracker_case("udp"), us, us))
        add("all clients in one swarm by our tracker", bound(everyone_case, clients.OTHERS), [lt])
    add("PEX only, told by libtorrent", bound(pex_case, lt, us), [lt])
    add(f"PEX only, told by {us.name}", bound(pex_case, us, lt), [lt])
    add(f"PEX only, {us.name} told by {us.name}", bound(pex_case, us, us), [lt])
    add("web seed alone, one file", bound(web_seed_case(single), us))
    add("web seed alone, many files", bound(web_seed_case(many), us))
    add("web seed beside a peer", bound(web_seed_case(single, lt), us), [lt])
    add(f"private torrent, libtorrent to {us.name}", bound(private_case, lt, us), [lt])
    add(f"private torrent, {us.name} to libtorrent", bound(private_case, us, lt), [lt])
    add("private torrent, no PEX from us", bound(private_no_pex_case, us), [lt])
    add(f"over 4 GiB, libtorrent to {us.name}", bound(sparse_case, lt, us), [lt])
    add(f"over 4 GiB, {us.name} to libtorrent", bound(sparse_case, us, lt), [lt])
    add("fast extension with libtorrent", bound(fast_case, us), [lt])
    if ours:
        dht_cases.cases(add, bound, single, check_copy)
        napster_cases.cases(add, bound)
        gnutella_cases.cases(add, bound)
        supernode_cases.cases(add)
        sound_cases.cases(add)
        turn_cases.cases(add, bound)
        call_cases.cases(add, bound)
        call_groups.cases(add, bound)
        call_lab.cases(add, bound)
        call_pairs.cases(add, bound)
        reach_cases.cases(add, bound)
        mapping_cases.cases(add, bound)
        overlay_cases.cases(add, bound)
        reach_bulk.cases(add, bound)
    return cases
