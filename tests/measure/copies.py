"""Make docs/copies.md: how often copies in a lot are found, and how often good parts are taken for copies.

    python tests/measure/copies.py BUNDLE ELPV TEXTILE TILES [FEATURES] > docs/copies.md

ELPV is the unpacked package elpv-dataset 1.0.0.post1, TEXTILE that of conformal-clip-data 0.1.4, TILES a
folder of photographs of magnetic tiles in MVTec AD's layout.  Lots are drawn at random; into some one copy of
an image is planted, changed in one way.  FEATURES is a folder in which features are kept for another run.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from musc_edge import open_bundle
from musc_edge.runtime.images.reading import resize
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.scoring.copies import find_copies, looked_at
from musc_edge.runtime.scoring.same_shot import SameShot
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array, Bundle, FloatArray, LotImage
from musc_edge.runtime.vit.extract import extract, store_shape
from musc_edge.runtime.vit.onnx_backend import OnnxBackend

POOL, COPIED, DRAWS, LOTS, IMAGES = 60, 12, 3, 100, 40
Shot = Image.Image


def changed(shot: Shot, rng: np.random.Generator) -> Iterator[tuple[str, Shot]]:
    """Copies of one image, each changed in one way."""
    values = np.asarray(shot).astype(np.float64)
    width, height = shot.size

    def clipped(changed: Array) -> Shot:
        return Image.fromarray(np.clip(changed, 0, 255).round().astype(np.uint8))

    yield "another container, the same pixels", shot
    yield "JPEG, quality 95", jpeg(shot, 95)
    yield "JPEG, quality 75", jpeg(shot, 75)
    yield "brightness + 1", clipped(values + 1)
    yield "brightness + 10", clipped(values + 10)
    yield "noise of 2 levels", clipped(values + rng.normal(0, 2, values.shape))
    yield "noise of 5 levels", clipped(values + rng.normal(0, 5, values.shape))
    yield "half as large", shot.resize((width // 2, height // 2))
    yield "shifted by a pixel", clipped(np.roll(values, 1, 1))
    yield "shifted by four pixels", clipped(np.roll(values, 4, 1))
    yield "cropped by 1 %", shot.crop((max(1, width // 100), max(1, height // 100), width, height))
    yield "mirrored", shot.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def jpeg(shot: Shot, quality: int) -> Shot:
    """An image as it comes back from a JPEG."""
    file = io.BytesIO()
    shot.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def in_a_fixture(shot: Shot, rng: np.random.Generator) -> Shot:
    """The image as the photograph of another perfect part in a fixture: moved, in other light, with noise."""
    dx, dy = rng.uniform(-1.5, 1.5, 2)
    moved = shot.transform(shot.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy), Image.Resampling.BICUBIC)
    values = np.asarray(moved) * rng.uniform(0.97, 1.03) + rng.normal(0, 3, (*shot.size[::-1], 3))
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))


def features(bundle: Bundle, shots: Sequence[Shot]) -> Array:
    """Tokens (1,N,P,C) of the first layer."""
    m = bundle.manifest
    with tempfile.TemporaryDirectory() as folder, OnnxBackend(bundle) as backend:
        lot = []
        for number, shot in enumerate(shots):
            lot.append(LotImage(str(number), Path(folder) / f"{number}.png"))
            shot.save(lot[-1].local)
        tokens = np.empty(store_shape(len(lot), bundle), m.tokens[0].dtype)
        store = HostStore(tokens, np.empty((len(lot), m.cls_width), np.float32))
        extract(survey_lot(lot, ReadOptions(), threads=2), backend, m.preprocess, store, threads=2)
    return tokens[:1].copy()


def products(elpv: Path, textile: Path, tiles: Path) -> dict[str, list[Shot]]:
    """Good images of each product."""
    data = elpv / "elpv_dataset/data"
    rows = [line.split() for line in (data / "labels.csv").read_text(encoding="ascii").splitlines()]
    simulated = textile / "conformal_clip_data/data/textile_images/simulated"
    paths = {
        f"{kind}crystalline cells": sorted(data / name for name, *what in rows if what == ["0.0", kind])
        for kind in ("mono", "poly")
    }
    paths["textiles"] = sorted((simulated / "nominal").iterdir())
    paths["magnetic tiles"] = sorted((tiles / "test/good").iterdir())
    rng = np.random.default_rng(0)
    drawn = {name: rng.permutation(len(all_of))[:POOL] for name, all_of in paths.items()}
    return {name: [Image.open(paths[name][i]).convert("RGB") for i in rows] for name, rows in drawn.items()}


def lot(*tokens: Array) -> HostStore:
    """A store of these tokens (1,N,P,C), without CLS embeddings."""
    joined = np.concatenate(tokens, axis=1)
    return HostStore(joined, np.empty((joined.shape[1], 0), np.float32))


class Remembered(SameShot):
    """Tells by their pixels whether two pictures are one shot; compares no two of them twice."""

    _known: ClassVar[dict[tuple[int, int], float | None]] = {}

    def __init__(self, pictures: Sequence[FloatArray]) -> None:
        super().__init__(lambda row: pictures[row])
        self._pictures = pictures

    def left(self, a: int, b: int) -> float | None:
        """As it is said there; the pictures are kept until the end, so that their ids are theirs alone."""
        pair = id(self._pictures[a]), id(self._pictures[b])
        if pair not in self._known:
            self._known[pair] = super().left(a, b)
        return self._known[pair]


def false_alarms(pool: Array, pictures: Sequence[FloatArray], images: int) -> str:
    """In how many lots, drawn without copies, some were reported, and how many images at most.

    By tokens alone, and with what the pixels say.
    """
    rng = np.random.default_rng(1)
    alone, counts = [], []
    for _ in range(LOTS):
        rows = rng.permutation(pool.shape[1])[:images]
        store = lot(pool[:, rows])
        alone.append(sum(map(len, find_copies(store))))
        counts.append(sum(map(len, find_copies(store, Remembered([pictures[row] for row in rows])))))
    return " | ".join(
        f"{sum(count > 0 for count in each)} of {LOTS} | {max(each)}" for each in (alone, counts)
    )


def found(pool: Array, copies: Array, pictures: Sequence[FloatArray], copied: Sequence[FloatArray]) -> str:
    """Of lots into which a copy of one of the first images was planted, in how many it was found.

    With what the pixels say, and, where it is another number, by tokens alone.
    """
    rng = np.random.default_rng(2)
    hits = alone = 0
    for k in range(copies.shape[1]):
        for _ in range(DRAWS):
            others = rng.permutation([i for i in range(pool.shape[1]) if i != k])[: IMAGES - 2]
            store = lot(pool[:, [k]], copies[:, [k]], pool[:, others])
            shown = [pictures[k], copied[k], *(pictures[i] for i in others)]
            if any({0, 1} <= set(group) for group in find_copies(store)):  # pixels only take away
                alone += 1
                hits += any({0, 1} <= set(group) for group in find_copies(store, Remembered(shown)))
    return f"{hits} of {DRAWS * copies.shape[1]}" + (f" ({alone})" if alone != hits else "")


def with_copies(shots: Sequence[Shot]) -> dict[str, list[Shot]]:
    """A product's images ("pool"), and the copies of the first ones by kind."""
    rng = np.random.default_rng(3)
    images = {"pool": list(shots)}
    for shot in shots[:COPIED]:
        for kind, copy in changed(shot, rng):
            images.setdefault(kind, []).append(copy)
    return images


def measured(bundle: Bundle, images: dict[str, list[Shot]]) -> dict[str, Array]:
    """Tokens of images by kind."""
    tokens = features(bundle, [shot for each in images.values() for shot in each])
    ends = np.cumsum([len(each) for each in images.values()])
    return dict(zip(images, np.split(tokens, ends[:-1], axis=1), strict=True))


def as_gray(bundle: Bundle, shots: Sequence[Shot]) -> list[FloatArray]:
    """Gray values (H,W) of images at the model's size, as ``images.survey.gray`` reads them."""
    spec = bundle.manifest.preprocess
    return [np.asarray(resize(shot, spec), np.float32).mean(axis=-1) for shot in shots]


def kept(folder: Path | None, name: str, measure: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """Features from the folder where they are kept, if they are there; else they are measured, and kept."""
    path = folder / f"{name}.npz" if folder else None
    if path and path.exists():
        with np.load(path) as saved:
            tokens = {kind: saved[kind].astype(np.float32) for kind in saved}
            return {kind: each[:, :, looked_at(each.shape[2])] for kind, each in tokens.items()}
    tokens = measure()
    if path:
        content: dict[str, Any] = {kind: each.astype(np.float16) for kind, each in tokens.items()}
        np.savez(path, **content)
    return tokens


def main() -> None:
    """Print the page."""
    bundle = open_bundle(sys.argv[1])
    folder = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    shots = products(*map(Path, sys.argv[2:5]))
    rng = np.random.default_rng(4)
    for name in ("monocrystalline cells", "textiles"):
        first = shots[name][0]
        shots[f"one of the {name}, {POOL} times in a fixture"] = [
            in_a_fixture(first, rng) for _ in range(POOL)
        ]
    alarms, tables, shown_of = [], {}, []
    for name, of_product in shots.items():
        images = with_copies(of_product)
        tokens = kept(folder, name, partial(measured, bundle, images))
        pictures = {kind: as_gray(bundle, each) for kind, each in images.items()}
        shown_of.append(pictures)
        pool, shown = tokens.pop("pool"), pictures["pool"]
        alarms += [f"| {name}, {size} images | {false_alarms(pool, shown, size)} |" for size in (20, IMAGES)]
        tables[name] = {kind: found(pool, each, shown, pictures[kind]) for kind, each in tokens.items()}
        print(alarms[-2:], tables[name], file=sys.stderr, flush=True)
    print((Path(__file__).parents[1] / "data" / "copies_head.md").read_text(encoding="utf-8").strip())
    print(
        "\n## Lots without copies\n\n| lot | by tokens alone: reported in | images at most | reported in "
        "| images at most |\n|---|---|---|---|---|",
        *alarms,
        sep="\n",
    )
    print(
        f"\n## One copy in a lot of {IMAGES}\n\n| copy | {' | '.join(tables)} |\n|---{'|---' * len(tables)}|"
    )
    for kind in next(iter(tables.values())):
        print(f"| {kind} | {' | '.join(table[kind] for table in tables.values())} |")


if __name__ == "__main__":
    main()
