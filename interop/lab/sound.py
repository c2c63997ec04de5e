"""A sound server of a test's own: PulseAudio with a microphone and a loudspeaker that are none.

Each is a null sink, which keeps the clock of a real card. What is played to `mouth` is what the microphone hears, and what
the loudspeaker plays is at `ear`. Programs get there by ALSA's `pulse` device, as on a desktop.
"""

import array
import os
import subprocess
import threading
import time
import wave

from .process import Failure, Skip, need_program, wait_until

RATE = 48000


class SoundServer:
    """PulseAudio, without anybody else's settings."""

    def __init__(self, lab, mouth="mouth", ear="ear"):
        self.lab, self.mouth, self.ear = lab, mouth, ear
        pulseaudio = need_program("pulseaudio")
        home = lab.folder("sound")
        home.chmod(0o700)
        self.socket = home / "native"
        settings = home / "server.pa"
        settings.write_text(
            f"load-module module-native-protocol-unix socket={self.socket} auth-anonymous=1\n"
            + "".join(f"load-module module-null-sink sink_name={s} rate={RATE} channels=1\n" for s in (mouth, ear))
        )
        self.env = {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "PULSE_RUNTIME_PATH": str(home),
            "PULSE_SERVER": f"unix:{self.socket}",
        }
        argv = [pulseaudio, "-n", "-F", settings, "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes"]
        self.argv = [*argv, "--log-target=stderr"]
        self.start()

    def start(self):
        """Starts the server, again if it was stopped."""
        self.process = self.lab.spawn("pulseaudio", self.argv, env=self.env)
        wait_until("the sound server is there", 20, lambda: self._alive() and self._sinks() >= 2)

    def _alive(self):
        if self.process.poll() is not None:
            raise Failure(f"pulseaudio ended: {self.process.tail()}")
        return True

    def _sinks(self):
        asked = subprocess.run(["pactl", "list", "short", "sinks"], env={**os.environ, **self.env}, capture_output=True, text=True)
        return len(asked.stdout.splitlines())

    def of(self, microphone=None, loudspeaker=None):
        """The environment of a program that has these."""
        more = {"PULSE_SOURCE": f"{microphone}.monitor"} if microphone else {}
        return {**self.env, **more, **({"PULSE_SINK": loudspeaker} if loudspeaker else {})}

    def say(self, path):
        """Plays a file into the microphone."""
        argv = [need_program("paplay"), "--latency-msec=20", f"--device={self.mouth}", path]
        return self.lab.spawn("speaker", argv, env=self.env)

    def listen(self, where):
        """Records what is played at a sink."""
        return Recorder(self, where)


class Recorder(threading.Thread):
    """What is heard somewhere, and when each sample of it was."""

    def __init__(self, server, where):
        super().__init__(daemon=True)
        argv = [need_program("parec"), f"--device={where}.monitor", f"--rate={RATE}", "--channels=1", "--format=s16le", "--latency-msec=5"]
        self.popen = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **server.env})
        server.lab.at_close(self.stop)
        self.data = bytearray()
        # The earliest moment at which the first sample can have been heard, by all that came.
        self.began = None
        self.start()

    def run(self):
        while chunk := os.read(self.popen.stdout.fileno(), 4096):
            now = time.monotonic()
            self.data += chunk
            began = now - len(self.data) / 2 / RATE
            self.began = began if self.began is None else min(self.began, began)

    def stop(self):
        """Ends it; gives its samples."""
        if self.popen.poll() is None:
            self.popen.terminate()
            self.popen.wait()
        self.join()
        return array.array("h", bytes(self.data[: len(self.data) // 2 * 2]))

    def write(self, path):
        """Ends it and writes what was heard into a WAV file."""
        samples = self.stop()
        with wave.open(str(path), "wb") as f:
            f.setparams((1, 2, RATE, 0, "NONE", ""))
            f.writeframes(samples.tobytes())


def need_sound(shoal):
    """Skips where there is no sound server, or a shoal that can use none."""
    for name in ("pulseaudio", "pactl", "paplay", "parec"):
        need_program(name)
    asked = subprocess.run([shoal, "sound"], capture_output=True, text=True)
    if asked.returncode == 1:
        raise Skip("this shoal was built without --features sound")
    if "\tpulse\t" not in asked.stdout:
        raise Skip("ALSA has no plugin for PulseAudio (libasound2-plugins)")
