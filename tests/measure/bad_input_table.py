"""Make docs/bad-input.md: every case of bad_input.py, run as a user would, with what the user sees.

    python tests/measure/bad_input_table.py BUNDLE IMAGES > docs/bad-input.md

BUNDLE is a bundle, IMAGES a folder with at least eight images.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.bad_input import CASES, Case, Place, command_of

HEAD = """# What is given, and what the user sees

Made by running every case: `python tests/measure/bad_input_table.py BUNDLE IMAGES > docs/bad-input.md`.
Each row is a case of `tests/support/bad_input.py`, named by its first column, which
`tests/tools/test_bad_input.py` runs: a lot of eight real images with the bad one added. What happens when
something changes around a run (a second run, a full disk, an interrupt, files that vanish or change) is
tested in `tests/tools/test_mishaps.py`.

| given | exit code | the user sees |
|---|---|---|"""


def shown(case: Case, place: Place, scripts: Path) -> str:
    """The table's row of one case."""
    command = command_of(case, place, scripts)
    run = subprocess.run(
        command, cwd=place.root, capture_output=True, text=True, errors="replace", check=False
    )
    lines = [line.strip() for line in (run.stdout + run.stderr).splitlines() if case.says in line]
    if not lines or run.returncode != case.code:
        raise SystemExit(
            f"{case.given}: exit code {run.returncode}, without {case.says!r}:\n{run.stdout}{run.stderr}"
        )
    text = lines[0]
    text = text.replace(str(place.root) + "/", "").replace(str(place.root), ".").replace("|", "\\|")
    return f"| {case.given} | {run.returncode} | `{text[:230]}` |"


def main() -> None:
    """Print the table."""
    bundle, images = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    scripts = Path(sys.executable).parent
    print(HEAD)
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder), Path(folder) / "lot", bundle)
            place.lot.mkdir()
            for path in sorted(images.iterdir())[:80:10]:
                shutil.copy(path, place.lot)
            print(shown(case, place, scripts), flush=True)


if __name__ == "__main__":
    main()
