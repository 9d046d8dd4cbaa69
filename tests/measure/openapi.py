"""Let schemathesis look for long whether ``musc-edge serve`` answers as its OpenAPI document says.

python tests/measure/openapi.py [--examples 100]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.references import BUNDLE, reference, write_lot
from support.schemathesis_run import run_schemathesis
from support.served import MOST, serving


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=100, help="of each operation")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_lot(root / "lot", 30)
        reference(root / "lot", root / "ref", hold_out=0.7)
        options = ["-b", BUNDLE, "-o", root / "out", "--max-body", MOST, "--time-out", 300]
        with serving("--reference", f"part={root / 'ref'}", *options) as server:
            print(run_schemathesis(server, root, args.examples, "coverage,fuzzing"))


if __name__ == "__main__":
    main()
