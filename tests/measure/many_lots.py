"""Score 500 lots in one process through Python, and see that memory, files and threads stay what they are.

    python tests/measure/many_lots.py [--lots 500] [--every 50]

Small lots, each of other images, with saved results; one lot in ten fails, by a bundle that is none, too few
images or an output that is taken.  After each ``--every`` lots: resident memory, open files and threads.
Exit code 1 if files or threads are more at the end than after the first tenth, or memory by more than 10 MB.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge import MuscEdgeError, Resources, ScoreSettings, score_lot
from support.fault_lots import BUNDLE, fresh
from support.references import write_lot

IMAGES, MORE_MB = 8, 10.0


def state() -> tuple[float, int, int]:
    """Resident memory in MB, open files, and threads that Linux knows."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    files, threads = (sum(1 for _ in Path("/proc/self", name).iterdir()) for name in ("fd", "task"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files, threads


def score(number: int, work: Path) -> bool:
    """Score a lot; whether it went well."""
    kind = number % 30 // 10 if number % 10 == 0 else 3
    lot, out = fresh(work / "lot"), fresh(work / "out")
    write_lot(lot, 3 if kind == 0 else IMAGES, first=number * IMAGES)
    if kind == 1:
        (out / "thesis.txt").touch()
    try:
        bundle = work if kind == 2 else BUNDLE
        result = score_lot(lot, bundle, settings=ScoreSettings(), resources=Resources(scorer="numpy"))
        result.save(out, overwrite=True, overlays=True, report=True)
    except MuscEdgeError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lots", type=int, default=500)
    parser.add_argument("--every", type=int, default=50)
    args = parser.parse_args()
    well, found, start = 0, [], time.monotonic()
    print(f"{'lots':>5} {'scored':>7} {'MB':>7} {'files':>6} {'threads':>8} {'of Python':>10} {'seconds':>8}")
    with tempfile.TemporaryDirectory(prefix="many_lots_") as work:
        for number in range(1, args.lots + 1):
            well += score(number, Path(work))
            if number % args.every == 0:
                memory, files, threads = state()
                found.append((memory, files, threads))
                row = f"{number:>5} {well:>7} {memory:>7.1f} {files:>6} {threads:>8}"
                seconds = time.monotonic() - start
                print(f"{row} {threading.active_count():>10} {seconds:>8.0f}", flush=True)
    first, last = found[0], found[-1]
    return int(last[0] > first[0] + MORE_MB or last[1] > first[1] or last[2] > first[2])


if __name__ == "__main__":
    sys.exit(main())
