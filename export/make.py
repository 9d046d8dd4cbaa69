"""Make a bundle of a source ViT: write its graph, run it as the device will, and compare the numbers."""

from __future__ import annotations

import dataclasses
import gc
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import PIL

from .._signatures import SUFFIX as SIGNED
from .._version import __version__
from ..kernels.cubins import FOLDER as KERNELS
from ..runtime.errors import BundleError, ParityError
from ..runtime.images.reading import normalise
from ..runtime.results.output import new_folder
from ..runtime.scoring.aggregate import centre
from ..runtime.types import Array, FloatArray, Manifest, TensorSpec
from ..runtime.vit.bundle import (
    ATTENTION_MODEL,
    MANIFEST,
    MODEL,
    PROBE,
    SCHEMA_VERSION,
    open_unsigned,
    write_manifest,
)
from ..runtime.vit.engines import FOLDER as ENGINES
from ..runtime.vit.graphs import NODES, PIECES, can_run_nodes
from ..runtime.vit.hashes import sha256
from ..runtime.vit.onnx_backend import OnnxBackend, import_onnxruntime
from .attention import AttentionGraph, with_attention_nodes
from .half import to_half
from .messages import Say
from .onnx_file import save_graph, save_sharing
from .parity import TOLERANCES, Parity, Pixels, compare, require, with_nodes
from .probe import (
    Numbers,
    Probe,
    kept_tokens,
    measure,
    numbers_of,
    probe_files,
    probe_images,
    save_probe,
)
from .source import CLS, INPUT, Description, Features, Source, SourceGraph, token_name
from .stream_type import NodesFile, measured_forms, write_nodes

_FEW = 2
"""Probe images by which is measured what the residual stream may be in."""
BUNDLE_FILES = frozenset(
    {MANIFEST, f"{MANIFEST}{SIGNED}", MODEL, ATTENTION_MODEL, f"{MODEL}.data", PROBE, KERNELS, ENGINES}
)


@dataclass(frozen=True)
class _Written:
    """A bundle without its parity, and the source's numbers for the probe images."""

    manifest: Manifest
    numbers: Numbers
    pixels: FloatArray | None
    nodes: list[NodesFile]


def make_bundle(
    source: Source, out: Path, precision: str = "fp32", overwrite: bool = False, say: Say = print
) -> Parity:
    """Write the bundle ``out``; nothing is left behind if it fails.

    Parameters
    ----------
    precision : fp32, or fp16 for weights and products in half precision.

    Raises
    ------
    BundleError
        If the source is not a ViT that can be made into a bundle at this image size.
    ParityError
        If the new graph's numbers differ from the source's.
    OutputError
        If ``out`` exists or cannot be written, or the disk is too full for it.
    """
    if precision not in TOLERANCES:
        raise BundleError(f"precision {precision!r}: expected one of {', '.join(TOLERANCES)}.")
    with new_folder(out, overwrite, marker=MANIFEST, ours=BUNDLE_FILES) as folder:
        written = _write(source, folder, precision, say)
        gc.collect()  # the exporter leaves cycles
        say("running the bundle on the probe images")
        parity, manifest = _prove(folder, written, say)
        write_manifest(folder, manifest)
    for line in parity.lines():
        say(line)
    return parity


def _write(source: Source, folder: Path, precision: str, say: Say) -> _Written:
    """Write all but the parity, and free the source model's memory."""
    start = time.perf_counter()
    model = source.load(say)
    graph = model.graph()
    manifest = _describe(model.description, graph, precision)
    grid = "x".join(map(str, graph.grid))
    seconds = time.perf_counter() - start
    say(f"  a graph of {len(graph.model.graph)} nodes in {seconds:.0f} s; grid {grid}")
    with probe_files() as files:
        say(f"running the source on {len(files)} probe images")
        features = model.features(files, say)
    numbers = _numbers(features, manifest)
    written, nodes = _save_graphs(graph.model, manifest, folder, say)
    # From here on only the files are used: the weights go before the bundle is run, so that they are in
    # memory once and not twice.
    model.release()
    for value in graph.model.graph.initializers.values():
        value.const_value = None
    kept = kept_tokens(manifest.patches)
    images = probe_images(manifest.preprocess)
    save_probe(folder / PROBE, Probe(images, kept, numbers.at(kept)))
    manifest = dataclasses.replace(
        manifest, files={name: sha256(folder / name) for name in (*written, PROBE)}
    )
    write_manifest(folder, manifest)
    return _Written(manifest, numbers, features.pixels, nodes)


def _save_graphs(
    model: ir.Model, manifest: Manifest, folder: Path, say: Say
) -> tuple[list[str], list[NodesFile]]:
    """Write the graph with attention in pieces, and those with it as nodes.

    Returns the names of the files of the first, and those of the others, of which the bundle gets one.
    """
    tokens = tuple(spec.name for spec in manifest.tokens)
    nodes = _attention_graph(model, say)
    half = manifest.precision == "fp16"
    if half:
        to_half(model, tokens)
    written = save_graph(model, folder / MODEL, nodes is not None)
    if nodes is None:
        return written, []
    if half:
        return written, write_nodes(nodes.model, tokens, folder, say)
    path = folder / f"{ATTENTION_MODEL}.float32"
    save_sharing(nodes.model, path, folder / MODEL)
    return written, [NodesFile(path)]


def _attention_graph(model: ir.Model, say: Say) -> AttentionGraph | None:
    """Make the graph with attention as nodes, if that can be done and proven here; say what became of it."""
    version = import_onnxruntime().__version__
    if not can_run_nodes(version):
        say(f"  attention stays in pieces: ONNX Runtime {version} cannot run it as one node, to prove it")
        return None
    found = with_attention_nodes(model)
    if found is None:
        say("  attention stays in pieces: no softmax between two products of four axes was found")
    else:
        say(f"  {ATTENTION_MODEL}: {found}")
    return found


def _prove(folder: Path, written: _Written, say: Say) -> tuple[Parity, Manifest]:
    """Run the bundle as the device will, beginning with the image files, and compare every number.

    Of the graphs with attention as nodes, the bundle gets the first that passes.
    """
    manifest = written.manifest
    images = probe_images(manifest.preprocess)
    proof = _Proof(folder, written, images, say)
    found = {PIECES: proof.of(PIECES)}
    proof.require(found[PIECES], "the exported graph")
    least = TOLERANCES[manifest.precision].token_cosine
    few = normalise(images[:_FEW], manifest.preprocess)
    for file in measured_forms(written.nodes, few, written.numbers.tokens[:, :_FEW], least, say):
        parity = _prove_nodes(proof, file, written.manifest, say)
        if parity:
            found[NODES] = parity
            manifest = _with_file(manifest, folder / ATTENTION_MODEL)
            break
    for file in written.nodes:
        file.path.unlink(missing_ok=True)
    parity = with_nodes(found)
    return parity, dataclasses.replace(manifest, parity=parity.as_dict())


def _prove_nodes(proof: _Proof, file: NodesFile, manifest: Manifest, say: Say) -> Parity | None:
    """Make a file the bundle's graph with attention as nodes; None, and it is none, if it does not pass."""
    folder = file.path.parent
    path = file.path.replace(folder / ATTENTION_MODEL)
    write_manifest(folder, _with_file(manifest, path))
    parity = proof.of(NODES)
    with_stream = f" with its residual stream in {file.stream}" if file.stream else ""
    try:
        proof.require(parity, f"the graph with {NODES}")
    except ParityError as error:
        say(f"  {path.name}{with_stream} is left out: {error}")
        path.unlink()
        return None
    if file.stream:
        say(f"  {path.name}{with_stream}")
    return parity


def _with_file(manifest: Manifest, path: Path) -> Manifest:
    return dataclasses.replace(manifest, files={**manifest.files, path.name: sha256(path)})


class _Proof:
    """Compares the graphs of a bundle with its source."""

    def __init__(self, folder: Path, written: _Written, images: Array, say: Say) -> None:
        self._folder, self._numbers, self._images, self._say = folder, written.numbers, images, say
        self._pixels = Pixels.between(written.pixels, images, written.manifest.preprocess)
        self._tolerance = TOLERANCES[written.manifest.precision]

    def of(self, graph: str) -> Parity:
        """Run one of the graphs and compare its numbers."""
        bundle = open_unsigned(self._folder)
        with OnnxBackend(bundle, graph=graph) as backend:
            candidate = measure(backend, self._images, bundle.manifest, say=self._say)
        return compare(self._numbers, candidate, bundle.manifest.layers, self._pixels)

    def require(self, parity: Parity, what: str) -> None:
        """Raise ParityError if it is beyond the tolerance of the bundle's precision."""
        require(parity, self._tolerance, what)


def _numbers(features: Features, manifest: Manifest) -> Numbers:
    """Bring the source's numbers into the form of a bundle's, in numpy."""
    tokens = np.stack([centre(layer) for layer in features.tokens])
    cls: FloatArray = features.cls / np.linalg.norm(features.cls, axis=1, keepdims=True)
    if not (np.isfinite(tokens).all() and np.isfinite(cls).all()):
        raise BundleError("the source model gives numbers that are not finite on the probe images.")
    return numbers_of(tokens, cls, manifest)


def _describe(source: Description, graph: SourceGraph, precision: str) -> Manifest:
    tokens = "float16" if precision == "fp16" else "float32"
    return Manifest(
        schema_version=SCHEMA_VERSION,
        backbone=source.backbone,
        pretrained=source.pretrained,
        activation=source.activation,
        tap=source.tap,
        precision=precision,
        preprocess=source.preprocess,
        patch_size=graph.patch_size,
        grid=graph.grid,
        token_width=graph.token_width,
        cls_width=graph.cls_width,
        layers=source.layers,
        input=TensorSpec(INPUT, "float32"),
        tokens=tuple(TensorSpec(token_name(layer), tokens) for layer in source.layers),
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
            **source.made_with,
        },
    )
