"""What gpu_check.py promises whatever a GPU does: no part loses another's results, and all is said."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from gpu import gpu_check, parts
from gpu.reference import choose_portion
from gpu.report import markdown


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu_check.Check:
    monkeypatch.setattr(gpu_check, "WORK", tmp_path / "work")
    options = Namespace(
        device="cpu-emulation", quick=True, pycuda=None, bundle=None, minutes=1.0, output=tmp_path / "out"
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
    options = parts.Options("cuda", True, "", None, 1.0, "")
    assert "musc-export" in parts.run(options, "export", "--version")
    with pytest.raises(RuntimeError, match="verify answered 4: "):
        parts.run_vit(options, str(tmp_path / "none"), "cpu")
    with pytest.raises(parts.NotRunError, match="no bundle was given"):
        parts.require_bundle(options, "TensorRT")


def test_every_part_has_its_time() -> None:
    assert gpu_check.PARTS.keys() == parts.PARTS.keys() - {"small"}
