"""Every service between two homes behind symmetric NATs, by overlay addresses alone."""

import random
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

from lab.clients.shoal import program
from lab.nat import Home
from lab.process import wait_until
from lab.world import Host
from reach_cases import Overlay, check, events, search_ends

MIB = 1 << 20


class Site:
    """A home, and what runs there."""

    def __init__(self, overlay, kind):
        self.overlay, self.lab, self.home = overlay, overlay.lab, Home(overlay.lab, kind)

    def start(self, name, *argv, login=True):
        """A command there, with its events in its log."""
        state = ["--state-dir", self.lab.folder("state")] if login else []
        login = ["--login", self.overlay.login] if login else []
        return self.lab.spawn(name, self.home.inside([program(), *argv, *login, *state, "--json"]))

    def run(self, name, *argv, seconds=60, login=True):
        """One that ends well; its process, and how long it took."""
        began = time.monotonic()
        process = self.start(name, *argv, login=login)
        code = process.wait(seconds)
        check(code == 0, f"{name} ended with {code}: {process.tail(6)}")
        return process, time.monotonic() - began


def told(process, kind, seconds=30, **fields):
    """The first event of a kind with these fields."""

    def found():
        check(process.poll() is None, f"{process.name} ended: {process.tail(6)}")
        return [e for e in events(process.log, kind) if all(e.get(k) == v for k, v in fields.items())]

    return wait_until(f"{process.name} tells of {kind} {fields or ''}", seconds, found)[0]


def random_file(lab, name, size):
    path = lab.folder("data") / name
    path.write_bytes(random.Random(name).randbytes(size))
    return path


def swarm(one, two, size=50 * MIB):
    """Each shares a file that the other fetches, both at once; MiB/s of each, and seconds until the first bytes."""
    quiet = ["--no-dht", "--no-lsd"]
    files, fetches = {}, {}
    for n, site in enumerate((one, two)):
        path = random_file(site.lab, f"home{n}.bin", size)
        files[site] = path, site.start("share", "share", path, *quiet)
    for site, other in ((one, two), (two, one)):
        path, share = files[other]
        magnet = told(share, "magnet")["magnet"]
        check("x.pe=" in magnet and "fc" in magnet, f"no overlay address in {magnet}")
        into = site.lab.folder("fetched")
        fetches[site] = path, into / path.name, site.start("fetch", "fetch", magnet, "--dir", into, *quiet)
    rates, first = [], []
    for path, fetched, process in fetches.values():
        moved = lambda p=process: [e for e in events(p.log, "progress") if e.get("downloaded")] or p.poll() is not None
        wait_until("the first bytes", 60, moved)
        first.append(time.monotonic() - process.started)
        check(process.wait(240) == 0, f"the fetch failed: {process.tail(6)}")
        rates.append(size / MIB / (process.ended - process.started))
        check(fetched.read_bytes() == path.read_bytes(), "other bytes arrived")
    for _, share in files.values():
        share.stop()
    return f"{size // MIB} MiB each way at {min(rates):.1f} MiB/s, first bytes after {max(first):.1f} s"


STRANGER = """
import socket, struct, sys, urllib.request
ip, info_hash = sys.argv[1], bytes.fromhex(sys.argv[2])
plain = "".join(f"%{b:02x}" for b in info_hash)
url = f"http://{ip}:6969/announce?info_hash={plain}&peer_id={'x' * 20}&port=7&uploaded=0&downloaded=0&left=1&compact=1"
http = urllib.request.urlopen(url, timeout=10).read()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect((ip, 6969))
s.send(struct.pack(">QII", 0x41727101980, 0, 1))
connection = s.recv(100)[8:16]
s.send(connection + struct.pack(">II", 1, 2) + info_hash + b"x" * 20 + struct.pack(">QQQIIIIH", 0, 1, 0, 2, 0, 0, 50, 8))
print(http.hex(), s.recv(4000).hex())
"""


def trackers(one, two, size=8 * MIB):
    """One shares what the other fetches: they know a tracker and nobody else, by HTTP, then by UDP."""
    host = Host(one.lab)
    argv = [program(), "serve", "tracker", "--http", f"{host.ip}:6969", "--udp", f"{host.ip}:6969", "--json"]
    server = one.lab.spawn("tracker", host.inside(argv))
    told(server, "listening")
    quiet = ["--no-dht", "--no-lsd", "--no-upnp"]
    took = []
    for kind in ("http", "udp"):
        path = random_file(one.lab, f"by {kind}.bin", size)
        share = one.start("share", "share", path, "--tracker", f"{kind}://{host.ip}:6969/announce", *quiet)
        magnet = told(share, "magnet")["magnet"]
        # What the link says of the sharer's address is taken out.
        magnet = "&".join(part for part in magnet.split("&") if not part.startswith("x.pe="))
        check("tr=" in magnet and "fc" not in magnet.split("tr=")[1], f"not by the tracker alone: {magnet}")
        wait_until("the sharer has announced", 20, lambda s=share: events(s.log, "tracker"))
        into = two.lab.folder("by-tracker")
        _, seconds = two.run("fetch", "fetch", magnet, "--dir", into, *quiet, seconds=60)
        check((into / path.name).read_bytes() == path.read_bytes(), "other bytes arrived")
        took.append(seconds)
        # A client of another kind, with a public address, hears of what it can dial alone.
        info_hash = magnet.split("btih:")[1].split("&")[0]
        stranger = [sys.executable, "-c", STRANGER, host.ip, info_hash]
        heard = subprocess.run(Host(one.lab).inside(stranger), capture_output=True, text=True, timeout=30)
        check(heard.returncode == 0, heard.stderr)
        http, udp = (bytes.fromhex(part) for part in heard.stdout.split())
        check(b"5:peers" in http and b"6:peers6" not in http, f"by HTTP it heard {http}")
        peers = [udp[at : at + 6] for at in range(20, len(udp), 6)]
        check(peers and all(len(p) == 6 and p[0] == 44 for p in peers), f"by UDP it heard {udp}")
        share.stop()
    server.stop()
    return f"{size // MIB} MiB by a tracker alone, HTTP {took[0]:.1f} s, UDP {took[1]:.1f} s"


def web_seed(one, two, size=8 * MIB):
    """One serves by HTTP at its overlay address what the other has a torrent of that names nothing else."""
    path = one.lab.folder("web") / "by web seed.bin"
    path.write_bytes(random.Random("web").randbytes(size))
    server = one.start("server", "gnutella", "serve", path.parent, "--listen", "0.0.0.0:0")
    at, urn = told(server, "listening", proto="overlay")["addr"], told(server, "serving")["urn"]
    torrent = one.lab.path("web.torrent")
    one.run("create", "torrent", "create", path, "--output", torrent, "--web-seed", f"http://{at}/uri-res/N2R?{urn}", login=False)
    into = two.lab.folder("by-web-seed")
    _, took = two.run("fetch", "fetch", torrent, "--dir", into, "--no-dht", "--no-lsd", "--no-upnp", seconds=60)
    check((into / path.name).read_bytes() == path.read_bytes(), "other bytes arrived")
    server.stop()
    return f"{size // MIB} MiB by a web seed alone in {took:.1f} s"


def find(one, two, size=8 * MIB):
    """One shares a file that the other finds by its name and fetches."""
    path = random_file(one.lab, "aurora over the fjord.ogg", size)
    sharer = one.start("sharer", "supernode", "node", "--firewalled", "--share", path.parent)
    told(sharer, "home")
    told(sharer, "listening", proto="overlay")
    into = two.lab.folder("found")
    _, took = two.run("fetch", "supernode", "fetch", "aurora", "fjord", "--dir", into, "--listen", "0.0.0.0:0", seconds=90)
    check((into / path.name).read_bytes() == path.read_bytes(), "other bytes arrived")
    sharer.stop()
    return f"found and fetched in {took:.1f} s"


def keys(one, two):
    """Both are members of a ring and hold what a third process stores there."""
    first = one.start("member", "dht", "node", "--via", "chord", "--ring-overlay", "--stats-interval", "1")
    at = told(first, "listening", proto="udp")["addr"]
    second = two.start("member", "dht", "node", "--via", "chord", "--bootstrap", at, "--stats-interval", "1")
    other = told(second, "listening", proto="udp")["addr"]
    wait_until("the second is in the ring", 30, lambda: any(e["contacts"] for e in events(second.log, "dht_status")))
    stored, took = two.run("put", "dht", "put", "what the ring holds", "--via", "chord", "--bootstrap", other)
    name = [e for e in events(stored.log, "stored") if e.get("target")][0]["target"]
    for member in (first, second):
        wait_until("it holds the value", 30, lambda m=member: any(e["items"] for e in events(m.log, "dht_status")))
    got, back = one.run("get", "dht", "get", name, "--via", "chord", "--bootstrap", at)
    check("what the ring holds" in Path(got.log).read_text(), f"another value: {got.tail(6)}")
    for member in (first, second):
        member.stop()
    return f"put in {took:.1f} s, got in {back:.1f} s, both hold it"


def tasks(one, two, size=24 * MIB):
    """A master and a worker in one home, a worker in the other: both map and reduce."""
    secret = one.lab.path("secret")
    secret.write_text("a secret that both homes share\n")
    words = [f"word{n:03}" for n in range(500)]
    line = (" ".join(words) + "\n").encode()
    text = one.lab.path("text")
    lines = size // len(line)
    text.write_bytes(line * lines)
    common = ["--secret-file", secret]
    master = one.start("master", "serve", "master", "--dir", one.lab.folder("jobs"), "--listen", "127.0.0.1:7700", *common)
    at = told(master, "listening", proto="overlay")["addr"]
    workers = []
    for n, site in enumerate((one, two)):
        worker = site.start(f"worker{n}", "worker", "--master", at, "--slots", "1", "--host", f"home{n}", "--no-lsd", "--no-dht", *common)
        told(worker, "worker_connected", seconds=60)
        workers.append(worker)
    out = one.lab.path("counts")
    argv = ["run", "wordcount", "--input", text, "--output", out, "--master", at, "--split-size", "2MiB", "--reduces", "2", "--no-speculation"]
    # Handed in from the other home.
    _, took = two.run("run", *argv, *common, seconds=180)
    counts = dict(row.split("\t") for part in out.glob("part-*") for row in part.read_text().splitlines())
    check(counts == {word: str(lines) for word in words}, f"{len(counts)} words, of the first {counts.get('word000')} instead of {lines}")
    for worker in workers:
        done = [e["attempt"] for e in events(worker.log, "attempt_ended") if not e.get("error")]
        check(any("_m_" in a for a in done), f"{worker.name} ran no map task: {done}")
        worker.stop()
    master.stop()
    return f"{size // MIB} MiB counted by two workers in {took:.1f} s"


def gnutella(one, two, size=8 * MIB):
    """An ultrapeer in one home, its leaf in the other, linked by an overlay address alone; each fetches a file of the other."""
    files, nodes = {}, {}
    for n, site in enumerate((one, two)):
        folder = site.lab.folder("songs")
        files[site] = folder / f"harbour lights {n}.ogg"
        files[site].write_bytes(random.Random(n).randbytes(size))
        more = ["--ultrapeer"] if n == 0 else ["--firewalled", "--connect", nodes[one]]
        node = site.start("servent", "gnutella", "node", "--share", folder, "--stats-interval", "1", *more)
        nodes[site] = told(node, "listening", proto="overlay")["addr"]
    wait_until("the link is there", 60, lambda: any(e["ultrapeers"] for e in events(node.log, "gnutella_stats")))
    took = []
    for site, other in ((one, two), (two, one)):
        words = files[other].stem.split()
        argv = ["gnutella", "find", *words, "--connect", nodes[one], "--limit", "1", "--wait", "5"]

        def found(argv=argv, site=site):
            # Tables of words go around every ten seconds.
            find = site.start("find", *argv)
            find.wait(60)
            return events(find.log, "gnutella_hit")

        hit = wait_until("the file is found", 90, found)[0]
        check(hit["overlay"] == nodes[other], f"the hit tells another place: {hit}")
        into = site.lab.folder("songs-fetched")
        _, seconds = site.run("fetch", "gnutella", "fetch", hit["urn"], "--from", hit["overlay"], "--dir", into, seconds=90)
        check((into / files[other].name).read_bytes() == files[other].read_bytes(), "other bytes arrived")
        took.append(seconds)
    return f"{size // MIB} MiB each way on Gnutella in {max(took):.1f} s"


def found_on_gnutella(one, two, size=8 * MIB):
    """A leaf of an ultrapeer with a public address, which was not told that nobody can connect to it, and who asks all networks."""
    host = Host(one.lab)
    at = f"{host.ip}:6346"
    top = one.lab.spawn("top", host.inside([program(), "gnutella", "node", "--ultrapeer", "--listen", at, "--json", "--stats-interval", "1"]))
    told(top, "listening")
    folder = one.lab.folder("tunes")
    path = folder / "low water.ogg"
    path.write_bytes(random.Random("low").randbytes(size))
    leaf = one.start("leaf", "gnutella", "node", "--share", folder, "--connect", at, "--listen", "0.0.0.0:0")
    place = told(leaf, "listening", proto="overlay")["addr"]
    argv = ["find", "low", "water", "--via", "gnutella", "--connect", at, "--wait", "5"]

    def found():
        # Tables of words go around every ten seconds.
        find = two.start("find", *argv)
        find.wait(60)
        return events(find.log, "found")

    link = wait_until("the file is found", 90, found)[0]["link"]
    check(place in unquote(link), f"the link tells another place than {place}: {link}")
    into = two.lab.folder("tunes-found")
    _, took = two.run("fetch", "fetch", link, "--dir", into, "--no-dht", "--no-lsd", "--no-upnp", seconds=90)
    check((into / path.name).read_bytes() == path.read_bytes(), "other bytes arrived")
    leaf.stop()
    top.stop()
    return f"{size // MIB} MiB by a link of find on Gnutella in {took:.1f} s"


def hub(one, two, size=8 * MIB):
    """Two users of a hub, neither of whom can be connected to."""
    host = Host(one.lab)
    at = f"{host.ip}:8888"
    server = one.lab.spawn("hub", host.inside([program(), "serve", "napster", "--listen", at, "--json"]))
    told(server, "listening")
    folder = one.lab.folder("hub-music")
    path = folder / "Slow Tide.mp3"
    path.write_bytes(random.Random("tide").randbytes(size))
    sharer = one.start("share", "napster", "share", folder, "--hub", at, "--firewalled")
    told(sharer, "hub", connected=True)
    into = two.lab.folder("hub-fetched")
    _, took = two.run("fetch", "napster", "fetch", "slow", "tide", "--hub", at, "--dir", into, seconds=90)
    check((into / path.name).read_bytes() == path.read_bytes(), "other bytes arrived")
    found, _ = two.run("find", "find", "slow", "tide", "--hub", at, "--via", "napster", "--no-ping", login=False)
    link = events(found.log, "found")[0]["link"]
    into = two.lab.folder("hub-found")
    _, again = two.run("fetch", "fetch", link, "--dir", into, "--no-dht", "--no-lsd", "--no-upnp", seconds=90)
    check((into / path.name).read_bytes() == path.read_bytes(), "other bytes arrived")
    # The same with a torrent that knows nobody else, so that pieces are asked for.
    torrent = one.lab.path("tide.torrent")
    one.run("create", "torrent", "create", path, "--output", torrent, login=False)
    source = next(unquote(part[3:]) for part in link.split("&") if part.startswith("xs=napster"))
    into = two.lab.folder("hub-pieces")
    argv = ["fetch", torrent, "--source", source, "--dir", into, "--no-dht", "--no-lsd", "--no-upnp"]
    _, pieces = two.run("fetch", *argv, seconds=90)
    check((into / path.name).read_bytes() == path.read_bytes(), "other bytes arrived")
    sharer.stop()
    server.stop()
    times = f"{took:.1f} s, by a link of find in {again:.1f} s, with a torrent in {pieces:.1f} s"
    return f"{size // MIB} MiB from a user of a hub in {times}"


def together(lab):
    """Two homes behind symmetric NATs, which no packet reaches that was not asked for."""
    overlay = Overlay(lab)
    one, two = Site(overlay, "sym"), Site(overlay, "sym")
    return "; ".join(act(one, two) for act in (swarm, find, keys, tasks))


def by_networks(lab):
    """The same homes on others' networks."""
    overlay = Overlay(lab)
    one, two = Site(overlay, "sym"), Site(overlay, "sym")
    return "; ".join(act(one, two) for act in (gnutella, found_on_gnutella, hub))


def by_tracker(lab):
    """The same homes with a tracker, or a web seed, alone."""
    overlay = Overlay(lab)
    one, two = Site(overlay, "sym"), Site(overlay, "sym")
    return "; ".join(act(one, two) for act in (trackers, web_seed))


def supernodes(lab):
    """Who can be reached by punched holes is promoted, links to others by its overlay address, and has children behind NATs;
    who could only be reached by relays stays a peer."""
    overlay = Overlay(lab, supernodes=0)
    places = ["--max-children", "8", "--promote-at", "10", "--min-uptime", "8", "--probe", "64KiB"]
    # Two, so that a NAT can be told by what both see; with places enough that they do not send one child to and fro.
    for _ in range(2):
        overlay.add(more=places)
    plain = list(overlay.supernodes.values())
    measured = lambda: [e for process in plain for e in events(process.log, "measured") if e["addr"].startswith("[fc")]
    every = ["--stats-interval", "1"]

    def node(kind, *more):
        site = Site(overlay, kind)
        path = random_file(lab, f"of the {kind} one.bin", MIB)
        return site, path, site.start(f"node-{kind}", "supernode", "node", "--share", path.parent, *every, *more)

    _, _, far = node("sym")
    wait_until("it is measured", 30, measured)
    # Time to be asked, which it does not follow.
    search_ends()
    check(not events(far.log, "role"), "it is a supernode")
    far.stop()
    before = len(measured())

    site, path, near = node("port")
    told(near, "role", 60, role="supernode")
    rate = max(e["rate"] for e in measured()[before:])
    lists = [program(), "supernode", "list", "--login", overlay.login, "--json"]
    listing = lambda: subprocess.run(site.home.inside(lists), capture_output=True, text=True, timeout=30).stdout
    wait_until("it is on the list", 30, lambda: '"[fc' in listing())
    wait_until("they are neighbours", 20, lambda: events(near.log, "supernode_stats")[-1]["neighbours"] >= 1)

    # Children enough that the first sends one there.
    nodes = [node(kind, "--keep-role") for kind in ("addr", "full", "wall", "port", "addr")]
    wait_until("it has a child", 90, lambda: events(near.log, "supernode_stats")[-1]["children"] >= 1)
    overlays = lambda process: [e for e in events(process.log, "home") if (e["addr"] or "").startswith("[fc")]
    wait_until("a child tells so", 10, lambda: any(overlays(process) for _, _, process in nodes))
    theirs = next(n for n in nodes if overlays(n[2]))

    # Somebody else finds and fetches what that child has, and what the supernode itself has.
    into = lab.folder("fetched")
    other = Site(overlay, "port")
    for name in (theirs[1].stem, path.stem):
        other.run("fetch", "supernode", "fetch", *name.split(), "--dir", into)
    for whole in (theirs[1], path):
        check((into / whole.name).read_bytes() == whole.read_bytes(), f"{whole.name} differs")
    # Its end is told, and those who were its children are at home again.
    near.stop()
    home = lambda: events(theirs[2].log, "home")[-1]["addr"]
    wait_until("its child is at home elsewhere", 30, lambda: home() and not home().startswith("[fc"))
    return f"promoted at {rate / 1024:.0f} KiB/s; the child behind {theirs[0].home.kind} found and fetched"


def cases(add, bound):
    """Adds the cases."""
    add("reach: supernodes by overlay addresses", supernodes, [])
    add("reach: two symmetric NATs swarm, find, hold keys and run map tasks", together, [])
    add("reach: two symmetric NATs exchange files on Gnutella and at a hub", by_networks, [])
    add("reach: two symmetric NATs know a tracker alone, or a web seed", by_tracker, [])
