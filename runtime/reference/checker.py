"""Check single images against a reference: opened once, called often, from any thread."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from ..._files import shown
from ..cluster.possible import require_one_machine
from ..errors import DeviceError, LotError, ReferenceFolderError
from ..images.inside import product_patches
from ..images.kinds import refusal
from ..images.reading import ImageError, normalise, preprocess, read_image, resize
from ..images.roi import HALF, coverage, half_or_more, read_mask, require_size
from ..scoring.anomaly_map import map_size, raw_scores
from ..scoring.cautions import bundle_cautions
from ..scoring.stitch import stitch
from ..settings import ANYTHING, Resources
from ..types import Array, Bundle, FeatureBackend, FloatArray
from ..verdict.flagged import image_regions
from ..verdict.limits import REJECT
from ..verdict.regions import Region, SizedMap
from ..vit.bundle import open_bundle
from ..vit.choose import enter_backend
from ..vit.extract import empty_slot
from .conformal import Calibration
from .files import ReferenceFolder, open_reference, read_inside
from .image_scorer import open_image_scorers
from .looks import Familiar, look

ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Check:
    """What checking an image gave.

    Attributes
    ----------
    name : str
        The image's path, or the name that it was given.
    status : str
        ok, or why it was not scored: unreadable, too_large or unsupported; ``error`` says more.
    raw_score : float
        Maximum of the map in pixels, a distance from 0 to 2; NaN if it was not scored.
    p : float
        Share of images as good as the calibration's that score as high or higher: (1 + #{c >= s}) / (n + 1);
        NaN if it was not scored.
    verdict : str
        "reject" where p is at most the false-alarm rate, else "not flagged"; empty if it was not scored.
    map : ndarray of shape (Gh, Gw), float32, or None
        Anomaly map on the patch grid: the row of mutual scores (paper, section 3.3) of this image.  It is NaN
        outside of the reference's region of interest.
    regions : tuple of Region
        Where the map of a rejected image lies above what may be on a good one, in the image's own pixels,
        that with the highest peak first.
    cls_distance : float
        Distance of its CLS embedding, 0 to 2, from the nearest of the reference's; NaN if it was not
        scored.
    brightness : float
        From 0 to 1; NaN if it was not scored.
    sharpness : float
        How much a pixel differs from its neighbors (``looks.look``); NaN if it was not scored.
    warnings : tuple of str
        What is unusual about the image beside its score.
    error : str
        Why it was not scored; empty if it was.
    """

    name: str
    status: str = "ok"
    raw_score: float = math.nan
    p: float = math.nan
    verdict: str = ""
    map: FloatArray | None = None
    regions: tuple[Region, ...] = ()
    cls_distance: float = math.nan
    brightness: float = math.nan
    sharpness: float = math.nan
    warnings: tuple[str, ...] = ()
    error: str = ""


class Checker:
    """Checks images against a reference, one at a time, as ``musc-edge check`` does.

    A context manager that holds the ViT and the bank; ``close`` gives them up.  Several threads may call
    ``check`` at once: files are decoded side by side, and the ViT and the comparison take turns, since each
    uses all cores.  A ViT on a GPU takes images that wait for their turn together, up to ``resources.batch``;
    on the CPU that saves nothing, and each image's score would depend in its last bits on who else waits.
    While images are compared on the CPU, numpy's BLAS is limited to one thread per product in the whole
    process.

    Parameters
    ----------
    reference : str, path or ReferenceFolder
        The reference's folder, or what ``open_reference`` returned.
    bundle : str, path or Bundle
        The bundle that the reference was made with.
    alpha : float, default 0.05
        The false-alarm rate at which an image is rejected.
    resources : Resources
        What runs the work, and how much of the machine it may use.  A reference of whole images is compared
        on a GPU if there is one; one of chosen patches, in tiles or by residual on the CPU.
    share : Checker, optional
        An open checker of the same bundle, whose ViT this one uses too, in turn with it, instead of loading
        its own; it must be closed after this one.

    Raises
    ------
    ReferenceFolderError
        If the reference is missing, damaged, or was made with another bundle.
    BundleError
        If the bundle is missing or damaged.
    DeviceError
        If a backend or scorer that was asked for cannot be used here.
    LotError
        If the bank is larger than the memory budget, or ``alpha`` is not between 0 and 1.
    """

    def __init__(
        self,
        reference: str | os.PathLike[str] | ReferenceFolder,
        bundle: str | os.PathLike[str] | Bundle,
        alpha: float = ALPHA,
        resources: Resources = ANYTHING,
        share: Checker | None = None,
    ) -> None:
        require_one_machine(resources, "single images are checked")
        self.reference = reference if isinstance(reference, ReferenceFolder) else open_reference(reference)
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.reference.require(self.bundle)
        if share:
            self.reference.require(share.bundle)
        self.calibration = Calibration(self.reference.calibration, alpha)
        self._familiar = Familiar(self.reference.cls, self.reference.looks)
        self._spec = self.bundle.manifest.preprocess
        self._region = self.reference.manifest.region
        self._layout = self.reference.manifest.layout if self.reference.manifest.tiles else None
        of_bank = read_inside(self.reference.root, self.reference.manifest)
        self._usual: Array | None = None if of_bank is None else of_bank.mean(axis=0) >= HALF
        self._share = share
        self._turn: Lock = share._turn if share else Lock()
        self._waiting: deque[_Request] = deque()
        with ExitStack() as stack:
            self._vit: FeatureBackend
            self._vit, notes = (share._vit, ()) if share else self._enter(stack, resources)
            self._rows, more = open_image_scorers(stack, self.reference, resources, self.bundle)
            self.batch = 1 if self._vit.name == "cpu" else resources.batch
            self.notes = *notes, *more
            self.computed_by = self._vit.version, self._rows[0].version
            self._open: ExitStack | None = stack.pop_all()

    def _enter(self, stack: ExitStack, resources: Resources) -> tuple[FeatureBackend, tuple[str, ...]]:
        return enter_backend(stack, resources.backend, self.bundle, resources.workers, resources.batch)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before trusting any verdict."""
        idle = () if self.calibration.rejects else (self.calibration.promise(),)
        return (*idle, *bundle_cautions(self.bundle.manifest))

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the ViT, the bank and the threads; waits for a check that is running."""
        with self._turn:
            stack, self._open = self._open, None
            if stack:
                stack.close()

    def check(
        self,
        image: str | os.PathLike[str] | Image.Image,
        name: str = "",
        mask: str | os.PathLike[str] | Array | None = None,
    ) -> Check:
        """Check one image.

        Parameters
        ----------
        image : str, path or PIL image
            A file, read as the reference's images were; or a picture in 8-bit RGB.
        name : str
            What the result calls it; by default the path.
        mask : str, path or ndarray of shape (H, W), optional
            What of the image is scored, where the reference was made with a mask for each image: a file in
            which that is light, or True there.  By default what most of the reference's images have.

        Returns
        -------
        Check
            A file that cannot be read is no error, but has a ``status`` that says so.

        Raises
        ------
        ReferenceFolderError
            If the checker is closed.
        DeviceError
            If the backend fails, or gives tokens that are not finite.
        LotError
            If there is a mask and the reference was made without.
        """
        if mask is not None and not self.reference.manifest.masks:
            raise LotError(
                f"{self.reference.root} was made without a mask for each image, so none is taken here: leave "
                "it out."
            )
        name = name or (os.fspath(image) if not isinstance(image, Image.Image) else "")
        try:
            picture = self._read(image)
            inside, unclear = self._inside(picture, name, mask)
            pixels = self._inputs(picture)
        except ImageError as error:
            return Check(name, error.status, error=str(error))
        request = _Request(pixels, inside)
        self._waiting.append(request)
        with self._turn:
            # Whoever has the turn serves those who wait in front, and perhaps some behind.
            while not request.served:
                self._serve()
        grid, cls = request.result()
        above = grid if self.reference.level is None else grid - self.reference.level
        raw = float(raw_scores(above[None], map_size((1, *above.shape), self.bundle.manifest))[0])
        p = self.calibration.p(raw)
        verdict = self.calibration.verdict(p)
        regions = self._regions(above, picture) if verdict == REJECT else ()
        away, looks = self._familiar.away(cls), look(pixels[0], self._spec)
        warnings = (*unclear, *self._familiar.warnings(away, looks))
        brightness, sharpness = looks.tolist()
        return Check(name, "ok", raw, p, verdict, grid, regions, away, brightness, sharpness, warnings)

    def _serve(self) -> None:
        """Describe and score the images that have waited longest, as many as a batch takes."""
        batch = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
        try:
            if self._open is None or (self._share and self._share._open is None):
                raise ReferenceFolderError(f"the checker of {self.reference.root} is closed. Open a new one.")
            inputs = [(request, number) for request in batch for number in range(len(request.pixels))]
            for start in range(0, len(inputs), self.batch):
                self._describe(inputs[start : start + self.batch])
            for request in batch:
                request.grid = self._whole_map(request.maps)
        except Exception as error:
            for request in batch:
                request.error = error
        finally:
            for request in batch:
                request.served = True

    def _describe(self, inputs: Sequence[tuple[_Request, int]]) -> None:
        """Let the ViT describe some inputs of images, and score those that have a bank."""
        slot = empty_slot(self.bundle, len(inputs))
        self._vit.extract_into(np.stack([request.pixels[number] for request, number in inputs]), slot)
        for k, (request, number) in enumerate(inputs):
            if number == 0:
                request.cls = slot.cls[k]
            if number or not self._layout:  # in tiles the whole image, which is the first, has no bank
                row = self._rows[number - 1 if self._layout else 0]
                request.maps.append(row.score(list(slot.tokens[:, k]), request.inside))

    def _whole_map(self, maps: Sequence[FloatArray]) -> FloatArray:
        """Return the map of an image, of those of its tiles."""
        return stitch(np.stack(maps)[:, None], self._layout)[0] if self._layout else maps[0]

    def _inputs(self, picture: Image.Image) -> list[FloatArray]:
        """Return the graph inputs (3,H,W) of an image: the whole, then its tiles, if the reference has them.

        Raises
        ------
        ImageError
            If it has not the size that the tiles are for.
        """
        whole = preprocess(picture, self._spec)
        if self._layout is None:
            return [whole]
        size = self.reference.manifest.tiles_of
        if size and picture.size != size:
            raise ImageError(
                "unsupported",
                f"it has {picture.width} x {picture.height} pixels as it is shown, and the tiles of the "
                f"reference are for images of {size[0]} x {size[1]}",
            )
        boxes = self._layout.boxes(picture.size)
        tiles = [np.asarray(resize(picture, self._spec, box)) for box in boxes]
        return [whole, *(normalise(tile, self._spec) for tile in tiles)]

    def _inside(
        self, picture: Image.Image, name: str, mask: str | os.PathLike[str] | Array | None
    ) -> tuple[Array | None, tuple[str, ...]]:
        """Which patches (P,) of an image take part, None for all; and a warning if that is not clear.

        Raises
        ------
        ImageError
            If the reference's region, or the mask, does not fit the image, or leaves nothing of it.
        """
        if self._usual is None:
            return None, ()
        inside, warnings = np.ones(self._usual.shape, bool), tuple[str, ...]()
        if self._region:
            try:
                require_size(self._region, shown(name) or "given", picture.size)
            except LotError as error:
                raise ImageError("unsupported", str(error)) from error
            inside &= self._region.patches.ravel()
        if self.reference.manifest.masks:
            if mask is None:
                warnings = ("no mask was given: the reference's usual region was taken",)
            inside &= self._usual if mask is None else self._masked(picture, mask)
        if self.reference.manifest.mask_background:
            product = product_patches(picture, self.reference.manifest.grid)
            if product is None:
                warnings = (
                    *warnings,
                    "its background is not clear to tell: the reference's usual region was taken",
                )
            inside &= self._usual if product is None else product.ravel()
        if not inside.any():
            raise ImageError("unsupported", "the region leaves no patch of it")
        return inside, warnings

    def _masked(self, picture: Image.Image, mask: str | os.PathLike[str] | Array) -> Array:
        """Which patches (P,) of an image are in its mask; ImageError if that cannot be told."""
        if isinstance(mask, str | os.PathLike):
            try:
                mask = read_mask(Path(mask), self.reference.manifest.max_pixels)
            except LotError as error:
                raise ImageError("unsupported", str(error)) from error
        if mask.shape != (picture.height, picture.width):
            raise ImageError(
                "unsupported",
                f"its mask has {mask.shape[-1]} x {mask.shape[0]} pixels and the image {picture.width} x "
                f"{picture.height} as it is shown: expected the same size",
            )
        return half_or_more(coverage(mask.astype(bool), self.reference.manifest.grid)).ravel()

    def _regions(self, grid: FloatArray, picture: Image.Image) -> tuple[Region, ...]:
        """Where a rejected image's map lies above the limit, at least where it is highest."""
        limit = self.calibration.reject_above
        if limit is None:
            return ()
        values = SizedMap(grid, (picture.height, picture.width))
        return tuple(image_regions(values, limit, 1, reached=True))

    def _read(self, image: str | os.PathLike[str] | Image.Image) -> Image.Image:
        if isinstance(image, Image.Image):
            return image if image.mode == "RGB" else image.convert("RGB")
        if refused := refusal(Path(image).name):
            raise ImageError(*refused)
        m = self.reference.manifest
        return read_image(Path(image), m.bit_depth, m.max_pixels)


@dataclass(eq=False)
class _Request:
    """An image that waits to be described and scored: its graph inputs (3,H,W), and what came of them."""

    pixels: list[FloatArray]
    inside: Array | None = None
    maps: list[FloatArray] = field(default_factory=list)
    grid: FloatArray | None = None
    cls: FloatArray | None = None
    error: Exception | None = None
    served: bool = False

    def result(self) -> tuple[FloatArray, FloatArray]:
        """Return the map (Gh,Gw) and the CLS embedding (D,), or raise what went wrong."""
        if self.error:
            raise self.error
        if self.grid is None or self.cls is None:
            raise DeviceError("the check was interrupted.")
        return self.grid, self.cls
