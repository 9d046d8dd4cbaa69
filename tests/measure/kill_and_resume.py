"""Kill ``musc-edge infer --resume`` at random moments until it has been killed often enough, and compare.

    python tests/measure/kill_and_resume.py LOT BUNDLE [--kills 50] [--seed 0] [-- further options of infer]

Each run is ended by SIGKILL, SIGINT or SIGTERM; the same command is started again until it completes.  Then
scores.csv, all maps and the contact sheet must be the bytes of an undisturbed run without --resume.  What
is kept must never become less from one run to the next.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.places import listen_to_interrupts


def results(out: Path) -> dict[str, str]:
    """Checksum of every file of results but lot.json, which holds times."""
    files = (p for p in sorted(out.rglob("*")) if p.is_file() and p.name != "lot.json")
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def kept_work(folder: Path) -> tuple[int, int, int]:
    """Finished layers, and lines in the journals of cells and of batches."""
    journals = (folder / name for name in ("cells.journal", "batches.journal"))
    cells, batches = (len(j.read_bytes().splitlines()) if j.exists() else 0 for j in journals)
    return len(list(folder.glob("layer_*.npy"))), cells, batches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("lot", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=10.0, help="seconds before a kill, at most")
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    work = Path(tempfile.mkdtemp(prefix="kill_and_resume_"))
    infer = [sys.executable, "-m", "musc_edge.tools.edge", "infer", str(args.lot), "-b", str(args.bundle)]
    infer += args.options
    start = time.monotonic()
    subprocess.run([*infer, "-o", str(work / "undisturbed")], check=True, stdout=subprocess.DEVNULL)
    print(f"undisturbed run: {time.monotonic() - start:.1f} s")
    expected = results(work / "undisturbed")
    kills, completed, before = 0, 0, (0, 0, 0)
    out, kept = work / "out", work / ".out.kept/lot"
    while kills < args.kills or kept.exists():
        last = kills >= args.kills
        run = subprocess.Popen(
            [*infer, "-o", str(out), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            preexec_fn=listen_to_interrupts,
        )  # fmt: skip
        sent = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        moment = chance.uniform(0.2, args.longest)
        try:
            run.wait(None if last else moment)
        except subprocess.TimeoutExpired:
            run.send_signal(sent)
            run.wait()
            kills += 1
        if out.exists():  # complete, perhaps a moment before the kill
            if results(out) != expected:
                print("THE RESULTS DIFFER", work)
                return 1
            completed, before = completed + 1, (0, 0, 0)
            print(f"completed after {kills} kills in all: the same bytes")
            shutil.rmtree(out)
            shutil.rmtree(kept.parent, ignore_errors=True)
            continue
        if last or run.returncode not in (-signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM, 130, 143):
            assert run.stderr
            print(f"UNEXPECTED EXIT {run.returncode}: {run.stderr.read().decode()}", work)
            return 1
        after = kept_work(kept)
        print(f"kill {kills:>2}: {sent.name:<7} after {moment:4.1f} s; kept: layers, cells, batches {after}")
        if after < before:
            print("LESS IS KEPT THAN BEFORE", work)
            return 1
        before = after
    print(json.dumps({"kills": kills, "completed": completed, "files": len(expected), "different": 0}))
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
