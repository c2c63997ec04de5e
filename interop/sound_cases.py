"""The cases of microphone and loudspeaker: calls between native ends through a sound server.

Need PulseAudio, and a shoal that was built with `--features sound`.
"""

import math
import os
import struct
import wave

from call_cases import check, events
from lab.clients.shoal import program
from lab.process import wait_until
from lab.sound import RATE, SoundServer, need_sound
from lab.supernode import Overlay

# A click every second: loud for a millisecond, so that a codec lets it through.
CLICK = 48
HERTZ = 440


class Sound:
    """What the cases need."""

    name = "a sound server"

    @staticmethod
    def need():
        need_sound(program())


def write(path, samples):
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, RATE, 0, "NONE", ""))
        f.writeframes(b"".join(struct.pack("<h", s) for s in samples))
    return path


def tone(path, seconds):
    return write(path, (int(9000 * math.sin(n * math.tau * HERTZ / RATE)) for n in range(RATE * seconds)))


def clicks(path, seconds):
    """Silence with a short, loud sound at each second."""
    loud = lambda n: int(25000 * math.sin(n * math.tau / CLICK)) if n < CLICK else 0  # noqa: E731
    return write(path, (loud(n % RATE) for n in range(RATE * seconds)))


def loudness(samples):
    """How loud the tone is in the middle one of all tenths of a second with sound."""
    width, windows = RATE // 10, []
    for start in range(0, len(samples) - width, width):
        part = samples[start : start + width]
        re = sum(s * math.cos(n * math.tau * HERTZ / RATE) for n, s in enumerate(part))
        im = sum(s * math.sin(n * math.tau * HERTZ / RATE) for n, s in enumerate(part))
        windows.append(2 * math.hypot(re, im) / width)
    windows = sorted(w for w in windows if w > 100)
    return windows[len(windows) // 2] if windows else 0, len(windows) / 10


def beginnings(recorder, samples):
    """When clicks were heard."""
    found, n = [], 0
    while n < len(samples):
        if abs(samples[n]) > 3000:
            found.append(recorder.began + n / RATE)
            n += RATE // 2
        n += 1
    return found


class Call:
    """One native end calls another, by its address or its name: the caller's microphone, the callee's loudspeaker."""

    def __init__(self, lab, server, overlay=None, callee=None, **caller):
        self.outs = [lab.path("caller.json"), lab.path("callee.json")]
        here, there = ["--bind", "127.0.0.1:0"], ["--listen", "127.0.0.1:0", "--bind", "127.0.0.1:0"]
        if overlay:
            by_name = lambda who: ["--login", overlay.login, "--state-dir", lab.path(who), "--udp", "127.0.0.1:0"]  # noqa: E731
            here, there = by_name("caller"), ["--as", "bob", *by_name("callee")]
        argv = [program(), "answer", "--json", "--once", "--stay", *there, "--loudspeaker=pulse"]
        argv += ["--microphone=pulse"] if callee else []
        env = server.of(loudspeaker=server.ear, **({"microphone": server.mouth} if callee else {}))
        self.callee = lab.spawn("callee", argv, stdout=self.outs[1], env=env, **(callee or {}))
        if overlay:
            wait_until("the callee's name is known", 60, lambda: events(self.outs[1], "published"))
            whom = "bob"
        else:
            whom = wait_until("the callee listens", 30, lambda: events(self.outs[1], "listening"))[0]["addr"]
        argv = [program(), "call", whom, "--json", "--stay", *here, "--microphone=pulse"]
        self.caller = lab.spawn("caller", argv, stdout=self.outs[0], env=server.of(microphone=server.mouth), **caller)
        wait_until("both talk", 30, lambda: all(any(e["leg"] == "talking" for e in events(o, "call_leg")) for o in self.outs))

    def stop(self):
        """Hangs up; the last figures of both."""
        self.caller.stop()
        check(self.callee.wait(20) == 0, f"the callee failed: {self.callee.tail()}")
        return [events(o, "call_stats")[-1] for o in self.outs]


def a_tone(lab, by_name=False):
    server, overlay = SoundServer(lab), None
    if by_name:
        overlay = Overlay(lab)
        for n in range(3):
            overlay.node(f"super{n}", ["--supernode", "--keep-role", "--relay", "127.0.0.1:0"])
    call = Call(lab, server, overlay)
    ear = server.listen(server.ear)
    speaker = server.say(tone(lab.path("tone.wav"), 8))
    check(speaker.wait(30) == 0, f"the tone was not played: {speaker.tail()}")
    samples = ear.stop()
    here, there = call.stop()
    loud, seconds = loudness(samples)
    check(loud > 6000, f"the tone is {loud:.0f} loud at the ear")
    # All but the first buffers on a still machine; compilers and other cases beside it make gaps.
    check(seconds > 5, f"{seconds} s of 8 were heard")
    return f"{loud:.0f} of 9,000 loud for {seconds} s; microphone {here['sound']['microphone']}, loudspeaker {there['sound']['loudspeaker']}"


def mouth_to_ear(lab):
    server = SoundServer(lab)
    call = Call(lab, server)
    mouth, ear = server.listen(server.mouth), server.listen(server.ear)
    speaker = server.say(clicks(lab.path("clicks.wav"), 12))
    check(speaker.wait(30) == 0, f"the clicks were not played: {speaker.tail()}")
    said, heard = (beginnings(r, r.stop()) for r in (mouth, ear))
    _, there = call.stop()
    delays = sorted((min((h - s for h in heard if h > s), default=1) * 1000) for s in said[3:-1])
    check(len(delays) >= 6, f"{len(said)} clicks were said, {len(heard)} heard")
    measured, told = delays[len(delays) // 2], there["stats"]["mouth_to_ear_ms"]
    # On a still machine 95 ms; compilers beside it make gaps, and gaps make cards careful.
    check(measured < 250, f"from mouth to ear {measured:.0f} ms (told: {told:.0f})")
    check(abs(measured - told) < 40, f"from mouth to ear {measured:.0f} ms, told {told:.0f}")
    return f"from mouth to ear {measured:.0f} ms ({delays[0]:.0f} to {delays[-1]:.0f}), told {told:.0f}"


def a_lost_device(lab):
    server = SoundServer(lab)
    call = Call(lab, server)
    server.process.kill()
    lost = lambda out: any(e["why"] for e in events(out, "call_card"))  # noqa: E731
    wait_until("both say that the device is lost", 20, lambda: all(map(lost, call.outs)))
    server.start()
    again = lambda out: sum(bool(e["open"]) for e in events(out, "call_card")) == 2  # noqa: E731
    wait_until("both have it again", 20, lambda: all(map(again, call.outs)))
    # A server that has just begun gives what is up to two seconds old.
    delay = lambda out, which: (events(out, "call_stats")[-1]["sound"][which] or {}).get("delay_ms") or 1000  # noqa: E731
    settled = lambda: delay(call.outs[0], "microphone") < 100 and delay(call.outs[1], "loudspeaker") < 100  # noqa: E731
    wait_until("the cards have settled", 20, settled)
    ear = server.listen(server.ear)
    server.say(tone(lab.path("tone.wav"), 5)).wait(30)
    loud, seconds = loudness(ear.stop())
    call.stop()
    check(loud > 6000 and seconds > 3, f"afterwards {loud:.0f} loud for {seconds} s")
    why = next(e["why"] for e in events(call.outs[0], "call_card") if e["why"])
    return f"told: {why}; afterwards {loud:.0f} of 9,000 loud for {seconds} s"


def muted(lab, answers=False):
    server = SoundServer(lab)
    ours, theirs = os.openpty()
    # A terminal that it may read from.
    terminal = {"stdin": theirs, "start_new_session": True}
    call = Call(lab, server, callee=terminal) if answers else Call(lab, server, **terminal)
    os.close(theirs)
    # Long enough for all that follows.
    server.say(tone(lab.path("tone.wav"), 30))
    out = call.outs[answers]

    def level():
        told = [e["sound"]["level_db"] for e in events(out, "call_stats")]
        # Before anything was told it is neither loud nor silent.
        return -50 if not told or told[-1] is None else told[-1]

    wait_until("the tone is heard", 20, lambda: level() > -20)
    os.write(ours, b"m\n")
    wait_until("nothing is heard", 20, lambda: level() < -80)
    os.write(ours, b"m\n")
    wait_until("the tone is heard again", 20, lambda: level() > -20)
    call.stop()
    os.close(ours)
    told = [e["muted"] for e in events(out, "call_muted")]
    check(told == [True, False], f"told: {told}")


def cases(add):
    """Adds the cases."""
    add("call: by sound cards, a tone", a_tone, [Sound])
    add("call: by name and by sound cards, a tone", lambda lab: a_tone(lab, by_name=True), [Sound])
    add("call: from mouth to ear by sound cards", mouth_to_ear, [Sound])
    add("call: a sound card that is muted", muted, [Sound])
    add("call: who answers mutes his sound card", lambda lab: muted(lab, answers=True), [Sound])
    add("call: a sound card that is lost and comes back", a_lost_device, [Sound])
