"""How the bundle, the lot and the results beside this file were made (README.md)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from musc_edge.tools.edge import main as musc_edge
from musc_edge.tools.export import main as musc_export
from support.tiny_vit import tiny_vit

IMAGES, SIDE = 8, 40


def product(number: int) -> Image.Image:
    """A gray image of stripes with noise; number 5 has a bright spot."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = 120 + 50 * ((x + random.integers(0, 2)) // 5 % 2) + random.normal(0, 4, (SIDE, SIDE))
    if number == 5:
        pixels[(y - 24) ** 2 + (x - 13) ** 2 < 20] = 250
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def make(folder: Path) -> None:
    """Fill ``folder``, which is new."""
    lot, bundle, results, source = (folder / name for name in ("lot", "bundle", "results", "tiny.onnx"))
    lot.mkdir(parents=True)
    for number in range(IMAGES):
        product(number).save(lot / f"{number}.png", optimize=True)
    onnx.save(tiny_vit(), source)
    options = ["--layers", "0,2", "--image-size", "32", "--name", "tiny ViT"]
    assert musc_export(["onnx", str(source), *options, "-o", str(bundle)]) == 0
    assert musc_edge(["infer", str(lot), "-b", str(bundle), "-o", str(results), "--scorer", "numpy"]) == 0
    (results / "contact_sheet.png").unlink()
    source.unlink()
    keep = ["reference", str(lot), "-b", str(bundle), "--hold-out", "0.3", "-o"]
    assert musc_edge([*keep, str(folder / "reference")]) == 0
    small = ["--patches", "0.1", "--precision", "float16"]
    assert musc_edge([*keep, str(folder / "reference_patches"), *small]) == 0


if __name__ == "__main__":
    make(Path(sys.argv[1]))
