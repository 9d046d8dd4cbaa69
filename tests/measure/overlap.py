"""What runs beside what, before and now, on a device that is not there: it takes its time and no processor.

    python tests/measure/overlap.py [--images 48] [--side 224] [--size 518] [--vit 13] [--copy 0.5]
        [--load 0.9] [--weights 600] [--rounds 5] [--bundle BUNDLE]

The device takes ``--vit`` and ``--copy`` milliseconds an image for the ViT and for what is copied to it,
and ``--load`` seconds to be loaded; meanwhile the processor is free, as it is beside a GPU.  The lot is
made of PNG files of ``--side`` pixels that are resized to ``--size``, the weights are a file of
``--weights`` MB.

Each line is an arrangement, timed in turn with its twin: the batches of a lot stacked and copied between
two runs of the ViT, and beside them; the hash of the weights before the ViT is loaded, and beside it; the
contact sheet in one thread, and in as many as there are cores.  With ``--bundle`` also batches between and
beside the runs of its ViT on the CPU, where nothing is to be gained and nothing must be lost.  Results are
compared before they are timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from musc_edge.runtime.images.reading import ImageError
from musc_edge.runtime.images.survey import ReadOptions, Survey, decode_ahead, survey_lot
from musc_edge.runtime.parallel import cores
from musc_edge.runtime.results.contact_sheet import draw_contact_sheet
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.timing import UNTIMED
from musc_edge.runtime.types import (
    DeviceSlot,
    FeatureBackend,
    FloatArray,
    LotImage,
    PreprocessSpec,
    Slot,
    Uploaded,
)
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.extract import extract, store_shape
from musc_edge.runtime.vit.hashes import check_beside, check_hash, sha256
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from musc_edge.tools.bench.harness import Samples, alternate
from musc_edge.tools.bench.lot import synthetic_lot
from support.lots import lot_result

BATCH, WIDTH = 8, 4
Cases = dict[str, Callable[[], object]]


class Device:
    """A backend that sleeps; the features are means of the pixels."""

    name = version = "simulated"
    max_batch: int | None = None
    fills_device = False

    def __init__(self, vit: float, copy: float) -> None:
        self._vit, self._copy = vit / 1000, copy / 1000

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def upload(self, images: FloatArray) -> Uploaded:
        time.sleep(self._copy * len(images))
        return Uploaded(len(images), images[:, :, 0, :WIDTH].mean(axis=1))

    def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
        assert isinstance(images, Uploaded)
        assert isinstance(slot, Slot)
        time.sleep(self._vit * len(images))
        slot.tokens[0, :, 0] = slot.cls[:] = images.value


def between(survey: Survey, device: FeatureBackend, spec: PreprocessSpec, store: HostStore) -> None:
    """Fill the store as it was done before: a batch is stacked and copied once the ViT is done."""
    with closing(decode_ahead(survey, spec, cores(), 2 * BATCH)) as stream:
        for row in range(0, len(survey.images), BATCH):
            good = [pixels for _, pixels in islice(stream, BATCH) if not isinstance(pixels, ImageError)]
            device.extract_into(device.upload(np.stack(good)), store.slot(row, row + len(good)))


def of_batches(args: argparse.Namespace, folder: Path) -> Cases:
    """Stacking and copying, between two runs of the ViT and beside them."""
    spec = PreprocessSpec((args.size, args.size), "squash", "bicubic", (0.5,) * 3, (0.25,) * 3)
    survey = surveyed(args, folder / "lot")
    return both(survey, Device(args.vit, args.copy), spec, (1, args.images, 1, WIDTH), WIDTH, "")


def of_cpu(args: argparse.Namespace, folder: Path, stack: ExitStack) -> Cases:
    """The same with a real ViT on the CPU."""
    bundle = open_bundle(args.bundle)
    vit, m = stack.enter_context(OnnxBackend(bundle, cores())), bundle.manifest
    survey = surveyed(args, folder / "cpu")
    return both(survey, vit, m.preprocess, store_shape(args.images, bundle), m.cls_width, ", on the CPU")


def surveyed(args: argparse.Namespace, folder: Path) -> Survey:
    paths = sorted(synthetic_lot(folder, args.images, args.side).iterdir())
    return survey_lot([LotImage(path.name, path) for path in paths], ReadOptions(), cores())


def both(
    survey: Survey,
    vit: FeatureBackend,
    spec: PreprocessSpec,
    shape: tuple[int, int, int, int],
    width: int,
    where: str,
) -> Cases:
    """Both ways over a lot, for tokens of ``shape`` and CLS embeddings of ``width``; they give the same."""

    def new() -> HostStore:
        return HostStore(np.zeros(shape, np.float32), np.zeros((shape[1], width), np.float32))

    def beside(store: HostStore) -> None:
        extract(survey, vit, spec, store, BATCH, cores(), UNTIMED)

    before, now = new(), new()
    between(survey, vit, spec, before)
    beside(now)
    assert before.tokens.tobytes() == now.tokens.tobytes()
    return {
        f"batches between the runs{where}": lambda: between(survey, vit, spec, new()),
        f"batches beside the runs{where}": lambda: beside(new()),
    }


def of_hashes(args: argparse.Namespace, folder: Path) -> Cases:
    """The hash of the weights, before the ViT is loaded and beside it."""
    weights = folder / "weights"
    weights.write_bytes(os.urandom(1 << 20) * args.weights)
    files = {weights: sha256(weights)}

    def first() -> None:
        check_hash(weights, files[weights])
        time.sleep(args.load)

    def beside() -> None:
        require = check_beside(files, UNTIMED)
        time.sleep(args.load)
        require()

    return {"hash before loading": first, "hash beside loading": beside}


def of_sheets(args: argparse.Namespace, folder: Path) -> Cases:
    """The contact sheet in one thread, and in as many as there are cores."""
    result = lot_result(folder / "sheet", [f"{k}.png" for k in range(12)], size=(1000, 1000))

    def draw(threads: int) -> bytes:
        draw_contact_sheet(result, folder / "sheet.png", threads=threads)
        return (folder / "sheet.png").read_bytes()

    assert draw(1) == draw(cores())
    return {"sheet in one thread": lambda: draw(1), "sheet in all threads": lambda: draw(cores())}


def show(found: list[Samples], floor: float) -> None:
    for samples in found:
        low, high = min(samples.seconds), max(samples.seconds)
        above = f", of which {samples.median - floor:.3f} s are not the device's" if floor else ""
        print(f"{samples.name:<38} {samples.median:.3f} s ({low:.3f} to {high:.3f}){above}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--images", type=int, default=48)
    add("--side", type=int, default=224)
    add("--size", type=int, default=518)
    add("--vit", type=float, default=13)
    add("--copy", type=float, default=0.5)
    add("--load", type=float, default=0.9)
    add("--weights", type=int, default=600)
    add("--rounds", type=int, default=5)
    add("--bundle", type=Path)
    args = parser.parse_args()
    Image.init()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        if args.bundle:
            show(alternate(of_cpu(args, folder, stack), args.rounds), 0)
        floors = args.images * args.vit / 1000, args.load, 0.0
        for cases, floor in zip((of_batches, of_hashes, of_sheets), floors, strict=True):
            show(alternate(cases(args, folder), args.rounds), floor)


if __name__ == "__main__":
    main()
