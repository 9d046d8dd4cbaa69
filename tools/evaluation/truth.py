"""What is known of a lot's images: which are good, which kind of defect the others have, and their masks.

Two kinds of source: folders that are laid out as those of a public data set, or a table.

    layout   good images in          masks                                    a mask's pixels that count
    mvtec    good/                   ground_truth/<kind>/<stem>_mask.png      wholly inside, at the map's size
    mvtec2   good/                   ground_truth/bad/<stem>_mask.png         wholly inside
    btad     ok/                     ground_truth/ko/<stem>.png or .bmp       wholly inside
    visa     Normal/ or good/        Masks/Anomaly/<stem>.png                 any part inside
    folder   good/, ok/ or normal/   <kind>/<stem>[_mask].*                   wholly inside
    csv      label 0, good, ...      the column mask                          wholly inside

The two rules for pixels are the authors': they resize the mask bilinearly and take what is 1 (MVTec AD,
BTAD) or what is above 0 (VisA).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..._files import read_regular
from ...runtime.errors import LotError
from ...runtime.images.kinds import IMAGE_SUFFIXES
from ...runtime.images.reading import ImageError, read_image
from ...runtime.types import Array

_GOOD = {
    "mvtec": {"good"}, "mvtec2": {"good"}, "btad": {"ok"}, "visa": {"normal", "good"},
    "folder": {"good", "ok", "normal"},
}  # fmt: skip
_GOOD_LABELS = {"0", "good", "ok", "normal", "false"}
_DEFECT_LABELS = {"1", "true"}
_STRUCTURE = {"test", "test_public", "ground_truth", "data", "images", "masks", "train", "validation"}
"""Folders that only say what a data set keeps there; the rest of a path an image and its mask share."""
_OF_IMAGES, _OF_MASKS = {"test", "test_public", "train", "images"}, {"ground_truth", "masks"}
_FEW = 32  # a mask with no value above it numbers its kinds of defect
_TABLE_BYTES = 1 << 28
_NAMED = 5


@dataclass(frozen=True)
class Known:
    """What is known of one image: ``kind`` is empty for a good one, ``mask`` None where there is none."""

    kind: str
    mask: Path | None = None

    @property
    def defective(self) -> bool:
        """Whether the image shows a defect."""
        return bool(self.kind)


@dataclass(frozen=True)
class Truth:
    """What is known of a lot: ``images`` by name, and ``remarks`` on what could not be matched."""

    layout: str
    images: dict[str, Known]
    remarks: list[str] = field(default_factory=list)

    @property
    def has_masks(self) -> bool:
        """Whether any image has a mask."""
        return any(known.mask for known in self.images.values())

    def mask(self, name: str, size: tuple[int, int]) -> Array:
        """Read the mask of an image at the size (H,W) of its map: bool; nothing for a good image.

        Raises
        ------
        LotError
            If the file cannot be read.
        """
        path = self.images[name].mask
        if path is None:
            return np.zeros(size, bool)
        try:
            values = np.asarray(read_image(path).convert("L"))
        except ImageError as error:
            raise LotError(f"the mask {path} cannot be read: {error}.") from error
        inside = values > (0 if self.layout == "visa" or values.max() < _FEW else 127)
        picture = Image.fromarray(inside.astype(np.uint8) * 255)
        resized = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        return resized > 0 if self.layout == "visa" else resized == 255


def find_truth(source: Path, layout: str, lot: Path, names: Sequence[str]) -> Truth:
    """Find out what is known of the images ``names`` of the folder ``lot``.

    Parameters
    ----------
    source : the folder of masks, or a folder around it; with the layout "csv", the table.
    layout : one of ``choices.LAYOUTS``.
    lot : the lot's folder; the last parts of its path tell apart products with equal names inside.

    Raises
    ------
    LotError
        If the source cannot be read, or says nothing of any image.
    """
    if layout == "csv":
        return _from_table(source, names)
    if not source.is_dir():
        raise LotError(
            f"{source} is no folder: give the folder that holds the masks, or --layout csv and a table."
        )
    masks = _index(source)
    images, remarks = {}, []
    for name in names:
        parent = PurePosixPath(name).parent.name or lot.name
        kind = "" if parent.lower() in _GOOD[layout] else parent
        images[name] = Known(
            kind, _mask_of([*lot.parts, *PurePosixPath(name).parts], masks) if kind else None
        )
    lacking = [name for name, known in images.items() if known.defective and not known.mask]
    if lacking:
        remarks.append(_listed("defective images have no mask", lacking, len(images)))
    return Truth(layout, images, remarks)


def _index(folder: Path) -> dict[tuple[str, ...], Path]:
    """Find all masks below a folder, by what they share with their image.

    Raises
    ------
    LotError
        If two of them cannot be told apart.
    """
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        parts = path.relative_to(folder).parts
        if _is_image({part.lower() for part in parts[:-1]}):
            continue
        key = _shared(parts)
        if key in found:
            raise LotError(f"two masks for one image: {found[key]} and {path}. Keep one of them.")
        found[key] = path
    return found


def _is_image(folders: set[str]) -> bool:
    """Return whether a file in these folders of a data set is an image, not a mask."""
    return bool(folders & _OF_IMAGES) and not folders & _OF_MASKS


def _mask_of(parts: Sequence[str], masks: dict[tuple[str, ...], Path]) -> Path | None:
    """Return the mask whose path is the end of the image's, the longest such; None if there is none."""
    shared = _shared(parts)
    return next((masks[shared[k:]] for k in range(len(shared)) if shared[k:] in masks), None)


def _shared(parts: Sequence[str]) -> tuple[str, ...]:
    """The parts of a path that an image and its mask have in common."""
    folders = [part for part in parts[:-1] if part.lower() not in _STRUCTURE]
    return (*folders, PurePosixPath(parts[-1]).stem.removesuffix("_mask"))


# ---- a table -------------------------------------------------------------------------------------


def _from_table(source: Path, names: Sequence[str]) -> Truth:
    """Read a table with the columns image, label and, if wanted, mask and kind."""
    try:
        text = read_regular(source, _TABLE_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LotError(f"{source} cannot be read as a table: {error}.") from error
    if not {"image", "label"} <= set(columns):
        raise LotError(
            f"{source} has the columns {', '.join(columns) or 'of no name'}; expected image and label, "
            "and if you have them mask and kind."
        )
    known = {row["image"] or "": _known(source, row, number) for number, row in enumerate(rows, 2)}
    by_tail = _tails(known)
    images = {name: known[key] for name in names if (key := _find(name, known, by_tail)) is not None}
    if not images:
        raise LotError(
            f"{source} names none of the images, such as {names[0] if names else 'none'}; its first is "
            f"{next(iter(known), 'none')}."
        )
    unknown = [name for name in names if name not in images]
    remarks = (
        [_listed("images are not in the table and are left out", unknown, len(names))] if unknown else []
    )
    return Truth("csv", images, remarks)


def _known(source: Path, row: dict[str, str | None], number: int) -> Known:
    label, mask = (row["label"] or "").strip(), (row.get("mask") or "").strip()
    if not label or (label.replace(".", "").isdigit() and label not in ("0", "1")):
        raise LotError(
            f"{source}, line {number}: label {label!r}; expected 0 or 1, good, or the name of a defect."
        )
    if label.lower() in _GOOD_LABELS:
        return Known("")
    kind = (row.get("kind") or "").strip() or ("defect" if label.lower() in _DEFECT_LABELS else label)
    return Known(kind, source.parent / mask if mask else None)


def _tails(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their last part."""
    tails: dict[str, list[str]] = {}
    for name in names:
        tails.setdefault(PurePosixPath(name).name, []).append(name)
    return tails


def _find(name: str, known: dict[str, Known], by_tail: dict[str, list[str]]) -> str | None:
    """Find the row of an image: by its whole name, or the only one that ends like it."""
    if name in known:
        return name
    ends = [
        other
        for other in by_tail.get(PurePosixPath(name).name, [])
        if f"/{other}".endswith(f"/{name}") or f"/{name}".endswith(f"/{other}")
    ]
    return ends[0] if len(ends) == 1 else None


def _listed(what: str, names: Sequence[str], total: int) -> str:
    """Format a remark on some of an evaluation's images."""
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names)} of {total} {what}: {', '.join(names[:_NAMED])}{more}"
