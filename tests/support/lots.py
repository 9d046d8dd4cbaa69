"""What the tests of the runtime share: small real image files, and a bundle and a result made by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.results.lot_result import LotResult
from musc_edge.runtime.results.lot_scores import RunFacts
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.settings import ScoreSettings
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import (
    Bundle,
    LotImage,
    Manifest,
    Plan,
    PreprocessSpec,
    SkippedImage,
    TensorSpec,
)
from musc_edge.runtime.vit.bundle import write_manifest

Array = npt.NDArray[Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = PreprocessSpec((8, 12), "squash", "bicubic", MEAN, STD)
CONTENT = {
    "model.onnx": b"\x12\x1dany bytes stand for the graph",  # as the text of protobuf's field 2
    "probe.npz": b"and any others for the probe",
}


# ---- images ----------------------------------------------------------------------------------


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> Array:
    """Random uint8 (H,W,channels), or (H,W) for one channel."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_png(path: Path, size: tuple[int, int] = (6, 9), seed: int = 0) -> Path:
    """A random RGB image of ``size`` (H,W) as a PNG file; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(*size, seed=seed)).save(path, "PNG")
    return path


# ---- bundles ---------------------------------------------------------------------------------


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


MANIFEST = Manifest(
    schema_version=1,
    backbone="a tiny ViT",
    pretrained="none",
    activation="gelu",
    tap="block",
    precision="fp32",
    preprocess=SPEC,
    patch_size=4,
    grid=(2, 3),
    token_width=8,
    cls_width=5,
    layers=(0, 2),
    input=TensorSpec("pixels", "float32"),
    tokens=(TensorSpec("tokens_0", "float32"), TensorSpec("tokens_2", "float32")),
    cls=TensorSpec("cls", "float32"),
    files={name: sha256(content) for name, content in CONTENT.items()},
    parity={"cls": 1e-6},
    made_with={"musc-edge": "1"},
)


def make_bundle(folder: Path, **changes: Any) -> Path:
    """The smallest valid bundle, except for ``changes`` to the fields of its manifest."""
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    write_manifest(folder, dataclasses.replace(MANIFEST, **changes))
    return folder


def edit_manifest(bundle: Path, field: str, value: Any) -> None:
    """Set one field, given by its dotted path, in the JSON of a bundle's manifest."""
    path = bundle / "manifest.json"
    data = json.loads(path.read_bytes())
    *parents, last = field.split(".")
    owner = data
    for name in parents:
        owner = owner[name]
    owner[last] = value
    path.write_text(json.dumps(data), encoding="utf-8")


# ---- results ---------------------------------------------------------------------------------


def lot_result(
    root: Path,
    names: Sequence[str],
    skipped: Sequence[SkippedImage] = (),
    scores: Sequence[float] | None = None,
    size: tuple[int, int] = (6, 9),
    bundle: Path | None = None,
) -> LotResult:
    """A result for images ``names``, written below ``root`` as PNG files of ``size`` (H,W).

    Maps and raw scores are random; ``scores`` are too unless given.
    """
    n = len(names)
    generator = np.random.default_rng(7)
    maps = generator.uniform(0.3, 0.9, (n, *MANIFEST.grid)).astype(np.float32)
    values = np.asarray(scores, np.float64) if scores is not None else generator.uniform(0.3, 0.9, n)
    folder = bundle or root.parent / "bundle"
    images = tuple(LotImage(name, write_png(root / name, size, seed)) for seed, name in enumerate(names))
    return LotResult(
        images=images,
        skipped=tuple(skipped),
        maps=maps,
        raw_scores=maps.max(axis=(1, 2)).astype(np.float64),
        scores=values,
        lot_scores=np.linspace(0.0, 1.0, n),
        cls=generator.standard_normal((n, MANIFEST.cls_width)).astype(np.float32),
        warnings=("be careful",),
        survey=survey_lot(images, ReadOptions(), threads=1),
        run=RunFacts(
            settings=ScoreSettings((1, 3), (0.0, 0.5), (1, 2)),
            bundle=Bundle(folder, MANIFEST, "ab" * 32),
            backend="cpu",
            scorer="numpy",
            judges=n - 1,
            plan=CpuScorer(Method(MANIFEST.grid, (1, 3))).plan(
                (2, n, MANIFEST.patches, MANIFEST.token_width), 4
            ),
            timings={"extract": 1.25, "score": 0.123456},
        ),
    )


# ---- scoring ---------------------------------------------------------------------------------


def random_store(seed: int, shape: tuple[int, int, int, int]) -> HostStore:
    """A lot of random tokens of ``shape`` (S,N,P,C), without CLS embeddings."""
    tokens = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return HostStore(tokens, np.empty((shape[1], 0), np.float32))


def every_plan(scorer: CpuScorer, shape: tuple[int, int, int, int], threads: int = 1) -> list[Plan]:
    """All plans that differ for a lot, from the largest to the smallest, found by lowering the budget."""
    plans = [scorer.plan(shape, 4, HostNeeds(threads=threads))]
    while True:
        try:
            plans.append(scorer.plan(shape, 4, HostNeeds(plans[-1].memory_bytes - 1, threads=threads)))
        except LotError:
            return plans


# ---- folders ---------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below ``folder`` with the content of files, hidden ones included; None for a folder."""
    found: dict[str, bytes | None] = {}
    for parent, folders, files in os.walk(folder):
        for name in folders:
            found[str((Path(parent) / name).relative_to(folder))] = None
        for name in files:
            path = Path(parent) / name
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found
