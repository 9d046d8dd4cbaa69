"""Tests and measures the kernels on this machine's GPU, in eight minutes at most.

    python tests/gpu/gpu_check.py [--pycuda WHEEL|SDIST|FOLDER] [--wheels FOLDER] [--bundle BUNDLE]
                                  [--variants FOLDER] [--only PART,PART] [-o FOLDER] [--quick]

Needs this checkout, a CUDA toolkit (nvcc), numpy, and torch for what is compared with it; nothing is
installed outside of .work/gpu.  pycuda is taken from where --pycuda says (an sdist is built, in two minutes
or more), else as it is installed, else from pip's index; other packages, such as onnxruntime-gpu, from the
wheels in --wheels, whole or in pieces (wheels.py).  Kernels in the subfolders of --variants are checked, and
timed in turn with the checkout's (variants.py).  Writes gpu.json and gpu.md, and prints at most 12,000
characters, the most important last.

    python tests/gpu/gpu_check.py --device cpu-emulation --quick     tries the script itself without a GPU
    python tests/gpu/gpu_check.py --device cpu-driver --quick        the same, through pycuda

The exit code is 1 if a part failed; the others' results are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for gpu and support

from gpu.checkout import ROOT, WORK, run_from_checkout

if __name__ == "__main__":
    run_from_checkout()

import argparse
import json
import os
import shutil
import subprocess
import time
from importlib.util import find_spec
from typing import Any

from gpu.pycuda_build import install_pycuda, install_wheels
from gpu.report import TIMES_OF, markdown, outcome
from gpu.variants import package_of, variants_in
from gpu.wheels import wheels_in

PARTS = {
    "device": 60,
    "kernels": 90,
    "scorer": 90,
    "limits": 60,
    "times": 90,
    "whole": 240,
    "onnx_cuda": 60,
    "choices": 180,
    "tensorrt": 120,
}
"""Parts, in order, and the most seconds that each may take."""
TOOLS = {"memcheck": 90, "racecheck": 90}
ORDER = (
    *("device", "kernels", "scorer", "limits", "times", "whole"),
    *TOOLS,
    *("onnx_cuda", "choices", "tensorrt"),
)
VARIANTS = {"kernels": 90, "times": 90}
"""The parts that are run for each variant of the kernels, and the most seconds of each."""
ROUNDS = 2
"""How often each variant is timed, in turn with the others and the checkout."""
PRINTED, LINE = 12_000, 150
"""Characters that are printed at most, and of why a part is not well while it runs."""
DEVICES = ("cuda", "cpu-driver", "cpu-emulation")
Result = dict[str, Any]


class Check:
    """One run: where it writes, what it found so far, and when it must end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._end = time.monotonic() + options.minutes * 60
        self.found: dict[str, Result] = {}
        self.folder: Path = options.output
        self.folder.mkdir(parents=True, exist_ok=True)
        WORK.mkdir(parents=True, exist_ok=True)
        self._sites: list[str] = []  # folders to import from

    def build(self) -> None:
        """Make pycuda and the other wheels importable."""
        start = time.monotonic()
        for cubin in WORK.glob("*.cubin"):
            cubin.unlink()
        result: Result = {"status": "ok"}
        try:
            named = self._options.pycuda
            device = self._options.device
            here = find_spec("pycuda") is not None and device == "cuda"
            if device != "cpu-emulation" and (named or not here):
                self._sites.append(str(install_pycuda(named, WORK / "pycuda")))
            if self._options.wheels:
                wheels = wheels_in(self._options.wheels, WORK / "wheels")
                self._sites.append(str(install_wheels(wheels, WORK / "site")))
        except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            result = {"status": "failed", "why": str(error)}
        self._note("build", result, start)

    def part(
        self, name: str, most: float, *prefix: str, label: str = "", package: Path | None = None
    ) -> None:
        """Run a part in a process of its own, after ``prefix``, with musc_edge from ``package``, if given."""
        label = label or name
        start = time.monotonic()
        seconds = min(most, self._end - start - 5)
        if seconds < 5:
            self._note(label, {"status": "not run", "why": "no time was left"}, start)
            return
        out = WORK / f"{label}.out.json"
        out.unlink(missing_ok=True)
        given = WORK / f"{label}.json"
        given.write_text(json.dumps(self._given(out, seconds * 0.9)))
        command = [*prefix, sys.executable, str(ROOT / "tests/gpu/parts.py"), name, str(given)]
        self._note(label, _run(command, out, seconds, package), start)

    def variants(self, folder: Path) -> None:
        """Check each variant of the kernels, and time all of them in turn with the checkout's."""
        packages: dict[str, Path | None] = {"": None}
        for name, variant in variants_in(folder).items():
            packages[name] = package_of(variant, WORK / "variants" / name)
            self.part("kernels", VARIANTS["kernels"], label=f"kernels of {name}", package=packages[name])
        for number in range(ROUNDS):
            for name, package in packages.items():
                label = f"{TIMES_OF}{name or 'the checkout'}, {number + 1}"
                self.part("times", VARIANTS["times"], label=label, package=package)

    def tool(self, name: str, most: float) -> None:
        """A small run under a tool of compute-sanitizer."""
        sanitizer = shutil.which("compute-sanitizer")
        if self._options.device != "cuda" or sanitizer is None:
            why = "compute-sanitizer is not installed" if sanitizer is None else "it watches real GPUs only"
            self._note(name, {"status": "not run", "why": why}, time.monotonic())
            return
        self.part("small", most, sanitizer, "--tool", name, "--error-exitcode", "9", label=name)

    def _given(self, out: Path, seconds: float) -> dict[str, Any]:
        o = self._options
        bundle = str(o.bundle) if o.bundle else None
        return {
            "device": o.device,
            "quick": o.quick,
            "sites": self._sites,
            "bundle": bundle,
            "seconds": seconds,
            "out": str(out),
        }

    def _note(self, name: str, result: Result, start: float) -> None:
        """Keep a result, print it in a line, and write all results so far."""
        self.found[name] = result | {"seconds": round(time.monotonic() - start, 1)}
        why = str(result.get("why", "")).strip().rpartition("\n")[2]
        seconds = self.found[name]["seconds"]
        print(f"{name:<10} {result['status']:<8} {seconds:6.1f} s  {why[-LINE:]}", flush=True)
        facts = {"device": self._options.device, "quick": self._options.quick, "driver": driver_version()}
        self._whole = {"facts": facts, "parts": self.found}
        (self.folder / "gpu.json").write_text(json.dumps(self._whole, indent=1) + "\n")

    def report(self) -> str:
        """Write the tables."""
        text = markdown(self._whole)
        (self.folder / "gpu.md").write_text(text)
        return text


def _run(command: list[str], out: Path, seconds: float, package: Path | None = None) -> Result:
    """What the part wrote; failed if it wrote nothing, was too slow or its tool found something."""
    path = os.pathsep.join(filter(None, (str(package or ""), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            env=os.environ | {"PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return {"status": "failed", "why": f"took longer than {seconds:.0f} s"}
    if done.returncode == 0 and out.exists():
        result: Result = json.loads(out.read_text())
        return result
    return {"status": "failed", "why": f"exit code {done.returncode}: {done.stdout[-3000:].strip()}"}


def driver_version() -> str:
    """As nvidia-smi says; "" without one."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def _some_of(text: str) -> tuple[str, ...]:
    """The parts that are named, in the order in which all run."""
    named = set(text.split(","))
    if unknown := sorted(named - set(ORDER)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(ORDER)}")
    return tuple(name for name in ORDER if name in named)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pycuda", type=Path, help="wheel, sdist, or a folder with one")
    parser.add_argument("--wheels", type=Path, help="folder of other wheels, whole or in pieces (wheels.py)")
    parser.add_argument("--variants", type=Path, help="folder with a subfolder of changed kernels each")
    parser.add_argument(
        "-o", "--output", type=Path, default=WORK / "result", help="folder of gpu.json and gpu.md"
    )
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument(
        "--bundle", type=Path, help="bundle whose ViT is run by TensorRT and by ONNX Runtime on CUDA"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="end after this time (default 8)")
    parser.add_argument("--quick", action="store_true", help="small sizes, whose times mean nothing")
    parser.add_argument(
        "--only", type=_some_of, default=ORDER, metavar="PART,PART", help=f"of {', '.join(ORDER)}"
    )
    options = parser.parse_args()
    if options.variants:
        try:
            variants_in(options.variants)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    check = Check(options)
    check.build()
    if options.variants:
        check.variants(options.variants)
    for name in options.only:
        if name in TOOLS:
            check.tool(name, TOOLS[name])
        else:
            check.part(name, PARTS[name])
    end = f"\nin {check.folder}\n{outcome(check.found)}"
    room = PRINTED - len(end) - (LINE + 60) * len(check.found)  # a line has been printed for each part
    print(f"\n{check.report()[:room]}{end}")
    return int(any(result["status"] == "failed" for result in check.found.values()))


if __name__ == "__main__":
    sys.exit(main())
