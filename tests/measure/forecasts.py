"""How right the forecast of a lot's time is: told before the work, told again at a tenth, and what it takes.

    python tests/measure/forecasts.py BUNDLE LOT IMAGES,IMAGES,... [OPTION ...]

The first images of the lot are scored by ``musc-edge infer`` with the options; prints rows of a table.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOOL = Path(sys.executable).parent / "musc-edge"
FACTORS = {"h": 3600, "min": 60, "s": 1}


def seconds(text: str) -> float:
    """'1 min 20 s' -> 80."""
    return sum(float(number) * FACTORS[unit] for number, unit in re.findall(r"([\d.]+) (h|min|s)\b", text))


def measure(bundle: str, lot: Path, images: int, options: list[str]) -> str:
    """A row: images, options, what was told and when, and the seconds from the plan to the end."""
    with tempfile.TemporaryDirectory() as work:
        some = Path(work) / "lot"
        some.mkdir()
        for path in sorted(lot.iterdir())[:images]:
            (some / path.name).symlink_to(path.resolve())
        command = [str(TOOL), "infer", str(some), "-b", bundle, "-o", f"{work}/out", *options]
        told: list[tuple[float, float]] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"time about ([^:,]*?)(?::| from)", line):
                    told.append((time.monotonic(), seconds(found[1])))
        end = time.monotonic()
    begun = told[0][0]
    took = end - begun
    tellings = [f"{value:.1f} ({value / took - 1:+.0%})" for _, value in told]
    later = ", ".join(
        f"{each} at {(at - begun) / took:.0%}" for (at, _), each in zip(told, tellings, strict=True)
    )
    return f"| {images} | {' '.join(options) or 'none'} | {took:.1f} | {later} |"


def main() -> None:
    bundle, lot, counts, *options = sys.argv[1:]
    for images in map(int, counts.split(",")):
        print(measure(bundle, Path(lot), images, options), flush=True)


if __name__ == "__main__":
    main()
