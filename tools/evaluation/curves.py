"""Draw the curves of an evaluation: ROC, precision over recall, PRO, and where the scores lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .evaluate import Category
from .pixel_metrics import LIMIT

_MOST_NAMED = 16
_GOOD, _DEFECTIVE = "#1b6ca8", "#c8553d"


def draw_curves(categories: Sequence[Category], path: Path) -> None:
    """Write the curves of images, and below those of pixels, as one PNG file; needs matplotlib."""
    from matplotlib.figure import Figure

    drawn = [category for category in categories if category.pixel and len(category.pixel.curves)]
    figure = Figure(figsize=(12, 7.6 if drawn else 3.9), layout="constrained")
    axes = figure.subplots(2 if drawn else 1, 3, squeeze=False)
    for category in categories:
        _draw_images(axes[0], category)
    _scores(axes[0, 2], categories)
    for category in drawn:
        _draw_pixels(axes[1], category)
    names = [("images", axes[0])] + [("pixels", axes[-1])] * bool(drawn)
    for what, row in names:
        _label(row[0], f"ROC, {what}", "false-positive rate", "recall")
        _label(row[1], f"precision over recall, {what}", "recall", "precision")
    if drawn:
        _label(axes[1, 2], "PRO, pixels", "false-positive rate", "mean overlap of regions")
        axes[1, 2].set_xlim(0, LIMIT)
    if 1 < len(categories) <= _MOST_NAMED:
        axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _draw_images(row: Any, category: Category) -> None:
    """Add the curves of a product's images to the first two axes; nothing if one class is missing."""
    if category.labels.all() or not category.labels.any():
        return
    from sklearn.metrics import precision_recall_curve, roc_curve

    fpr, tpr, _ = roc_curve(category.labels, category.scores)
    precision, recall, _ = precision_recall_curve(category.labels, category.scores)
    row[0].plot(fpr, tpr, label=category.name)
    row[1].plot(recall, precision)


def _draw_pixels(row: Any, category: Category) -> None:
    if category.pixel is None:
        return
    fpr, recall, precision, pro = category.pixel.curves.T
    row[0].plot(np.append(0, fpr), np.append(0, recall))
    row[1].plot(recall, precision)
    row[2].plot(np.append(0, fpr), np.append(0, pro))


def _scores(axes: Any, categories: Sequence[Category]) -> None:
    """Draw the scores of good and of defective images, a line for each product."""
    for line, category in enumerate(reversed(categories)):
        for defective, colour, shift in ((False, _GOOD, -0.12), (True, _DEFECTIVE, 0.12)):
            scores = category.scores[category.labels == defective]
            axes.plot(scores, np.full(len(scores), line + shift), "|", color=colour, markersize=10)
    axes.set_yticks(range(len(categories)), [category.name for category in reversed(categories)], fontsize=7)
    axes.set_ylim(-0.6, len(categories) - 0.4)
    axes.set_title("scores: good blue, defective red", fontsize=10)
    axes.set_xlabel("score (distance)")
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
