"""A torch ViT as the source of a bundle: run it as it is, or export it with the bundle's heads.

tower   pixels (B,3,H,W) -> tokens of the tapped blocks (B,P,C) ..., CLS embedding (B,D)
graph   the same, each layer minus its image's scalar mean, CLS divided by its norm
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from PIL import Image

from ..runtime.errors import BundleError
from ..runtime.types import FloatArray
from .messages import Say, batches
from .source import BATCH, CLS, INPUT, Description, Features, SourceGraph, token_name

OPSET = 18  # LayerNormalization is one node from 17 on; the exporter writes no less than 18
Transform = Callable[[Image.Image], torch.Tensor]
_BATCH = 2


@dataclass(frozen=True)
class LoadedTower:
    """A torch model in memory, with its library's own transform from an RGB image to (3,H,W)."""

    description: Description
    tower: torch.nn.Module
    transform: Transform
    patch_size: int
    grid: tuple[int, int]

    def graph(self) -> SourceGraph:
        """Export the model with the bundle's heads."""
        height, width = self.description.preprocess.size
        outputs = [*map(token_name, self.description.layers), CLS]
        model = to_onnx(_WithHeads(self.tower).eval(), torch.zeros(2, 3, height, width), outputs)
        shapes = [tuple(value.shape or ())[1:] for value in model.graph.outputs]
        patches = self.grid[0] * self.grid[1]
        widths = {shape[-1] for shape in shapes[:-1] if shape[:-1] == (patches,)}
        token_width, cls_width = (*widths, None)[0], (*shapes[-1], None)[0]
        if len(widths) != 1 or not isinstance(token_width, int) or not isinstance(cls_width, int):
            raise BundleError(
                f"the model gives shapes {shapes}: expected ({patches}, C) for each layer and (D,) for CLS."
            )
        return SourceGraph(model, self.patch_size, self.grid, token_width, cls_width)

    def features(self, files: Sequence[Path], say: Say) -> Features:
        """Compute the model's own numbers, on images that its library's own transform made."""
        pixels = torch.stack([self._pixels(file) for file in files])
        with torch.inference_mode():
            runs = [self.tower(pixels[part]) for part in batches(len(pixels), _BATCH, say)]
        *tokens, cls = (_joined(parts) for parts in zip(*runs, strict=True))
        return Features(np.stack(tokens), cls, pixels.numpy())

    def release(self) -> None:
        """Free the weights."""
        # The exporter's rewriting rules are global and hold the last graph, and with it the weights: dropping
        # the model would not free them, emptying its tensors does.
        for tensor in (*self.tower.parameters(), *self.tower.buffers()):
            tensor.data = torch.empty(0)

    def _pixels(self, file: Path) -> torch.Tensor:
        with Image.open(file) as image:
            return self.transform(image.convert("RGB"))


class _WithHeads(torch.nn.Module):
    """The tower with the heads of a bundle's graph behind it."""

    def __init__(self, tower: torch.nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tokens (B,P,C) of each layer without their image's mean, and unit CLS (B,D)."""
        *tokens, cls = self.tower(pixels)
        centred = [layer - layer.mean(dim=(1, 2), keepdim=True) for layer in tokens]
        return (*centred, torch.nn.functional.normalize(cls, dim=-1))


def to_onnx(module: torch.nn.Module, example: torch.Tensor, outputs: list[str]) -> ir.Model:
    """Export a module with a free batch; the graph's weights are the module's own memory, not copies."""
    with warnings.catch_warnings(), torch.no_grad():
        # torch's exporter calls what torch itself has deprecated
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=outputs,
            dynamic_shapes={INPUT: {0: torch.export.Dim(BATCH)}},
            verbose=False,
        )
    if program is None:
        raise BundleError("torch gave no graph for this model.")
    model = program.model
    # Paths of the machine that exported, and torch's notes, would make equal exports differ.
    ClearMetadataAndDocStringPass()(model)
    return model


def _joined(parts: tuple[torch.Tensor, ...]) -> FloatArray:
    joined: FloatArray = torch.cat(parts).float().numpy()
    return joined
