"""What is fuzzed: each target reads bytes as the product does, and raises only what it may not raise.

An error of the package, of the class that the reader's docstring names, is the right answer to damaged input,
and passes.  Anything else comes out.  ``tests/measure/fuzz.py`` drives the targets with coverage; the inputs
that once failed are in ``tests/data/fuzz/TARGET`` and are read again by ``tests/test_fuzz_seeds.py``.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musc_edge._signatures import read_signatures, signature_path
from musc_edge._signing_keys import SignatureError
from musc_edge.export.probe import load_probe
from musc_edge.kernels import cubin_files
from musc_edge.kernels.cubin_files import INDEX, open_cubins
from musc_edge.kernels.driver import GpuModel
from musc_edge.kernels.errors import KernelError
from musc_edge.runtime.errors import BundleError, LotError, OutputError, ReferenceFolderError
from musc_edge.runtime.images.decoders import check_pixels, read_samples
from musc_edge.runtime.images.image_bytes import ImageError, ImageInput
from musc_edge.runtime.images.image_header import read_file_header
from musc_edge.runtime.images.reading import file_stamp
from musc_edge.runtime.images.samples import to_rgb
from musc_edge.runtime.reference.files import open_bank, open_reference, read_thumbnails
from musc_edge.runtime.results.image_files import MAP_FORMATS
from musc_edge.runtime.results.read_results import ScoredLot, read_results
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.features import FileStore
from musc_edge.runtime.types import Manifest, no_progress
from musc_edge.runtime.vit.bundle import MANIFEST, open_bundle
from musc_edge.runtime.vit.engines import (
    Engine,
    EngineInfo,
    Proof,
    engine_name,
    find_proof,
    list_engines,
    proof_name,
    sidecar_of,
)
from musc_edge.runtime.vit.external_data import external_files
from support.fuzz_mutators import Mutate, mutate_bytes, mutate_json, mutate_lines, mutate_zip
from support.lots import make_bundle
from support.places import DATA

Read = Callable[[bytes], None]
SEEDS = DATA / "fuzz"
SCHEMA1 = DATA / "schema1"
MOST_PIXELS = 1 << 16
OWN_DECODERS = ("tiff", "bmp", "netpbm")
GPU = GpuModel("Orin", "8.7", 16)


@dataclass(frozen=True)
class Target:
    """A reader: ``prepare`` makes it in an empty folder, ``begin`` gives inputs to start from."""

    prepare: Callable[[Path], Read]
    begin: Callable[[Path], Iterable[bytes]]
    mutate: Mutate = mutate_bytes
    longest: int = 8192


# ---- images ----------------------------------------------------------------------------------


def image_reader(folder: Path) -> Read:
    """Headers of all formats, and the pixels of those that our own code decodes."""
    path = folder / "image"
    path.touch()

    def read(data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
        with ImageInput(io.FileIO(path), file_stamp(path)) as image, suppress(ImageError):
            header = read_file_header(image, MOST_PIXELS)
            check_pixels(image, header)
            if header.decoder in OWN_DECODERS:
                _pixels(image, header)

    return read


def _pixels(image: ImageInput, header: Any) -> None:
    """Decode; what a codec of imagecodecs or OpenCV says of a damaged part is turned into an ImageError."""
    try:
        samples = read_samples(image, header)
    except ImageError:
        raise
    except Exception as error:
        if "/musc_edge/" in _innermost(error):
            raise
        return
    to_rgb(samples, 16)


def _innermost(error: BaseException) -> str:
    """File of the line that raised an error."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename if trace else ""


def images(folder: Path) -> list[bytes]:
    """One file of each container that the tests read, as far as it is small."""
    from support.image_matrix import groups

    found = []
    for cases in groups().values():
        for case in cases[:: max(1, len(cases) // 6)]:
            path = folder / f"begin{case.suffix}"
            case.write(path)
            found.append(path.read_bytes())
    return [content for content in found if len(content) <= 8192]


# ---- bundles ---------------------------------------------------------------------------------


def manifest_reader(folder: Path) -> Read:
    """``manifest.json`` of a bundle whose other files are there and right."""
    bundle = make_bundle(folder / "bundle")

    def read(data: bytes) -> None:
        (bundle / MANIFEST).write_bytes(data)
        with suppress(BundleError):
            open_bundle(bundle, whole=True)

    return read


def manifests(folder: Path) -> list[bytes]:
    return [
        (SCHEMA1 / "bundle" / MANIFEST).read_bytes(),
        (make_bundle(folder / "begin") / MANIFEST).read_bytes(),
    ]


def probe_reader(folder: Path) -> Read:
    path, small = folder / "probe.npz", _small_manifest(folder)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for manifest in (None, small):
            with suppress(BundleError):
                load_probe(path, manifest)

    return read


def _small_manifest(folder: Path) -> Manifest:
    return open_bundle(make_bundle(folder / "of_probe")).manifest


def probes(folder: Path) -> list[bytes]:
    m = _small_manifest(folder)
    np.savez(
        folder / "begin.npz",
        images=np.zeros((2, *m.preprocess.size, 3), np.uint8),
        token_index=np.arange(3),
        tokens=np.zeros((len(m.layers), 2, 3, m.token_width), np.float32),
        cls=np.zeros((2, m.cls_width), np.float32),
        raw_scores=np.zeros(2),
    )
    return [(folder / "begin.npz").read_bytes()]


def sidecar_reader(folder: Path) -> Read:
    """The first byte says whether the rest is an engine's sidecar or its proof."""
    bundle = open_bundle(make_bundle(folder / "bundle"))
    engines = bundle.root / "engines"
    engines.mkdir()
    info, proof = _info(), proof_name(_info(), GPU)
    plan = engines / engine_name("tensorrt", GPU, ())
    plan.touch()

    def read(data: bytes) -> None:
        sidecar_of(plan).write_bytes(data[1:])
        (engines / proof).write_bytes(data[1:])
        for engine in list_engines(bundle):
            if isinstance(engine, Engine):
                with suppress(BundleError):
                    find_proof(engine, bundle, GPU)
        with suppress(BundleError):
            find_proof(Engine(plan, info), bundle, GPU)

    return read


def _info() -> EngineInfo:
    return EngineInfo(
        1, {"model.onnx": "0"}, "tensorrt", "10.3", GPU, ("8.7",), 1, 8, 16, "plain", 1.0, 10, "ab" * 32
    )


def sidecars(folder: Path) -> list[bytes]:
    from dataclasses import asdict

    each = (_info(), Proof("ab" * 32, GPU, "10.3", {"cls": 1e-6}))
    return [b" " + json.dumps(asdict(one)).encode() for one in each]


def kernels_reader(folder: Path) -> Read:
    """``kernels.json``; its own checksum is made right, or no change would get behind it."""
    (folder / "kernels").mkdir()
    path = folder / "kernels" / INDEX

    def read(data: bytes) -> None:
        with suppress(ValueError, RecursionError):
            content = json.loads(data)
            if isinstance(content, dict) and "sha256" in content:
                rest = {name: value for name, value in content.items() if name != "sha256"}
                data = json.dumps({**rest, "sha256": cubin_files._digest(rest)}).encode()
        path.write_bytes(data)
        with suppress(KernelError):
            found = open_cubins(path.parent, "musc-export kernels")
            for arch in found.cubins if found else ():
                with suppress(KernelError):
                    assert found
                    found.read(arch)

    return read


def kernel_lists(folder: Path) -> list[bytes]:
    packed = zlib.compress(b"cubin")
    entry = {
        "sha256": hashlib.sha256(packed).hexdigest(),
        "compiler": "x",
        "kernels": {"a": {"registers": 4}},
    }
    return [
        json.dumps({"schema_version": 1, "source": "0", "cubins": {"sm_87": entry}, "sha256": "0"}).encode()
    ]


def graph_reader(folder: Path) -> Read:
    """The search through an ONNX file for the names of files."""
    path = folder / "model.onnx"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(ValueError):
            list(external_files(path))

    return read


def graphs(folder: Path) -> list[bytes]:
    import onnx

    entry = onnx.StringStringEntryProto(key="location", value="w.data")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], external_data=[entry])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    node = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
    graph = onnx.GraphProto(name="g", node=[node], initializer=[tensor])
    return [onnx.ModelProto(ir_version=9, graph=graph).SerializeToString()]


# ---- work and results ------------------------------------------------------------------------

SHAPE = (2, 4, 2, 3)  # layers, images, patches, width
NAMES = tuple(f"{k}.png" for k in range(4))
_FEATURES: dict[str, Any] = {"bundle": "one", "images": [["0.png", 1]]}
_SCORING: dict[str, Any] = {"degrees": [1, 3]}
_ABOUT = {"features": _FEATURES, "scoring": _SCORING}


def kept_reader(folder: Path) -> Read:
    """Kept work: about.json, and each line of both journals with the checksum that a journal wants."""
    kept = folder / "kept"

    def read(data: bytes) -> None:
        about, _, lines = data.partition(b"\n")
        _write_kept(kept, about, lines)
        with suppress(OutputError), closing(Checkpoint(kept, _FEATURES, _SCORING, void_other=True)) as work:
            rows = SHAPE[0] * SHAPE[1], SHAPE[2] * SHAPE[3]
            store = FileStore(
                work.open_tokens(rows, np.float32),
                SHAPE,
                np.float32,
                np.zeros((SHAPE[1], 5), np.float32),
                room=4,
            )
            by_batch = NAMES[:2], NAMES[2:]
            for batch, names in zip(work.batches(store, no_progress, by_batch), by_batch, strict=False):
                found = [*batch.read, *(skipped.name for skipped in batch.failed)]
                assert sorted(found) == list(names), batch
            for layer in range(2):
                for cell, checksum in work.cells(layer).items():
                    assert all(type(each) is int for each in (*cell, checksum)), (cell, checksum)
                scores = work.scores(layer, (4, 2))
                assert scores is None or scores.shape == (4, 2), scores
            work.begin_scoring()

    return read


def _write_kept(kept: Path, about: bytes, lines: bytes) -> None:
    if not kept.exists():
        with closing(Checkpoint(kept, _FEATURES, _SCORING)):
            pass
    with_sums = b"".join(b"%s %08x\n" % (line, zlib.crc32(line)) for line in lines.split(b"\n") if line)
    for name, content in (
        ("about.json", about),
        ("batches.journal", with_sums),
        ("cells.journal", with_sums),
        ("layer_0.npy", HUGE if b"huge" in lines else b""),
    ):
        (kept / name).write_bytes(content)


_PIB = "{'descr': '<f8', 'fortran_order': False, 'shape': (140737488355328,), }"
HUGE = b"\x93NUMPY\x01\0v\0" + _PIB.ljust(117).encode() + b"\n"
"""A file of scores that claims a PiB."""


def kept_works(folder: Path) -> list[bytes]:
    batch = {"batch": 0, "rows": [0, 2], "read": ["0.png", "1.png"], "failed": [], "cls": "", "checksum": 0}
    bad = {**batch, "failed": [{"name": "2.png", "status": "unreadable", "reason": "empty"}]}
    cell = {"layer": 0, "cell": [0, 1], "checksum": 5}
    lines = [_ABOUT, {"made_of": "ab"}, batch, bad, cell, {"layer": 0, "scores": 0}]
    huge = [_ABOUT, {"made_of": "huge"}, {"layer": 0, "scores": zlib.crc32(HUGE)}]
    return [b"\n".join(json.dumps(line).encode() for line in each) for each in (lines, huge)]


def results_reader(folder: Path) -> Read:
    """``lot.json`` and, behind a line of its own, scores.csv; all that is read of results."""
    out = Path(shutil.copytree(SCHEMA1 / "results", folder / "results"))

    def read(data: bytes) -> None:
        about, _, table = data.partition(b"\n")
        (out / "lot.json").write_bytes(about)
        if table:
            (out / "scores.csv").write_bytes(table)
        with suppress(LotError):
            for lot in read_results(out):
                _use(lot)

    return read


def _use(lot: ScoredLot) -> None:
    """Ask a lot of results for everything that the tools ask it for."""
    questions: list[Callable[[], object]] = [
        lambda: lot.name, lambda: lot.judge_by, lambda: lot.made_by, lambda: lot.level, lambda: lot.has_maps,
        *(lambda image=image: lot.size_of(image) for image in lot.images[:2]),
        *(lambda image=image: lot.sized_map(image) for image in lot.images[:2]),
        *(lambda image=image: image.map and lot.pixels(image) for image in lot.images[:2]),
    ]  # fmt: skip
    for ask in questions:
        with suppress(LotError):
            ask()


def result_folders(folder: Path) -> list[bytes]:
    about = json.loads((SCHEMA1 / "results" / "lot.json").read_bytes())
    table = (SCHEMA1 / "results" / "scores.csv").read_bytes()
    newer = {**about, "image_sizes": {"0.png": "32x32"}, "map_size": [32, 32]}
    newer["settings"] = {**about["settings"], "judge_by": "raw_score", "csv": "excel", "position_median": 0.5}
    grouped = {**about, "groups": {"maps": {"settings": {}, "bundle": {}, "png_map_scale": {}}}}
    return [json.dumps(each).encode() + b"\n" + table for each in (about, newer, grouped)]


def map_reader(folder: Path) -> Read:
    """The file of a map, in each of its formats."""
    about = json.loads((SCHEMA1 / "results" / "lot.json").read_bytes())
    path = folder / "map"
    lots = [
        ScoredLot(folder, {**about, "settings": {**about["settings"], "map_format": kind}}, (), ())
        for kind in MAP_FORMATS
    ]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for lot in lots:
            with suppress(LotError):
                lot.stored_map("map")

    return read


def maps(folder: Path) -> list[bytes]:
    from PIL import Image

    values = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
    Image.fromarray(values).save(folder / "a.tiff")
    Image.fromarray((values * 255).astype(np.uint8)).save(folder / "b.png")
    Image.fromarray((values * 65535).astype(np.uint16)).save(folder / "c.png")
    np.save(folder / "d.npy", values)
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]


# ---- references ------------------------------------------------------------------------------


def reference_reader(folder: Path) -> Read:
    """A reference's manifest.json, or (a digit before it says which) one of its arrays, whose hash is set."""
    root = Path(shutil.copytree(SCHEMA1 / "reference_patches", folder / "reference"))
    manifest = (root / MANIFEST).read_bytes()
    arrays = sorted(path.name for path in root.glob("*.npy"))

    def read(data: bytes) -> None:
        number, content = data[:1], data[1:]
        name = arrays[number[0] % len(arrays)] if number.isdigit() else MANIFEST
        before = (root / name).read_bytes()
        try:
            (root / name).write_bytes(data if name == MANIFEST else content)
            if name != MANIFEST:
                about = json.loads(manifest)
                about["files"][name] = hashlib.sha256(content).hexdigest()
                (root / MANIFEST).write_bytes(json.dumps(about).encode())
            with suppress(ReferenceFolderError, LotError):
                opened = open_reference(root)
                read_thumbnails(opened)
                open_bank(opened)
        finally:
            (root / name).write_bytes(before)
            (root / MANIFEST).write_bytes(manifest)

    return read


def references(folder: Path) -> list[bytes]:
    made = [SCHEMA1 / "reference", SCHEMA1 / "reference_patches"]
    arrays = [b"%d" % k + p.read_bytes() for k, p in enumerate(sorted(made[1].glob("*.npy")))]
    return [*((each / MANIFEST).read_bytes() for each in made), *arrays]


# ---- signatures ------------------------------------------------------------------------------


def signatures_reader(folder: Path) -> Read:
    """The file of signatures beside another, up to the point where a key is needed."""
    path = signature_path(folder / "file")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(SignatureError):
            for each in read_signatures(folder / "file"):
                assert (len(bytes.fromhex(each.key)), len(bytes.fromhex(each.signature))) == (32, 64)

    return read


def signature_files(folder: Path) -> Iterable[bytes]:
    for signers in (0, 1, 3):
        entries = [{"key": f"{number:064x}", "signature": f"{number:0128x}"} for number in range(signers)]
        yield json.dumps({"schema_version": 1, "signatures": entries}).encode()


TARGETS = {
    "image": Target(image_reader, images),
    "manifest": Target(manifest_reader, manifests, mutate_json),
    "probe": Target(probe_reader, probes, mutate_zip),
    "sidecar": Target(sidecar_reader, sidecars, lambda d, c: d[:1] + mutate_json(d[1:], c)),
    "kernels": Target(kernels_reader, kernel_lists, mutate_json),
    "signatures": Target(signatures_reader, signature_files, mutate_json),
    "graph": Target(graph_reader, graphs),
    "kept": Target(kept_reader, kept_works, mutate_lines),
    "results": Target(results_reader, result_folders, mutate_lines),
    "map": Target(map_reader, maps),
    "reference": Target(reference_reader, references, mutate_json),
}
