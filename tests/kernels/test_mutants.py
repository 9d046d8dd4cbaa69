"""Each fault of mutants.py is caught, so that what the other tests find right is right."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

import musc_edge
from support.forks import run_forked
from support.mutants import HOST_MUTANTS, MUTANTS, Mutant, plant
from support.nets import SECONDS, Nets
from support.places import ROOT

pytestmark = pytest.mark.long


def caught_in_host(library: Path, mutant: Mutant | None) -> str:
    """What host_battery.py finds in the package with ``mutant``; empty if it lets it pass."""
    prepare = partial(plant, mutant, Path(musc_edge.__file__).parent) if mutant else None
    command = [sys.executable, str(ROOT / "tests" / "support" / "host_battery.py"), str(library)]
    run = run_forked(command, prepare=prepare, timeout=SECONDS)
    if run.returncode == 0:
        return ""
    errors = [line for line in run.stderr.splitlines() if "Error" in line]
    return errors[-1] if errors else f"ended by signal {-run.returncode}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mutant_of_the_kernels_is_caught(nets: Nets, mutant: Mutant) -> None:
    """By a program in which test_sanitizers.py finds nothing without it, or this would say nothing."""
    require(mutant, nets.find(Path(mutant.file).stem, mutant.net, mutant))


def test_what_launches_the_shipped_kernels_passes(kernel_library: Path) -> None:
    assert caught_in_host(kernel_library, None) == ""


@pytest.mark.parametrize("mutant", HOST_MUTANTS, ids=str)
def test_every_mutant_of_what_launches_them_is_caught(kernel_library: Path, mutant: Mutant) -> None:
    require(mutant, caught_in_host(kernel_library, mutant))


def require(mutant: Mutant, found: str) -> None:
    """Print what caught the mutant, and fail if nothing did."""
    print(f"{mutant} | {mutant.net}: {found or 'NOT CAUGHT'}")
    assert found, "NOT CAUGHT"
