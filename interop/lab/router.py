"""A router that maps ports when it is asked to: miniupnpd on the router of a home."""

import subprocess

from .process import Skip, find_program, wait_until

# As miniupnpd's own script makes them.
TABLES = """
table inet filter {
  chain forward { type filter hook forward priority 0; jump miniupnpd; }
  chain miniupnpd { }
  chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority 90; jump postrouting_miniupnpd; }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
"""
# A router that knows no PCP does not answer to it: requests begin with the version.
WITHOUT_PCP = "table ip without { chain in { type filter hook input priority -5; udp dport 5351 @th,64,8 2 drop; }; }"


class Router:
    """That of a home, speaking `PCP`, `NAT-PMP` or `UPnP` alone."""

    def __init__(self, lab, home, speaks):
        if not find_program("miniupnpd"):
            raise Skip("needs miniupnpd")
        self.lab, self.home = lab, home
        self.conf = lab.path("miniupnpd.conf")
        yes = {True: "yes", False: "no"}
        lines = ["ext_ifname=eth0", "listening_ip=lan", "http_port=5000", "secure_mode=yes", "allow 1024-65535 0.0.0.0/0 1024-65535"]
        lines += [f"enable_upnp={yes[speaks == 'UPnP']}", f"enable_natpmp={yes[speaks != 'UPnP']}"]
        self.conf.write_text("\n".join(lines) + "\n")
        self._nft(TABLES)
        if speaks == "NAT-PMP":
            self._nft(WITHOUT_PCP)
        self.starts()

    def _nft(self, text):
        done = subprocess.run(self.home.router.inside(["nft", text]), capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"nft: {done.stderr.strip()}")

    def starts(self):
        """It begins, and knows of no mapping."""
        for chain in ("miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"):
            self._nft(f"flush chain inet filter {chain}")
        argv = [find_program("miniupnpd"), "-d", "-f", self.conf, "-P", self.lab.path("miniupnpd.pid")]
        self.process = self.lab.spawn("miniupnpd", self.home.router.inside(argv))
        wait_until("the router listens", 10, lambda: "listening" in self.process.tail(40).lower())

    def mapped(self):
        """Rules by which something is let through."""
        rules = subprocess.run(
            self.home.router.inside(["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"]), capture_output=True, text=True, check=True
        )
        return [line.strip() for line in rules.stdout.splitlines() if "dnat" in line]
