#!/usr/bin/env python3
"""Runs shoal against real BitTorrent clients: `python3 interop/run.py [-k TEXT] [--all]`.

Prints a line for each case and, last, `N passed, N failed, N skipped`. Programs are looked for
in $SHOAL_PEERS and PATH; a case whose program is missing is skipped with the reason.
"""

import argparse
import concurrent.futures
import os
import sys
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lab import net  # noqa: E402


def run_cases(cases, jobs, keep=False, verbose=False):
    """Runs cases (name, run, needs), a few at once; returns the counts. A run may return figures to show."""
    from lab.process import Failure, Lab, Skip

    def one(case):
        start = time.monotonic()
        try:
            for client in case.needs:
                client.need()
        except Skip as skip:
            return "skip", 0.0, str(skip), ""
        lab = Lab("interop", keep=keep)
        try:
            figures = case.run(lab)
            return "ok", time.monotonic() - start, figures or "", ""
        except Skip as skip:
            return "skip", 0.0, str(skip), ""
        except Failure as failure:
            return "FAIL", time.monotonic() - start, str(failure), lab.logs()
        except Exception:
            return "FAIL", time.monotonic() - start, "the harness broke", traceback.format_exc() + lab.logs()
        finally:
            lab.close()

    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, case): case for case in cases}
        for future in concurrent.futures.as_completed(futures):
            verdict, seconds, why, logs = future.result()
            counts[verdict] += 1
            took = f"{seconds:6.1f} s" if verdict != "skip" else "        "
            print(f"{verdict:4} {took}  {futures[future].name}" + (f": {why}" if why else ""), flush=True)
            if logs:
                print("    " + logs.replace("\n", "\n    "), flush=True)
    return counts


def summary(counts):
    return f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", metavar="TEXT", action="append", default=[], help="only cases whose name has TEXT (all of several)")
    p.add_argument("--all", action="store_true", help="also clients that Debian does not package (rqbit)")
    p.add_argument("--shoal", metavar="PATH", help="the binary to test")
    p.add_argument("--us", default="shoal", metavar="CLIENT", help="put another client in shoal's place")
    p.add_argument("-j", type=int, default=3, metavar="N", help="cases at once (3)")
    p.add_argument("--hold", type=float, metavar="SECONDS", help="how long links of Gnutella are to hold (60)")
    p.add_argument("--keep", action="store_true", help="leave the scratch folders")
    p.add_argument("--list", action="store_true")
    args = p.parse_args()
    if args.shoal:
        os.environ["SHOAL"] = os.path.abspath(args.shoal)
    if args.hold:
        os.environ["SHOAL_HOLD"] = str(args.hold)

    import cases
    from lab import clients

    chosen = cases.all_cases(clients.BY_NAME[args.us])
    chosen = [c for c in chosen if (args.all or not c.extra) and all(k in c.name for k in args.k)]
    if args.list:
        print("\n".join(c.name for c in chosen))
        return 0
    if net.INSIDE not in os.environ:
        # What has to be fetched needs the network that is gone inside.
        for need in {need for c in chosen for need in c.needs if hasattr(need, "prepare")}:
            need.prepare()
    net.enter()
    start = time.monotonic()
    counts = run_cases(chosen, args.j, args.keep)
    print(f"interop took {time.monotonic() - start:.0f} s")
    print(summary(counts))
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
