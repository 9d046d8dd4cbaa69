"""Run the batteries of the GPU's kernels on an emulated arm64 processor, with its switch between fibers.

    python tests/measure/kernels_arm64.py [pool ...] --qemu qemu-aarch64 [--compiler aarch64-linux-gnu-g++]

The compiler is Debian's package g++-aarch64-linux-gnu, QEMU is version 10 or later of its user mode.  Each
battery of tests/support/cuda is built for arm64, without a sanitizer, and run with two seeds as in the tests.
Exit code 1: one could not be built, or found something.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.nets import BATTERIES, CUDA, KERNELS

SEEDS = "0", "1"


def build(name: str, args: argparse.Namespace, folder: Path) -> Path:
    """The program of a battery."""
    program = folder / name
    sources = [CUDA / f"battery_{name}.cpp", CUDA / f"{name}_cpu.cpp", CUDA / "emulation.cpp"]
    options = ["-static", "-std=c++17", "-O1", "-w", "-DMUSC_CPU", f"-I{KERNELS}", f"-I{CUDA}"]
    header: list[str | Path] = ["-include", CUDA / "cuda_cpu.h"]
    subprocess.run([args.compiler, *options, *args.option, *header, *sources, "-o", program], check=True)
    return program


def main() -> int:
    """Print what each battery found; 1 if anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "batteries", nargs="*", metavar="battery", help=f"of {', '.join(BATTERIES)} (default: all)"
    )
    parser.add_argument("--qemu", required=True)
    parser.add_argument("--cpu", default="cortex-a76")
    parser.add_argument("--compiler", default="aarch64-linux-gnu-g++")
    parser.add_argument("--option", action="append", default=[], help="one more option of the compiler")
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.batteries or BATTERIES:
            program = build(name, args, Path(temporary))
            for seed in SEEDS:
                start = time.perf_counter()
                done = subprocess.run([args.qemu, "-cpu", args.cpu, program, "values", seed], check=False)
                wrong += done.returncode != 0
                took = time.perf_counter() - start
                print(f"{name}, seed {seed}: exit code {done.returncode}, {took:.1f} s", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
