"""Measure references on real products: what compression, suspects and few calibration images cost.

    python tests/measure/references.py table PRODUCT -b BUNDLE --work DIR [--elpv DIR] [--textiles DIR]
    [--tiles DIR] python tests/measure/references.py alarms PRODUCT ...      false alarms over all good
    images that are left python tests/measure/references.py show --work DIR         the tables of
    docs/reference.md

Each product is drawn once by a fixed seed: a bank of 100 good images, 25 defective ones to contaminate it,
and 50 good and 50 defective ones to check.  The folders are those of the packages elpv-dataset and
conformal-clip-data, unpacked, and magnetic tiles in MVTec AD's layout.  Features are kept in DIR.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from musc_edge import Bundle, LotImage, mutual_scores, open_bundle
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.parallel import cores
from musc_edge.runtime.reference.choose import cover
from musc_edge.runtime.reference.conformal import Calibration
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.blas import one_thread_per_product
from musc_edge.runtime.scoring.image_pairs import best_filter, distance, load_filter
from musc_edge.runtime.scoring.interval import interval_bounds, interval_mean
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.row import Bank, PatchBank, RowScorer, WholeBank, describe, unit_vectors
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array, FloatArray
from musc_edge.runtime.vit.extract import extract, store_shape
from musc_edge.runtime.vit.onnx_backend import OnnxBackend

BANK, BAD_IN_BANK, GOOD, BAD = 100, 25, 50, 50
CALIBRATION = 99


@dataclass(frozen=True)
class Features:
    """Tokens (S,N,P,C) in half precision and CLS embeddings (N,D)."""

    tokens: Array
    cls: FloatArray


def images(product: str, args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Good and defective images of a product, each in an order that is drawn once."""
    if product == "tiles":
        good = sorted((args.tiles / "test/good").iterdir())
        bad = [
            p
            for f in sorted((args.tiles / "test").iterdir())
            if f.name != "good"
            for p in sorted(f.iterdir())
        ]
    elif product == "textiles":
        root = args.textiles / "conformal_clip_data/data/textile_images/simulated"
        good = sorted((root / "nominal").iterdir())
        bad = sorted([*(root / "local").iterdir(), *(root / "global").iterdir()])
    else:
        data = args.elpv / "elpv_dataset/data"
        rows = [line.split() for line in (data / "labels.csv").read_text(encoding="ascii").splitlines()]
        good = [data / name for name, grade, kind in rows if kind == product and float(grade) == 0]
        bad = [data / name for name, grade, kind in rows if kind == product and float(grade) == 1]
    draw = np.random.RandomState(1)
    return [good[i] for i in draw.permutation(len(good))], [bad[i] for i in draw.permutation(len(bad))]


def features(bundle: Bundle, paths: Sequence[Path], kept: Path) -> Features:
    """The features of images, as the product reads them; kept in a file."""
    if not kept.exists():
        survey = survey_lot([LotImage(str(i), p) for i, p in enumerate(paths)], ReadOptions(), cores())
        m = bundle.manifest
        cls = np.empty((len(paths), m.cls_width), np.float32)
        store = HostStore(np.empty(store_shape(len(paths), bundle), m.tokens[0].dtype), cls)
        with OnnxBackend(bundle, cores()) as backend:
            read, failed = extract(survey, backend, m.preprocess, store, threads=cores())
        assert not failed
        order = np.argsort([int(image.name) for image in read])
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, tokens=store.tokens[:, order].astype(np.float16), cls=store.cls[order])
    with np.load(kept) as archive:
        return Features(archive["tokens"].astype(np.float32), archive["cls"])


def whole_bank(tokens: FloatArray, method: Method) -> WholeBank:
    """A bank of whole images with tokens (S,M,P,C)."""
    return WholeBank.of(method, load_filter(best_filter("auto")[0]), list(tokens), cores())


def patch_bank(tokens: FloatArray, method: Method, share: float, draw: Any = None) -> PatchBank:
    """A bank of the patches that cover each image, or of random ones."""
    kept, units, hollow = max(1, round(share * tokens.shape[2])), [], []
    for layer in tokens:
        queries = [describe(image, method) for image in layer]
        hollow.append([(query.inverse == 0).any(axis=1) for query in queries])
        degrees = []
        for t in range(len(method.degrees)):
            vectors = [unit_vectors(query, method, t) for query in queries]
            rows = [cover(v, kept) if draw is None else draw.permutation(len(v))[:kept] for v in vectors]
            degrees.append(np.stack([v[r] for v, r in zip(vectors, rows, strict=True)], axis=1))
        units.append(np.array(degrees))
    return PatchBank(method, units, np.array(hollow))


def scores(bank: Bank, queries: FloatArray, size: tuple[int, int]) -> Array:
    """Raw scores (n,) of images with tokens (S,n,P,C) against a bank."""
    with one_thread_per_product(cores()), RowScorer(bank, cores()) as row:
        maps = [row.score(list(queries[:, i])) for i in range(queries.shape[1])]
    return raw_scores(np.array(maps), size)


class Table:
    """Distances (n,M,S,R,P) of images to those of a bank, from which any smaller bank is scored."""

    def __init__(self, bank: WholeBank, queries: FloatArray, size: tuple[int, int]) -> None:
        self._method, self._size = bank.method, size
        S, n, P, _ = queries.shape
        self.distances = np.empty((n, bank.images, S, len(bank.method.degrees), P), np.float32)
        with one_thread_per_product(cores()), RowScorer(bank, cores()) as row:
            for i in range(n):
                for s in range(S):
                    query = describe(queries[s, i], bank.method)
                    cosines = np.empty((bank.images, *query.inverse.shape), np.float32)
                    list(row._pool.map(lambda job: job(), bank.jobs(s, query, cosines)))
                    self.distances[i, :, s] = distance(cosines, query.inverse > 0, bank.hollow[s])

    def scores(self, queries: Sequence[int] | Array, bank: Sequence[int] | Array) -> Array:
        """Raw scores of some images against some of the bank's."""
        maps = []
        for i in queries:
            judges = [j for j in bank if j != i]
            bounds = interval_bounds(len(judges) + 1, self._method.interval)
            chosen = self.distances[i][judges]
            mean = interval_mean(chosen.reshape(len(judges), -1), *bounds)
            maps.append(mean.reshape(chosen.shape[1:]).mean(axis=(0, 1)).reshape(self._method.grid))
        return raw_scores(np.array(maps), self._size)


def auroc(found: Array) -> float:
    """AUROC of scores whose first GOOD are of good images."""
    good, bad = found[:GOOD, None], found[None, GOOD:]
    return float(((bad > good) + 0.5 * (bad == good)).mean())


def ranks_agree(a: Array, b: Array) -> float:
    """Spearman's rank correlation."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def measure_table(product: str, args: argparse.Namespace) -> dict[str, Any]:
    """Compression, contamination, and infer beside it, for one product."""
    bundle = open_bundle(args.bundle)
    good, bad = images(product, args)
    bad = bad[: BAD_IN_BANK + BAD]
    paths = [*good[:BANK], *bad[:BAD_IN_BANK], *good[BANK : BANK + GOOD], *bad[BAD_IN_BANK:]]
    found = features(bundle, paths, args.work / f"{product}-{bundle.manifest.preprocess.size[0]}.npz")
    size, method = bundle.manifest.preprocess.size, Method(bundle.manifest.grid)
    first = BANK + BAD_IN_BANK
    queries = found.tokens[:, first:]
    table = Table(whole_bank(found.tokens[:, :BANK], method), queries, size)
    checked = range(queries.shape[1])
    full = table.scores(checked, range(BANK))
    rows = [_row("100 images (full)", full, full, found, 1)]
    for count in (50, 25, 13):
        covering = cover(found.cls[:BANK], count)
        rows.append(
            _row(f"{count} images by coverage", table.scores(checked, covering), full, found, count / 100)
        )
        drawn = [np.random.RandomState(seed).permutation(BANK)[:count] for seed in range(20)]
        many = [table.scores(checked, draw) for draw in drawn]
        rows.append(_mean(f"{count} images at random, mean of 20", many, full, found, count / 100))
    for what, small, share in _patches(found, method):
        rows.append(_row(what, scores(small, queries, size), full, found, share))
    few = found.tokens[:, cover(found.cls[:BANK], 25)]
    halves = np.stack([[describe(x, method).tokens.astype(np.float16) for x in layer] for layer in few])
    own = scores(whole_bank(halves.astype(np.float32), method), queries, size)
    rows.append(_row("25 images by coverage, float16", own, full, found, 0.125))
    together = raw_scores(mutual_scores(queries, method.grid).reshape(-1, *method.grid), size)
    about = {"product": product, "rows": rows, "infer": auroc(together), "contamination": []}
    if args.contamination:
        about["contamination"] = _contamination(found, method, size)
    return about


def _patches(found: Features, method: Method) -> Iterator[tuple[str, Bank, float]]:
    """Banks of some patches, each with its share of the full one's size."""
    bank = found.tokens[:, :BANK]
    for share in (0.1, 0.05):
        yield f"100 images, {share:.0%} of patches by coverage", patch_bank(bank, method, share), 3 * share
    draw = np.random.RandomState(0)
    yield "100 images, 5% of patches at random", patch_bank(bank, method, 0.05, draw), 0.15
    some = bank[:, cover(found.cls[:BANK], 50)]
    yield "50 images by coverage, 10% of patches by coverage", patch_bank(some, method, 0.1), 0.15


def _row(what: str, own: Array, full: Array, found: Features, share: float) -> dict[str, Any]:
    """AUROC, rank correlation and change of scores beside the full reference's."""
    return {
        "what": what,
        "mb": share * BANK * found.tokens[:, 0].size * 4 / 1e6,
        "auroc": auroc(own),
        "ranks": ranks_agree(own, full),
        "change": float(np.abs(own - full).max()),
    }


def _mean(what: str, many: Sequence[Array], full: Array, found: Features, share: float) -> dict[str, Any]:
    """The mean of ``_row`` over draws."""
    rows = [_row(what, own, full, found, share) for own in many]
    numbers = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "what"}
    return {"what": what, **numbers}


def _contamination(found: Features, method: Method, size: tuple[int, int]) -> list[dict[str, Any]]:
    """AUROC with 5 to 25 % defective images in a bank of 100: kept, and with suspects left out."""
    first = BANK + BAD_IN_BANK
    table = Table(whole_bank(found.tokens[:, :first], method), found.tokens, size)
    checked, rows = range(first, first + GOOD + BAD), []
    for share in (0, 5, 10, 15, 20, 25):
        bank = [*range(BANK - share), *range(BANK, BANK + share)]
        row: dict[str, Any] = {"share": share, "kept": auroc(table.scores(checked, bank))}
        mutual = table.scores(bank, bank)
        for drop in (10, 25):
            rest = [bank[k] for k in np.argsort(mutual, kind="stable")[: BANK - drop]]
            row[f"drop{drop}"] = auroc(table.scores(checked, rest))
            row[f"left{drop}"] = sum(j >= BANK for j in rest)
        rows.append(row)
    return rows


def measure_alarms(product: str, args: argparse.Namespace) -> dict[str, Any]:
    """False alarms over all good images that neither bank nor calibration has, clean and contaminated."""
    bundle = open_bundle(args.bundle)
    good, bad = images(product, args)
    good, bad = good[: args.most], bad[:10]
    size, method = bundle.manifest.preprocess.size, Method(bundle.manifest.grid)
    found = features(bundle, [*good, *bad], args.work / f"{product}-all-{size[0]}.npz")
    n = min(CALIBRATION, len(good) // 3)
    rows = []
    # 10 of the 40 images of the bank, and 10 % of those that calibrate, may be defective.
    clean = [*range(40)]
    dirty = [*range(30), *range(len(good), len(good) + len(bad))]
    mutual = raw_scores(mutual_scores(found.tokens[:, dirty], method.grid).reshape(-1, *method.grid), size)
    without = [dirty[k] for k in np.argsort(mutual, kind="stable")[: 40 - 10]]
    for name, bank in (("clean", clean), ("contaminated", dirty), ("suspects left out", without)):
        small = patch_bank(found.tokens[:, bank], method, 0.1)
        own = scores(small, found.tokens[:, 40:], size)
        calibration, rest = own[:n], own[n : len(good) - 40]
        row = {"product": product, "bank": name, "calibration": n, "checked": len(rest)}
        for alpha in (0.01, 0.05):
            judge = Calibration(calibration, alpha)
            row[f"alarms_{alpha}"] = int(sum(judge.p(float(s)) <= alpha for s in rest))
            row[f"detected_{alpha}"] = int(sum(judge.p(float(s)) <= alpha for s in own[len(good) - 40 :]))
        rows.append(row)
    return {"alarms": rows}


def show(args: argparse.Namespace) -> None:
    """Print the tables."""
    from scipy.stats import betabinom, binomtest

    for path in sorted(args.work.glob("table-*.json")):
        about = json.loads(path.read_text())
        print(f"\n{about['product']}; infer on the checked images alone: AUROC {about['infer']:.3f}\n")
        print("| bank | MB | AUROC | rank correlation | largest change |\n|---|---|---|---|---|")
        for r in about["rows"]:
            numbers = f"{r['mb']:.0f} | {r['auroc']:.3f} | {r['ranks']:.3f} | {r['change']:.4f}"
            print(f"| {r['what']} | {numbers} |")
        print("\n| defective in the bank | kept | 10 suspects out (left) | 25 suspects out (left) |")
        print("|---|---|---|---|")
        for r in about["contamination"]:
            less = [f"{r[f'drop{k}']:.3f} ({r[f'left{k}']})" for k in (10, 25)]
            print(f"| {r['share']} % | {r['kept']:.3f} | {' | '.join(less)} |")
    found = [
        r for path in sorted(args.work.glob("alarms-*.json")) for r in json.loads(path.read_text())["alarms"]
    ]
    print("\n| product | bank | n | checked | alarms at 1 % | p | alarms at 5 % | p |")
    print("|---|---|---|---|---|---|---|---|")
    for r in found:
        said = []
        for alpha in (0.01, 0.05):
            k, m, n = r[f"alarms_{alpha}"], r["checked"], r["calibration"]
            top = int(alpha * (n + 1) + 1e-9)
            p = betabinom.sf(k - 1, m, top, n + 1 - top) if top else float(k == 0)
            said.append(f"{k} ({k / m:.1%}) | {p:.2f}")
        print(f"| {r['product']} | {r['bank']} | {r['calibration']} | {r['checked']} | {' | '.join(said)} |")
    for bank in ("clean", "contaminated", "suspects left out"):
        mine = [r for r in found if r["bank"] == bank]
        total = sum(r["checked"] for r in mine)
        for alpha in (0.01, 0.05):
            k = sum(r[f"alarms_{alpha}"] for r in mine)
            if total:
                p = binomtest(k, total, alpha, alternative="greater").pvalue
                print(f"{bank}, alpha {alpha}: {k} of {total} ({k / total:.2%}), exact binomial p {p:.3f}")


MEASURES: dict[str, Callable[[str, argparse.Namespace], dict[str, Any]]] = {
    "table": measure_table,
    "alarms": measure_alarms,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=(*MEASURES, "show"))
    parser.add_argument("product", nargs="?", choices=("mono", "poly", "textiles", "tiles"))
    parser.add_argument("-b", "--bundle")
    for name in ("work", "elpv", "textiles", "tiles"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--contamination", action="store_true", help="also with defects in the bank")
    parser.add_argument("--most", type=int, default=None, help="of good images, for alarms")
    args = parser.parse_args()
    if args.what == "show":
        show(args)
        return
    found = MEASURES[args.what](args.product, args)
    (args.work / f"{args.what}-{args.product}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
