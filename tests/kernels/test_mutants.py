"""Each fault of mutants.py is caught, so that what the other tests find right is right."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from support.forks import run_forked
from support.mutants import HOST_MUTANTS, MUTANTS, VALUES, Mutant
from support.nets import BATTERIES, KERNELS, SECONDS, Nets, findings
from support.places import ROOT

pytestmark = pytest.mark.slow


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
    run = run_forked(command, env={"PYTHONPATH": places}, timeout=SECONDS)
    shutil.rmtree(folder)
    if run.returncode == 0:
        return ""
    errors = [line for line in run.stderr.splitlines() if "Error" in line]
    return errors[-1] if errors else f"ended by signal {-run.returncode}"


@pytest.mark.parametrize("name", BATTERIES)
def test_the_shipped_kernels_pass(nets: Nets, name: str, tmp_path: Path) -> None:
    """What test_sanitizers.py finds nothing in without mutants, or nothing would be said by what follows."""
    assert findings(nets.build(name, VALUES, tmp_path / name), VALUES) == ""


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mutant_of_the_kernels_is_caught(nets: Nets, mutant: Mutant, tmp_path: Path) -> None:
    require(mutant, caught(nets, mutant, tmp_path / "mutant"))


def test_what_launches_the_shipped_kernels_passes(kernel_library: Path, tmp_path: Path) -> None:
    assert caught_in_host(kernel_library, None, tmp_path / "none") == ""


@pytest.mark.parametrize("mutant", HOST_MUTANTS, ids=str)
def test_every_mutant_of_what_launches_them_is_caught(
    kernel_library: Path, mutant: Mutant, tmp_path: Path
) -> None:
    require(mutant, caught_in_host(kernel_library, mutant, tmp_path / "mutant"))


def require(mutant: Mutant, found: str) -> None:
    """Print what caught the mutant, and fail if nothing did."""
    print(f"{mutant} | {mutant.net}: {found or 'NOT CAUGHT'}")
    assert found, "NOT CAUGHT"
