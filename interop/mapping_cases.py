"""Routers that let others through when they are asked: PCP, NAT-PMP and UPnP by a real miniupnpd, in the NAT laboratory."""

import json
import os
import subprocess
import time

from lab.clients.shoal import program
from lab.nat import Home, meets
from lab.process import need_program, wait_until
from lab.router import Router
from lab.world import Host
from reach_cases import Call, Overlay, check, events

SPEAKS = ["PCP", "NAT-PMP", "UPnP"]


def meets_by(lab, speaks):
    """Behind a port-restricted NAT whose router maps ports, and behind a symmetric one: directly, and what was mapped is given back."""
    check(not meets("sym", "port"), "these two meet anyway")
    overlay = Overlay(lab)
    there = Home(lab, "port")
    router = Router(lab, there, speaks)
    key = overlay.listener(there)
    listener = lab.processes[-1]
    wait_until("the router maps the port", 10, router.mapped)
    call = Call(overlay, Home(lab, "sym"), key)
    call.echo(b"hello\n")
    wait_until("it is direct", 10, lambda: call.ways()[-1:] == [None])
    call.echo(b"directly\n")
    check(call.close() == 0, "it failed")
    listener.stop()
    wait_until("the port is given back", 5, lambda: not router.mapped())


def starts_again(lab):
    """The router is started again and knows of nothing: it is asked again."""
    overlay = Overlay(lab)
    home = Home(lab, "port")
    router = Router(lab, home, "PCP")
    overlay.listener(home)
    before = wait_until("the router maps the port", 10, router.mapped)
    # The time since its start, in seconds, is what tells that it was started again.
    time.sleep(6)
    router.process.kill()
    router.starts()
    check(not router.mapped(), "it has not forgotten")
    after = wait_until("the router maps the port again", 45, router.mapped)
    check(before == after, f"{before}, then {after}")


def told(lab, speaks, kind):
    """`shoal reach` tells what the router does, and that strangers get in."""
    overlay = Overlay(lab, supernodes=3)
    home = Home(lab, kind)
    router = Router(lab, home, speaks)
    argv = [program(), "reach", "--login", overlay.login, "--state-dir", lab.folder("reach"), "--json"]

    def reach(*more):
        done = subprocess.run(home.inside([*argv, *more]), capture_output=True, text=True, timeout=60)
        check(done.returncode == 0, done.stderr[-400:])
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return next(line for line in lines if line["event"] == "reachability")

    without = reach("--no-port-mapping")
    check(without["state"] == "punched" and not without["router"]["external"], f"without: {without}")
    found = reach()
    check(found["state"] == "open" and found["router"]["protocol"] == speaks, f"with: {found}")
    check(found["router"]["external"].split(":")[0] == home.public and found["router"]["public"], f"with: {found}")
    wait_until("the port is given back", 5, lambda: not router.mapped())


def shared(lab):
    """A torrent shared behind a NAT whose router maps ports is fetched by aria2 behind another, which nobody can connect to."""
    aria2 = need_program("aria2c")
    desk = Host(lab)
    url = f"http://{desk.ip}:6969/announce"
    lab.spawn("tracker", desk.inside([program(), "serve", "tracker", "--http", f"{desk.ip}:6969"]))
    home = Home(lab, "port")
    router = Router(lab, home, "PCP")
    path = lab.folder("data") / "a heron.bin"
    path.write_bytes(os.urandom(4 << 20))
    torrent, argv = lab.path("a.torrent"), [program(), "share", path, "--tracker", url, "--no-dht", "--no-lsd", "--state-dir", lab.folder("share")]
    share = lab.spawn("share", home.inside([*argv, "--torrent-out", torrent, "--json"]))
    wait_until("the router maps the port", 10, router.mapped)
    wait_until("it tells so", 5, lambda: any(e["proto"] == "router" for e in events(share.log, "listening")))
    wait_until("it is announced", 20, lambda: events(share.log, "tracker"))
    into = lab.folder("fetched")
    argv = [aria2, "--dir", into, "--seed-time=0", "--enable-dht=false", "--bt-enable-lpd=false", "--summary-interval=0", torrent]
    fetch = lab.spawn("aria2", Home(lab, "port").inside(argv))
    check(fetch.wait(60) == 0, f"aria2 failed: {fetch.tail(6)}")
    check((into / path.name).read_bytes() == path.read_bytes(), "other bytes arrived")
    share.stop()
    wait_until("the port is given back", 5, lambda: not router.mapped())


def cases(add, bound):
    """Adds the cases."""
    for speaks in SPEAKS:
        add(f"port mapping: port and sym meet by {speaks}", bound(meets_by, speaks), [])
    add("port mapping: the router is started again", starts_again, [])
    add("port mapping: told by shoal reach, PCP, port", bound(told, "PCP", "port"), [])
    add("port mapping: told by shoal reach, UPnP, sym", bound(told, "UPnP", "sym"), [])
    add("port mapping: a shared torrent and aria2 behind another NAT", shared, [])
