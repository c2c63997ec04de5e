"""CPU time of a program with all that it starts, also what outlives it, by a control group.

Spark's Java and its Python workers are children of children that do not wait for each other, so that
`wait4` sees nothing of them.
"""

import os
import time

V1, V2 = "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"


class Account:
    """A control group of its own; where none may be made, [`Account.cpu_seconds`] is none."""

    def __init__(self):
        self.old = os.path.exists(os.path.join(V1, "cpuacct.usage"))
        self.path = os.path.join(V1 if self.old else V2, f"shoal-bench-{os.getpid()}")

    def __enter__(self):
        try:
            os.mkdir(self.path)
        except OSError:
            self.path = None
        return self

    def enter(self):
        """Called in the child before its program."""
        if self.path:
            with open(os.path.join(self.path, "cgroup.procs"), "w") as f:
                f.write(str(os.getpid()))

    def members(self):
        with open(os.path.join(self.path, "cgroup.procs")) as f:
            return f.read().split()

    def cpu_seconds(self):
        """Seconds of user and system so far, after what was left behind has ended or ten seconds have passed."""
        if not self.path:
            return None
        end = time.monotonic() + 10
        while self.members() and time.monotonic() < end:
            # A group tells nobody when it is empty.
            time.sleep(0.02)
        if self.old:
            with open(os.path.join(self.path, "cpuacct.usage")) as f:
                return int(f.read()) / 1e9
        with open(os.path.join(self.path, "cpu.stat")) as f:
            return next(int(line.split()[1]) for line in f if line.startswith("usage_usec")) / 1e6

    def __exit__(self, *_):
        if self.path and not self.members():
            os.rmdir(self.path)
