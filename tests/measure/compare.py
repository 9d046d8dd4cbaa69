"""How often ``musc-bench compare`` finds a slow-down, and how often it cries out where nothing changed.

    python tests/measure/compare.py BUNDLE LOT [--trials 20] [--rounds 10] [--images 16] [--keep FOLDER]
    python tests/measure/compare.py --judge FOLDER

Each trial measures the lot twice, as ``musc-bench lot`` does.  In half of the trials the second time is
slower: after every run of the ViT the pipeline sleeps for 20 % of the time that the run took.  Found is a
slow-down that is said of ``extract``; a false alarm is any stage called slower or faster without a change, or
any but ``extract`` and the lot as a whole with it.  Prints the line of docs/compare.md.  ``--keep`` writes
the reports of every trial, and ``--judge`` compares those that were kept, so that another way to compare can
be judged without measuring again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musc_edge.runtime.settings import Resources, ScoreSettings
from musc_edge.runtime.types import DeviceSlot, FloatArray, Slot, Uploaded
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from musc_edge.tools.bench import lot
from musc_edge.tools.bench.compare_reports import compare
from musc_edge.tools.bench.peak import Yardstick
from musc_edge.tools.bench.report import Report

Trial = tuple[bool, dict[str, Any], dict[str, Any]]
"""Whether a slow-down was planted, and the reports before and after it."""

PLANTED = 0.2
_extract = OnnxBackend.extract_into


def slow_extract(self: OnnxBackend, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
    """The ViT, PLANTED slower."""
    start = time.perf_counter()
    _extract(self, images, slot)
    time.sleep(PLANTED * (time.perf_counter() - start))


def measure(job: lot.Job, rounds: int) -> dict[str, Any]:
    """The report of so many rounds."""
    measured, yardstick = lot.Measured(), Yardstick([])
    for _ in range(rounds):
        yardstick.measure(lot.run_once(job, measured))
    return Report("lot", {}, measured.samples(), yardstick=yardstick.seconds).content()


def measured_trials(args: argparse.Namespace) -> Iterator[Trial]:
    """Trials without and with a slow-down, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "lot"
        few.mkdir()
        for path in sorted(args.lot.iterdir())[: args.images]:
            shutil.copy(path, few)
        job = lot.Job(few, args.bundle, ScoreSettings(), Resources(batch=8, threads=2, backend="cpu"))
        lot.run_once(job)
        lot.run_once(job)
        for number in range(2 * args.trials):
            planted = number % 2 == 1
            before = measure(job, args.rounds)
            if planted:
                OnnxBackend.extract_into = slow_extract  # type: ignore[method-assign]
            after = measure(job, args.rounds)
            OnnxBackend.extract_into = _extract  # type: ignore[method-assign]
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                (args.keep / f"{number:02}.json").write_text(json.dumps([before, after]))
            yield planted, before, after


def kept_trials(folder: Path) -> Iterator[Trial]:
    """Those that ``--keep`` has written."""
    for number, path in enumerate(sorted(folder.glob("*.json"))):
        before, after = json.loads(path.read_text())
        yield number % 2 == 1, before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("lot", type=Path, nargs="?")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--judge", type=Path)
    args = parser.parse_args()
    if args.judge is None and args.lot is None:
        parser.error("give BUNDLE and LOT, or --judge FOLDER")
    found = alarms = beside = 0
    counts = {False: 0, True: 0}
    for planted, before, after in kept_trials(args.judge) if args.judge else measured_trials(args):
        said = {c.name: c for c in compare(before, after) if c.verdict in ("slower", "faster")}
        counts[planted] += 1
        found += planted and "extract" in said and said["extract"].verdict == "slower"
        alarms += not planted and bool(said)
        beside += planted and bool(said.keys() - {"extract", "lot"})
        text = ", ".join(f"{name} {c.verdict} {c.ratio:.2f}" for name, c in said.items()) or "nothing"
        print(f"{'planted' if planted else 'the same':<9} {text}", flush=True)
    print(
        f"\nslow-downs of {PLANTED:.0%} found in {found} of {counts[True]}; false alarms in {alarms} of "
        f"{counts[False]} without a change, of other stages in {beside} of {counts[True]} with one"
    )


if __name__ == "__main__":
    main()
