"""``musc-edge doctor``: every library in a process of its own; a crash is a finding."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from musc_edge.tools.doctor import CHECKS, Check, examine, report_text


def doctor(commands: Path, *options: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    command = [str(commands / "musc-edge"), "doctor", *options]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_healthy_machine(commands: Path) -> None:
    run = doctor(commands, "--json")
    assert run.returncode == 0
    data = json.loads(run.stdout)
    assert data["can_infer"]
    assert {f["status"] for f in data["findings"] if f["required"]} == {"ok"}
    text = doctor(commands).stdout
    assert "can run musc-edge infer" in text
    assert all(check.name in text for check in CHECKS)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ("import os; os.abort()", "crashed", "signal 6"),
        ("raise ImportError('libfoo.so.3: cannot open')", "broken", "libfoo.so.3"),
        ("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")", "missing", "No module named"),
    ],
)
def test_bad_library_is_a_finding(commands: Path, tmp_path: Path, body: str, status: str, word: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(body, encoding="ascii")
    run = doctor(commands, "--json", path=tmp_path)
    assert run.returncode == 5
    data = json.loads(run.stdout)
    (found,) = (f for f in data["findings"] if f["name"] == "ONNX Runtime")
    assert found["status"] == status
    assert word in found["detail"]
    assert not data["can_infer"]
    text = doctor(commands, path=tmp_path).stdout
    assert "cannot run musc-edge infer yet: see ONNX Runtime" in text
    assert "pip install 'musc-edge[cpu]'" in text


def test_library_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musc_edge.tools.doctor._TIMEOUT_S", 0.5)
    (finding,) = examine((Check("slow", "nothing", "import time; time.sleep(60)", "wait"),))
    assert finding.status == "crashed"
    assert "0.5 s" in report_text([finding])
