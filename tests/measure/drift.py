"""Measure charts of drift on lines of real images, and the warnings of single checks.

    python tests/measure/drift.py steady|suspects|correlated|changes|warnings --work DIR [--seed 0]

DIR holds what drift_features.py found out.  Lines are drawn from it: the reference's images, those that
calibrate and those of the line are different ones; how long a line runs is up to drawing with replacement.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure.drift_features import BANK, CHANGED, CHANGES, PRODUCTS
from musc_edge import open_reference
from musc_edge.runtime.line.charts import Charts
from musc_edge.runtime.line.drift import RATE
from musc_edge.runtime.reference.choose import angular, nearest_others
from musc_edge.runtime.types import Array, FloatArray

SIGNALS = ("raw_score", "cls_distance", "brightness", "sharpness")
SIDES = tuple(f"{name} {way}" for name in ("score", "CLS", "brightness", "sharpness") for way in ("+", "-"))


@dataclass(frozen=True)
class Features:
    """Raw scores (n,), CLS embeddings (n,D) and looks (n,2) of some images."""

    raw: Array
    cls: FloatArray
    looks: Array

    def of(self, rows: Array) -> Features:
        """Those of some rows."""
        return Features(self.raw[rows], self.cls[rows], self.looks[rows])

    def __len__(self) -> int:
        return len(self.raw)


@dataclass(frozen=True)
class Reference:
    """What charts know of a reference: scores that calibrate, CLS embeddings and looks of accepted images."""

    scores: Array
    cls: FloatArray
    looks: Array

    def base(self) -> dict[str, Array]:
        """What its images said."""
        return dict(zip(SIGNALS, (self.scores, nearest_others(self.cls), *self.looks.T), strict=True))

    def values(self, found: Features) -> Array:
        """What checks against it say of images (n, 4)."""
        away = angular((found.cls @ self.cls.T).max(axis=1))
        return np.stack([found.raw, away, *found.looks.T], axis=1)


class Product:
    """What is known of a product."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self._work = name, work
        self._folder = open_reference(work / f"{name}-reference")
        self.good = self.kind("good")

    def kind(self, kind: str) -> Features:
        """Images of one kind."""
        with np.load(self._work / f"{self.name}-{kind}.npz") as kept:
            return Features(kept["raw"], kept["cls"], kept["looks"])

    def draw(
        self, draw: np.random.RandomState, calibration: int, accepted: int
    ) -> tuple[Reference, Features]:
        """Draw a reference, and what is left of the good images for the line.

        Of the accepted images 40 are the bank's, and the others are drawn; the images that are changed
        neither calibrate nor are accepted.
        """
        order = CHANGED + draw.permutation(len(self.good) - CHANGED)
        beside = self.good.of(order[calibration : calibration + accepted - BANK])
        cls = np.concatenate([self._folder.cls, beside.cls])
        looks = np.concatenate([self._folder.looks, beside.looks])
        rest = self.good.of(np.append(order[calibration + accepted - BANK :], np.arange(CHANGED)))
        return Reference(self.good.raw[order[:calibration]], cls, looks), rest


def first_alarms(charts: Charts, values: Array) -> tuple[Array, Array]:
    """Run lines with ``values`` (images, lines, 4); returns their first alarms (lines,), or 0, and charts."""
    state, lines = charts.start(values.shape[1]), values.shape[1]
    first, which = np.zeros(lines, int), np.zeros((lines, 2 * len(SIGNALS)), bool)
    for number, each in enumerate(values, 1):
        state = charts.step(state, each, number)
        changed = state.since > 0
        new = (first == 0) & changed.any(axis=1)
        first[new], which[new] = number, changed[new]
        if first.all():
            break
    return first, which


def pick(draw: np.random.RandomState, values: Array, images: int, lines: int) -> Array:
    """Draw values (images, lines, 4) of lines, with replacement."""
    return values[draw.randint(len(values), size=(images, lines))]


def with_defects(draw: np.random.RandomState, values: Array, bad: Array, share: float) -> Array:
    """Replace a share of all values by those of defective images."""
    hit = draw.rand(*values.shape[:2]) < share
    mixed = values.copy()
    mixed[hit] = bad[draw.randint(len(bad), size=hit.sum())]
    return mixed


REFERENCES = ((20, 40), (60, 40), (150, 100))
"""Images that calibrate, and accepted ones."""


def fits(product: Product, calibration: int, accepted: int) -> bool:
    """Whether a product has as many images, and 60 or more for the line."""
    return len(product.good) >= calibration + accepted - BANK + 60


def suspects_out(reference: Reference, share: float) -> Reference:
    """The same without the accepted images that are farthest from the others, as if they were suspects."""
    kept = np.argsort(nearest_others(reference.cls))[: round((1 - share) * len(reference.cls))]
    return Reference(reference.scores, reference.cls[kept], reference.looks[kept])


def suspects(products: Iterable[Product], seed: int) -> None:
    """As ``steady``, with a tenth of the accepted images left out as suspects."""
    steady(products, seed, 0.1)


def steady(products: Iterable[Product], seed: int, left_out: float = 0.0) -> None:
    """Lines of good images, and with defects: alarms against the promise."""
    print("| product | calibration, accepted | defective | images | promised, at most | lines with alarm |")
    print("|---|---|---|---|---|---|")
    totals: dict[float, list[int]] = {}
    for product in products:
        bad = product.kind("bad")
        for calibration, accepted in (each for each in REFERENCES if fits(product, *each)):
            for share in (0.0, 0.1, 0.2, 0.3):
                draw, alarms, images = np.random.RandomState(seed), 0, 0
                for _ in range(DRAWS):
                    reference, rest = product.draw(draw, calibration, accepted)
                    reference = suspects_out(reference, left_out)
                    values = pick(draw, reference.values(rest), LONG, LINES)
                    values = with_defects(draw, values, reference.values(bad), share)
                    first, _which = first_alarms(Charts(reference.base(), RATE), values)
                    alarms += int((first > 0).sum())
                    images += int(np.where(first > 0, first, LONG).sum())
                totals.setdefault(share, []).extend((alarms, images))
                print(
                    f"| {product.name} | {calibration}, {accepted} | {share:.0%} | {images:,} "
                    f"| {RATE * images:.1f} | {alarms} of {DRAWS * LINES} |",
                    flush=True,
                )
    exact(totals)


DRAWS, LINES, LONG = 8, 40, 500


def exact(totals: dict[float, list[int]]) -> None:
    """Print an exact test of all alarms against the promise."""
    from scipy.stats import poisson

    for share, numbers in totals.items():
        alarms, images = sum(numbers[::2]), sum(numbers[1::2])
        p = poisson.sf(alarms - 1, RATE * images)
        promised = f"promised {RATE * images:.0f}, p {p:.3f}"
        print(f"{share:.0%} defective: {alarms} alarms in {images:,} images, {promised}")


def correlated(products: Iterable[Product], seed: int) -> None:
    """Lines whose images are like the ones before them: an AR(1) walk along the order of each signal."""
    from scipy.stats import norm

    print("| product | by | correlation | images | promised | lines with alarm |\n|---|---|---|---|---|---|")
    for product in products:
        for k, signal in ((0, "score"), (2, "brightness")):
            for rho in (0.5, 0.8, 0.95):
                draw, alarms, images = np.random.RandomState(seed), 0, 0
                for _ in range(DRAWS):
                    reference, rest = product.draw(draw, 60, 40)
                    values = reference.values(rest)
                    walk = np.empty((LONG, LINES))
                    walk[0] = draw.normal(size=LINES)
                    for t in range(1, LONG):
                        walk[t] = rho * walk[t - 1] + np.sqrt(1 - rho**2) * draw.normal(size=LINES)
                    rows = np.argsort(values[:, k])[(norm.cdf(walk) * len(values)).astype(int)]
                    first, _which = first_alarms(Charts(reference.base(), RATE), values[rows])
                    alarms += int((first > 0).sum())
                    images += int(np.where(first > 0, first, LONG).sum())
                print(
                    f"| {product.name} | {signal} | {rho} | {images:,} | {RATE * images:.1f} "
                    f"| {alarms} of {DRAWS * LINES} |",
                    flush=True,
                )


def changes(products: list[Product], seed: int) -> None:
    """Lines of 50 good images, and then of changed ones: how soon it is told, and by which chart."""
    kinds = ["good", *CHANGES, *PRODUCTS]
    shares = (0.0, 0.2)
    print("| change | " + " | ".join(p.name for p in products) + " |")
    print("|---" * (len(products) + 1) + "|")
    for kind in kinds:
        cells = []
        for product in products:
            if kind == product.name:
                cells.append("")
                continue
            cells.append(", ".join(_told(product, kind, share, seed) for share in shares))
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


BEFORE, AFTER, FEW = 50, 250, 4


def _told(product: Product, kind: str, share: float, seed: int) -> str:
    """Median delay, share of the lines that told within ``AFTER`` images, and the charts that did."""
    draw, delays, told = np.random.RandomState(seed), [], np.zeros(2 * len(SIGNALS))
    other, bad = product.kind(kind), product.kind("bad")
    for _ in range(FEW):
        reference, rest = product.draw(draw, 60, 40)
        before = pick(draw, reference.values(rest), BEFORE, LINES // FEW)
        values = np.concatenate([before, pick(draw, reference.values(other), AFTER, LINES // FEW)])
        values = with_defects(draw, values, reference.values(bad), share)
        first, which = first_alarms(Charts(reference.base(), RATE), values)
        delays += first.tolist()
        told += which[first > BEFORE].sum(axis=0)
    late = np.array(delays)
    found = late > BEFORE
    if not found.any():
        return "-"
    some = "" if found.mean() > 0.95 else f" ({found.mean():.0%})"
    by = f" {SIDES[int(told.argmax())]}" if share == 0 else ""
    return f"{np.median(late[found] - BEFORE):.0f}{some}{by}"


LIGHT_AND_FOCUS = ("gai", "gam", "blu", "noi", "JPE")
SEEN = {
    "CLS": ((1.0, 1.25, 1.5), ("good", "bad", "shift 16 px", "upside down", *PRODUCTS)),
    "range": ((0.0, 0.25, 0.5), ("good", "bad", *(kind for kind in CHANGES if kind[:3] in LIGHT_AND_FOCUS))),
}
"""What the warnings of a check go by, margins, and kinds of images."""


def warnings(products: list[Product], seed: int) -> None:
    """Warnings of single checks by margin: on good images that no reference knows, and on others."""
    for what, (margins, kinds) in SEEN.items():
        for accepted in (20, 40, 100):
            said = " / ".join(f"{margin:g}" for margin in margins)
            print(f"\n{what}, margins {said}, {accepted} accepted images\n")
            print("| images | " + " | ".join(p.name for p in products) + " |")
            print("|---" * (len(products) + 1) + "|")
            for kind in kinds:
                cells = [_shares(p, kind, accepted, what, margins, seed) for p in products]
                print(f"| {kind} | {' | '.join(cells)} |", flush=True)


def _shares(
    product: Product, kind: str, accepted: int, what: str, margins: tuple[float, ...], seed: int
) -> str:
    """The shares of images with a warning, in percent, by margin."""
    if kind == product.name:
        return ""
    shares = [100 * _warned(product, kind, accepted, what, margin, seed) for margin in margins]
    return " / ".join(f"{share:.1f}" if kind == "good" else f"{share:.0f}" for share in shares)


def _warned(product: Product, kind: str, accepted: int, what: str, margin: float, seed: int) -> float:
    """The share of images with a warning, over draws of the accepted images."""
    draw, found = np.random.RandomState(seed), []
    for _ in range(DRAWS):
        reference, rest = product.draw(draw, 0, max(accepted, BANK))
        cls, looks = reference.cls[-accepted:], reference.looks[-accepted:]
        other = rest if kind == "good" else product.kind(kind)
        if what == "CLS":
            found.append(angular((other.cls @ cls.T).max(axis=1)) > margin * nearest_others(cls).max())
        else:
            low, high = looks.min(axis=0), looks.max(axis=0)
            spare = margin * np.maximum(high - low, 0.02)
            found.append(((other.looks < low - spare) | (other.looks > high + spare)).any(axis=1))
    return float(np.concatenate(found).mean())


def _products(work: Path) -> Iterator[Product]:
    for name in PRODUCTS:
        if (work / f"{name}-good.npz").exists():
            yield Product(name, work)


MEASURES: dict[str, Callable[[list[Product], int], None]] = {
    "steady": steady,
    "suspects": suspects,
    "correlated": correlated,
    "changes": changes,
    "warnings": warnings,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    MEASURES[args.what](list(_products(args.work)), args.seed)


if __name__ == "__main__":
    main()
