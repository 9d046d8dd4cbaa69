"""Make a reference from a lot: hold images out, leave suspects out, choose the bank, calibrate, write.

    lot  ->  held out at random            ->  their scores against the bank calibrate it
         ->  the others, without suspects  ->  M that cover the lot are the bank

The images to calibrate by are drawn before anything is looked at and take no part in the choice of the bank:
only then is a good image that is checked later as likely to score high as they are (conformal.py).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..._version import __version__
from ..beginning import Watch, opened, require_enough, survey_files
from ..cluster.possible import require_one_machine
from ..errors import LotError
from ..images.inside import patches_inside
from ..images.roi import PatchRegion, RoiOption
from ..images.survey import DEFAULT_READING, ReadOptions, Survey
from ..remote import is_url, protocol_of
from ..results.heatmap import lot_scale
from ..results.output import new_folder
from ..run import Run
from ..scorers import require_half
from ..scoring.anomaly_map import map_size, raw_scores
from ..scoring.blas import one_thread_per_product
from ..scoring.position import LEAST_IMAGES, position_level, settled
from ..scoring.row import ImageScorer, RowScorer
from ..scoring.stitch import stitch
from ..settings import ANYTHING, AUTO, DEFAULT, RESIDUAL, Resources, ScoreSettings, meaningless
from ..types import Array, Bundle, FloatArray, LotImage
from .bank_files import write_bank, write_inside
from .choose import held_out
from .cut import Cut
from .files import (
    NAMES,
    ReferenceFolder,
    names_in,
    open_bank,
    open_reference,
    read_thumbnails,
    write_array,
    write_manifest,
)
from .manifest import (
    CALIBRATION,
    CLS,
    DTYPES,
    FORMAT,
    INSIDE,
    LEVEL,
    LOOKS,
    MANIFEST,
    SCHEMA_VERSION,
    THUMBNAILS,
    ReferenceManifest,
    StoredRegion,
    layer_file,
)
from .parts import Chosen, Part, choose
from .residual_bank import open_common, write_common

HOLD_OUT = 0.3
"""Share of a lot that is held out to calibrate by."""


@dataclass(frozen=True)
class ReferenceOptions:
    """What a reference keeps of its lot.

    Attributes
    ----------
    images : int, optional
        Images in the bank, those that cover the lot best by their CLS embeddings; by default all.
    patches : float, default 1
        Share of each image's patches that is kept, those that cover the image best, for each layer and
        degree.
    precision : {"float32", "float16"}
        How tokens are stored.  They are compared in float32.
    hold_out : float, default 0.3
        Share of the lot, drawn at random, that is left out of the bank to calibrate by.
    suspects : float or tuple of str, default 0
        Share of the other images that is left out of the bank, those with the highest mutual scores; or the
        names of those that are left out.

    Raises
    ------
    LotError
        If one of them is not usable.
    """

    images: int | None = None
    patches: float = 1.0
    precision: str = "float32"
    hold_out: float = HOLD_OUT
    suspects: float | tuple[str, ...] = 0.0

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise LotError(f"{self.images} images in the bank: expected 1 or more.")
        if not 0 < self.patches <= 1:
            raise LotError(f"a share of {self.patches:g} of the patches: expected above 0, at most 1.")
        if self.precision not in DTYPES:
            raise LotError(f"precision {self.precision!r}: expected one of {', '.join(DTYPES)}.")
        for what, share in (("images held out", self.hold_out), ("suspects", self.share_of_suspects)):
            if not 0 <= share < 1:
                raise LotError(f"a share of {share:g} of {what}: expected from 0 to below 1.")

    @property
    def share_of_suspects(self) -> float:
        """Share of the images that is left out by scores; 0 where names say which."""
        return 0.0 if isinstance(self.suspects, tuple) else self.suspects


EVERYTHING = ReferenceOptions()


def _require_folders(*lots: object) -> None:
    """Raise LotError for a lot at a URL."""
    for lot in lots:
        if is_url(lot):
            raise LotError(
                "a reference is made of a folder on this machine, and a URL was given "
                f"({protocol_of(str(lot))}://...). Copy its images here, and give their folder."
            )


def make_reference(
    lot: str | os.PathLike[str] | Sequence[LotImage],
    bundle: str | os.PathLike[str] | Bundle,
    out: str | os.PathLike[str],
    settings: ScoreSettings | str = DEFAULT,
    resources: Resources = ANYTHING,
    *,
    options: ReferenceOptions = EVERYTHING,
    calibrate: str | os.PathLike[str] | Sequence[LotImage] | None = None,
    base: str | os.PathLike[str] | ReferenceFolder | None = None,
    reading: ReadOptions = DEFAULT_READING,
    watch: Watch | None = None,
    overwrite: bool = False,
) -> ReferenceFolder:
    """Make a reference of a lot, for a Checker: a folder that is written at once and never changed.

    Parameters
    ----------
    lot : a folder, or the images themselves (``list_lot``): an accepted lot, of good images for the most
        part.
    bundle : the bundle's folder, or what ``open_bundle`` returned.
    out : the reference's folder, which is made.
    settings : the method's parameters, or the name of a preset as for ``score_lot``; what comes after the
        maximum of a map, and ``group_size``, have no meaning.
    resources : what runs the work, and how much of the machine it may use.
    options : what is kept, and what is held out.
    calibrate : another lot, of good images, to calibrate by; then none of ``lot`` is held out.
    base : an earlier reference of the same bundle, whose bank is taken over; its settings hold.  Its scores
        are not, since they were against another bank.
    reading : how files are read; the bit depth is found from the lot by default.
    watch : who is told of progress and time.
    overwrite : whether an earlier reference in ``out`` is replaced.

    Returns
    -------
    ReferenceFolder

    Raises
    ------
    LotError : too few images can be read, a setting cannot be used, or the memory budget is too small.
    BundleError : the bundle is missing, damaged or not what was expected.
    ReferenceFolderError : ``base`` cannot be used.
    DeviceError : a backend or scorer that was asked for cannot be used here, or fails.
    OutputError : ``out`` cannot be written.
    """
    watch = watch or Watch()
    require_half(resources)
    require_one_machine(resources, "references are made")
    _require_folders(lot, calibrate)
    bundle, settings = opened(bundle, settings, watch)
    earlier = open_reference(base) if isinstance(base, str | os.PathLike) else base
    if earlier:
        m = earlier.manifest
        settings = ScoreSettings(
            m.degrees, m.interval, by=m.by, burn_out=m.burn_out, window=m.window, tiles=m.tiles
        )
        roi = _masks_of_more(reading, earlier) if m.masks else m.region
        reading = ReadOptions(m.bit_depth, m.max_pixels, roi, m.mask_background)
        options = replace(options, precision=m.precision, patches=m.patches / (m.grid[0] * m.grid[1]))
    _require_possible(settings, options, reading)
    with Run(bundle, replace(settings, group_size=None), resources, watch) as run, ExitStack() as stack:
        run.planner = replace(run.planner, tokens_needed=True)
        if earlier:
            earlier.require(run.bundle)
        ours = NAMES | {layer_file(k) for k in run.bundle.manifest.layers} | names_in(Path(out))
        if settings.tiles:  # the ViT describes the tiles of one position after the other
            stack.enter_context(run.vit())
        # Before any work: what is in the way is told at once.
        with new_folder(Path(out), overwrite, MANIFEST, ours) as folder:
            with run.vit():
                pool, held = _extract(
                    run, lot, reading, 0 if calibrate is not None else options.hold_out, earlier
                )
                if calibrate is not None:
                    same = replace(
                        reading,
                        bit_depth=pool.survey.bit_depth,
                        max_pixels=pool.survey.max_pixels,
                        roi=reading.roi if _is_folder(reading.roi) else _region_of(pool.survey, run),
                    )
                    _, held = _extract(run, calibrate, same, 1, earlier)
            share, level, raw = _position(run, pool, options, earlier)
            chosen = choose(run, pool, options.images, options.suspects, earlier, raw)
            how = _how(chosen, held, options, other_lot=calibrate is not None) | {"position_median": share}
            _write(folder, run, chosen, held, options, how, level)
    return open_reference(out)


def pool_compared(settings: ScoreSettings, options: ReferenceOptions, images: int, *, calibrate: bool) -> int:
    """Return how many of a lot's images will be compared with each other, each with all; 0 if none will.

    ``calibrate`` says whether another lot is calibrated by, so that no image is held out.
    """
    if settings.by == RESIDUAL:
        return 0
    pool = images if calibrate else images - len(held_out(images, options.hold_out))
    by_median = settings.position_median != 0
    if settings.position_median == AUTO:
        by_median = pool >= LEAST_IMAGES
    return pool if by_median or options.share_of_suspects else 0


def _position(
    run: Run, pool: Part, options: ReferenceOptions, earlier: ReferenceFolder | None
) -> tuple[float, FloatArray | None, Array | None]:
    """Return the share of each position's median, the level (Gh,Gw) it makes, and the pool's raw scores (n,).

    The images that are held out have no part in it.  Raw scores are None where nobody needs them.
    """
    settings = run.settings
    if settings.position_median == AUTO and len(pool.images) < LEAST_IMAGES:
        settings = replace(settings, position_median=0.0)
    if not (settings.position_median or options.share_of_suspects):
        share = earlier.manifest.options.get("position_median", 0.0) if earlier else 0.0
        return share, earlier.level if earlier else None, None
    maps = pool.maps(run)
    settings = settled(settings, maps)
    level = earlier.level if earlier else position_level(maps, settings.position_median)
    share = earlier.manifest.options.get("position_median", 0.0) if earlier else settings.position_median
    above = maps if level is None else maps - level
    raw = raw_scores(above, map_size(above.shape, run.bundle.manifest), run.resources.workers)
    return float(share), level, raw


def _require_possible(settings: ScoreSettings, options: ReferenceOptions, reading: ReadOptions) -> None:
    """Raise LotError for what a reference cannot have."""
    whole = ReferenceOptions()
    if settings.by == RESIDUAL and (options.images, options.patches, options.precision) != (
        whole.images,
        whole.patches,
        whole.precision,
    ):
        raise LotError(meaningless("a choice of images, patches or precision"))
    if settings.window is not None and options.patches < 1:
        raise LotError(
            f"a window of {settings.window} patches with a share of {options.patches:g} of each image's "
            "patches is not made: make the reference without --patches, or without --window."
        )
    if settings.tiles and settings.tiles.free:
        raise LotError(
            f"{settings.tiles}: a reference keeps a bank for each place, so tiles of any place are not made. "
            "Leave --tiles-free out."
        )
    if settings.tiles and (reading.roi is not None or reading.mask_background):
        raise LotError(
            f"{settings.tiles} with a region of interest: such a reference is not made. Leave --tiles out, "
            "or the region."
        )


def _is_folder(roi: RoiOption | None) -> bool:
    """Return whether a region is a folder of masks."""
    return isinstance(roi, str | os.PathLike) and Path(roi).is_dir()


def _masks_of_more(reading: ReadOptions, earlier: ReferenceFolder) -> RoiOption | None:
    """Return the folder of masks of the images that are added; LotError if none is given."""
    if not _is_folder(reading.roi):
        raise LotError(
            f"the images of {earlier.root} had a mask each, so those that are added need theirs: give their "
            "folder by --roi."
        )
    return reading.roi


def _region_of(survey: Survey, run: Run) -> PatchRegion | None:
    """Return the region that all images of a lot have, None for masks; LotError if their sizes differ."""
    if survey.roi is None or isinstance(survey.roi, PatchRegion):
        return survey.roi
    if _is_folder(survey.roi):
        return None
    sizes = {(header.width, header.height) for header in survey.headers.values()}
    if len(sizes) > 1:
        raise LotError(
            f"a reference with a region of interest takes images of one size, and these have {len(sizes)}, "
            f"such as {' and '.join('{} x {}'.format(*size) for size in sorted(sizes)[:2])} pixels."
        )
    first = replace(survey, images=survey.images[:1], mask_background=None)
    found = patches_inside(first, run.method.grid, 1)
    return PatchRegion(sizes.pop(), found.patches.reshape(run.method.grid)) if found else None


def _extract(
    run: Run,
    lot: str | os.PathLike[str] | Sequence[LotImage],
    reading: ReadOptions,
    share: float,
    earlier: ReferenceFolder | None,
) -> tuple[Part, Part]:
    """Let the ViT describe a lot: the images for the bank, and the ``share`` of them that is held out."""
    survey = survey_files(lot, run.resources, reading, run.watch)
    outside = held_out(len(survey.images), share)
    inside = np.setdiff1d(np.arange(len(survey.images)), outside)
    if share < 1 and not earlier:
        require_enough(len(inside) + 1, survey.skipped, run.settings)
    # The images that are held out come last, so that both parts are runs of rows.
    order = tuple(survey.images[i] for i in (*inside, *outside))
    ordered = replace(survey, images=order)
    layout = run.planner.layout(ordered)
    cut = Cut(run, ordered, layout) if layout else None
    features = cut.whole if cut else run.extract(ordered)
    apart = {survey.images[i].name for i in outside}
    first = sum(image.name not in apart for image in features.images)
    return Part(features, survey, 0, first, cut), Part(features, survey, first, len(features.images), cut)


# ---- writing ---------------------------------------------------------------------------------


def _write(
    folder: Path,
    run: Run,
    chosen: Chosen,
    held: Part,
    options: ReferenceOptions,
    how: dict[str, Any],
    level: FloatArray | None,
) -> None:
    """Write a reference into ``folder``: first the bank, then what is measured against it."""
    manifest = _manifest(run, chosen, options)
    shapes, earlier = manifest.shapes(), chosen.earlier
    none = np.empty((0, manifest.cls_width), np.float32), np.empty((0, 2))
    cls, looks = (earlier.cls, earlier.looks) if earlier else none
    before = read_thumbnails(earlier) if earlier else np.empty((0, *shapes[THUMBNAILS][1][1:]), np.uint8)
    files: dict[str, str] = {}
    if manifest.excludes:
        files[INSIDE] = write_inside(folder, manifest, chosen)
    new_looks, thumbnails = chosen.pool.looks(run)
    cls, looks = chosen.gather(cls, chosen.pool.cls), chosen.gather(looks, new_looks)
    pictures = chosen.gather(before, thumbnails)
    files[THUMBNAILS] = write_array(folder / THUMBNAILS, *shapes[THUMBNAILS], [pictures])
    files[CLS] = write_array(folder / CLS, *shapes[CLS], [cls])
    files[LOOKS] = write_array(folder / LOOKS, *shapes[LOOKS], [looks])
    reference = ReferenceFolder(folder, replace(manifest, files=files), "", cls, looks, np.empty(0))
    tiles = []
    for number, part in enumerate(manifest.parts):
        bank = replace(chosen, pool=chosen.pool.tile(number))
        if manifest.by == RESIDUAL:
            files.update(write_common(folder, manifest, bank, run, part))
        else:
            files.update(write_bank(folder, manifest, bank, part))
        tiles.append(score_part(reference, held.tile(number), run, part))
    maps = stitch(np.stack(tiles), manifest.layout) if manifest.tiles else tiles[0]
    manifest = replace(manifest, files=files)
    above = maps if level is None else maps - level
    raw = raw_scores(above, map_size(above.shape, run.bundle.manifest), run.resources.workers)
    if level is not None:
        files[LEVEL] = write_array(folder / LEVEL, "<f4", manifest.map_grid, [level])
    manifest = replace(manifest, calibration=tuple(image.name for image in held.images))
    if len(raw):
        scale = lot_scale(maps, raw if level is None else maps)
        manifest = replace(manifest, scale=(scale.low, scale.high))
    files[CALIBRATION] = write_array(folder / CALIBRATION, *manifest.shapes()[CALIBRATION], [raw])
    write_manifest(folder, replace(manifest, files=files, options=how))


def score_part(reference: ReferenceFolder, part: Part, run: Run, name: str) -> FloatArray:
    """Return the maps (n,Gh,Gw) of a part's images against the bank of ``reference`` with this ``name``."""
    threads = run.resources.workers
    maps = np.empty((len(part.images), *reference.manifest.grid), np.float32)
    layers = range(len(reference.manifest.layers))
    row: ImageScorer
    with run.watch.timer.stage("calibrate"), one_thread_per_product(threads), ExitStack() as stack:
        if reference.manifest.by == RESIDUAL:
            row = stack.enter_context(open_common(reference, run.resources, name))
        else:
            row = stack.enter_context(RowScorer(open_bank(reference, run.resources, name), threads))
        for i in range(len(maps)):
            maps[i] = row.score([part.tokens(layer, i) for layer in layers], part.inside(i))
            run.watch.progress("calibrate", i + 1, len(maps), "images")
    return maps


def _manifest(run: Run, chosen: Chosen, options: ReferenceOptions) -> ReferenceManifest:
    """Describe a reference whose files are still to be written."""
    m, b, survey = run.method, run.bundle.manifest, chosen.pool.survey
    names = chosen.names()
    facts = run.facts(chosen.pool.features)
    region = _region_of(survey, run)
    return ReferenceManifest(
        format=FORMAT,
        schema_version=SCHEMA_VERSION,
        bundle=run.bundle.digest,
        backbone=b.backbone,
        grid=m.grid,
        layers=b.layers,
        token_width=b.token_width,
        cls_width=b.cls_width,
        degrees=m.degrees,
        interval=m.interval,
        bit_depth=survey.bit_depth,
        max_pixels=survey.max_pixels,
        patches=max(1, round(options.patches * b.patches)),
        precision=options.precision,
        images=names[: chosen.images],
        others=names[chosen.images :],
        calibration=(),
        scale=(0.0, 1.0),
        options={},
        files={},
        made_with={
            "musc-edge": __version__,
            "python": platform.python_version(),
            "ViT": facts.computed_by[0],
        },
        burn_out=m.burn_out,
        window=m.near,
        roi=StoredRegion.of(region) if region else None,
        mask_background=survey.mask_background,
        by=m.by,
        masks=_is_folder(survey.roi),
        tiles=run.settings.tiles,
        tiles_of=_size_of(survey) if run.settings.tiles and run.settings.tiles.in_pixels else None,
    )


def _size_of(survey: Survey) -> tuple[int, int]:
    """Width and height of the images of a lot that have one size."""
    header = survey.headers[survey.images[0].name]
    return header.width, header.height


def _how(chosen: Chosen, held: Part, options: ReferenceOptions, *, other_lot: bool) -> dict[str, Any]:
    """Say how a reference was made."""
    skipped = {image.name for part in (chosen.pool, held) for image in part.features.skipped}
    return {
        "calibrated_by": "another lot" if other_lot else "images held out",
        "hold_out": 0.0 if other_lot else options.hold_out,
        "suspects_left_out": len(chosen.pool.images) - len(chosen.accepted),
        "images_asked_for": options.images,
        "skipped": sorted(skipped),
        "base": chosen.earlier.digest if chosen.earlier else None,
    }
