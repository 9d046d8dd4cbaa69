"""What the authors report for their released code (README, "Models"), to stand beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_CLIP, _DINO = "ViT-L-14-336", "vit_large_patch14_dinov2.lvd142m"


@dataclass(frozen=True)
class Published:
    """Means over a data set in %: image AUROC, F1-max, AP; pixel AUROC, F1-max, AP, PRO-200."""

    data: str
    categories: int
    image: tuple[float, float, float]
    pixel: tuple[float, float, float, float]


_ROWS = {
    ("mvtec", _CLIP): Published("MVTec AD", 15, (97.77, 97.37, 99.07), (97.11, 62.16, 62.26, 93.45)),
    ("visa", _CLIP): Published("VisA", 12, (92.57, 89.06, 93.31), (98.71, 48.90, 45.38, 92.43)),
    ("btad", _CLIP): Published("BTAD", 3, (96.16, 93.90, 97.85), (97.35, 57.86, 57.15, 83.43)),
    ("mvtec", _DINO): Published("MVTec AD", 15, (97.08, 97.13, 98.82), (98.34, 66.15, 67.39, 96.16)),
}
_SIZE = [518, 518]


def published(layout: str, bundle: dict[str, Any]) -> Published | None:
    """The authors' row for a data set's layout and the bundle of lot.json; None if they report none."""
    return _ROWS.get((layout, str(bundle.get("backbone")))) if bundle.get("image_size") == _SIZE else None
