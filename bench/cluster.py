"""A master and workers of shoal on loopback, for the row `tcp` of `./dev bench mapreduce`."""

import json
import os
import shutil
import signal
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")


class Cluster:
    """Started with `with`; afterwards every process has ended and the folder is gone."""

    def __init__(self, shoal, folder, workers=4):
        self.shoal, self.folder, self.workers, self.children = shoal, os.path.join(folder, "cluster"), workers, []

    def start(self, name, *arguments):
        with open(os.path.join(self.folder, name + ".log"), "w") as log:
            child = subprocess.Popen([self.shoal, *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
        self.children.append(child)
        return child

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        master = self.start("master", "serve", "master", "--json", "--listen", "127.0.0.1:0", "--dir", os.path.join(self.folder, "jobs"))
        self.address = json.loads(master.stdout.readline())["addr"]
        for n in range(self.workers):
            # One slot each, and a host name each, as four machines would have it.
            place = os.path.join(self.folder, f"worker{n}")
            worker = self.start(f"worker{n}", "worker", "--json", "--master", self.address, "--slots", "1", "--host", f"host{n}", "--dir", place)
            worker.stdout.readline()
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            child.send_signal(signal.SIGTERM)
        for child in reversed(self.children):
            child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def usage(self):
        """CPU seconds so far and the sum of the peaks in MiB, of all processes."""
        cpu = peak = 0
        for child in self.children:
            with open(f"/proc/{child.pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            with open(f"/proc/{child.pid}/status") as f:
                peak += next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024
        return cpu, peak
