"""Engines of a device that requires signatures, as a user makes and uses them, on a GPU that is none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from musc_edge import _signatures
from musc_edge.export import verify
from musc_edge.export.engine_store import store_engine
from musc_edge.runtime.errors import BundleError
from musc_edge.runtime.vit.bundle import open_unsigned
from musc_edge.runtime.vit.engines import Engine, list_engines
from musc_edge.tools import edge, export
from support.gpu_machine import install
from support.lots import write_png
from support.signing import PLAN, Pair, flip, new_pair, put_engine, sign_manifest

pytest.importorskip("cryptography", reason="the extra [sign] is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture
def device(tmp_path: Path) -> Pair:
    return new_pair(tmp_path, "device")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, device: Pair, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle by a maker, on a device that believes him and its own key."""
    maker = new_pair(tmp_path, "maker")
    monkeypatch.setattr(_signatures, "TRUSTED_KEYS", tmp_path / "trusted-keys")
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", f"{maker.public}:{device.public}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MUSC_EDGE_DEVICE_KEY", raising=False)
    for k in range(7):
        write_png(tmp_path / "lot" / f"{k}.png", (20, 30), seed=k)
    return sign_manifest(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")), maker)


def infer(bundle: Path, out: str, backend: str = "tensorrt") -> int:
    options = ["-b", str(bundle), "-o", str(bundle.parent / out), "--batch", "4", "--scorer", "numpy"]
    return edge.main(["infer", str(bundle.parent / "lot"), *options, "--backend", backend])


def test_signed_after_they_were_made(
    bundle: Path, device: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    assert export.main(["engine", str(bundle), "--max-batch", "4"]) == 0
    told = capsys.readouterr().out
    assert "NOT SIGNED as is required here: " in told
    assert ".plan.json is not signed" in told
    assert infer(bundle, "refused") == 4
    assert ".plan.json is not signed" in capsys.readouterr().err
    assert infer(bundle, "cpu", "auto") == 0
    (note,) = [
        note for note in json.loads((bundle.parent / "cpu/lot.json").read_text())["notes"] if "plan" in note
    ]
    assert "backend tensorrt was passed over" in note
    assert export.main(["sign", str(bundle), "--key", str(device.private)]) == 0
    assert capsys.readouterr().out.count("signed ") >= 3
    assert infer(bundle, "out") == 0
    (sidecar,) = (bundle / "engines").glob("*.plan.json")
    flip(sidecar)
    assert infer(bundle, "changed") == 4
    assert "was changed since it was signed" in capsys.readouterr().err


def test_signed_as_they_are_made(
    bundle: Path, device: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(device.private))
    assert export.main(["engine", str(bundle), "--max-batch", "4"]) == 0
    assert "NOT SIGNED" not in capsys.readouterr().out
    monkeypatch.delenv("MUSC_EDGE_DEVICE_KEY")
    assert infer(bundle, "out") == 0
    # Built anew without the key, it is not covered by what the key signed before.
    assert export.main(["engine", str(bundle), "--max-batch", "2"]) == 0
    assert infer(bundle, "refused") == 4


def test_a_device_key_that_cannot_be_used(
    bundle: Path, device: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = install(monkeypatch)
    device.private.chmod(0o644)
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(device.private))
    assert export.main(["engine", str(bundle), "--max-batch", "4"]) == 4
    assert "chmod 600" in capsys.readouterr().err
    assert not list((bundle / "engines").iterdir())
    assert machine.tensorrt.built == [], "it is said before anything is built"


def test_a_device_key_that_cannot_be_used_is_said_before_an_engine_is_proven(
    bundle: Path, device: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "TensorRtBackend", lambda *args, **options: pytest.fail("run"))
    device.private.chmod(0o644)
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(device.private))
    assert export.main(["verify", str(bundle), "--backend", "tensorrt"]) == 4
    assert "chmod 600" in capsys.readouterr().err


def test_an_engine_stays_if_the_next_one_cannot_be_signed(
    bundle: Path, device: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_unsigned(bundle)
    put_engine(opened, bundle / "engines")
    (engine,) = list_engines(opened)
    assert isinstance(engine, Engine)
    path = store_engine(engine)
    put_engine(opened, bundle / "engines", plan=b"another")
    device.private.chmod(0o644)
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(device.private))
    another = Engine(bundle / "engines/e.plan", replace(engine.info, plan_sha256="0" * 64))
    with pytest.raises(BundleError, match="chmod 600"):
        store_engine(another)
    assert path.read_bytes() == PLAN
    assert Engine(path, engine.info) in list_engines(opened)
