"""Each fault of mutants.py is caught, so that what the other tests find right is right."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from musc_edge.runtime.parallel import cores
from support.mutants import HOST_MUTANTS, MUTANTS, VALUES, Mutant
from support.nets import BATTERIES, KERNELS, SECONDS, Nets, findings
from support.places import ROOT


def caught(nets: Nets, mutant: Mutant, folder: Path) -> str:
    """What the mutant's net finds; empty if it lets it pass."""
    kernels = folder / "kernels"
    shutil.copytree(KERNELS, kernels, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    path = kernels / mutant.file
    path.write_text(mutant.apply(path.read_text()))
    program = nets.build(Path(mutant.file).stem, mutant.net, folder / "battery", kernels)
    found = findings(program, mutant.net)
    shutil.rmtree(folder)
    return found


def caught_in_host(library: Path, mutant: Mutant | None, folder: Path) -> str:
    """What host_battery.py finds in a package with ``mutant``; empty if it lets it pass."""
    package = folder / "musc_edge"
    ignored = shutil.ignore_patterns("__pycache__", "tests", "docs", "bench", ".*", "build", "*.egg-info")
    shutil.copytree(ROOT, package, ignore=ignored)
    if mutant:
        path = package / mutant.file
        path.write_text(mutant.apply(path.read_text()))
    places = os.pathsep.join(map(str, (folder, ROOT / "tests")))
    command = [sys.executable, str(ROOT / "tests" / "support" / "host_battery.py"), str(library)]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True, check=False,
        timeout=SECONDS,
    )  # fmt: skip
    shutil.rmtree(folder)
    if run.returncode == 0:
        return ""
    errors = [line for line in run.stderr.splitlines() if "Error" in line]
    return errors[-1] if errors else f"ended by signal {-run.returncode}"


def test_every_mutant_of_the_kernels_is_caught(nets: Nets, tmp_path: Path) -> None:
    """What test_sanitizers.py finds nothing in without them, or nothing would be said by this."""
    for name in BATTERIES:
        assert findings(nets.build(name, VALUES, tmp_path / name), VALUES) == ""
    with ThreadPoolExecutor(cores()) as pool:
        folders = [tmp_path / str(number) for number in range(len(MUTANTS))]
        found = list(pool.map(lambda item: caught(nets, *item), zip(MUTANTS, folders, strict=True)))
    require_all(MUTANTS, found)


def test_every_mutant_of_what_launches_them_is_caught(kernel_library: Path, tmp_path: Path) -> None:
    assert caught_in_host(kernel_library, None, tmp_path / "none") == ""
    with ThreadPoolExecutor(cores()) as pool:
        folders = [tmp_path / str(number) for number in range(len(HOST_MUTANTS))]
        work = zip(HOST_MUTANTS, folders, strict=True)
        found = list(pool.map(lambda item: caught_in_host(kernel_library, *item), work))
    require_all(HOST_MUTANTS, found)


def require_all(mutants: list[Mutant], found: list[str]) -> None:
    """Print what caught each mutant, and fail for those that nothing did."""
    for mutant, what in zip(mutants, found, strict=True):
        print(f"{mutant} | {mutant.net}: {what or 'NOT CAUGHT'}")
    assert [str(mutant) for mutant, what in zip(mutants, found, strict=True) if not what] == []
