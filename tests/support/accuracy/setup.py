"""What the scripts of tests/measure that score pools are given, and the pools they open."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from musc_edge import open_bundle
from musc_edge.runtime.types import Bundle

from .pool import Pool, open_pool
from .products import PRODUCTS, Sources, chosen, counts, further, judging, samples


@dataclass(frozen=True)
class Setup:
    """Where bundles and data are, and the folder ``work`` in which what was computed is kept."""

    work: Path
    bundles: Path
    sources: Sources

    def bundle(self, size: int) -> Bundle:
        """Open the bundle of the ViT at ``size`` pixels."""
        return open_bundle(self.bundles / f"dinov2-small-{size}")

    def pool(self, product: str, size: int = 224) -> Pool:
        """Open a product's pool; computed first if need be."""
        images = chosen(samples(product, self.sources), counts(product, size))
        folder = self.work / "pools" / f"{product.replace(' ', '-')}-{size}"
        return open_pool(folder, product, images, self.bundle(size))

    def further_pool(self, product: str, size: int, number: int, threads: int = 1) -> Pool:
        """Open pool ``number`` of a product's further images, with its tokens; computed first if need be."""
        images = further(product, samples(product, self.sources), size, number)
        folder = self.work / "pools" / f"{product.replace(' ', '-')}-{size}-further-{number}"
        return open_pool(folder, product, images, self.bundle(size), threads, keep_tokens=True)

    def judging_pool(self, product: str, size: int, number: int, threads: int = 1) -> Pool:
        """Open pool ``number`` of the images that are left, with its tokens; computed first if need be."""
        images = judging(product, samples(product, self.sources), number)
        folder = self.work / "pools" / f"{product.replace(' ', '-')}-{size}-judging-{number}"
        return open_pool(folder, product, images, self.bundle(size), threads, keep_tokens=True)

    def pools(self, size: int = 224) -> dict[str, Pool]:
        """Open the pools of all products."""
        return {product: self.pool(product, size) for product in PRODUCTS}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options that the scripts share."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("work", type=Path, help="folder for what is computed; a later run goes on from it")
    options.add_argument("bundles", type=Path, help="folder with dinov2-small-224 and so on")
    options.add_argument("elpv", type=Path, help="the unpacked package elpv-dataset 1.0.0.post1")
    options.add_argument("textile", type=Path, help="the unpacked package conformal-clip-data 0.1.4")
    options.add_argument("tiles", type=Path, help="magnetic tiles in MVTec AD's layout")
    return options


def setup(options: argparse.Namespace) -> Setup:
    """Return the setup that the options name; from then on BLAS uses one thread."""
    # Maps are products of small matrices: on several threads each takes up to fifty times the processor time.
    threadpool_limits(1, "blas")
    sources = Sources(options.elpv, options.textile, options.tiles)
    options.work.mkdir(parents=True, exist_ok=True)
    return Setup(options.work, options.bundles, sources)
