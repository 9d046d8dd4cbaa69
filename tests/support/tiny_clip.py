"""A tiny open_clip model, for tests that must not wait for a real one, and its graph, exported once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from musc_edge.export.clip import ClipSource
from musc_edge.export.torch_setup import import_models

NAME, TAG, PATCH, WIDTH, BLOCKS, SIDE = "ViT-tiny-test", "openai", 8, 32, 2, 32
SIZE, GRID = (32, 48), (4, 6)
TEXT = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 1, "layers": 1}


def open_clip_with_tiny(folder: Path) -> Any:
    """open_clip, to which the tiny model is known, with a tag that has OpenAI's preprocessing."""
    open_clip = import_models("open_clip", lambda text: None)
    vision = {"image_size": SIDE, "layers": BLOCKS, "width": WIDTH, "head_width": 16, "patch_size": PATCH}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    (folder / f"{NAME}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{NAME}.json")
    open_clip.pretrained._PRETRAINED[NAME] = {TAG: open_clip.pretrained._pcfg(hf_hub="nobody/tiny/")}
    return open_clip


def tiny_clip(**changes: Any) -> ClipSource:
    """The tiny model, with random weights unless a checkpoint is given, at a size that is not its own."""
    options: dict[str, Any] = {"model": NAME, "pretrained": "none", "size": SIZE, **changes}
    return ClipSource(**options)


def quiet(text: str) -> None:
    """In place of what an export says."""


def tiny_state(open_clip: Any) -> dict[str, torch.Tensor]:
    """Weights of the whole tiny model by open_clip's names, so large that it matters which GELU is used."""
    torch.manual_seed(3)
    model = open_clip.create_model(NAME, load_weights=False)
    scale = {"c_fc": 4.0, "c_proj": 4.0}
    return {
        name: value * next((factor for part, factor in scale.items() if part in name), 1.0)
        for name, value in model.state_dict().items()
    }


class StoredGraph:
    """Stands in for the exporter, which takes seconds: gives the graph that it gave once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, module: Any, example: Any, outputs: list[str]) -> ir.Model:
        return ir.load(self.path)
