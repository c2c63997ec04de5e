"""Starting, watching and ending the programs of one test."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path


class Failure(Exception):
    """A test's claim did not hold; the text says which."""


class Skip(Exception):
    """A test cannot run here; the text says why."""


def find_program(name):
    """A program in $SHOAL_PEERS, in PATH or in the sbin folders; None if there is none."""
    path = os.pathsep.join([os.environ.get("SHOAL_PEERS", ""), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


def need_program(name):
    path = find_program(name)
    if path is None:
        raise Skip(f"{name} is not installed")
    return path


def wait_until(what, seconds, condition, every=0.05):
    """Polls `condition` until it is true; `what` names it in the failure."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"after {seconds:g} s still not: {what}")
        time.sleep(every)


class Process:
    """A running program whose output goes to a file; ended by its own id."""

    def __init__(self, name, argv, log, cwd=None, env=None, stdout=None, stdin=subprocess.DEVNULL, **more):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.log = log
        self.started = time.monotonic()
        with open(log, "ab") as f:
            out = open(stdout, "ab") if stdout else f
            self.popen = subprocess.Popen(
                self.argv, stdin=stdin, stdout=out, stderr=f, cwd=cwd, env={**os.environ, **(env or {})}, **more
            )
            if stdout:
                out.close()
        self.pid = self.popen.pid
        self.ended = None
        self.rusage = None
        self._status = None
        self._lock = threading.Lock()

    def poll(self):
        """Exit code, or None while it runs; keeps the resource usage of the dead."""
        with self._lock:
            if self._status is None:
                pid, status, rusage = os.wait4(self.pid, os.WNOHANG)
                if pid:
                    self._status = os.waitstatus_to_exitcode(status)
                    self.popen.returncode = self._status
                    self.rusage = rusage
                    self.ended = time.monotonic()
            return self._status

    def wait(self, seconds):
        """Its exit code; fails when it is still running after `seconds`."""
        wait_until(f"{self.name} ended", seconds, lambda: self.poll() is not None, every=0.01)
        return self.poll()

    def signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def stop(self, grace=5):
        """SIGTERM, then SIGKILL after `grace` seconds."""
        self.signal(signal.SIGTERM)
        end = time.monotonic() + grace
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        self.kill()

    def kill(self):
        self.signal(signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.002)

    def tail(self, lines=15):
        text = Path(self.log).read_bytes()[-20000:].decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


class Lab:
    """A scratch folder and the processes of one test; `with Lab() as lab` cleans up both."""

    def __init__(self, label="lab", keep=False, base=None):
        base = base or os.environ.get("SHOAL_LAB_DIR")
        self.dir = Path(tempfile.mkdtemp(prefix=f"shoal-{label}-", dir=base))
        self.keep = keep
        self.processes = []
        self._closers = []
        self._count = 0
        self._lock = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def path(self, name):
        """A fresh path in the scratch folder, named after `name`."""
        with self._lock:
            self._count += 1
            return self.dir / f"{self._count:03}-{name}"

    def folder(self, name):
        path = self.path(name)
        path.mkdir(parents=True)
        return path

    def spawn(self, name, argv, **options):
        process = Process(name, argv, self.path(f"{name}.log"), **options)
        self.processes.append(process)
        return process

    def at_close(self, action):
        self._closers.append(action)

    def close(self):
        for process in reversed(self.processes):
            process.kill()
        for action in reversed(self._closers):
            action()
        self._closers.clear()
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def logs(self, lines=12):
        """The last lines each program said: what to read when a test fails."""
        parts = []
        for p in self.processes:
            parts.append(f"--- {p.name} (exit {p.poll()}): {' '.join(p.argv)}\n{p.tail(lines)}")
        return "\n".join(parts)
