"""Weights are checked while the ViT is loaded and runs: nothing of it counts before they are found good."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.errors import BundleError, DeviceError, LotError
from musc_edge.runtime.pipeline import score_lot
from musc_edge.runtime.settings import Resources
from musc_edge.runtime.timing import StageTimer
from musc_edge.runtime.types import FloatArray, Slot
from musc_edge.runtime.vit import hashes
from musc_edge.runtime.vit.bundle import ATTENTION_MODEL, MODEL, PROBE, open_beside, open_bundle
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from support.bad_input import Place
from support.command_line import run_here
from support.lots import write_png

DATA = "model.onnx.data"
SOON = 30  # seconds, for what takes none
CPU = Resources(batch=2, threads=1, backend="cpu", scorer="numpy")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    (tmp_path / "lot").mkdir()
    for k in range(6):
        write_png(tmp_path / "lot" / f"{k}.png", (16, 24), seed=k)
    return tmp_path / "lot"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def said_by(opening: Callable[[], object]) -> str:
    with pytest.raises(BundleError) as caught:
        opening()
    return str(caught.value)


def test_a_good_bundle_is_what_it_is_when_all_is_checked_first(bundle: Path) -> None:
    timer = StageTimer()
    opened = open_beside(bundle, timer)
    opened.require_checked()
    opened.require_checked()
    assert opened == open_bundle(bundle)
    assert len(timer.spans()["hash"]) == 1
    assert timer.seconds == {}  # it runs beside the stages
    deepcopy(opened).require_checked()


def test_a_bundle_in_one_file_is_checked_before_it_is_parsed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musc_edge.runtime.vit.bundle.external_files", lambda model: iter(()))
    opened = open_beside(bundle)
    assert opened.pending is None
    opened.require_checked()


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_changed_weights_are_told_as_ever_before_anything_is_made_of_them(
    bundle: Path, lot: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(bundle / DATA)
    expected = said_by(lambda: open_bundle(bundle))
    assert f"{bundle / DATA} was changed" in expected
    opened = open_beside(bundle)
    assert said_by(opened.require_checked) == expected
    told: list[object] = []
    watch = Watch(lambda stage, *_: told.append(stage), told.append)
    assert said_by(lambda: score_lot(lot, bundle, resources=CPU, watch=watch)) == expected
    assert not {"describe", "score"} & {each for each in told if isinstance(each, str)}
    assert said_by(lambda: score_lot(lot, bundle, resources=CPU, keep=tmp_path / "kept")) == expected
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", [MODEL, ATTENTION_MODEL])
def test_a_changed_graph_is_found_before_it_is_parsed(
    bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(model: Path) -> None:
        pytest.fail(f"{model} was parsed")

    flip(bundle / name)
    monkeypatch.setattr("musc_edge.runtime.vit.bundle.external_files", parsed)
    assert f"{bundle / name} was changed" in said_by(lambda: open_beside(bundle))


def test_a_probe_is_checked_only_on_request(bundle: Path) -> None:
    flip(bundle / PROBE)
    open_beside(bundle).require_checked()
    assert PROBE in said_by(lambda: open_bundle(bundle, whole=True))


@pytest.mark.parametrize("keeps", [False, True])
def test_the_vit_runs_meanwhile_and_counts_afterwards(
    bundle: Path, lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    """Where work is kept, nothing of the ViT is before all is checked."""
    check, release = hashes.check_hash, threading.Event()
    reached, done = threading.Event(), threading.Event()
    told: list[str] = []

    def slow(path: Path, expected: str) -> None:
        assert release.wait(SOON)
        check(path, expected)

    def progress(stage: str, number: float, total: float, unit: str) -> None:
        told.append(stage)
        if stage == "extract" and number == total:
            reached.set()

    def announce(forecast: object) -> None:
        if keeps:
            reached.set()

    def run() -> None:
        keep = tmp_path / "kept" if keeps else None
        score_lot(lot, open_beside(bundle), resources=CPU, keep=keep, watch=Watch(progress, announce))
        done.set()

    monkeypatch.setattr(hashes, "check_hash", slow)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        if keeps:
            assert not reached.wait(1)  # the forecast comes after what is kept was opened
            assert not (tmp_path / "kept").exists()
        else:
            assert reached.wait(SOON)
        assert not done.wait(0.2)
        assert not {"describe", "score"} & set(told)
    finally:
        release.set()
    thread.join(SOON)
    assert done.is_set()
    assert "score" in told


def test_an_error_of_other_reasons_is_told_when_all_is_good(bundle: Path, lot: Path) -> None:
    with pytest.raises(LotError, match="memory budget"):
        score_lot(lot, bundle, resources=replace(CPU, memory_budget=1))


def test_changed_weights_explain_an_error_of_the_vit(
    bundle: Path, lot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes in the middle of the lot, before the weights have been read."""
    check, failed = hashes.check_hash, threading.Event()
    extract_into, batches = OnnxBackend.extract_into, list[object]()

    def slow(path: Path, expected: str) -> None:
        assert failed.wait(SOON)
        check(path, expected)

    def failing(self: OnnxBackend, images: FloatArray, slot: Slot) -> None:
        batches.append(slot)
        if len(batches) == 2:
            failed.set()
            raise DeviceError("the ViT failed")
        extract_into(self, images, slot)

    opened = open_beside(bundle)
    opened.require_checked()
    monkeypatch.setattr(OnnxBackend, "extract_into", failing)
    with pytest.raises(DeviceError, match="the ViT failed"):
        score_lot(lot, opened, resources=CPU)
    batches.clear()
    failed.clear()
    flip(bundle / DATA)
    monkeypatch.setattr(hashes, "check_hash", slow)
    said = said_by(lambda: score_lot(lot, open_beside(bundle), resources=CPU))
    assert f"{bundle / DATA} was changed" in said
    assert len(batches) == 2


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.EMFILE])
def test_a_file_that_cannot_be_read_meanwhile_is_an_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sha256 = hashes.sha256

    def broken(path: Path) -> str:
        if path.name == DATA:
            raise OSError(number, os.strerror(number))  # as a disk's error in the middle, without a name
        return sha256(path)

    monkeypatch.setattr(hashes, "sha256", broken)
    if number == errno.EMFILE:  # not the bundle's fault
        with pytest.raises(DeviceError, match="ulimit -n"):
            open_beside(bundle).require_checked()
    else:
        said = said_by(open_beside(bundle).require_checked)
        assert said == f"{bundle / DATA} cannot be read: {os.strerror(number)}. Copy the bundle again."


def test_no_thread_for_the_hashes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(DeviceError, match="threads"):
        open_beside(bundle)


@pytest.mark.slow
def test_the_command_line_leaves_nothing_of_a_damaged_bundle(place: Place, commands: Path) -> None:
    bundle = place.own_bundle()
    flip(bundle / DATA)
    options = ["-b", str(bundle), "-o", "out", "--resume"]
    run = run_here([str(commands / "musc-edge"), "infer", str(place.lot), *options], cwd=place.root)
    assert run.returncode == 4
    assert f"{bundle / DATA} was changed since it was written" in run.stderr
    assert sorted(path.name for path in place.root.iterdir()) == ["bundle", "lot"]
