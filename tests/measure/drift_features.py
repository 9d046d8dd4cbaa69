"""Check real images as they are and as a line with another light, focus or camera would have made them.

    python tests/measure/drift_features.py -b BUNDLE --work DIR --elpv DIR --textiles DIR --tiles DIR

For each product a reference of 40 good images; checked against it are other good images, defective ones, the
same few good ones changed in each way, and images of the other products.  What a check says of them, and
their CLS embeddings, are kept in DIR, from which drift.py measures.  The folders are those of references.py.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure.references import images as images_of
from musc_edge import Checker, LotImage, ReferenceOptions, make_reference, open_reference
from musc_edge.runtime.images.reading import preprocess, read_image
from musc_edge.runtime.reference.looks import look
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.types import Array
from musc_edge.runtime.vit.extract import empty_slot

PRODUCTS = ("mono", "poly", "textiles", "tiles")
BANK, GOOD, BAD, CHANGED = 40, 160, 40, 20
Change = Callable[[Array], Array]
Sets = dict[str, tuple[list[Path], list[Path]]]


def _gain(factor: float) -> Change:
    return lambda rgb: rgb * factor


def _gamma(exponent: float) -> Change:
    return lambda rgb: 255 * (rgb / 255) ** exponent


def _blur(sigma: float) -> Change:
    return lambda rgb: cv2.GaussianBlur(rgb, (0, 0), sigma)


def _noise(sigma: float) -> Change:
    return lambda rgb: rgb + np.random.RandomState(int(rgb.sum()) % 2**31).normal(0, sigma, rgb.shape)


def _moved(dx: float, dy: float, degrees: float = 0) -> Change:
    def change(rgb: Array) -> Array:
        height, width = rgb.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        matrix[:, 2] += np.array([dx, dy])
        moved: Array = cv2.warpAffine(rgb, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        return moved

    return change


def _jpeg(quality: int) -> Change:
    def change(rgb: Array) -> Array:
        file = io.BytesIO()
        picture(rgb).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file).convert("RGB"), np.float64)

    return change


CHANGES: dict[str, Change] = {
    **{f"gain {100 * f - 100:+.0f} %": _gain(f) for f in (0.8, 0.9, 0.95, 1.05, 1.1, 1.2)},
    **{f"gamma {g:g}": _gamma(g) for g in (0.8, 1.25)},
    **{f"blur {s:g} px": _blur(s) for s in (0.5, 1, 2)},
    **{f"shift {d} px": _moved(d, d) for d in (2, 8, 16)},
    **{f"rotation {d} degrees": _moved(0, 0, d) for d in (1, 3)},
    **{f"noise {s} of 255": _noise(s) for s in (5,)},
    **{f"JPEG quality {q}": _jpeg(q) for q in (30,)},
    "upside down": lambda rgb: rgb[::-1, ::-1],
}
"""What changes, of an image (h,w,3) float64 from 0 to 255 in its own pixels."""


def picture(rgb: Array) -> Image.Image:
    """Make a picture of an array (h,w,3)."""
    return Image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8))


def features(checker: Checker, shown: Iterator[Image.Image]) -> dict[str, Array]:
    """Raw scores, CLS embeddings and looks of pictures, by the checker's own parts."""
    spec, raw, cls, looks = checker.bundle.manifest.preprocess, [], [], []
    for each in shown:
        pixels, slot = preprocess(each, spec), empty_slot(checker.bundle, 1)
        checker._vit.extract_into(pixels[None], slot)
        grid = checker._rows[0].score(list(slot.tokens[:, 0]))
        raw.append(raw_scores(grid[None], spec.size)[0])
        cls.append(slot.cls[0])
        looks.append(look(pixels, spec))
    return {"raw": np.array(raw), "cls": np.array(cls), "looks": np.array(looks)}


def read(paths: Sequence[Path], change: Change | None = None) -> Iterator[Image.Image]:
    """Read images, and change them."""
    for path in paths:
        found = read_image(path, 8)
        yield picture(change(np.asarray(found, np.float64))) if change else found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-b", "--bundle", required=True)
    parser.add_argument("--products", default=",".join(PRODUCTS))
    for name in ("work", "elpv", "textiles", "tiles"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    sets, products = {product: images_of(product, args) for product in PRODUCTS}, args.products.split(",")
    checkers = {product: Checker(_reference(product, sets, args), args.bundle) for product in products}
    kinds: list[tuple[str, Callable[[str], Iterator[Image.Image]]]] = [
        ("good", lambda product: read(sets[product][0][BANK : BANK + GOOD])),
        ("bad", lambda product: read(sets[product][1][:BAD])),
    ]
    for name, change in CHANGES.items():
        kinds.append((name, lambda product, c=change: read(changed(sets[product][0]), c)))  # type: ignore[misc]
    for other in PRODUCTS:
        kinds.append((other, lambda product, o=other: read(changed(sets[o][0]))))  # type: ignore[misc]
    for kind, shown in kinds:
        for product in products:
            kept = args.work / f"{product}-{kind}.npz"
            if kind != product and not kept.exists():
                found: Any = features(checkers[product], shown(product))
                np.savez(kept, **found)
                print(kept.name, flush=True)


def changed(good: Sequence[Path]) -> Sequence[Path]:
    """The good images that are changed: the first that are checked."""
    return good[BANK : BANK + CHANGED]


def _reference(
    product: str, sets: dict[str, tuple[list[Path], list[Path]]], args: argparse.Namespace
) -> Path:
    """The reference of a product's first good images."""
    folder: Path = args.work / f"{product}-reference"
    if not folder.exists():
        bank = [LotImage(path.name, path) for path in sets[product][0][:BANK]]
        make_reference(bank, args.bundle, folder, options=ReferenceOptions(patches=0.1, hold_out=0))
    return open_reference(folder).root


if __name__ == "__main__":
    main()
