"""The call cases: headless Chromium to the page's node, to another page and to a native end.

Needs Chromium, Node.js and playwright-core (npm), which is looked for in $SHOAL_PLAYWRIGHT (a node_modules folder) and
fetched into a scratch folder where npm is.
"""

import json
import math
import os
import shutil
import struct
import subprocess
import tempfile
import wave

from lab import net
from lab.clients.shoal import program
from lab.process import Failure, Skip, find_program, need_program, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))


class Chromium:
    """What the cases need."""

    name = "Chromium with playwright-core"

    @staticmethod
    def prepare():
        """Fetches playwright-core."""
        modules()

    @staticmethod
    def need():
        need_program("node")
        if modules() is None:
            raise Skip("there is no playwright-core (npm)")
        return need_program("chromium")


def modules():
    """The folder with playwright-core; none if it is not there and cannot be had."""
    given = os.environ.get("SHOAL_PLAYWRIGHT")
    folder = given or os.path.join(tempfile.gettempdir(), "shoal-playwright", "node_modules")
    inside = net.INSIDE in os.environ
    if not os.path.exists(os.path.join(folder, "playwright-core")) and not given and not inside and shutil.which("npm"):
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", os.path.dirname(folder), "playwright-core@1"]
        subprocess.run(command, capture_output=True, timeout=300)
    return folder if os.path.exists(os.path.join(folder, "playwright-core")) else None


def check(holds, what):
    if not holds:
        raise Failure(what)


def events(path, kind):
    with open(path) as f:
        found = [json.loads(line) for line in f if line.startswith("{")]
    return [e for e in found if e.get("event") == kind]


def phone(lab, name):
    """A page's node: its page, and where calls come in."""
    out = lab.path(f"{name}.json")
    lab.spawn(name, [program(), "phone", "--json", "--page", "127.0.0.1:0", "--listen", "127.0.0.1:0"], stdout=out)
    url = wait_until(f"{name} serves its page", 30, lambda: events(out, "call_page"))[0]["url"]
    return url, events(out, "listening")[0]["addr"]


class Browser:
    """Chromium at a page: calls and answers, one call after the other."""

    def __init__(self, lab, url, voice, inside=list):
        """`inside`: makes the command line that runs it on another machine."""
        self.out = lab.path("browser.json")
        argv = ["node", os.path.join(HERE, "phone.mjs"), modules(), find_program("chromium"), url, voice]
        self.process = lab.spawn("browser", inside(argv), stdout=self.out, stdin=subprocess.PIPE)
        wait_until("the browser is there", 60, lambda: self._alive() and "open" in self._said())
        self.answered = self.waited = 0

    def _alive(self):
        check(self.process.poll() is None, f"the browser failed: {self.process.tail()}")
        return True

    def _said(self):
        return self.process.tail(400).splitlines()

    def told(self, what):
        """What the page's body has said of itself (`data-…`), so far."""
        return [line.removeprefix(f"data-{what} ") for line in self._said() if line.startswith(f"data-{what} ")]

    def _ask(self, **command):
        self.process.popen.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.popen.stdin.flush()

    def call(self, whom, seconds, **more):
        """Calls, talks for so long and hangs up; `more`: see phone.mjs."""
        self._ask(do="call", whom=whom, seconds=seconds, **more)

    def answer(self, seconds, stay=False, **more):
        """Takes the next call, talks for so long and hangs up; with `stay` the other end must."""
        self._ask(do="answer", seconds=seconds, stay=stay, **more)
        self.waited += 1
        wait_until("the browser is ready", 60, lambda: self._alive() and self._said().count("ready") >= self.waited)

    def saw(self, seconds=120):
        """What it saw of the call."""
        self.answered += 1

        def results():
            with open(self.out, encoding="utf-8") as f:
                lines = f.read().splitlines()
            return lines if len(lines) >= self.answered else self._alive() and None

        return json.loads(wait_until("the browser's call is over", seconds, results)[self.answered - 1])


def tone(path, seconds=30):
    """A voice for microphones: a tone that comes and goes."""
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, 48000, 0, "NONE", ""))
        samples = (int(9000 * math.sin(i * 0.03) * (0.6 + 0.4 * math.sin(i * 0.0005))) for i in range(48000 * seconds))
        f.writeframes(b"".join(struct.pack("<h", s) for s in samples))
    return path


def loudness(path):
    with wave.open(str(path)) as f:
        data = f.readframes(f.getnframes())
    samples = struct.unpack(f"<{len(data) // 2}h", data)
    tail = samples[-48000 * 2 : -48000]
    return math.sqrt(sum(s * s for s in tail) / max(len(tail), 1))


def hears(end, who):
    check(end["level"] > 0.02, f"{who} hears nothing: {end}")
    check(int(end["received"]) > 100, f"{who} got few packets: {end}")
    check(len(end["digits"]) == 19, f"{who} shows no digits: {end}")


def two_browsers(lab):
    (to, whom), (at, _) = phone(lab, "callee"), phone(lab, "caller")
    voice = tone(lab.path("voice.wav"))
    callee, caller = Browser(lab, to, voice), Browser(lab, at, voice)
    callee.answer(3, stay=True)
    caller.call(whom, 5)
    here, there = caller.saw(), callee.saw()
    for end, who in ((here, "the caller"), (there, "the callee")):
        hears(end, who)
        check(end["via"] == "direct", f"{who} says {end['via']}")
    check(here["digits"] == there["digits"], f"different digits: {here} {there}")
    return f"set up in {here['setup_ms']} ms, {here['figures']}"


def browser_calls_native(lab):
    voice, out, heard = tone(lab.path("voice.wav")), lab.path("native.json"), lab.path("heard.wav")
    native = lab.spawn("native", [program(), "answer", "--json", "--once", "--stay", "--listen", "127.0.0.1:0", "--wav-in", voice, "--wav-out", heard], stdout=out)
    whom = wait_until("the native end listens", 30, lambda: events(out, "listening"))[0]["addr"]
    browser = Browser(lab, phone(lab, "caller")[0], voice)
    browser.call(whom, 5)
    end = browser.saw()
    check(native.wait(20) == 0, f"the native end failed: {native.tail()}")
    return both(end, events(out, "call_described")[0], events(out, "call_ended")[0], heard)


def native_calls_browser(lab):
    voice, out, heard = tone(lab.path("voice.wav")), lab.path("native.json"), lab.path("heard.wav")
    page, whom = phone(lab, "callee")
    browser = Browser(lab, page, voice)
    browser.answer(5)
    native = lab.spawn("native", [program(), "call", whom, "--json", "--stay", "--wav-in", voice, "--wav-out", heard], stdout=out)
    end = browser.saw()
    check(native.wait(20) == 0, f"the native end failed: {native.tail()}")
    return both(end, events(out, "call_described")[0], events(out, "call_ended")[0], heard)


def both(end, described, ended, heard):
    hears(end, "the browser")
    check(end["digits"] == described["digits"], f"different digits: {end} {described}")
    check(loudness(heard) > 500, f"the native end heard {loudness(heard):.0f}")
    stats = ended["stats"]
    return f"set up in {end['setup_ms']} ms; the browser: {end['figures']}; the native end lost {stats['lost']} of {stats['received']}"


def cases(add, bound):
    """Adds the cases."""
    add("call: Chromium to Chromium", two_browsers, [Chromium])
    add("call: Chromium to a native end", browser_calls_native, [Chromium])
    add("call: a native end to Chromium", native_calls_browser, [Chromium])
