"""A network of our own: a namespace where only loopback exists, with addresses 10.77.x.y on it.

Some clients refuse peers on 127.0.0.0/8, so loopback alone does not do. `enter` starts the
running script again inside new network, mount and process namespaces (all of it goes away with
the script). Where that is not allowed, the scripts run on 127.0.0.0/8 and say so.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading

INSIDE = "SHOAL_LAB_INSIDE"
_lock = threading.Lock()
_next = [0]


def enter():
    """Re-executes the script in its own namespaces when that is possible."""
    if INSIDE in os.environ:
        if os.environ[INSIDE] == "1":
            _set_up()
        return
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        flags.insert(0, "--map-root-user")
    usable = shutil.which("unshare") and shutil.which("ip")
    if usable and subprocess.run(["unshare", *flags, "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", *flags, sys.executable, *sys.argv])
    print("note: no network namespace here (needs unshare and ip); using 127.0.0.0/8", file=sys.stderr)
    os.environ[INSIDE] = "0"


def _set_up():
    lines = ["link set lo up"] + [f"addr add 10.77.{n // 250}.{n % 250 + 1}/16 dev lo" for n in range(500)]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    # A tracker's answer must not take a turn through a real resolver or proxy.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)


def isolated():
    """Whether the script runs in a namespace of its own."""
    return os.environ.get(INSIDE) == "1"


def address():
    """An IPv4 address nobody else here was given (until they run out)."""
    with _lock:
        n = _next[0] % 500
        _next[0] += 1
    return f"10.77.{n // 250}.{n % 250 + 1}" if isolated() else f"127.0.{n // 250 + 1}.{n % 250 + 1}"


def free_port(ip="127.0.0.1"):
    """A TCP port on `ip` that was free a moment ago, for programs that cannot pick one."""
    with socket.socket() as s:
        s.bind((ip, 0))
        return s.getsockname()[1]
