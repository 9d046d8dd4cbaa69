"""A small reference, and a server of it that all tests of a process share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from musc_edge import Checker
from support.references import BUNDLE, reference, write_lot
from support.served import MOST, Server, serving


@pytest.fixture(scope="session")
def made(make_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder with a reference, ref."""

    def fill(folder: Path) -> None:
        write_lot(folder / "lot", 30)
        reference(folder / "lot", folder / "ref", hold_out=0.7)

    return make_once("served", fill)


@pytest.fixture(scope="session")
def checker(made: Path) -> Iterator[Checker]:
    with Checker(made / "ref", BUNDLE) as checker:
        yield checker


@pytest.fixture(scope="session")
def server(made: Path, tmp_path_factory: pytest.TempPathFactory, commands: Path) -> Iterator[Server]:
    """A real server with one reference, part, and a log."""
    out = tmp_path_factory.mktemp("served") / "out"
    options = ["-b", BUNDLE, "-o", out, "--max-body", MOST, "--time-out", 300]
    with serving("--reference", f"part={made / 'ref'}", *options) as server:
        yield server
