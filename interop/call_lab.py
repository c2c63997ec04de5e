"""Calls by name between nodes behind NATs, in the NAT laboratory, over links that are slow by 20 ms."""

import cmath
import json
import math
import os
import statistics
import struct
import subprocess
import sys
import wave

from call_cases import Browser, Chromium
from lab.clients.shoal import program
from lab.nat import Home, meets
from lab.process import Skip, wait_until
from reach_cases import Overlay, check, events, search_ends

# Milliseconds of each machine's link, one way: 80 there and back between any two.
DELAY = 20
RATE = 48000
# Of the loudness of what was said, what counts as silence, and the window that is looked at, in samples.
SILENT, WINDOW = 0.1, RATE // 100

# Keeps everything that passes a machine, until it is ended.
CAPTURE = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
with open(sys.argv[1], "wb", buffering=0) as f:
    print("ready", flush=True)
    while True: f.write(s.recv(65600))
"""


def voice(path, seconds, bursts, step=0.05):
    """Something to say: a tone, of so many radians each sample, or one that is heard in the first fifth of each second alone."""
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, RATE, 0, "NONE", ""))
        second = [int(9000 * math.sin(i * step)) if not bursts or i < RATE // 5 else 0 for i in range(RATE)]
        f.writeframes(struct.pack(f"<{RATE}h", *second) * seconds)
    return path


def loudness(path):
    """How loud each window of what was heard is."""
    with wave.open(str(path)) as f:
        data = f.readframes(f.getnframes())
    samples = struct.unpack(f"<{len(data) // 2}h", data)
    windows = range(0, len(samples) - WINDOW, WINDOW)
    return [math.sqrt(sum(s * s for s in samples[at : at + WINDOW]) / WINDOW) for at in windows]


def tone(path, step):
    """How loud a tone is in the tenth of a second in which it is loudest (Goertzel's sum)."""
    with wave.open(str(path)) as f:
        data = f.readframes(f.getnframes())
    samples, size, worst = struct.unpack(f"<{len(data) // 2}h", data), RATE // 10, 0
    for at in range(0, len(samples) - size, size):
        turned = (s * cmath.exp(-1j * step * n) for n, s in enumerate(samples[at : at + size]))
        worst = max(worst, 2 * abs(sum(turned)) / size)
    return worst


def made_up(out):
    """Seconds of sound that a program made up because nothing came, in its worst second and the next."""
    made = [0, *(e["stats"]["concealed_ms"] for e in events(out, "call_stats"))]
    return max(b - a for a, b in zip(made, made[2:])) / 1000


def mouth_to_ear(said_at, heard_at, path):
    """Milliseconds from the bursts' beginnings, each second from `said_at` on, to those of what was heard from `heard_at` on (both
    microseconds of one clock): the median over the call but its first seconds, in which the buffer is found."""
    loud = loudness(path)
    bar = SILENT * max(loud)
    rises = [n for n in range(1, len(loud)) if loud[n] > bar and all(l <= bar for l in loud[max(0, n - 20) : n])]
    late = [((heard_at - said_at) / 1e6 + n * WINDOW / RATE) % 1 * 1000 for n in rises if n * WINDOW / RATE > 3]
    check(len(late) >= 3, f"only {len(late)} bursts were heard")
    return statistics.median(late)


def bench_program():
    """shoal-bench: $SHOAL_BENCH, or beside shoal."""
    beside = os.path.join(os.path.dirname(program()), "shoal-bench")
    for place in (os.environ.get("SHOAL_BENCH"), beside):
        if place and os.access(place, os.X_OK):
            return place
    raise Skip("there is no shoal-bench: build it, or set $SHOAL_BENCH")


class Person:
    """`shoal answer --as NAME`, again and again."""

    def __init__(self, overlay, home, name, said, *more):
        self.lab, self.home, self.name = overlay.lab, home, name
        self.heard = self.lab.path(f"heard-by-{name}.wav")
        self.out = self.lab.path(f"{name}.json")
        argv = [program(), "answer", "--as", name, "--login", overlay.login, "--state-dir", self.lab.folder(name), "--json", "--stay"]
        argv += ["--wav-in", said, "--wav-out", self.heard, *more]
        self.process = self.lab.spawn(name, home.inside(argv), stdout=self.out)
        wait_until(f"{name} can be reached", 40, lambda: events(self.out, "reachable"))
        if home.kind not in ("noudp", "web"):
            # The ring of names is asked and told by UDP; who has none is called all the same.
            wait_until(f"{name} is in the ring", 40, lambda: events(self.out, "published"))


class Call:
    """`shoal call NAME`."""

    def __init__(self, overlay, home, whom, said, *more):
        self.lab, self.person = overlay.lab, whom
        self.heard, self.out = self.lab.path("heard.wav"), self.lab.path("call.json")
        argv = [program(), "call", whom.name, "--login", overlay.login, "--state-dir", self.lab.folder("call"), "--json"]
        argv += ["--wav-in", said, "--wav-out", self.heard, *more]
        # A browser's node tells of no sound.
        self.before = len(events(whom.out, "call_sound"))
        self.process = self.lab.spawn("call", home.inside(argv), stdout=self.out)

    def talks(self):
        wait_until("sound comes", 30, lambda: events(self.out, "call_set_up") or self.process.poll() is not None)
        check(events(self.out, "call_set_up"), f"no call: {self.process.tail(6)}")
        return events(self.out, "call_set_up")[0]

    def ends(self, seconds=60):
        check(self.process.wait(seconds) == 0, f"the call failed: {self.process.tail(6)}")
        theirs = wait_until("the other end has ended too", 10, lambda: events(self.person.out, "call_sound")[self.before :])[0]
        ours = events(self.out, "call_sound")[0]
        return mouth_to_ear(theirs["recorded_at_micros"], ours["played_at_micros"], self.heard)

    def relays(self):
        """Relays of the way, as last told."""
        return events(self.out, "call_way")[-1]["relays"]


def by_name(lab, a, b, runs=5):
    """Calls from behind one NAT to behind another: how long they take to begin, and the sound from mouth to ear."""
    overlay = Overlay(lab, delay=DELAY)
    said = voice(lab.path("voice.wav"), 9, bursts=True)
    callee = Person(overlay, Home(lab, b, delay=DELAY), "bob", said)
    home = Home(lab, a, delay=DELAY)
    took, ears, told = [], [], []
    for _ in range(runs):
        call = Call(overlay, home, callee, said)
        took.append(call.talks())
        ears.append(call.ends())
        told.append(events(call.out, "call_stats")[-1]["stats"])
        check((not call.relays()) == meets(a, b), f"the way is {call.relays() or 'direct'}")
    ring = statistics.median(t["ring_to_sound_ms"] for t in took)
    ear = statistics.median(ears)
    bar = 200 if meets(a, b) else 250
    figures = (
        f"{'direct' if meets(a, b) else 'relayed'}, {runs} calls: ring to first sound {ring} ms (worst "
        f"{max(t['ring_to_sound_ms'] for t in took)}), command to first sound {statistics.median(t['sound_ms'] for t in took)} ms; mouth to ear "
        f"{ear:.0f} ms (worst {max(ears):.0f}), told {statistics.median(s['mouth_to_ear_ms'] for s in told):.0f}; lost "
        f"{sum(s['lost'] for s in told)} of {sum(s['received'] for s in told)}"
    )
    check(ring <= 1500, f"slow: {figures}")
    check(ear <= bar, f"late: {figures}")
    return figures


def relay_killed(lab, caller="a native end", callee="a native end"):
    """The supernode whose relay carries the call is killed."""
    overlay = Overlay(lab, supernodes=3, delay=DELAY)

    def kill(ends, ways):
        at = ways()[0].rsplit(":", 1)[0]
        check(at in overlay.supernodes, f"relayed by {at}")
        overlay.supernodes[at].kill()
        return lambda: check(ways() and ways()[0].rsplit(":", 1)[0] != at, f"still by {ways()}")

    return disturbed(overlay, "sym", "sym", caller, callee, kill, 1.5)


def forgotten(lab, a, b, caller="a native end", callee="a native end"):
    """Both NATs forget everything, one after the other, in the middle of a call."""

    def forget(ends, ways):
        for home in ends:
            search_ends()
            home.forget()
        return lambda: None

    return disturbed(Overlay(lab, delay=DELAY), a, b, caller, callee, forget, 3)


def disturbed(overlay, a, b, caller, callee, disturb, bar):
    """Something happens in the middle of a call between two such ends: for how long had they nothing to play?"""
    lab = overlay.lab
    said = voice(lab.path("voice.wav"), 18, bursts=False)
    there, here = Home(lab, b, delay=DELAY), Home(lab, a, delay=DELAY)
    native = {}
    if callee == "Chromium":
        bob = Phone(overlay, there, "bob", said)
        bob.browser.answer(12, stay=True)
    else:
        bob = Person(overlay, there, "bob", said)
        native["callee"] = bob.out
    if caller == "Chromium":
        alice = Phone(overlay, here, "alice", said)
        alice.browser.call("bob", 16)
        wait_until("the browsers talk", 45, lambda: "talking" in alice.browser.told("state"))
    else:
        call = Call(overlay, here, bob, said)
        call.talks()
        native["caller"] = call.out
    # So that the way in use is the one to lose.
    search_ends()

    def ways():
        if caller == "Chromium":
            return alice.browser.told("relays")[-1].split()
        return call.relays()

    after = disturb((here, there), ways)
    gaps = {}
    if caller == "Chromium":
        gaps["caller"] = alice.browser.saw()["made_up_ms"] / 1000
    else:
        check(call.process.wait(40) == 0, f"the call failed: {call.process.tail(6)}")
    if callee == "Chromium":
        gaps["callee"] = bob.browser.saw()["made_up_ms"] / 1000
    else:
        wait_until("the callee's file is written", 10, lambda: events(bob.out, "call_sound"))
    gaps |= {end: made_up(out) for end, out in native.items()}
    after()
    check(max(gaps.values()) <= bar, f"nothing came for {gaps} s")
    return f"nothing to play for {gaps['caller']:.2f} s at the caller, {gaps['callee']:.2f} s at the callee"


def short_mappings(lab):
    """Next to nothing is said for longer than mappings of 30 s last."""
    overlay = Overlay(lab, delay=DELAY)
    said = voice(lab.path("voice.wav"), 70, bursts=False)
    with wave.open(str(said), "wb") as f:
        f.setparams((1, 2, RATE, 0, "NONE", ""))
        f.writeframes(bytes(2 * RATE * 70))
    callee = Person(overlay, Home(lab, "port", lifetime=30, delay=DELAY), "bob", said, "--dtx")
    call = Call(overlay, Home(lab, "port", lifetime=30, delay=DELAY), callee, said, "--dtx")
    call.talks()
    check(call.process.wait(100) == 0, f"the call failed: {call.process.tail(6)}")
    stats = events(call.out, "call_ended")[0]["stats"]
    ways = [w["relays"] for w in events(call.out, "call_way")]
    check(ways[-1] == [], f"ways: {ways}")
    return f"70 s of silence; {stats['received']} packets came, {stats['lost']} were lost"


def capture(lab):
    """What passes at the supernodes while people call by name: no description of the call, and no sound that anybody could play."""
    overlay = Overlay(lab, delay=DELAY)
    files, sniffers = [], []
    for host in overlay.hosts.values():
        files.append(lab.path("capture.bin"))
        sniffers.append(lab.spawn("capture", host.inside([sys.executable, "-c", CAPTURE, files[-1]])))
    for sniffer in sniffers:
        wait_until("the capture runs", 10, lambda s=sniffer: "ready" in s.tail())
    said = voice(lab.path("voice.wav"), 6, bursts=False)
    callee = Person(overlay, Home(lab, "sym", delay=DELAY), "bob", said)
    call = Call(overlay, Home(lab, "sym", delay=DELAY), callee, said)
    call.talks()
    check(call.relays(), "the call is not relayed")
    check(call.process.wait(40) == 0, f"the call failed: {call.process.tail(6)}")
    for sniffer in sniffers:
        sniffer.kill()
    seen = b"".join(open(f, "rb").read() for f in files)
    # As many as the call has: both ends said the same.
    packets = [bytes.fromhex(p) for p in json.loads(subprocess.check_output([bench_program(), "call-packets", "--file", said]))]
    check(len(packets) >= 20 and min(map(len, packets)) >= 20, "no packets to look for")
    sent = events(call.out, "call_ended")[0]["stats"]["sent_bytes"]
    check(len(seen) > 2 * sent, f"only {len(seen)} bytes were seen of a call of {sent}")
    found = [p for p in packets if p in seen]
    check(not found, f"{len(found)} of {len(packets)} packets of speech were seen")
    words = [b"v=0\r\n", b"m=audio", b"a=fingerprint", b"candidate:", b"ice-pwd", b"shoal call", b"describe", b"ringing"]
    told = [w.decode() for w in words if w in seen]
    check(not told, f"words were seen: {told}")
    return f"{len(seen)} bytes were seen at {len(files)} supernodes, none of {len(packets)} packets of speech and none of {len(words)} words of a description"


class Phone:
    """`shoal phone --as NAME`, and a browser at its page on the same machine."""

    def __init__(self, overlay, home, name, said):
        self.lab, self.name, self.out = overlay.lab, name, overlay.lab.path(f"{name}.json")
        argv = [program(), "phone", "--as", name, "--login", overlay.login, "--state-dir", self.lab.folder(name), "--json", "--page", "127.0.0.1:0"]
        self.process = self.lab.spawn(name, home.inside(argv), stdout=self.out)
        url = wait_until(f"{name} serves its page", 40, lambda: events(self.out, "call_page"))[0]["url"]
        if home.kind != "noudp":
            # The ring of names is asked and told by UDP; who has none calls all the same.
            wait_until(f"{name} is in the ring", 40, lambda: events(self.out, "published"))
        self.browser = Browser(self.lab, url, said, home.inside)


def browser_calls(lab, a, b, caller, callee, runs=5):
    """Calls from a browser or a native end behind one NAT to one behind another: how long they take to begin."""
    overlay = Overlay(lab, delay=DELAY)
    said = voice(lab.path("voice.wav"), 6, bursts=False)
    there, here = Home(lab, b, delay=DELAY), Home(lab, a, delay=DELAY)
    bob = Phone(overlay, there, "bob", said) if callee == "Chromium" else Person(overlay, there, "bob", said)
    alice = Phone(overlay, here, "alice", said) if caller == "Chromium" else None
    took, seen, digits, answered = [], [], [], []
    for _ in range(runs):
        if callee == "Chromium":
            bob.browser.answer(1, stay=True)
        if alice:
            alice.browser.call("bob", 3)
            seen.append(alice.browser.saw())
            took.append(seen[-1]["set_up"])
            digits.append(seen[-1]["digits"])
        else:
            call = Call(overlay, here, bob, said)
            took.append(call.talks())
            check(call.process.wait(60) == 0, f"the call failed: {call.process.tail(6)}")
            digits.append(events(call.out, "call_described")[-1]["digits"])
            check(max(loudness(call.heard)) > 1000, "the native end hears nothing")
        if callee == "Chromium":
            seen.append(bob.browser.saw())
            digits.append(seen[-1]["digits"])
            answered.append(seen[-1]["set_up"])
        else:
            wait_until("the native end has ended", 20, lambda: len(events(bob.out, "call_ended")) == len(took))
            digits.append(events(bob.out, "call_described")[-1]["digits"])
            check(max(loudness(bob.heard)) > 1000, "the native end hears nothing")
        check(digits[-1] == digits[-2], f"different digits: {digits[-2:]}")
    for end in seen:
        check(end["level"] > 0.02, f"a browser hears nothing: {end}")
        check((end["via"] == "direct") == meets(a, b), f"the way is {end['via']}")
    ring = statistics.median(t["ring_to_sound_ms"] for t in took)
    whole = statistics.median(t["sound_ms"] for t in took)
    figures = f"{runs} calls: ring to first sound {ring:.0f} ms (worst {max(t['ring_to_sound_ms'] for t in took)}), {'dialling' if alice else 'command'} to first sound {whole:.0f} ms; {seen[-1]['figures']}"
    for role, ends in (("caller", took if alice else []), ("callee", answered)):
        legs = ends[0].keys() if ends else []
        # Of each leg the middle, from the call's beginning at that end.
        middle = {leg: statistics.median(end[leg] for end in ends if end[leg] is not None) for leg in legs if any(end[leg] is not None for end in ends)}
        figures += "".join(f"{', ' if n else f'; {role}: '}{leg.removesuffix('_ms')} {ms:.0f}" for n, (leg, ms) in enumerate(middle.items()))
    check(ring <= 1500, f"slow: {figures}")
    return figures


def together(lab):
    """Three browsers and a native end behind NATs, all of them together, a call each with each."""
    overlay = Overlay(lab, delay=DELAY)
    said = voice(lab.path("voice.wav"), 60, bursts=False)
    dave = Person(overlay, Home(lab, "sym", delay=DELAY), "dave", said, "--conference")
    alice, bob, carol = (Phone(overlay, Home(lab, kind, delay=DELAY), name, said) for kind, name in [("port", "alice"), ("sym", "bob"), ("port", "carol")])
    for called in (bob, carol):
        called.browser.answer(3, people=3, after=6)
    alice.browser.call("bob, carol dave", 3, people=3, after=6)
    for phone in (alice, bob, carol):
        seen = phone.browser.saw(150)
        quiet = [p for p in seen["people"] if p["level"] < 0.02]
        check(len(seen["people"]) == 3 and not quiet, f"{phone.name} hears not all: {seen}")
    wait_until("the native end is alone again", 20, lambda: len(events(dave.out, "call_left")) == 3)
    joined = events(dave.out, "call_joined")
    check(len(joined) == 3 and all(j["meshed"] for j in joined), f"the native end: {joined}")
    lost = [e["stats"]["lost"] for e in events(dave.out, "call_left") if e["stats"]]
    check(len(lost) == 3, f"the native end did not hear all: {events(dave.out, 'call_left')}")
    return f"each of the four hears three; {', '.join(p['figures'] for p in seen['people'])}"


def room(lab):
    """Two browsers and a native end call a fourth that takes them all: they hear each other through it."""
    overlay = Overlay(lab, delay=DELAY)
    steps = {"room": 0.03, "alice": 0.06, "bob": 0.09, "carol": 0.12}
    said = {who: voice(lab.path(f"{who}.wav"), 40, bursts=True, step=step) for who, step in steps.items()}
    place = Person(overlay, Home(lab, "sym", delay=DELAY), "room", said["room"], "--conference")
    browsers = [Phone(overlay, Home(lab, kind, delay=DELAY), who, said[who]) for kind, who in [("port", "alice"), ("sym", "bob")]]
    for phone in browsers:
        phone.browser.call("room", 14)
    wait_until("the browsers are in the room", 40, lambda: len(events(place.out, "call_joined")) == 2)
    short = voice(lab.path("carol.wav"), 8, bursts=True, step=steps["carol"])
    call = Call(overlay, Home(lab, "port", delay=DELAY), place, short)
    call.talks()
    check(call.process.wait(60) == 0, f"the call failed: {call.process.tail(6)}")
    for phone in browsers:
        seen = phone.browser.saw()
        check(seen["level"] > 0.02, f"{phone.name} hears nothing: {seen}")
    heard = {who: tone(call.heard, step) for who, step in steps.items()}
    own = heard.pop("carol")
    check(min(heard.values()) > 5 * own, f"of the others {heard}, of itself {own}")
    wait_until("the room is empty", 20, lambda: len(events(place.out, "call_left")) == 3)
    return f"the native end heard of the browsers and the room {', '.join(f'{loud:.0f}' for loud in heard.values())}, of itself {own:.0f}"


def cases(add, bound):
    """Adds the cases: they measure times, for which nothing else may run (`./dev calls`)."""

    def lab(name, run, *needs):
        add(f"call lab: {name}", run, needs, extra=True)

    for a, b, what in [("port", "port", "cone and cone"), ("sym", "sym", "symmetric both"), ("sym", "port", "symmetric and cone"), ("noudp", "port", "UDP blocked and cone")]:
        lab(f"by name, {what}", bound(by_name, a, b))
    lab("what supernodes see", capture)
    lab("the relay in use is killed", relay_killed)
    lab("NATs forget, cone and cone", bound(forgotten, "port", "port"))
    lab("NATs forget, symmetric both", bound(forgotten, "sym", "sym"))
    lab("70 s of silence, mappings of 30 s", short_mappings)
    for caller, callee in [("Chromium", "Chromium"), ("a native end", "Chromium"), ("Chromium", "a native end")]:
        for a, b, what in [("port", "port", "cone and cone"), ("sym", "sym", "symmetric both"), ("sym", "port", "symmetric and cone"), ("noudp", "port", "UDP blocked and cone")]:
            lab(f"{caller} to {callee}, {what}", bound(browser_calls, a, b, caller, callee), Chromium)
        lab(f"{caller} to {callee}, the relay in use is killed", bound(relay_killed, caller, callee), Chromium)
        lab(f"{caller} to {callee}, NATs forget, cone and cone", bound(forgotten, "port", "port", caller, callee), Chromium)
        lab(f"{caller} to {callee}, NATs forget, symmetric both", bound(forgotten, "sym", "sym", caller, callee), Chromium)
    lab("three Chromiums and a native end together", together, Chromium)
    lab("a room with two Chromiums and a native end", room, Chromium)
