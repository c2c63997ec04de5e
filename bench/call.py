#!/usr/bin/env python3
"""Speech through calls of two shoals over links that delay, lose, jitter and throttle, judged by PESQ-WB and STOI.

The links are a relay of datagrams in this process; both ends run on this machine, so that their clocks are one and the
time from mouth to ear is measured and not estimated. The voice is espeak-ng's. Needs espeak-ng; gets pesq and pystoi
into a folder of its own.

    bench/call.py [--rounds N] [--tests clean,loss,...] [--venv DIR] [--json]
"""

import argparse
import heapq
import json
import os
import random
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import wave

from common import Failure, fail, machine, median, table
from lab.clients.shoal import program
from lab.process import Lab, Skip, need_program, wait_until
from lab.sound import RATE, SoundServer, need_sound

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ["pesq", "pystoi", "numpy", "scipy"]
SENTENCES = [
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It is easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "Four hours of steady work faced us.",
]
# What each link does, each way; times in seconds, rates in bit/s. `bars`: PESQ-WB and STOI at least, mouth to ear in ms
# and lost windows at most.
TESTS = {
    "clean": ("no loss, 20 ms", dict(delay=0.02), (3.0, 0.9, 200, 0.02)),
    "loss": ("5 % loss, 40 ms", dict(delay=0.04, loss=0.05), (2.2, 0.75, None, 0.02)),
    "heavy": ("20 % loss, 40 ms", dict(delay=0.04, loss=0.2), (None, None, None, None)),
    "jitter": ("40 ms and up to 60 ms of jitter, 1 % loss", dict(delay=0.04, jitter=0.06, loss=0.01), (None, None, None, None)),
    "relayed": ("through a relay, 40 ms", dict(delay=0.04), (3.0, 0.9, 250, 0.02)),
    "cards": ("no link; by microphone and loudspeaker", None, (3.0, 0.9, 200, 0.02)),
    "narrow": ("64 kbit/s, 20 ms, 0.3 s of queue", dict(delay=0.02, rate=64000, queue=0.3), (None, None, None, None)),
}


class Link(threading.Thread):
    """Passes datagrams on between two ends, each of which knows the other by an address here."""

    def __init__(self, caller, callee, delay=0.0, loss=0.0, jitter=0.0, rate=None, queue=0.3):
        super().__init__(daemon=True)
        self.fronts = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for front in self.fronts:
            front.bind(("127.0.0.1", 0))
        # What the caller and the callee tell each other as theirs.
        self.caller_front, self.callee_front = (f"127.0.0.1:{f.getsockname()[1]}" for f in self.fronts)
        self.ends = [caller, callee]
        self.delay, self.loss, self.jitter, self.rate, self.queue = delay, loss, jitter, rate, queue
        self.free = [0.0, 0.0]
        self.counts = {"passed": 0, "lost": 0, "overflowed": 0}
        self.ended = False
        self.random = random.Random(7)

    def run(self):
        flight, count = [], 0
        while not self.ended:
            now = time.monotonic()
            while flight and flight[0][0] <= now:
                _, _, way, data = heapq.heappop(flight)
                # To the other end, from the address that it knows the sender by.
                self.fronts[1 - way].sendto(data, self.ends[way])
            wait = min(flight[0][0] - now, 0.05) if flight else 0.05
            ready, _, _ = select.select(self.fronts, [], [], max(wait, 0))
            for front in ready:
                data, _ = front.recvfrom(4096)
                way = self.fronts.index(front)
                at = self.leaves(way, len(data), time.monotonic())
                if at is not None:
                    count += 1
                    heapq.heappush(flight, (at, count, way, data))

    def leaves(self, way, length, now):
        """When a datagram arrives at the far end; none if it does not."""
        if self.random.random() < self.loss:
            self.counts["lost"] += 1
            return None
        if self.rate:
            start = max(now, self.free[way])
            if start - now > self.queue:
                self.counts["overflowed"] += 1
                return None
            # With the headers of UDP and IP.
            self.free[way] = start + (length + 28) * 8 / self.rate
            now = self.free[way]
        self.counts["passed"] += 1
        return now + self.delay + self.random.uniform(0, self.jitter)

    def stop(self):
        self.ended = True
        self.join()
        for front in self.fronts:
            front.close()


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def speak(folder, times):
    """Makes a file of sentences; gives its path and that of the places of the sentences."""
    espeak = need_program("espeak-ng")
    path, places = os.path.join(folder, "said.wav"), []
    with wave.open(path, "wb") as out:
        written = 0
        for n, text in enumerate(SENTENCES * times):
            part = os.path.join(folder, "part.wav")
            subprocess.run([espeak, "-s", "150", "-w", part, text], check=True)
            with wave.open(part) as f:
                rate, data = f.getframerate(), f.readframes(f.getnframes())
            if n == 0:
                out.setparams((1, 2, rate, 0, "NONE", ""))
                out.writeframes(bytes(2 * rate))
                written = rate
            places.append((written / rate, (written + len(data) // 2) / rate))
            pause = bytes(2 * (rate * 6 // 10))
            out.writeframes(data + pause)
            written += (len(data) + len(pause)) // 2
    with open(os.path.join(folder, "places.json"), "w") as f:
        json.dump(places, f)
    return path, f.name


def python_with_pesq(folder):
    """A Python that can judge speech."""
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if subprocess.run([python, "-c", "import pesq, pystoi"], capture_output=True).returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def events(path, kind):
    with open(path) as f:
        found = [json.loads(line) for line in f if line.startswith("{")]
    return [e for e in found if e.get("event") == kind]


def relay(lab):
    """A relay of ours on loopback: its port, and a file with its secret."""
    secret, out = lab.path("secret"), lab.path("relay.json")
    secret.write_text("bench\n")
    lab.spawn("relay", [program(), "serve", "turn", "--json", "--listen", "127.0.0.1:0", "--secret-file", secret, "--allow-peer", "127.0.0.0/8"], stdout=out)
    address = wait_until("the relay listens", 20, lambda: events(out, "listening"))[0]["addr"]
    return int(address.rsplit(":", 1)[1]), secret


def score(python, said, heard, places, offset):
    """Judges what was heard; its recording began `offset` seconds after the first was said."""
    scored = subprocess.run([python, os.path.join(HERE, "speech.py"), said, heard, places, str(offset)], capture_output=True, text=True)
    if scored.returncode:
        fail(f"what was heard cannot be judged: {scored.stderr[-2000:]}")
    return json.loads(scored.stdout)


def by_cards(python, said, places):
    """The voice is played to the caller's microphone, and recorded at the callee's loudspeaker."""
    need_sound(program())
    with Lab("bench-call") as lab:
        server = SoundServer(lab)
        outs = [lab.path("caller.json"), lab.path("callee.json")]
        callee = lab.spawn("callee", [program(), "answer", "--json", "--once", "--listen", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--loudspeaker=pulse"],
                           stdout=outs[1], env=server.of(loudspeaker=server.ear))
        address = wait_until("the callee listens", 20, lambda: events(outs[1], "listening"))[0]["addr"]
        start = time.monotonic()
        caller = lab.spawn("caller", [program(), "call", address, "--json", "--bind", "127.0.0.1:0", "--microphone=pulse"], stdout=outs[0], env=server.of(microphone=server.mouth))
        wait_until("both talk", 30, lambda: all(any(e["leg"] == "talking" for e in events(o, "call_leg")) for o in outs))
        setup = time.monotonic() - start
        mouth, ear = server.listen(server.mouth), server.listen(server.ear)
        # The cards' buffers have settled, and the rate has risen, when the voice begins.
        time.sleep(8)
        if server.say(said).wait(120):
            fail("the voice was not played")
        # What is under way is heard.
        time.sleep(1)
        spoken, heard = lab.path("mouth.wav"), lab.path("ear.wav")
        began = [mouth.began, ear.began]
        mouth.write(spoken)
        ear.write(heard)
        caller.stop()
        if callee.wait(30):
            fail(f"the callee failed: {callee.tail()}")
        # Where the file begins in what was played: it begins with silence.
        with wave.open(str(spoken)) as f:
            loud = next((n for n, s in enumerate(memoryview(f.readframes(f.getnframes())).cast("h")) if abs(s) > 300), None)
        with wave.open(said) as f:
            silence = next(n for n, s in enumerate(memoryview(f.readframes(f.getnframes())).cast("h")) if abs(s) > 300) / f.getframerate()
        if loud is None:
            fail("nothing was played")
        result = {"setup_s": setup, "link": None, **score(python, said, heard, places, began[1] - (began[0] + loud / RATE - silence))}
        stats = [e for e in events(outs[1], "call_stats")]
        told = [e["stats"]["mouth_to_ear_ms"] for e in stats[10:]]
        last = stats[-1]["stats"]
        result.update(estimate_ms=median(told), bitrate=events(outs[0], "call_stats")[-1]["stats"]["bitrate"], bitrates=[], lost=last["lost"] / max(last["lost"] + last["received"], 1),
                      microphone=events(outs[0], "call_stats")[-1]["sound"]["microphone"], loudspeaker=stats[-1]["sound"]["loudspeaker"])
        return result


def one(python, said, places, link_settings, relayed=False):
    if link_settings is None:
        return by_cards(python, said, places)
    with Lab("bench-call") as lab:
        ports = [free_port(), free_port()]
        far = ports[1]
        if relayed:
            # The link is between the caller and the relay, which the callee is beside.
            far, secret = relay(lab)
        link = Link(*(("127.0.0.1", p) for p in (ports[0], far)), **link_settings)
        link.start()
        here, there = ["--advertise", link.caller_front], ["--advertise", link.callee_front]
        if relayed:
            here, there = ["--relay", link.callee_front, "--relay-secret-file", secret, "--relay-only"], []
        heard = [lab.path("heard-by-caller.wav"), lab.path("heard-by-callee.wav")]
        outs = [lab.path("caller.json"), lab.path("callee.json")]
        common = ["--json", "--wav-in", said]
        callee = lab.spawn("callee", [program(), "answer", *common, "--once", "--stay", "--listen", "127.0.0.1:0", "--bind", f"127.0.0.1:{ports[1]}",
                                      *there, "--wav-out", heard[1]], stdout=outs[1])
        address = wait_until("the callee listens", 20, lambda: events(outs[1], "listening"))[0]["addr"]
        start = time.monotonic()
        caller = lab.spawn("caller", [program(), "call", address, *common, "--bind", f"127.0.0.1:{ports[0]}",
                                      *here, "--wav-out", heard[0]], stdout=outs[0])
        wait_until("both talk", 30, lambda: all(any(e["leg"] == "talking" for e in events(o, "call_leg")) for o in outs))
        setup = time.monotonic() - start
        if caller.wait(240) or callee.wait(30):
            fail(f"the call failed: {caller.tail()} {callee.tail()}")
        link.stop()
        result = {"setup_s": setup, "link": link.counts}
        sound = [events(o, "call_sound")[0] for o in outs]
        stats = [e["stats"] for e in events(outs[0], "call_stats")]
        # What the callee said is what the caller heard.
        offset = (sound[0]["played_at_micros"] - sound[1]["recorded_at_micros"]) / 1e6
        result.update(score(python, said, heard[0], places, offset))
        last = stats[-1]
        if relayed and last["via"] != "ours":
            fail(f"the call is not relayed: {last}")
        result["estimate_ms"] = median([s["mouth_to_ear_ms"] for s in stats])
        result["bitrate"] = last["bitrate"]
        result["bitrates"] = [s["bitrate"] for s in stats]
        result["lost"] = last["lost"] / max(last["lost"] + last["received"], 1)
        if len(stats) > 12:
            early = stats[10]
            lost, received = last["lost"] - early["lost"], last["received"] - early["received"]
            result["lost_after_10s"] = lost / max(lost + received, 1)
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tests", default=",".join(TESTS), help="which, by comma")
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "shoal-bench-call", "venv"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    python = python_with_pesq(args.venv)
    print(f"{machine()}; medians of {args.rounds}", flush=True)
    rows, missed, everything = [], [], {}
    with tempfile.TemporaryDirectory(prefix="shoal-speech-") as folder:
        said, places = speak(folder, 1)
        for test in args.tests.split(","):
            what, link, (pesq, stoi, delay, windows) = TESTS[test]
            try:
                rounds = [one(python, said, places, link, test == "relayed") for _ in range(args.rounds)]
            except Skip as why:
                print(f"skipped: {what}: {why}")
                continue
            everything[test] = rounds
            m = {k: median([r.get(k) for r in rounds]) for k in rounds[0] if k not in ("link", "bitrates", "microphone", "loudspeaker")}
            percent = lambda k: m.get(k) * 100 if m.get(k) is not None else None  # noqa: E731
            rows.append([what, m["pesq_wb"], m["stoi"], m["delay_ms"], m["estimate_ms"], percent("lost"), percent("lost_after_10s"),
                         percent("lost_windows"), m["bitrate"] / 1000, m["setup_s"]])
            bars = [(pesq, m["pesq_wb"], 1, "PESQ-WB"), (stoi, m["stoi"], 1, "STOI"), (delay, m["delay_ms"], -1, "mouth to ear"), (windows, m["lost_windows"], -1, "lost windows")]
            if test == "narrow":
                bars.append((0.05, m.get("lost_after_10s", 1), -1, "loss after 10 s"))
            missed += [f"{what}: {name} {got:.3f}, bar {bar}" for bar, got, sign, name in bars if bar is not None and (got is None or (got - bar) * sign < 0)]
    table(["link", "PESQ-WB", "STOI", "mouth-ear ms", "estimate", "lost %", "after 10 s", "gaps %", "kbit/s", "set-up s"], rows)
    if args.json:
        print(json.dumps(everything))
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"bench/call.py: {failure}")
