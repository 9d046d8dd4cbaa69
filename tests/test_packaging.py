"""What a wheel and an sdist hold, and what a bare install brings along."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.places import ROOT

pytestmark = pytest.mark.long

PARTS = ("export", "kernels", "runtime", "tools")
TOP = {f"musc_edge/{name}" for name in ("py.typed", *(path.name for path in ROOT.glob("_*.py")))}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built from a copy of the checkout's own files.

    With the setuptools that is installed, hence without network; ``make test`` itself installs the package
    with nothing but what pyproject.toml asks for.
    """
    source = tmp_path_factory.mktemp("source") / "musc-edge"
    ignored = shutil.ignore_patterns(".work", ".git", "__pycache__", ".pytest_cache")
    shutil.copytree(ROOT, source, ignore=ignored)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_every_module_and_data_file(wheel_names: set[str]) -> None:
    modules = [p for part in PARTS for p in (ROOT / part).rglob("*.py")]
    images = list((ROOT / "export" / "probe_images").iterdir())
    page = list((ROOT / "runtime" / "results" / "report" / "page").iterdir())
    units = list((ROOT / "tools" / "systemd").iterdir())
    expected = TOP | {f"musc_edge/{p.relative_to(ROOT)}" for p in [*modules, *images, *page, *units]}
    assert expected <= wheel_names


def test_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    allowed = tuple(f"musc_edge/{part}/" for part in PARTS)
    others = {n for n in wheel_names if not n.startswith(allowed) and ".dist-info/" not in n}
    assert others == TOP


def test_sdist_holds_tests_and_what_they_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tests = {
        str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("*") if p.is_file() and p.suffix != ".pyc"
    }
    assert tests <= names
    assert {"Makefile", "constraints.txt", "tools/demo_packages.txt", "LICENSE", "CHANGELOG.md"} <= names


def requirements(built: Path) -> list[str]:
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith("METADATA"))
    return email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []


def names(requires: list[str]) -> set[str]:
    return {r.split(">")[0].strip().lower() for r in requires}


def test_bare_install_needs_little(built: Path) -> None:
    bare = [r for r in requirements(built) if "extra ==" not in r]
    assert names(bare) == {"numpy", "opencv-python-headless", "pillow", "threadpoolctl"}


def test_compilers_of_both_versions_are_an_extra(built: Path) -> None:
    kernels = [r for r in requirements(built) if re.search(r"extra == ['\"]kernels['\"]", r)]
    assert {re.split("[=<>;]", r)[0].strip() for r in kernels} == {
        "nvidia-cuda-nvrtc-cu12",
        "nvidia-cuda-nvrtc",
    }


def test_numba_is_an_extra_of_its_own(built: Path) -> None:
    fast = [r for r in requirements(built) if re.search(r"extra == ['\"]fast['\"]", r)]
    assert names(fast) == {"numba"}
