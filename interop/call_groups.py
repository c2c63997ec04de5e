"""Groups of more than four behind NATs: who mixes, and who takes over from it."""

import cmath
import struct
import wave

from call_cases import Chromium
from call_lab import DELAY, RATE, WINDOW, Person, Phone, loudness, voice
from lab.clients.shoal import program
from lab.nat import Home
from lab.process import Failure, wait_until
from reach_cases import Overlay, check, events


def tones(path, seconds, steps):
    """How loud each of these tones is in the tenths of the last so many seconds (Goertzel's sum): in the middle one, and in the loudest but a
    tenth of them, which is what counts of a voice that comes and goes."""
    size = RATE // 10
    with wave.open(str(path)) as f:
        f.setpos(max(0, f.getnframes() - RATE * seconds))
        data = f.readframes(RATE * seconds)
    samples = struct.unpack(f"<{len(data) // 2}h", data)
    parts = [samples[at : at + size] for at in range(0, len(samples) - size, size)]

    def loud(step):
        turn = [cmath.exp(-1j * step * n) for n in range(size)]
        all_parts = sorted(2 * abs(sum(s * t for s, t in zip(part, turn))) / size for part in parts)
        return all_parts[len(parts) // 2], all_parts[9 * len(parts) // 10]

    return [loud(step) for step in steps]


def pause(path):
    """For how many seconds nobody was heard, from the first sound to the last. What is made up when nothing comes is noise, as loud as a third
    of steady tones."""
    loud = loudness(path)
    heard = [n for n, l in enumerate(loud) if l > 0.4 * max(loud)]
    return max(b - a for a, b in zip(heard, heard[1:])) * WINDOW / RATE


def hosted(lab, browser=False):
    """Who calls is behind a symmetric NAT and reaches most by relays: the end without a NAT mixes, until it is killed. With a browser one of
    the others is Chromium."""
    overlay = Overlay(lab, delay=DELAY)
    kinds = {"ann": "sym", "host": "open", "ben": "port", "cat": "sym", "dan": "port"}
    steps = {who: 0.03 * (n + 1) for n, who in enumerate(kinds)}
    # A browser takes a steady tone for noise.
    said = {who: voice(lab.path(f"{who}.wav"), 60, bursts=browser and who == "dan", step=step) for who, step in steps.items()}
    homes = {who: Home(lab, kind, delay=DELAY) for who, kind in kinds.items()}
    natives = [who for who in kinds if who != "ann" and not (browser and who == "dan")]
    people = {who: Person(overlay, homes[who], who, said[who], "--conference") for who in natives}
    if browser:
        people["dan"] = Phone(overlay, homes["dan"], "dan", said["dan"])
        people["dan"].browser.answer(30)
    out = {who: person.out for who, person in people.items()} | {"ann": lab.path("ann.json")}
    heard = {who: people[who].heard for who in natives} | {"ann": lab.path("heard-by-ann.wav")}
    argv = [program(), "call", *people, "--login", overlay.login, "--state-dir", lab.folder("ann"), "--json"]
    call = lab.spawn("ann", homes["ann"].inside([*argv, "--wav-in", said["ann"], "--wav-out", heard["ann"]]), stdout=out["ann"])

    def mixed_by(who):
        if who not in heard:
            told = people[who].browser.told("mixed")
            return told and told[-1]
        told = events(out[who], "call_mixed")
        return told and told[-1]["key"]

    keys = {who: events(out[who], "call_key")[0]["key"] for who in people}
    for who in kinds:
        wait_until(f"{who} hears the others through the end without a NAT", 60, lambda who=who: mixed_by(who) == keys["host"])
    ways = wait_until("who called has a call with the host alone", 20, lambda: len(left := events(out["ann"], "call_left")) == 3 and left)
    relayed = sum(way["stats"]["via"] != "direct" for way in ways)
    check(relayed == 3, f"only {relayed} of the others were relayed: {ways}")
    rest = [who for who in kinds if who != "host"]

    def deaf(but):
        """Who does not hear all others, or hears itself."""
        for here in (who for who in but if who in heard):
            loud = dict(zip(but, tones(heard[here], 3, [steps[who] for who in but])))
            own = loud.pop(here)
            if min(most for _, most in loud.values()) < 1000 or own[0] > 200:
                yield f"{here} hears {loud} and of itself {own}"

    def all_hear(but):
        last = []

        def look():
            last[:] = deaf(but)
            return not last

        try:
            wait_until("all hear all", 15, look)
        except Failure as failure:
            raise Failure(f"{failure}: {last}") from failure

    def longer(seconds):
        frames = {who: len(loudness(heard[who])) for who in rest if who in heard}
        enough = seconds * RATE // WINDOW
        wait_until("all have heard more", 60, lambda: all(len(loudness(heard[who])) >= frames[who] + enough for who in frames))

    longer(4)
    all_hear(list(kinds))
    people["host"].process.kill()
    for who in rest:
        wait_until(f"{who} hears the others through another one", 30, lambda who=who: mixed_by(who) not in (None, keys["host"]))
    longer(5)
    all_hear(rest)
    gaps = {who: pause(heard[who]) for who in rest if who in heard}
    check(max(gaps.values()) <= 6, f"nothing was heard for {gaps} s")
    if browser:
        seen = people["dan"].browser.saw()
        check(seen["level"] > 0.02, f"the browser hears nothing: {seen}")
        gaps["dan"] = seen["gap_ms"] / 1000
        check(gaps["dan"] <= 8, f"no packet came for {gaps} s")
    check(call.poll() is None, f"who called has ended: {call.tail(6)}")
    return f"3 of 4 calls of who called are relayed, the end without a NAT mixes; it is killed: without any voice {', '.join(f'{who} {gap:.2f} s' for who, gap in gaps.items())}"


def cases(add, bound):
    """Adds the cases: they measure times, for which nothing else may run (`./dev calls`)."""
    add("call lab: a large group, the end without a NAT mixes and is killed", hosted, (), extra=True)
    add("call lab: a large group with a Chromium, whose host is killed", bound(hosted, True), (Chromium,), extra=True)
