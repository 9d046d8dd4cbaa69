"""What gpu_check.py promises whatever a GPU does: no part loses another's results, and all is said."""

from __future__ import annotations

import inspect
import json
import math
import os
import random
import shutil
import sys
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

import pytest

from gpu import gpu_check, parts, variants, wheels
from gpu.reference import choose_portion
from gpu.report import markdown, outcome
from musc_edge.export import engine_builder
from support.places import ROOT


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu_check.Check:
    monkeypatch.setattr(gpu_check, "WORK", tmp_path / "work")
    options = Namespace(
        device="cpu-emulation",
        quick=True,
        pycuda=None,
        wheels=None,
        bundle=None,
        minutes=1.0,
        output=tmp_path / "out",
    )
    return gpu_check.Check(options)


def program(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "part.py"
    path.write_text(text)
    return [sys.executable, str(path)]


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("open({out!r}, 'w').write('{{\"status\": \"ok\"}}')", "ok", None),
        ("print('cuGramMin failed'); raise SystemExit(3)", "failed", "exit code 3: cuGramMin failed"),
        ("import os; print('aborted', flush=True); os.abort()", "failed", "exit code -6: aborted"),
        ("open({out!r}, 'w').write('{{}}'); raise SystemExit(9)", "failed", "exit code 9: "),
        ("pass", "failed", "exit code 0: "),
        ("import time; time.sleep(9)", "failed", "took longer than 1 s"),
    ],
)
def test_a_part_says_how_it_ended(tmp_path: Path, text: str, status: str, why: str | None) -> None:
    out = tmp_path / "out.json"
    most = 1.0 if "sleep" in text else 60.0
    found = gpu_check._run(program(tmp_path, text.format(out=str(out))), out, most)
    assert (found["status"], found.get("why")) == (status, why)


def test_a_part_that_fails_leaves_the_others_results(
    check: gpu_check.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter(
        [{"status": "ok", "result": {"errors": {"a": 1e-6}}}, {"status": "failed", "why": "x | y"}]
    )
    monkeypatch.setattr(gpu_check, "_run", lambda *_: next(results))
    check.part("kernels", 10)
    check.part("scorer", 10)
    check.tool("memcheck", 10)
    kept = json.loads((check.folder / "gpu.json").read_text())
    assert {name: part["status"] for name, part in kept["parts"].items()} == {
        "kernels": "ok",
        "scorer": "failed",
        "memcheck": "not run",
    }
    text = check.report()
    assert "| kernels | ok |" in text
    assert "1.0e-06 (a), of 1" in text
    assert "x / y" in text


def test_a_part_for_which_no_time_is_left_is_not_run(check: gpu_check.Check) -> None:
    check._end = 0.0
    check.part("kernels", 10)
    assert check.found["kernels"]["status"] == "not run"


def test_a_tool_watches_a_small_run_on_a_real_gpu_only(
    check: gpu_check.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def noted(command: list[str], *_: object) -> dict[str, str]:
        commands.append(command)
        return {"status": "ok"}

    monkeypatch.setattr(gpu_check, "_run", noted)
    monkeypatch.setattr(shutil, "which", lambda name: f"/cuda/{name}")
    monkeypatch.setattr(gpu_check, "driver_version", lambda: "")
    check.tool("racecheck", 10)
    assert check.found["racecheck"]["why"] == "it watches real GPUs only"
    check._options.device = "cuda"
    check.tool("racecheck", 10)
    ((*prefix, python, script, part, given),) = commands
    assert prefix == ["/cuda/compute-sanitizer", "--tool", "racecheck", "--error-exitcode", "9"]
    assert (python, Path(script).name, part) == (sys.executable, "parts.py", "small")
    assert json.loads(Path(given).read_text())["device"] == "cuda"


def test_the_reference_does_as_much_as_fits() -> None:
    def portion(allowed: float) -> tuple[int, int, int, float]:
        p = choose_portion(200, 4, (1, 3, 5), 0.1, allowed)
        return p.layers, len(p.degrees), p.images, p.scale

    assert portion(241) == (4, 3, 200, 1)
    assert portion(239) == (1, 3, 200, 4)
    assert portion(59) == (1, 1, 200, 12)
    assert portion(10.01) == (1, 1, 100, 24)
    assert portion(-1) == (1, 1, 1, 2400)


def test_shares_are_of_the_nearer_peak() -> None:
    row: dict[str, Any] = {"kernel": "k", "size": "s", "seconds": [2.0, 1.0, 3.0], "flop": 4e12, "bytes": 8e9}
    limits = {"flops": 4e12, "bytes_per_s": 16e9, "torch": "2"}
    facts = {"device": "cuda", "quick": False, "driver": "580.1"}
    parts = {
        "times": {"status": "ok", "seconds": 1, "result": {"rows": [row]}},
        "limits": {"status": "ok", "seconds": 1, "result": limits},
    }
    text = markdown({"facts": facts, "parts": parts})
    assert "| k | s | 2000.000 (1000.000-3000.000) | 2 | 4 | 50% |" in text
    assert "mean nothing" not in text
    assert "driver 580.1" in text


@pytest.mark.slow
def test_commands_of_musc_edge_are_run_and_their_failures_told(tmp_path: Path) -> None:
    options = parts.Options("cuda", True, [], None, 1.0, "")
    assert "musc-export" in parts.run(options, "export", "--version")
    with pytest.raises(RuntimeError, match="verify answered 4: "):
        parts.run_vit(options, str(tmp_path / "none"), "cpu")
    with pytest.raises(parts.NotRunError, match="no bundle was given"):
        parts.require_bundle(options, "TensorRT")


def test_a_gpu_that_tensorrt_does_not_know_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise RuntimeError(f"engine answered 5: TensorRT-RTX 1.7 {parts.REFUSED} 9.0; expected of 7.5")

    monkeypatch.setattr(parts, "find_spec", lambda name: name == "tensorrt_rtx" or None)
    monkeypatch.setattr(parts, "run", refuse)
    options = parts.Options("cuda", True, [], "bundle", 1.0, "")
    with pytest.raises(parts.NotRunError, match=r"compute capability 9\.0"):
        parts.tensorrt(options)
    assert parts.REFUSED in inspect.getsource(engine_builder)


def test_a_variant_has_its_files_and_all_others_of_the_checkout(tmp_path: Path) -> None:
    given = tmp_path / "given" / "odd"
    given.mkdir(parents=True)
    (given / "gram.cuh").write_text("// changed\n")
    assert variants.variants_in(tmp_path / "given") == {"odd": given}
    package = variants.package_of(given, tmp_path / "work") / "musc_edge"
    assert (package / "kernels" / "gram.cuh").read_text() == "// changed\n"
    assert (package / "kernels" / "pool.cuh").read_bytes() == (ROOT / "kernels" / "pool.cuh").read_bytes()
    assert (package / "runtime" / "pipeline.py").is_file()
    (given / "gram.cu").write_text("")
    with pytest.raises(ValueError, match=r"variant odd has gram\.cu: expected files that are in kernels/"):
        variants.variants_in(tmp_path / "given")
    with pytest.raises(ValueError, match="no subfolders"):
        variants.variants_in(given)


def test_variants_are_compared_round_by_round() -> None:
    def part(seconds: float) -> dict[str, Any]:
        row = {"kernel": "gram_min", "size": "P=1", "seconds": [seconds], "flop": 0, "bytes": 0}
        return {"status": "ok", "seconds": 1, "result": {"rows": [row]}}

    found = {
        "times of the checkout, 1": part(0.002),
        "times of odd, 1": part(0.001),
        "times of the checkout, 2": part(0.004),
        "times of odd, 2": part(0.003),
    }
    text = markdown({"facts": {"device": "cuda", "quick": False, "driver": ""}, "parts": found})
    assert "| gram_min, P=1 | 2.000, 4.000 | 0.500, 0.750 |" in text


@pytest.mark.long
def test_a_variant_is_checked_and_timed(
    check: gpu_check.Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is its own kernels that are checked: one that gives wrong numbers fails."""
    path = str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setattr(gpu_check, "ROUNDS", 1)
    check._end = math.inf
    source, old = (ROOT / "kernels" / "gram.cuh").read_text(), "INFINITY_BITS;  // 256"
    assert old in source
    (tmp_path / "given" / "wrong").mkdir(parents=True)
    (tmp_path / "given" / "wrong" / "gram.cuh").write_text(source.replace(old, "1;  // 256"))
    check.variants(tmp_path / "given")
    assert [(name, part["status"]) for name, part in check.found.items()] == [
        ("kernels of wrong", "failed"),
        ("times of the checkout, 1", "ok"),
        ("times of wrong, 1", "ok"),
    ]
    assert "WrongNumberError: a squared distance is off" in check.found["kernels of wrong"]["why"]


def test_wheels_travel_in_pieces(tmp_path: Path) -> None:
    wheel = tmp_path / "some-1-py3-none-any.whl"
    wheel.write_bytes(random.Random(0).randbytes(10_000))
    pieces = wheels.pack(wheel, tmp_path / "packed", most=4_000)
    assert [len(piece.read_bytes()) <= 4_000 for piece in pieces] == [True] * 3
    (found,) = wheels.wheels_in(tmp_path / "packed", tmp_path / "whole")
    assert (found.name, found.read_bytes()) == (wheel.name, wheel.read_bytes())
    assert [path.name for path in found.parent.iterdir()] == [wheel.name]
    pieces[-1].unlink()
    with pytest.raises(ValueError, match="the last is missing"):
        wheels.wheels_in(tmp_path / "packed", tmp_path / "whole")
    pieces[0].unlink()
    with pytest.raises(ValueError, match=r"pieces of some-1-py3-none-any\.whl are missing"):
        wheels.wheels_in(tmp_path / "packed", tmp_path / "whole")
    pieces[1].unlink()
    with pytest.raises(ValueError, match="has no wheel"):
        wheels.wheels_in(tmp_path / "packed", tmp_path / "whole")


def test_failures_are_told_last() -> None:
    found = {
        "kernels": {"status": "failed", "why": "x" * 5000 + "the end"},
        "scorer": {"status": "ok"},
        "tensorrt": {"status": "not run", "why": "no module"},
    }
    *_, failure, last = outcome(found).splitlines()
    assert failure.startswith("failed: kernels: xxx")
    assert failure.endswith("the end")
    assert len(failure) < 2000
    assert last == "1 of 3 parts are well."


def test_every_part_has_its_time() -> None:
    assert gpu_check.PARTS.keys() == parts.PARTS.keys() - {"small"}


def test_some_parts_alone() -> None:
    assert gpu_check._some_of("times,device") == ("device", "times")
    with pytest.raises(ArgumentTypeError, match="speed: expected some of device, kernels"):
        gpu_check._some_of("times,speed")
    assert {*gpu_check.PARTS, *gpu_check.TOOLS} == {*gpu_check.ORDER}
