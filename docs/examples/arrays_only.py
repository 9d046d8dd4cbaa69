"""The steps of the method on plain arrays, without files or a model: ``python arrays_only.py``.

Random tokens stand for a ViT's. One patch of one image is made unlike all others, and is found.
"""

from __future__ import annotations

import numpy as np

from musc_edge import mutual_scores, rescore, upsample

LAYERS, IMAGES, GRID, WIDTH, CLS_WIDTH = 2, 12, (8, 10), 32, 16
ODD_IMAGE, ODD_ROW, ODD_COLUMN = 5, 2, 7


def main() -> None:
    """Score twelve images that differ by noise alone, but for one patch."""
    random = np.random.default_rng(0)
    product = random.standard_normal((LAYERS, 1, *GRID, WIDTH))
    tokens = product + 0.3 * random.standard_normal((LAYERS, IMAGES, *GRID, WIDTH))
    tokens[:, ODD_IMAGE, ODD_ROW, ODD_COLUMN] = random.standard_normal((LAYERS, WIDTH))
    tokens = tokens.reshape(LAYERS, IMAGES, -1, WIDTH).astype(np.float32)  # (S, N, P, C)
    cls = random.standard_normal((IMAGES, CLS_WIDTH))
    cls /= np.linalg.norm(cls, axis=1, keepdims=True)

    maps = mutual_scores(tokens, GRID).reshape(IMAGES, *GRID)  # (N, Gh, Gw)
    pixels = upsample(maps, (112, 140))  # (N, H, W)
    scores = rescore(pixels.max(axis=(1, 2)), cls)  # (N,)
    worst = int(scores.argmax())
    row, column = (int(i) for i in np.unravel_index(maps[worst].argmax(), GRID))
    print(f"image {worst}, patch ({row}, {column}): {scores[worst]:.3f}")


if __name__ == "__main__":
    main()
