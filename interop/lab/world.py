"""A small internet: hosts with addresses of their own, 44.20.n.1, each in its own network namespace.

Gnutella's programs tell each other's addresses and doubt those of private networks; so every host
needs one that looks public. All are joined by a bridge in the lab's own namespace.
"""

import os
import subprocess
import sys
import tempfile
import threading

from . import net
from .process import Skip, wait_until

BRIDGE = "shoal-world"
RUN = os.urandom(3).hex()
_lock = threading.Lock()
_hosts = [0]


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


def need():
    """A namespace that this user may make further ones in."""
    if not net.isolated() or os.geteuid() != 0 or not os.access("/run", os.W_OK):
        raise Skip("needs root and network namespaces")


def no_names():
    """Nobody answers for names: asking fails at once. Seen only in the lab's own mount namespace."""
    with tempfile.NamedTemporaryFile("w", prefix="resolv-") as f:
        f.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        f.flush()
        subprocess.run(["mount", "--bind", f.name, "/etc/resolv.conf"], check=False, capture_output=True)


class Host:
    """One machine of that internet; gone with the lab's namespaces, at the latest."""

    def __init__(self, lab, firewalled=False, delay=0):
        """`delay`: how many milliseconds its link is slow, each way."""
        need()
        with _lock:
            if _hosts[0] == 0:
                no_names()
                ip("link", "add", BRIDGE, "type", "bridge")
                ip("link", "set", BRIDGE, "up")
            _hosts[0] += 1
            n = _hosts[0]
        self.ip = f"44.20.{n}.1"
        # Every run is process 1 of its own namespace, but names are for all.
        self.namespace = f"shoal-{RUN}-{n}"
        ip("netns", "add", self.namespace)
        lab.at_close(lambda: subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True))
        if delay:
            slow = [sys.executable, os.path.join(os.path.dirname(__file__), "slow.py"), self.namespace, BRIDGE, f"w{n}", delay]
            link = lab.spawn(f"link{n}", slow)
            wait_until("a slow link is there", 10, lambda: "ready" in link.tail() or link.poll() is not None)
            if link.poll() is not None:
                raise Skip(f"no slow links here: {link.tail(1)}")
        else:
            ip("link", "add", f"w{n}", "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
            ip("link", "set", f"w{n}", "master", BRIDGE, "up")
        inside = ["-n", self.namespace]
        ip(*inside, "addr", "add", f"{self.ip}/16", "dev", "eth0")
        ip(*inside, "link", "set", "lo", "up")
        ip(*inside, "link", "set", "eth0", "up")
        # What is elsewhere is to fail at once, not to have no way.
        ip(*inside, "route", "add", "default", "dev", "eth0")
        if firewalled:
            self.firewall()

    def firewall(self):
        """From now on nobody connects to it; what it begins itself goes on."""
        rules = "table inet wall { chain in { type filter hook input priority 0; ct state established,related accept; iifname lo accept; drop; }; }"
        try:
            subprocess.run(self.inside(["nft", rules]), check=True, capture_output=True, text=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise Skip(f"no firewall here (needs nft): {getattr(error, 'stderr', error)}") from None

    def inside(self, argv, user=None):
        """The command line that runs `argv` on this machine."""
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        return ["ip", "netns", "exec", self.namespace, *become, *[str(a) for a in argv]]
