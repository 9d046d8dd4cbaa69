"""``musc-export engine`` and ``--backend`` as a user runs them.

TensorRT-RTX is the real one and builds for GPUs that are not here; what needs a GPU runs in this process on
one that is none (fake_pycuda.py, fake_tensorrt.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from musc_edge.kernels import driver
from musc_edge.tools import edge, export
from musc_edge.tools.demo import read_scores
from support.gpu_machine import install
from support.lots import write_png
from support.places import listen_to_interrupts

pytestmark = pytest.mark.long

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def command(commands: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(commands / arguments[0]), *arguments[1:]],
        env={**os.environ, **WITHOUT_GPU},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    for k in range(7):
        write_png(tmp_path / "lot" / f"{k}.png", (20, 30), seed=k)
    return tmp_path / "lot"


# ---- TensorRT-RTX, for real ------------------------------------------------------------------


def test_real_vit_for_two_gpus(commands: Path, real_bundle: Path, tmp_path: Path) -> None:
    """The DINOv2-S/14 at 224 pixels is parsed and built, stored as not proven, and found again."""
    bundle = Path(shutil.copytree(real_bundle, tmp_path / "bundle"))
    run = command(commands, "musc-export", "engine", str(bundle), "--compute-capability", "8.6,8.9")
    assert run.returncode == 0, run.stderr
    assert "NOT YET PROVEN" in run.stdout
    assert "musc-export verify" in run.stdout
    plan = bundle / "engines" / "rtx-sm86-sm89.plan"
    sidecar = json.loads((bundle / "engines" / "rtx-sm86-sm89.plan.json").read_text())
    assert plan.stat().st_size == sidecar["plan_bytes"] > 80_000_000
    assert sidecar["compute_capabilities"] == ["8.6", "8.9"]
    assert len(list((bundle / "engines").iterdir())) == 2
    shown = command(commands, "musc-edge", "inspect", str(bundle))
    assert "TensorRT-RTX" in shown.stdout
    assert "for GPUs of 8.6, 8.9" in shown.stdout


def test_interrupt_leaves_nothing(commands: Path, real_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(real_bundle, tmp_path / "bundle"))
    build = subprocess.Popen(
        [str(commands / "musc-export"), "engine", str(bundle), "--compute-capability", "8.6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_interrupts,
    )
    assert build.stdout is not None
    assert build.stdout.readline().startswith("building with TensorRT-RTX")
    time.sleep(0.5)
    build.send_signal(signal.SIGINT)
    _, errors = build.communicate(timeout=60)
    assert build.returncode == 130
    assert "interrupted; nothing was written" in errors
    assert list((bundle / "engines").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 5, "NVIDIA driver"),
        (["--flavor", "rtx"], 5, "--compute-capability 8.6,8.9"),
        (["--flavor", "tensorrt"], 5, "JetPack"),
        (["--compute-capability", "9.0"], 5, "builds no engine for compute capability 9.0"),
        (["--compute-capability", "86"], 2, "such as 8.6,8.9"),
        (["--max-batch", "0"], 2, "1 or more"),
        (["--compute-capability", "8.6", "--timing-cache", "t"], 5, "leave out --timing-cache"),
    ],
)
def test_engine_that_cannot_be_built(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnosuchcuda.so.1")
    assert exit_code(["engine", str(bundle), *options]) == code
    assert message in capsys.readouterr().err
    assert not list(bundle.glob("engines/*"))


def exit_code(arguments: list[str]) -> int:
    try:
        return export.main(arguments)
    except SystemExit as error:
        return int(error.code or 0)


def test_damaged_bundle_is_not_built(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert export.main(["engine", str(bundle), "--compute-capability", "8.6"]) == 4
    assert "model.onnx was changed" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["tensorrt", "cuda"])
def test_backends_that_need_a_gpu(
    bundle: Path, lot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    """Asked for, they are an error: the CPU does not step in."""
    monkeypatch.setattr(driver, "LIBRARY", "libnosuchcuda.so.1")
    out = lot.parent / "out"
    options = ["-b", str(bundle), "-o", str(out), "--backend", backend, "--scorer", "numpy"]
    assert edge.main(["infer", str(lot), *options]) == 5
    assert "no NVIDIA driver" in capsys.readouterr().err
    assert not out.exists()
    assert export.main(["verify", str(bundle), "--backend", backend]) == 5


# ---- on a GPU that is none -------------------------------------------------------------------


def test_from_engine_to_scores(
    bundle: Path, lot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Build, prove, take by itself: the same scores as the CPU's, and lot.json says what made them."""
    machine = install(monkeypatch)
    assert export.main(["engine", str(bundle), "--max-batch", "4"]) == 0
    text = capsys.readouterr().out
    assert "built in" in text
    assert "for Fake GPU (8.7, 8 multiprocessors), 1 to 4 images, as exported" in text
    assert "rank correlation 1.0000" in text
    folders = {}
    for backend in ("auto", "cpu"):
        out = folders[backend] = lot.parent / backend
        options = [
            "-b",
            str(bundle),
            "-o",
            str(out),
            "--backend",
            backend,
            "--batch",
            "4",
            "--scorer",
            "numpy",
        ]
        assert edge.main(["infer", str(lot), *options]) == 0
        shown = capsys.readouterr().out
        assert ("the ViT by tensorrt (TensorRT 10.3.0, as exported" in shown) == (backend == "auto")
    by_engine, by_cpu = (read_scores(out / "scores.csv", "score") for out in folders.values())
    assert by_engine.keys() == by_cpu.keys()
    np.testing.assert_allclose(list(by_engine.values()), list(by_cpu.values()), atol=1e-4)
    about = json.loads((folders["auto"] / "lot.json").read_text())
    assert about["backend"] == "tensorrt"
    assert about["versions"]["computed_by"][0].startswith("TensorRT 10.3.0, as exported, ")
    assert not machine.tensorrt.late


def test_engine_as_json(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    assert export.main(["engine", str(bundle), "--json", "--timing-cache", str(bundle.parent / "t")]) == 0
    shown = capsys.readouterr()
    data = json.loads(shown.out)
    assert data["gpu"]["name"] == "Fake GPU"
    assert data["parity"]["images"] == 12
    assert "building with TensorRT 10.3.0" in shown.err
    assert (bundle.parent / "t").read_bytes() == b"timings 1"


def test_batch_above_the_engine(
    bundle: Path, lot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    assert export.main(["engine", str(bundle), "--max-batch", "4"]) == 0
    options = ["-b", str(bundle), "-o", str(lot.parent / "out"), "--backend", "tensorrt"]
    options += ["--batch", "8", "--scorer", "numpy"]
    assert edge.main(["infer", str(lot), *options]) == 4
    assert "--max-batch 8, or take at most 4 at once" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "huge"])
def test_timing_cache_that_is_no_file_of_its_size(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    install(monkeypatch)
    path = bundle.parent / "timings"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 2**40)
    assert export.main(["engine", str(bundle), "--timing-cache", str(path)]) == 5
    assert f"the timing cache {path} cannot be read: " in capsys.readouterr().err


def test_inspect_shows_what_is_broken_and_what_is_not_used(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle itself is as good as before."""
    install(monkeypatch)
    assert export.main(["engine", str(bundle)]) == 0
    (bundle / "engines" / "broken.plan.json").write_text("[", encoding="ascii")
    (bundle / "engines").chmod(0o777)
    capsys.readouterr()
    assert edge.main(["inspect", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "broken.plan  cannot be used: " in shown
    assert f"not used: everybody may write {bundle}/engines" in shown
    assert edge.main(["inspect", str(bundle), "--json"]) == 0
    broken, other = json.loads(capsys.readouterr().out)["engines"]
    assert "is not" in broken["broken"] or "cannot be read" in broken["broken"]
    assert other["refused"] == f"everybody may write {bundle}/engines"
    assert other["flavor"] == "tensorrt"
