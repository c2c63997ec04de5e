"""Homes behind NATs: a router with a public address of the lab's internet, and a machine behind it.

What the routers do is named by what they map and let in (RFC 4787):

    open     a machine with a public address, without a NAT
    wall     the same behind a firewall that lets in only what was asked for
    full     one mapping for all; whoever sends to it comes through
    addr     one mapping; hosts that were sent to come through, from any port
    port     one mapping; only the very address and port that was sent to comes through
    sym      a mapping for each destination, at a random port
    noudp    TCP alone
    web      TCP to ports 80 and 443 alone
"""

import subprocess

from .process import Skip, find_program
from .world import RUN, Host, ip

TYPES = ["open", "wall", "full", "addr", "port", "sym", "noudp", "web"]


def meets(a, b):
    """Whether UDP can go directly between two such homes, if both try at once."""
    if {a, b} & {"noudp", "web"}:
        return False
    hard = {"wall", "port", "sym"}
    return not (a == "sym" and b in hard or b == "sym" and a in hard)


def rules(kind, lan, public, lifetime):
    """The router's rules. What leaves is remembered in a map of ports and a set of who was asked."""
    arriving = {
        "full": f"ip daddr {public} meta l4proto udp dnat to udp dport map @inside",
        "addr": f"ip daddr {public} udp dport . ip saddr @asked dnat to udp dport map @inside",
    }.get(kind, "")
    ports = "masquerade fully-random" if kind == "sym" else "masquerade"
    passing = {
        "noudp": "meta l4proto udp drop; iifname lan accept",
        "web": "iifname lan tcp dport { 80, 443 } accept",
    }.get(kind, "iifname lan accept; ct status dnat accept")
    return f"""
table ip home {{
  map inside {{ type inet_service : ipv4_addr; flags dynamic,timeout; timeout {lifetime}s; }}
  set asked {{ type inet_service . ipv4_addr; flags dynamic,timeout; timeout {lifetime}s; }}
  chain in {{ type nat hook prerouting priority dstnat; {arriving}
  }}
  chain out {{ type nat hook postrouting priority srcnat; oifname eth0 ip saddr {lan} {ports}; }}
  chain note {{ type filter hook forward priority 10;
    iifname lan meta l4proto udp update @inside {{ udp sport : ip saddr }}
    iifname lan meta l4proto udp update @asked {{ udp sport . ip daddr }}
  }}
  # What nobody asked for is dropped before the kernel notes it: else a later mapping gets another port.
  chain own {{ type filter hook input priority 0; ct state established,related accept; iifname eth0 drop; }}
  chain pass {{ type filter hook forward priority 0; policy drop; ct state established,related accept; {passing}; }}
}}
"""


class Home:
    """A machine of one of the types."""

    def __init__(self, lab, kind, lifetime=30, delay=0):
        if not find_program("nft"):
            raise Skip("needs nft")
        self.kind = kind
        self.router = Host(lab, delay=delay)
        self.public = self.router.ip
        if kind in ("open", "wall"):
            self.namespace = self.router.namespace
            if kind == "wall":
                self.router.firewall()
            return
        n = self.router.namespace.rsplit("-", 1)[1]
        self.namespace = f"shoal-{RUN}-{n}h"
        ip("netns", "add", self.namespace)
        lab.at_close(lambda: subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True))
        lan = f"192.168.{int(n) % 250}"
        ip("link", "add", "lan", "netns", self.router.namespace, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("-n", self.router.namespace, "addr", "add", f"{lan}.1/24", "dev", "lan")
        ip("-n", self.router.namespace, "link", "set", "lan", "up")
        ip("-n", self.namespace, "addr", "add", f"{lan}.2/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        ip("-n", self.namespace, "route", "add", "default", "via", f"{lan}.1")
        self._run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        for name in ("udp_timeout", "udp_timeout_stream"):
            self._run(["sysctl", "-qw", f"net.netfilter.nf_conntrack_{name}={lifetime}"])
        self._run(["nft", rules(kind, f"{lan}.0/24", self.public, lifetime)])

    def _run(self, argv):
        done = subprocess.run(self.router.inside(argv), capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"{argv[0]}: {done.stderr.strip()}")

    def forget(self):
        """The router forgets all its mappings, as when it is started again."""
        if not find_program("conntrack"):
            raise Skip("needs conntrack")
        self._run(["conntrack", "-F"])
        self._run(["nft", "flush map ip home inside; flush set ip home asked"])

    def inside(self, argv):
        """The command line that runs `argv` on the machine."""
        return ["ip", "netns", "exec", self.namespace, *[str(a) for a in argv]]


def join_by_ipv6(*homes):
    """Gives homes behind routers a path of IPv6 to each other, past firewalls that let in only what was asked for."""
    for n, home in enumerate(homes, 1):
        router = home.router.namespace
        ip("-n", router, "addr", "add", f"2600:ffff::{n}/64", "dev", "eth0", "nodad")
        ip("-n", router, "addr", "add", f"2600:0:{n}::1/64", "dev", "lan", "nodad")
        ip("-n", home.namespace, "addr", "add", f"2600:0:{n}::2/64", "dev", "eth0", "nodad")
        ip("-n", home.namespace, "-6", "route", "add", "default", "via", f"2600:0:{n}::1")
        for m in range(1, len(homes) + 1):
            if m != n:
                ip("-n", router, "-6", "route", "add", f"2600:0:{m}::/64", "via", f"2600:ffff::{m}")
        home._run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"])
        passing = "ct state established,related accept; iifname lan accept"
        home._run(["nft", f"table ip6 home {{ chain pass {{ type filter hook forward priority 0; policy drop; {passing}; }}; }}"])
