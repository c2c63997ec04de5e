"""What a process costs: CPU seconds and private memory, from /proc."""

import os
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system seconds of a living process and its dead threads, to a clock tick."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def private_bytes(pid):
    """Private memory: what would be freed if the process ended, without shared and page cache."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1]) * 1024
    return total


def anonymous_bytes(pid):
    """Anonymous memory: leaves mapped files out, for programs that map their payload."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) * 1024
    return 0


class MemoryWatch:
    """Samples a process about ten times a second and keeps the peaks."""

    def __init__(self, pid, every=0.1):
        self.pid = pid
        self.peak = 0
        self.peak_anonymous = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(every,), daemon=True)
        self._thread.start()

    def _run(self, every):
        while not self._stop.is_set():
            try:
                self.peak = max(self.peak, private_bytes(self.pid))
                self.peak_anonymous = max(self.peak_anonymous, anonymous_bytes(self.pid))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                return
            self._stop.wait(every)

    def stop(self):
        self._stop.set()
        self._thread.join()
        return self.peak

