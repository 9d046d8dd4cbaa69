"""Tiles against whole images: lots of large images, composed of real ones at full resolution.

    python tests/measure/tiles.py PRODUCT BUNDLES WORK --data FOLDER [--draws 3] [--variants 224 518 224:3x3]

An image of a lot is a mosaic in a fixed layout: 7 x 7 solar cells of 300 pixels (a module, 2,100 x 2,100), or
8 rows of 11 windows of 190 x 250 pixels of magnetic tiles (a board, 2,090 x 2,000).  Every part is another
real one; on a defective image one part, at a random place, has a real defect.  Draws share no defect, and no
good cell; good magnetic tiles are too few for that and are drawn anew.  BUNDLES holds dinov2-small-<size>; a
variant is a size, or SIZE:RxC[+OVERLAP] for tiles.  Every variant scores the same lots, with the same
degrees.  A line of JSON for each lot goes to WORK.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from musc_edge import ReadOptions, Resources, ScoreSettings, Tiles, Watch, open_bundle, score_lot, upsample
from musc_edge.runtime.timing import StageTimer
from musc_edge.runtime.types import Array
from musc_edge.tools.evaluation.image_metrics import image_metrics
from musc_edge.tools.evaluation.pixel_metrics import pixel_metrics
from support.accuracy.products import GOOD, Sources, samples

REDUCED = 4
"""By which masks and maps are reduced before pixels are counted."""


@dataclass(frozen=True)
class Layout:
    """Rows and columns of parts, each a window (W,H); the kinds of defects that are drawn."""

    rows: int
    columns: int
    window: tuple[int, int]
    kinds: tuple[str, ...]


LAYOUTS = {
    "mono cells": Layout(7, 7, (300, 300), ("defective",)),
    "poly cells": Layout(7, 7, (300, 300), ("defective",)),
    "magnetic tiles": Layout(8, 11, (190, 250), ("blowhole", "break", "crack")),
}


def window_of(path: Path, layout: Layout, mask: Path | None) -> tuple[Image.Image, Array] | None:
    """Return a window of an image and its mask, around the defect's middle; None if it is too small."""
    image = Image.open(path).convert("RGB")
    width, height = layout.window
    if image.width < width or image.height < height:
        return None
    defect = np.zeros((image.height, image.width), bool)
    middle = image.height / 2, image.width / 2
    if mask:
        defect = np.asarray(Image.open(mask).convert("L")) > 127
        rows, columns = np.nonzero(defect)
        middle = float(np.median(rows)), float(np.median(columns))
    top = int(np.clip(middle[0] - height / 2, 0, image.height - height))
    left = int(np.clip(middle[1] - width / 2, 0, image.width - width))
    box = left, top, left + width, top + height
    return image.crop(box), defect[top : top + height, left : left + width]


def compose(
    folder: Path, product: str, sources: Sources, draw: int, draws: int, good: int, bad: int
) -> tuple[Array, list[Array]]:
    """Write a lot of mosaics; returns labels (N,), and masks reduced (N,h,w)."""
    layout, images = LAYOUTS[product], samples(product, sources)
    rng = np.random.default_rng(1000 + draw)
    masks = sources.tiles / "ground_truth"

    def windows(kind: str) -> list[tuple[Image.Image, Array]]:
        paths = [images[kind][i] for i in np.random.RandomState(0).permutation(len(images[kind]))]
        if kind != GOOD:  # parts of other draws are not touched
            paths = paths[draw::draws]
        of = {p: masks / kind / f"{p.stem}_mask.png" if product == "magnetic tiles" else None for p in paths}
        found = [window_of(path, layout, of[path] if kind != GOOD else None) for path in paths]
        return [each for each in found if each]

    parts = windows(GOOD)
    if len(parts) > 300:
        share = len(parts) // draws
        parts = parts[draw * share : (draw + 1) * share]
    defects = [each for kind in layout.kinds for each in windows(kind)]
    defects = [defects[i] for i in rng.permutation(len(defects))[:bad]]
    labels = rng.permutation(np.arange(good + len(defects)) >= good)
    (width, height), truth, left = layout.window, list[Array](), list(defects)
    folder.mkdir(parents=True, exist_ok=True)
    for number, defective in enumerate(labels):
        board = Image.new("RGB", (layout.columns * width, layout.rows * height))
        mask = np.zeros((board.height, board.width), bool)
        chosen = rng.permutation(len(parts))[: layout.rows * layout.columns]
        if len(chosen) < layout.rows * layout.columns:
            chosen = rng.choice(len(parts), layout.rows * layout.columns)
        spot = int(rng.integers(layout.rows * layout.columns))
        for k, part in enumerate(chosen):
            picture, defect = left.pop() if defective and k == spot else parts[part]
            at = k % layout.columns * width, k // layout.columns * height
            board.paste(picture, at)
            mask[at[1] : at[1] + height, at[0] : at[0] + width] = defect
        board.save(folder / f"{number:03d}.png", compress_level=1)
        h, w = (side // REDUCED * REDUCED for side in mask.shape)
        blocks = mask[:h, :w].reshape(h // REDUCED, REDUCED, -1, REDUCED)
        truth.append(np.asarray(blocks.any(axis=(1, 3))))
    return labels, truth


def tiles_of(text: str) -> Tiles | None:
    """Parse '3x3' or '3x3+0.25'; None for an empty text."""
    if not text:
        return None
    count, _, overlap = text.partition("+")
    rows, columns = map(int, count.split("x"))
    return Tiles(rows, columns, overlap=float(overlap or 0))


def measure(
    lot: Path, bundles: Path, variant: str, degrees: tuple[int, ...], labels: Array, truth: list[Array]
) -> dict[str, object]:
    """Score a lot by one variant."""
    size, _, tiles = variant.partition(":")
    timer, begun, cpu = StageTimer(), time.monotonic(), time.process_time()
    result = score_lot(
        lot, open_bundle(bundles / f"dinov2-small-{size}"), ScoreSettings(degrees, tiles=tiles_of(tiles)),
        Resources(), reading=ReadOptions(), watch=Watch(timer=timer),
    )  # fmt: skip
    seconds, processor = time.monotonic() - begun, time.process_time() - cpu
    raw = image_metrics(labels, result.raw_scores, 1)
    found: dict[str, object] = {"auroc": raw.auroc.value, "ap": raw.ap.value}
    found["rescored auroc"] = image_metrics(labels, result.scores, 1).auroc.value
    if any(mask.any() for mask in truth):
        both = zip(result.maps, truth, strict=True)
        pixels = pixel_metrics(((upsample(one[None], mask.shape)[0], mask) for one, mask in both), ())
        found |= {"pixel auroc": pixels.auroc, "pixel ap": pixels.ap}
    return found | {"seconds": seconds, "cpu seconds": processor, "stages": timer.seconds}


def main(argv: Sequence[str] | None = None) -> None:
    """Compose lots, score them by every variant, and write a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("product", choices=LAYOUTS)
    parser.add_argument("bundles", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with elpv, textile and magnetic_tiles"
    )
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", type=int, nargs="*", help="draws that are measured")
    parser.add_argument("--good", type=int, default=18)
    parser.add_argument("--bad", type=int, default=6)
    parser.add_argument("--degrees", type=int, nargs="+", default=[1])
    parser.add_argument("--variants", nargs="+", default=["224", "392", "518", "224:2x2", "224:3x3"])
    args = parser.parse_args(argv)
    sources = Sources(args.data / "elpv", args.data / "textile", args.data / "magnetic_tiles")
    for draw in args.only or range(args.draws):
        lot = args.work / f"{args.product.replace(' ', '-')}-{draw}"
        labels, truth = compose(lot, args.product, sources, draw, args.draws, args.good, args.bad)
        for variant in args.variants:
            about = {"product": args.product, "draw": draw, "variant": variant, "degrees": args.degrees}
            found = measure(lot, args.bundles, variant, tuple(args.degrees), labels, truth)
            line = json.dumps({**about, "images": len(labels), "bad": int(labels.sum()), **found})
            print(line, flush=True)
            with (args.work / "lots.jsonl").open("a", encoding="ascii") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
