"""A slow link: `python3 slow.py NAMESPACE BRIDGE PORT MILLISECONDS`.

Makes the network interface eth0 of a namespace, whose other end is PORT at a bridge here, and carries frames between the two,
each way so many milliseconds late. For kernels without sch_netem.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

# linux/if_tun.h
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME = 65600


def tap(name):
    """A TAP device; what is written here comes in there."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def ip(*args):
    subprocess.run(["ip", *args], check=True)


def carry(ends, delay):
    """Until it is ended."""
    waiting = (deque(), deque())
    poll = select.poll()
    for fd in ends:
        poll.register(fd, select.POLLIN)
    while True:
        now = time.monotonic()
        for queue, other in zip(waiting, reversed(ends), strict=True):
            while queue and queue[0][0] <= now:
                try:
                    os.write(other, queue.popleft()[1])
                except OSError:
                    pass  # The other end is down, or full: lost, as on any link.
        due = [queue[0][0] for queue in waiting if queue]
        for fd, _ in poll.poll(max(0, (min(due) - time.monotonic()) * 1000) if due else None):
            queue = waiting[ends.index(fd)]
            try:
                while True:
                    frame = os.read(fd, FRAME)
                    queue.append((time.monotonic() + delay, frame))
            except OSError:
                pass


def main():
    namespace, bridge, port, milliseconds = sys.argv[1:]
    inner = tap(f"{port}i")
    outer = tap(port)
    ip("link", "set", f"{port}i", "netns", namespace, "name", "eth0")
    ip("link", "set", port, "master", bridge, "up")
    try:
        # Frames are to be late by what was asked for, on a busy machine too.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    except PermissionError:
        pass
    print("ready", flush=True)
    carry((inner, outer), float(milliseconds) / 1000)


main()
