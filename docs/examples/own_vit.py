"""Score with a ViT of your own, in any framework: ``python own_vit.py LOT_DIR``.

Anything that gives tokens will do. To take an ONNX ViT to devices, with its numbers proven, make a bundle of
it instead (``musc-export onnx MODEL.onnx --layers 2,5,8,11 -o BUNDLE``) and go on as in score_folder.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from musc_edge import mutual_scores, upsample

SIZE, PATCH = 112, 14
GRID = (SIZE // PATCH, SIZE // PATCH)


def describe(pixels: np.ndarray) -> np.ndarray:
    """Patch tokens (P, C) of an image (H, W, 3): put your ViT here. This takes the pixels of each patch."""
    patches = pixels.reshape(GRID[0], PATCH, GRID[1], PATCH, 3).swapaxes(1, 2)
    return patches.reshape(GRID[0] * GRID[1], -1)


def main(lot: str) -> None:
    """Print the images of ``lot``, worst first."""
    paths = sorted(Path(lot).glob("*.png"))
    images = [Image.open(path).convert("RGB").resize((SIZE, SIZE)) for path in paths]
    tokens = np.stack([describe(np.asarray(image, np.float32) / 255) for image in images])
    maps = mutual_scores(tokens[None], GRID)  # one layer: (1, N, P, C)
    scores = upsample(maps.reshape(-1, *GRID), (SIZE, SIZE)).max(axis=(1, 2))
    for i in np.argsort(-scores):
        print(f"{scores[i]:.4f} {paths[i].name}")


if __name__ == "__main__":
    main(sys.argv[1])
