"""Score a small lot by the package's wheel for arm64, emulated by qemu, and compare with scores made here.

    python tests/measure/arm64.py BUNDLE LOT --qemu qemu-aarch64 --root ROOT [--images 6] [--scorer numba]

QEMU is version 10 or later of its user mode (version 7.2 crashes in ONNX Runtime).  ROOT is a folder
with arm64's libraries and its Python 3.13, unpacked from Debian's packages, which nothing of arm64 runs for:

    sudo debootstrap --foreign --variant=minbase --arch=arm64 --include=python3 trixie ROOT
    for deb in ROOT/var/cache/apt/archives/*.deb; do sudo dpkg -x "$deb" ROOT; done

Both installations are made by uv (`pip install uv`), of one wheel of the checkout and the versions of
constraints.txt.  The emulation is slow: take a bundle of small images.  Exit code 1: something failed, an
image was not scored, or a raw score differs by more than --tolerance.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure.pythons import CHECKOUT, EXTRAS, difference, environment, prepare, run, score

PYTHON = "3.13"
PLATFORM = "aarch64-manylinux_2_28"


def packages(place: Path, wheel: Path) -> Path:
    """The wheel and its libraries for arm64: the folder that they are in."""
    target: list[str | Path] = ["--target", place, "--python-platform", PLATFORM, "--python-version", PYTHON]
    wheels: list[str | Path] = ["--only-binary", ":all:", "-c", CHECKOUT / "constraints.txt"]
    run(["uv", "pip", "install", "--quiet", *target, *wheels, f"musc-edge[{EXTRAS}] @ {wheel.as_uri()}"])
    return place


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("lot", type=Path)
    parser.add_argument("--qemu", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument(
        "--cpu", default="cortex-a76", help="whose instructions (default: much as a Jetson Orin's)"
    )
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--scorer", choices=("numpy", "numba"), default="numpy")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--keep", type=Path, help="where installations and results stay (default: removed)")
    return parser.parse_args()


def main() -> int:
    """Print how long both took and the largest difference; 1 if it is too large."""
    args = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.keep or Path(temporary)).resolve()
        wheel, names = prepare(args, work)
        here = [environment(work / "here", PYTHON, wheel, lowest=False) / "musc-edge"]
        python = args.root.resolve() / f"usr/bin/python{PYTHON}"
        emulator = [args.qemu.resolve(), "-cpu", args.cpu, "-L", args.root.resolve()]
        path = f"PYTHONPATH={packages(work / 'arm64', wheel)}"
        there = [*emulator, "-E", path, python, "-m", "musc_edge"]
        about = "import platform; print(platform.machine(), platform.python_version())"
        print(f"{args.images} images of {args.lot.name}, bundle {args.bundle.name}, scorer {args.scorer}")
        print(run([*emulator, python, "-c", about]).strip(), "emulated, and this machine:", flush=True)
        scores = []
        for program, name in ((here, "x86"), (there, "arm")):
            start = time.perf_counter()
            scores.append(score(program, args, names, work / f"out-{name}", args.scorer))
            print(f"  {name} {time.perf_counter() - start:.0f} s", flush=True)
    off = difference(scores[1], scores[0])
    print(f"largest difference of a raw score: {off:.0e}")
    return int(off > args.tolerance)


if __name__ == "__main__":
    sys.exit(main())
