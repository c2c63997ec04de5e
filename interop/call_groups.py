"""Groups of more than four behind NATs: who mixes, and who takes over from it."""

import cmath
import struct
import wave

from call_lab import DELAY, RATE, SILENT, WINDOW, Person, loudness, voice
from lab.clients.shoal import program
from lab.nat import Home
from lab.process import wait_until
from reach_cases import Overlay, check, events


def tones(path, seconds, steps):
    """How loud each of these tones is in the middle one of the tenths of the last so many seconds (Goertzel's sum)."""
    size = RATE // 10
    with wave.open(str(path)) as f:
        f.setpos(max(0, f.getnframes() - RATE * seconds))
        data = f.readframes(RATE * seconds)
    samples = struct.unpack(f"<{len(data) // 2}h", data)
    parts = [samples[at : at + size] for at in range(0, len(samples) - size, size)]

    def loud(step):
        turn = [cmath.exp(-1j * step * n) for n in range(size)]
        return sorted(2 * abs(sum(s * t for s, t in zip(part, turn))) / size for part in parts)[len(parts) // 2]

    return [loud(step) for step in steps]


def pause(path):
    """For how many seconds nothing at all was heard, from the first sound to the last."""
    loud = loudness(path)
    heard = [n for n, l in enumerate(loud) if l > SILENT * max(loud)]
    return max(b - a for a, b in zip(heard, heard[1:])) * WINDOW / RATE


def hosted(lab):
    """Who calls is behind a symmetric NAT and reaches most by relays: the end without a NAT mixes, until it is killed."""
    overlay = Overlay(lab, delay=DELAY)
    kinds = {"ann": "sym", "host": "open", "ben": "port", "cat": "sym", "dan": "port"}
    steps = {who: 0.03 * (n + 1) for n, who in enumerate(kinds)}
    said = {who: voice(lab.path(f"{who}.wav"), 60, bursts=False, step=step) for who, step in steps.items()}
    homes = {who: Home(lab, kind, delay=DELAY) for who, kind in kinds.items()}
    people = {who: Person(overlay, homes[who], who, said[who], "--conference") for who in kinds if who != "ann"}
    out = {who: person.out for who, person in people.items()} | {"ann": lab.path("ann.json")}
    heard = {who: person.heard for who, person in people.items()} | {"ann": lab.path("heard-by-ann.wav")}
    argv = [program(), "call", *people, "--login", overlay.login, "--state-dir", lab.folder("ann"), "--json"]
    call = lab.spawn("ann", homes["ann"].inside([*argv, "--wav-in", said["ann"], "--wav-out", heard["ann"]]), stdout=out["ann"])

    def mixed_by(who):
        told = events(out[who], "call_mixed")
        return told and told[-1]["key"]

    keys = {who: events(out[who], "call_key")[0]["key"] for who in people}
    for who in kinds:
        wait_until(f"{who} hears the others through the end without a NAT", 60, lambda who=who: mixed_by(who) == keys["host"])
    ways = wait_until("who called has a call with the host alone", 20, lambda: len(left := events(out["ann"], "call_left")) == 3 and left)
    relayed = sum(way["stats"]["via"] != "direct" for way in ways)
    check(relayed == 3, f"only {relayed} of the others were relayed: {ways}")
    rest = [who for who in kinds if who != "host"]

    def all_hear(but):
        for here in but:
            others = [steps[who] for who in but if who != here]
            loud = tones(heard[here], 2, [*others, steps[here]])
            check(min(loud[:-1]) > 1000 and loud[-1] < 200, f"{here} hears of the others and itself {[round(l) for l in loud]}")

    def longer(seconds):
        frames = {who: len(loudness(heard[who])) for who in rest}
        enough = seconds * RATE // WINDOW
        wait_until("all have heard more", 60, lambda: all(len(loudness(heard[who])) >= frames[who] + enough for who in rest))

    longer(4)
    all_hear(list(kinds))
    people["host"].process.kill()
    for who in rest:
        wait_until(f"{who} hears the others through another one", 30, lambda who=who: mixed_by(who) not in (None, keys["host"]))
    longer(5)
    all_hear(rest)
    gaps = {who: pause(heard[who]) for who in rest}
    check(max(gaps.values()) <= 6, f"nothing was heard for {gaps} s")
    check(call.poll() is None, f"who called has ended: {call.tail(6)}")
    return f"3 of 4 calls of who called are relayed, the end without a NAT mixes; it is killed: {max(gaps.values()):.2f} s without any voice at most"


def cases(add):
    """Adds the cases: they measure times, for which nothing else may run (`./dev calls`)."""
    add("call lab: a large group, the end without a NAT mixes and is killed", hosted, (), extra=True)
