"""The content of a reference's manifest.json, and what is checked of it before anything else is read."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..._json import from_json, parse_json, shortly
from ..errors import LotError, ReferenceFolderError
from ..images.reading import BIT_DEPTHS
from ..images.roi import PatchRegion
from ..scoring.interval import smallest_lot
from ..scoring.method import Method
from ..settings import PAIRS, RESIDUAL
from ..tiling import WHOLE, Layout, Tiles, layout_of
from .looks import THUMBNAIL

SCHEMA_VERSION = 3
_ADDED = {
    **{"burn_out": False, "window": None, "roi": None, "mask_background": None},
    **{"by": PAIRS, "masks": False, "tiles": None, "tiles_of": None},
}
"""What later schemas added, beside level.npy of schema 2, and what it means where a field is not there."""
_SINCE = {"by": 3, "masks": 3, "tiles": 3, "tiles_of": 3}
"""The schema of those that schema 2 has not."""

MANIFEST = "manifest.json"
FORMAT = "musc-edge reference"
CLS, LOOKS, CALIBRATION, LENGTHS, HOLLOW, THUMBNAILS, LEVEL, INSIDE, COUNTS, MOMENTS = (
    f"{name}.npy"
    for name in (
        *("cls", "looks", "calibration", "lengths", "hollow", "thumbnails", "level", "inside"),
        *("counts", "moments"),
    )
)
DTYPES = {"float32": "<f4", "float16": "<f2"}
AGAIN = "Make the reference again, or copy it again."

_LARGEST_SIDE = 1 << 14
_LARGEST_SIZE = 1 << 20
_MOST_IMAGES = 1 << 20
_MOST_LAYERS = 1 << 10
_LARGEST = 1 << 42
"""Bytes of all tokens; how many are read is up to the memory budget."""
_LARGEST_TABLE = 1 << 28
"""Numbers in the CLS embeddings: 1 GB, a million images of the usual width."""


@dataclass(frozen=True)
class StoredRegion:
    """A region of interest: images of ``size`` (width, height), and the base64 of the patches' bits."""

    size: tuple[int, int]
    patches: str

    @classmethod
    def of(cls, region: PatchRegion) -> StoredRegion:
        """Return what is stored of a region."""
        return cls(region.size, b64encode(np.packbits(region.patches).tobytes()).decode("ascii"))

    def region(self, grid: tuple[int, int]) -> PatchRegion:
        """Return the region; ValueError if it is none of this grid."""
        packed, count = b64decode(self.patches, validate=True), grid[0] * grid[1]
        if len(packed) != (count + 7) // 8:
            raise ValueError(f"the region has {len(packed)} bytes for a grid of {grid[0]} x {grid[1]}")
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)
        if not bits.any():
            raise ValueError("the region has no patch")
        return PatchRegion(self.size, bits.reshape(grid))


@dataclass(frozen=True)
class ReferenceManifest:
    """What manifest.json says (format: docs/reference.md).

    The bank's images are ``images``; ``others`` were accepted too, but only their CLS embeddings and looks
    are kept; ``calibration`` are the images that the scores in calibration.npy belong to.  ``patches`` of
    each image are kept, all P of them or fewer, in ``precision``.  ``scale`` are the distances of an
    overlay's colours.  ``by`` is what a patch is scored by: pairs of images, or the residual of them all.
    ``masks`` says that each image had a mask of its own.  With ``tiles`` there is a bank for each position;
    where these lie by pixels, in images of the size (W,H) ``tiles_of``.
    """

    format: str
    schema_version: int
    bundle: str
    backbone: str
    grid: tuple[int, int]
    layers: tuple[int, ...]
    token_width: int
    cls_width: int
    degrees: tuple[int, ...]
    interval: tuple[float, float]
    bit_depth: int
    max_pixels: int
    patches: int
    precision: str
    images: tuple[str, ...]
    others: tuple[str, ...]
    calibration: tuple[str, ...]
    scale: tuple[float, float]
    options: dict[str, Any]
    files: dict[str, str]
    made_with: dict[str, str]
    burn_out: bool
    window: int | None
    roi: StoredRegion | None
    mask_background: str | None
    by: str
    masks: bool
    tiles: Tiles | None
    tiles_of: tuple[int, int] | None

    @property
    def region(self) -> PatchRegion | None:
        """The region of interest, which images that are checked have too."""
        return self.roi.region(self.grid) if self.roi else None

    @property
    def excludes(self) -> bool:
        """Whether some patches of the bank's images are excluded."""
        return self.roi is not None or self.mask_background is not None or self.masks

    @property
    def whole(self) -> bool:
        """Whether all patches of the bank's images are kept."""
        return self.patches == self.grid[0] * self.grid[1]

    @property
    def method(self) -> Method:
        """The parameters that the bank was made with."""
        return Method(
            self.grid, self.degrees, self.interval, by=self.by, burn_out=self.burn_out, near=self.window
        )

    @property
    def layout(self) -> Layout:
        """Where the tiles lie, if there are any: else the whole image is one."""
        if self.tiles is None:
            return WHOLE
        return layout_of(self.tiles, [self.tiles_of] if self.tiles_of else [])

    @property
    def map_grid(self) -> tuple[int, int]:
        """Rows and columns of a map."""
        return self.layout.grid(self.grid) if self.tiles else self.grid

    @property
    def parts(self) -> list[str]:
        """How the names of the files of each bank begin: one for each tile, or one of whole images."""
        if self.tiles is None:
            return [""]
        return [f"tile_{number + 1}_" for number in range(len(self.layout.positions))]

    def _bank_shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of the array in every file of a bank."""
        S, M, R, P = len(self.layers), len(self.images), len(self.degrees), self.grid[0] * self.grid[1]
        C = self.token_width
        image: tuple[int, ...]
        if self.by == RESIDUAL:
            image, measures = (R, C + 1), {COUNTS: ("<i8", (S, R, 2)), MOMENTS: ("<f8", (S, R, C + 1, C))}
        elif self.whole:
            image, measures = (M, P), {LENGTHS: ("<f4", (S, M, R, P))}
        else:
            image, measures = (R, self.patches, M), {HOLLOW: ("|u1", (S, M, R))}
        return {
            **{layer_file(k): (DTYPES[self.precision], (*image, C)) for k in self.layers},
            **measures,
        }

    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of the array in every file of the reference."""
        M, P = len(self.images), self.grid[0] * self.grid[1]
        accepted = M + len(self.others)
        bank = self._bank_shapes()
        return {
            **{f"{part}{name}": shape for part in self.parts for name, shape in bank.items()},
            **({INSIDE: ("|u1", (M, P))} if self.excludes else {}),
            CLS: ("<f4", (accepted, self.cls_width)),
            LOOKS: ("<f8", (accepted, 2)),
            CALIBRATION: ("<f8", (len(self.calibration),)),
            THUMBNAILS: ("|u1", (accepted, THUMBNAIL, THUMBNAIL, 3)),
            **({LEVEL: ("<f4", self.map_grid)} if LEVEL in self.files else {}),
        }

    @property
    def bank_bytes(self) -> int:
        """Memory that the bank takes, in float32."""
        S, M, R, P = len(self.layers), len(self.images), len(self.degrees), self.grid[0] * self.grid[1]
        if self.by == RESIDUAL:
            return len(self.parts) * 4 * S * R * (self.token_width + 1) * self.token_width
        each = P * self.token_width + R * P if self.whole else R * self.patches * self.token_width
        return len(self.parts) * 4 * S * M * each


def layer_file(layer: int) -> str:
    """Name of the file with the bank's tokens of one layer."""
    return f"layer_{layer}.npy"


def manifest_facts(manifest: ReferenceManifest) -> dict[str, Any]:
    """Return the content of manifest.json: of the earliest schema that says all."""
    facts = asdict(manifest)
    used = {name for name, absent in _ADDED.items() if facts[name] != absent}
    needed = {_SINCE.get(name, 2) for name in used}
    if LEVEL in manifest.files:  # which schema 1 would take for damage
        needed.add(2)
    return {name: value for name, value in facts.items() if name not in _ADDED or name in used} | {
        "schema_version": max(needed, default=1)
    }


def parse_manifest(text: bytes, folder: object) -> ReferenceManifest:
    """Parse manifest.json of the reference ``folder``; ReferenceFolderError if it is not usable."""
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ReferenceFolderError(f"{folder}/{MANIFEST} is not JSON ({error}). {AGAIN}") from error
    # Before everything else: a bundle has a manifest of the same name, and a newer schema other fields.
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ReferenceFolderError(
            f"{folder} is no reference: {MANIFEST} has format {shortly(found)}, expected {FORMAT!r}. Make "
            "one with: musc-edge reference LOT_DIR -o REF"
        )
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ReferenceFolderError(
            f"{folder} has schema version {shortly(version)}; this musc-edge reads {SCHEMA_VERSION}. "
            "Upgrade musc-edge."
        )
    try:
        manifest: ReferenceManifest = from_json(ReferenceManifest, {**_ADDED, **data}, "manifest")
        _check(manifest)
    except (ValueError, LotError) as error:
        raise ReferenceFolderError(f"{folder}/{MANIFEST}: {error}. {AGAIN}") from error
    return manifest


def _check(m: ReferenceManifest) -> None:
    """Raise ValueError or LotError if fields are impossible or contradict each other."""
    if not 1 <= m.schema_version <= SCHEMA_VERSION:
        raise ValueError(f"schema_version {shortly(m.schema_version)} was never used")
    _check_choices(m)
    sides = (*m.grid, m.token_width, m.cls_width)
    if min(sides) < 1 or max(sides) > _LARGEST_SIDE:
        raise ValueError(f"grid and widths {shortly(sides)}: expected 1 to {_LARGEST_SIDE}")
    layers = m.layers
    if not layers or len(set(layers)) < len(layers) or len(layers) > _MOST_LAYERS or min(layers) < 0:
        raise ValueError(f"layers {shortly(layers)}: expected different numbers from 0")
    if max(layers) > _LARGEST_SIDE or len(set(m.degrees)) < len(m.degrees):
        raise ValueError(f"layers {shortly(layers)}, degrees {shortly(m.degrees)}: too large, or one twice")
    least, most = smallest_lot(m.method.interval) - 1, max(len(m.images), len(m.others), len(m.calibration))
    if len(m.images) < least or most > _MOST_IMAGES:
        raise ValueError(f"{len(m.images)} images: expected {least} to {_MOST_IMAGES}")
    if not 1 <= m.patches <= m.grid[0] * m.grid[1]:
        raise ValueError(f"patches {shortly(m.patches)}: expected 1 to {m.grid[0] * m.grid[1]}")
    if m.precision not in DTYPES or m.bit_depth not in BIT_DEPTHS or m.max_pixels < 1:
        raise ValueError(
            f"precision {shortly(m.precision)}, bit_depth {shortly(m.bit_depth)}, max_pixels "
            f"{shortly(m.max_pixels)}: expected {', '.join(DTYPES)}, one of {BIT_DEPTHS}, 1 or more"
        )
    if not m.scale[0] < m.scale[1]:
        raise ValueError(f"scale {m.scale}: expected two distances, the lower one first")
    accepted = (len(m.images) + len(m.others)) * m.cls_width
    if m.bank_bytes > _LARGEST or accepted > _LARGEST_TABLE:
        raise ValueError(
            f"tokens of {m.bank_bytes:,} bytes, {accepted:,} numbers of CLS embeddings: expected at most "
            f"{_LARGEST:,} and {_LARGEST_TABLE:,}"
        )
    if m.roi:
        m.roi.region(m.grid)
    if {*m.files, THUMBNAILS} != set(m.shapes()):
        raise ValueError(f"it lists the files {shortly(sorted(m.files))}, expected {sorted(m.shapes())}")


def _check_choices(m: ReferenceManifest) -> None:
    """Raise ValueError if choices of the method are unknown, or do not go together."""
    of_pairs = m.burn_out or m.window is not None or not m.whole or m.others
    if m.by not in (PAIRS, RESIDUAL) or (m.by == RESIDUAL and of_pairs):
        raise ValueError(f"by {shortly(m.by)}, with choices for {PAIRS} alone: not possible")
    if m.tiles and (m.excludes or m.tiles.free or m.tiles.in_pixels != (m.tiles_of is not None)):
        raise ValueError(f"{m.tiles} with a region, of any place, or without the images' size: not possible")
    if m.tiles_of and not 1 <= min(m.tiles_of) <= max(m.tiles_of) <= _LARGEST_SIZE:
        raise ValueError(f"images of {shortly(m.tiles_of)} pixels: expected sides up to {_LARGEST_SIZE}")
    if m.mask_background not in (None, "auto") or (m.window is not None and not m.whole):
        raise ValueError(f"mask_background {shortly(m.mask_background)}, window {m.window}: not possible")
