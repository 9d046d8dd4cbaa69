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
from ..runtime.vit.bundle import sha256
from .graph import cut, input_size, make_graph, patch_size
from .messages import Say, batches
from .onnx_file import load_source, run_model
from .source import Description, Features, SourceGraph, check_size
from .taps import Taps, find_taps

_BATCH = 4


@dataclass(frozen=True)
class OnnxSource:
    """The ONNX file to adopt, with the facts that the file does not state.

    ``taps`` is a tensor name with ``{layer}``, ``cls`` a tensor name; None for Hugging Face's names.
    """

    path: Path
    layers: tuple[int, ...]
    preprocess: PreprocessSpec
    backbone: str
    pretrained: str = "as in the source file"
    activation: str = "as in the source graph"
    taps: str | None = None
    cls: str | None = None

    def load(self, say: Say) -> _LoadedOnnx:
        """Read the file and cut it after the taps.

        Raises
        ------
        BundleError
            If the file is not a ViT that can be adopted at this image size.
        """
        say(f"reading {self.path}")
        model = load_source(self.path)
        taps = find_taps(model, self.layers, self.taps, self.cls)
        size = "x".join(map(str, self.preprocess.size))
        say(f"adopting {self.backbone} at {size}, layers {list(taps.layers)}")
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
            tap="residual" if source.taps is None else source.taps,
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
        return Features(tokens, _first(values[self.taps.cls]), pixels=None)

    def release(self) -> None:
        """Free the weights."""
        self.model.Clear()


def _first(value: Array) -> FloatArray:
    """Return the CLS embedding (n,D) of a tensor (n,T,D) or (n,D)."""
    first = value[:, 0] if value.ndim == 3 else value
    return first.astype(np.float32)
