"""``musc-export clip`` and ``timm``: their options, and what is said when something is missing."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from musc_edge import _extras
from musc_edge.export import clip
from musc_edge.export.clip import ClipSource
from musc_edge.export.timm_vit import TimmSource
from musc_edge.runtime.scoring.cautions import RANDOM
from musc_edge.tools import export
from support.command_line import run_here

pytestmark = pytest.mark.long


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sources of which a bundle was asked for; none is made."""
    sources: list[Any] = []

    def make(args: Any, source: Any) -> int:
        sources.append((source, args.precision))
        return 0

    monkeypatch.setattr(export, "_make", make)
    return sources


def test_clip_options(made: list[Any]) -> None:
    assert export.main(["clip", "--model", "ViT-L-14-336", "-o", "x"]) == 0
    options = ["--pretrained", "none", "--seed", "7", "--image-size", "336x224", "--layers", "1,2"]
    more = [
        "--activation",
        "quickgelu",
        "--preset",
        "openclip",
        "--checkpoint",
        "f.pt",
        "--precision",
        "fp16",
    ]
    assert export.main(["clip", "--model", "ViT-B-16", "-o", "x", *options, *more]) == 0
    path = Path("f.pt")
    assert made == [
        (ClipSource("ViT-L-14-336", "openai"), "fp32"),
        (ClipSource("ViT-B-16", "none", (336, 224), (1, 2), "quickgelu", "openclip", path, 7), "fp16"),
    ]


def test_timm_options(made: list[Any]) -> None:
    assert export.main(["timm", "--model", "vit_small_patch14_dinov2.lvd142m", "-o", "x"]) == 0
    options = ["--pretrained", "none", "--seed", "7", "--image-size", "224", "--layers", "1,2"]
    more = ["--tap", "norm", "--interpolation", "bilinear"]
    assert export.main(["timm", "--model", "vit_b", "-o", "x", *options, *more]) == 0
    assert made == [
        (TimmSource("vit_small_patch14_dinov2.lvd142m"), "fp32"),
        (TimmSource("vit_b", (224, 224), (1, 2), "norm", "bilinear", False, None, 7), "fp32"),
    ]


def test_onnx_options(made: list[Any]) -> None:
    assert export.main(["onnx", "m.onnx", "-o", "x"]) == 0
    assert export.main(["onnx", "m.onnx", "-o", "x", "--taps", "5=a,b,1100=add_2", "--cls", "mean"]) == 0
    assert export.main(["onnx", "m.onnx", "-o", "x", "--taps", "b.{layer}", "--layers", "1,2"]) == 0
    chosen = [(source.layers, source.taps, source.cls) for source, _ in made]
    names = {5: "a,b", 1100: "add_2"}
    assert chosen == [(None, None, None), (None, names, "mean"), ((1, 2), "b.{layer}", None)]


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        (["clip", "--model", "ViT-B-16"], "open_clip", "export"),
        (["timm", "--model", "vit"], "torch", "export"),
        (["onnx", "model.onnx", "--layers", "1"], "onnx_ir", "onnx"),
        (["dinov2-small"], "onnx", "onnx"),
    ],
)
def test_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    missing: str,
    extra: str,
) -> None:
    """Said before anything is imported or downloaded."""
    monkeypatch.setattr(_extras, "find_spec", lambda name: None if name == missing else find_spec(name))
    assert export.main([*command, "-o", "x"]) == 5
    said = capsys.readouterr().err
    assert f"not installed here, and needed by musc-export {command[0]}: {missing}." in said
    assert f"pip install 'musc-edge[{extra}]'" in said


@pytest.mark.parametrize(
    "command",
    [
        ["clip", "--model", "ViT-L-14-336"],
        ["timm", "--model", "vit_small_patch14_dinov2.lvd142m"],
    ],
)
def test_weights_that_cannot_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert export.main([*command, "-o", str(tmp_path / "bundle")]) == 4
    said = capsys.readouterr().err
    assert "cannot be downloaded (HF_HUB_OFFLINE is set)" in said
    assert "--checkpoint FILE" in said
    assert list(tmp_path.iterdir()) == []


def test_json_has_one_object_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Notes of the export go to standard error."""
    from musc_edge.export import make

    class Made:
        def as_dict(self) -> dict[str, int]:
            return {"images": 12}

    def make_bundle(source: Any, out: Path, precision: str, overwrite: bool, say: Any) -> Made:
        say(f"{precision} {overwrite}")
        return Made()

    monkeypatch.setattr(make, "make_bundle", make_bundle)
    assert export.main(["clip", "--model", "ViT-B-16", "-o", "x", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"bundle": "x", "parity": {"images": 12}}
    assert "fp32 False" in said.err


def test_random_weights_are_called_what_infer_warns_of() -> None:
    assert ClipSource("ViT-B-32", "none")._pretrained_name() == RANDOM
    assert clip.RANDOM == RANDOM


def test_timm_needs_no_open_clip(tmp_path: Path) -> None:
    """It comes as far as timm's own list of models."""
    with mock.patch.dict(sys.modules, {"open_clip": None}):  # as if it were not installed
        run = run_here(["musc-export", "timm", "--model", "no_such_vit", "-o", str(tmp_path / "out")])
    assert (run.returncode, "timm has no model 'no_such_vit'" in run.stderr) == (4, True), run.stderr
