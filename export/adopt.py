"""Make a bundle from an ONNX ViT that somebody else exported, with proof that its numbers survived."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import PIL

from .._version import __version__
from ..kernels.cubins import FOLDER as KERNELS
from ..runtime.aggregate import centre
from ..runtime.bundle import MANIFEST, MODEL, PROBE, SCHEMA_VERSION, open_bundle, sha256, write_manifest
from ..runtime.engines import FOLDER as ENGINES
from ..runtime.errors import BundleError
from ..runtime.images import normalise
from ..runtime.onnx_backend import OnnxBackend, import_onnxruntime
from ..runtime.output import new_folder
from ..runtime.types import Array, FloatArray, Manifest, PreprocessSpec, TensorSpec
from .graph import CLS, INPUT, BundleGraph, cut, make_graph
from .onnx_file import load_source, run_model, save_model
from .parity import TOLERANCES, Parity, compare, require
from .probe import Numbers, Probe, kept_tokens, measure, numbers_of, probe_images, save_probe
from .taps import Taps, find_taps

Say = Callable[[str], None]

BUNDLE_FILES = frozenset({MANIFEST, MODEL, f"{MODEL}.data", PROBE, KERNELS, ENGINES})
_BATCH = 4


@dataclass(frozen=True)
class OnnxSource:
    """Which ViT to adopt, and what its file does not say of it.

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


def adopt(source: OnnxSource, out: Path, overwrite: bool = False, say: Say = print) -> Parity:
    """Write the bundle ``out`` for an ONNX ViT; nothing is left behind if it fails.

    Raises
    ------
    BundleError
        If the source is not a ViT that can be adopted at this image size.
    ParityError
        If the new graph's numbers differ from the source's.
    OutputError
        If ``out`` exists or cannot be written.
    """
    say(f"reading {source.path}")
    model = load_source(source.path)
    taps = find_taps(model, source.layers, source.taps, source.cls)
    trimmed = cut(model, taps, source.preprocess.size)
    size = "x".join(map(str, source.preprocess.size))
    say(f"adopting {source.backbone} at {size}, layers {list(taps.layers)}")
    built = make_graph(trimmed, taps)
    grid = "x".join(map(str, built.grid))
    say(f"  {len(model.graph.node)} nodes became {len(built.model.graph.node)}; grid {grid}")
    with new_folder(out, overwrite, marker=MANIFEST, ours=BUNDLE_FILES) as folder:
        files = save_model(built.model, folder / MODEL)
        manifest = _describe(source, taps, built)
        images = probe_images(source.preprocess)
        say(f"comparing with the source on {len(images)} probe images")
        numbers = _source_numbers(trimmed, taps, images, manifest)
        kept = kept_tokens(manifest.patches)
        save_probe(folder / PROBE, Probe(images, kept, numbers.at(kept)))
        hashes = {name: sha256(folder / name) for name in (*files, PROBE)}
        manifest = dataclasses.replace(manifest, files=hashes)
        write_manifest(folder, manifest)
        parity = _prove(folder, numbers, images)
        write_manifest(folder, dataclasses.replace(manifest, parity=parity.as_dict()))
    for line in parity.lines():
        say(line)
    return parity


def _prove(folder: Path, source: Numbers, images: Array) -> Parity:
    """Run the bundle as the device will, and compare every token with the source's."""
    bundle = open_bundle(folder)
    with OnnxBackend(bundle) as backend:
        candidate = measure(backend, images, bundle.manifest)
    parity = compare(source, candidate, bundle.manifest.layers)
    require(parity, TOLERANCES[bundle.manifest.precision], "the exported graph")
    return parity


def _source_numbers(model: onnx.ModelProto, taps: Taps, images: Array, manifest: Manifest) -> Numbers:
    """The source graph's own numbers: its tapped tensors, cut, centred and normalised here in numpy."""
    batches = [normalise(images[i : i + _BATCH], manifest.preprocess) for i in range(0, len(images), _BATCH)]
    element = onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    names = [output.name for output in model.graph.output]
    runs = run_model(model, [batch.astype(element) for batch in batches])
    values = {name: np.concatenate([run[k] for run in runs]) for k, name in enumerate(names)}
    tokens = np.stack(
        [centre(values[name][:, -manifest.patches :].astype(np.float32)) for name in taps.tokens]
    )
    cls = _unit_cls(values[taps.cls])
    if not (np.isfinite(tokens).all() and np.isfinite(cls).all()):
        raise BundleError("the source model gives numbers that are not finite on the probe images.")
    return numbers_of(tokens, cls, manifest)


def _unit_cls(value: Array) -> FloatArray:
    first = value[:, 0] if value.ndim == 3 else value
    first = first.astype(np.float32)
    unit: FloatArray = first / np.linalg.norm(first, axis=1, keepdims=True)
    return unit


def _describe(source: OnnxSource, taps: Taps, built: BundleGraph) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        backbone=source.backbone,
        pretrained=source.pretrained,
        activation=source.activation,
        tap="residual" if source.taps is None else source.taps,
        precision="fp32",
        preprocess=source.preprocess,
        patch_size=built.patch_size,
        grid=built.grid,
        token_width=built.token_width,
        cls_width=built.cls_width,
        layers=taps.layers,
        input=TensorSpec(INPUT, "float32"),
        tokens=tuple(TensorSpec(name, "float32") for name in built.token_names),
        cls=TensorSpec(CLS, "float32"),
        files={},
        parity={},
        made_with={
            "musc-edge": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": import_onnxruntime().__version__,
            "pillow": PIL.__version__,
            "source_sha256": sha256(source.path),
        },
    )
