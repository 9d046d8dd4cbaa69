"""What was found by fuzzing stays mended: each input that failed is read again, and findings are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from measure.fuzz import told_once
from support.fuzz_targets import SEEDS, TARGETS

LONGEST = 8192
TESTS = Path(__file__).parent


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_raises_anything_but_the_error_of_its_reader(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    (tmp_path / "begin").mkdir()
    read = target.prepare(tmp_path)
    if name != "image":  # 1,700 of those are tests/runtime/images/test_matrix.py
        for content in target.begin(tmp_path / "begin"):
            read(content)
    for path in sorted((SEEDS / name).glob("*")):
        read(path.read_bytes())


def test_seeds_are_of_targets_and_small() -> None:
    paths = [path for path in SEEDS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in paths} <= set(TARGETS)
    assert max(path.stat().st_size for path in paths) <= LONGEST


def test_what_a_target_asserts_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where no line of it is in the package, as of a checkout in a folder of any name."""
    source = compile("def read(data):\n    assert not data, 'odd'", "/elsewhere/targets.py", "exec")
    names: dict[str, Any] = {}
    exec(source, names)
    within = compile("def read(data):\n    return inner(data)", "/elsewhere/targets.py", "exec")
    outer = {"inner": names["read"]}
    exec(within, outer)
    read = told_once(outer["read"], tmp_path)
    for data in (b"", b"a", b"b"):
        read(data)
    told = capsys.readouterr().out
    assert told.count("FINDING AssertionError-") == 1
    assert "odd at /elsewhere/targets.py:2" in told
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"a"]


CHILD = """
import sys
from pathlib import Path
from types import SimpleNamespace

from measure.fuzz_decoders import _read_in_child


class ImageError(Exception):
    status = "unreadable"


def read_image(path, max_pixels):
    if path.read_bytes() == b"raise":
        raise RuntimeError("odd")
    if path.read_bytes() == b"refuse":
        raise ImageError


reading = SimpleNamespace(read_image=read_image, ImageError=ImageError)
try:
    print(_read_in_child(reading, [b"", b"refuse", b"raise", b""], Path(sys.argv[1])))
finally:
    print("end")
"""


def test_an_error_in_a_child_of_the_decoders_stays_there(tmp_path: Path) -> None:
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    run = subprocess.run(command, env=here, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == f"(['read', 'unreadable'], {2 << 8})\nend\n"
    assert "RuntimeError: odd" in run.stderr
