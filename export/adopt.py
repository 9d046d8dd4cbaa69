"""Adopt an ONNX ViT that was exported elsewhere as the source of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from ..runtime.images.reading import preprocess, read_image
from ..runtime.types import Array, FloatArray, PreprocessSpec
from ..runtime.vit.hashes import sha256
from .branches import inline_branches
from .copies import merge_copies
from .graph import at_size, cut, input_size, make_graph, patch_size
from .messages import Say, batches
from .onnx_file import load_source, run_model
from .source import Description, Features, SourceGraph, check_size
from .stream import find_streams
from .taps import BlockNames, Taps, describe, find_taps

_BATCH = 4


@dataclass(frozen=True)
class OnnxSource:
    """The ONNX file to adopt, with the facts that the file does not state.

    ``layers`` None means the last of each quarter of the blocks.  ``taps`` names the blocks' tensors, ``cls``
    that of the CLS embedding, or is ``mean``; None finds them by the structure of the graph (see taps.py).
    """

    path: Path
    layers: tuple[int, ...] | None
    preprocess: PreprocessSpec
    backbone: str
    pretrained: str = "as in the source file"
    activation: str = "as in the source graph"
    taps: BlockNames | None = None
    cls: str | None = None

    def load(self, say: Say) -> _LoadedOnnx:
        """Read the file and cut it after the taps.

        Raises
        ------
        BundleError
            If the file is not a ViT that can be adopted at this image size.
        """
        say(f"reading {self.path}")
        model = inline_branches(at_size(load_source(self.path), self.preprocess.size))
        if self.taps is None and len(find_streams(model.graph)) > 1:
            model = merge_copies(model, () if self.cls is None else (self.cls,))
        taps = find_taps(model, self.layers, self.taps, self.cls)
        size = "x".join(map(str, self.preprocess.size))
        say(f"adopting {self.backbone} at {size}, layers {list(taps.layers)}")
        for line in describe(taps, model):
            say(line)
        say(f"  {len(model.graph.node)} nodes in the source")
        return _LoadedOnnx(self, cut(model, taps, self.preprocess.size), taps)


@dataclass(frozen=True)
class _LoadedOnnx:
    """An ONNX source in memory: the cut graph, whose outputs are the taps."""

    source: OnnxSource
    model: onnx.ModelProto
    taps: Taps

    @property
    def description(self) -> Description:
        """The facts that go into the manifest."""
        source = self.source
        return Description(
            backbone=source.backbone,
            pretrained=source.pretrained,
            activation=source.activation,
            tap=_tap(source.taps),
            preprocess=source.preprocess,
            layers=self.taps.layers,
            made_with={"source_sha256": sha256(source.path)},
        )

    def graph(self) -> SourceGraph:
        """Fold all that depends on shapes alone, and append the heads."""
        built = make_graph(self.model, self.taps)
        model = ir.serde.deserialize_model(built.model)
        return SourceGraph(model, built.patch_size, built.grid, built.token_width, built.cls_width)

    def features(self, files: Sequence[Path], say: Say) -> Features:
        """Run the source's own nodes without optimisations and return the tapped tensors."""
        pixels = np.stack([preprocess(read_image(file), self.source.preprocess) for file in files])
        element = onnx.helper.tensor_dtype_to_np_dtype(self.model.graph.input[0].type.tensor_type.elem_type)
        parts = batches(len(pixels), _BATCH, say)
        runs = run_model(self.model, (pixels[part].astype(element) for part in parts))
        names = [output.name for output in self.model.graph.output]
        values = {name: np.concatenate([run[k] for run in runs]) for k, name in enumerate(names)}
        grid = check_size(input_size(self.model), patch_size(self.model))
        patches = grid[0] * grid[1]
        tokens = np.stack([values[name][:, -patches:].astype(np.float32) for name in self.taps.tokens])
        return Features(tokens, _embedding(values[self.taps.cls], self.taps.mean, patches), pixels=None)

    def release(self) -> None:
        """Free the weights."""
        self.model.Clear()


def _embedding(value: Array, mean: bool, patches: int) -> FloatArray:
    """Return the embedding (n,D) that is in a tensor (n,T,D) or (n,D)."""
    value = value.astype(np.float32)
    if value.ndim == 3:
        value = value[:, -patches:].mean(axis=1) if mean else value[:, 0]
    return value


def _tap(taps: BlockNames | None) -> str:
    """Describe where the tokens come from, for the manifest."""
    if taps is None or isinstance(taps, str):
        return taps or "residual"
    return ",".join(f"{layer}={name}" for layer, name in sorted(taps.items()))
