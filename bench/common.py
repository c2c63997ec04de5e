"""What the benches share: finding the laboratory, sizes, medians, tables."""

import os
import statistics
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "interop"))

from lab.process import Failure, find_program  # noqa: E402

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text):
    """Reads 16KiB, 1MiB, 1G, 4096."""
    digits = text.rstrip("iBKMGkmg")
    unit = text[len(digits) :].upper().removesuffix("B").removesuffix("I")
    return int(float(digits) * UNITS[unit])


def bench_program():
    """shoal-bench: $SHOAL_BENCH, or beside shoal, or the newest build."""
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "..", "target")
    places = [os.environ.get("SHOAL_BENCH"), os.path.join(target, "release", "shoal-bench"), os.path.join(target, "debug", "shoal-bench")]
    for place in places:
        if place and os.access(place, os.X_OK):
            return os.path.abspath(place)
    return find_program("shoal-bench") or fail("there is no shoal-bench: cargo build --release -p shoal-bench")


def fail(text):
    raise Failure(text)


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def table(headers, rows):
    """Prints rows under headers, the first column to the left."""
    cells = [headers] + [[("-" if c is None else c if isinstance(c, str) else f"{c:.2f}") for c in row] for row in rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(headers))]
    for row in cells:
        print("  " + "  ".join(c.ljust(w) if n == 0 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths))), flush=True)


def machine():
    """One line on what this ran on."""
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown processor")
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return f"{os.cpu_count()} x {model}, Linux {os.uname().release}, load {load}"
