"""Split a lot into groups that are scored separately, one per subfolder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from ..._files import shown
from ..._numbers import too_few
from ..errors import LotError, TooFewImagesError
from ..types import LotImage, SkippedImage
from .image_files import fitting
from .lot_scores import Unscored
from .write import GROUPS

ROOT_GROUP = "."
TOO_FEW, FAILED = "too_few", "failed"
_LONGEST = 100  # bytes of the group's name that its results folder takes
_NAMED = 10  # folders that a line names


def group_by_folder(images: Sequence[LotImage]) -> dict[str, tuple[LotImage, ...]]:
    """Group images by the folder they lie in, relative to the lot; the lot's own folder is "."."""
    groups: dict[str, list[LotImage]] = {}
    for image in images:
        groups.setdefault(str(PurePosixPath(image.name).parent), []).append(image)
    return {name: tuple(members) for name, members in groups.items()}


def require_a_group(groups: dict[str, tuple[LotImage, ...]], least: int) -> None:
    """Raise LotError, with every folder's count, if all have fewer than ``least`` images."""
    if all(len(members) < least for members in groups.values()):
        listed = ", ".join(f"{shown(name)} ({len(members)})" for name, members in groups.items())
        raise LotError(
            f"{len(groups)} of {len(groups)} folders have fewer than {least} images: {listed}. "
            "Move their images, or score the lot as a whole."
        )


def require_size(members: Sequence[LotImage], least: int) -> None:
    """Raise TooFewImagesError if a group has fewer than ``least`` images."""
    if len(members) < least:
        raise TooFewImagesError(
            f"{too_few(len(members), 'image')}: a group needs at least {least} that can be read"
        )


def unscored(name: str, members: Iterable[LotImage], error: LotError) -> Unscored:
    """A group that could not be scored because of ``error``; unreadable images keep theirs."""
    few = isinstance(error, TooFewImagesError)
    status, reason = TOO_FEW if few else FAILED, str(error).splitlines()[0].rstrip(":")
    unread = {image.name: image for image in error.skipped} if isinstance(error, TooFewImagesError) else {}
    rows = [unread.get(image.name, SkippedImage(image.name, status, reason)) for image in members]
    return Unscored(name, status, reason, tuple(rows))


def spread(images: Iterable[LotImage]) -> str | None:
    """Where a lot's images lie, if in more than one of its top folders: they may be different products."""
    counts = Counter(name.parts[0] if len(name.parts) > 1 else ROOT_GROUP for name in _names(images))
    if len(counts) < 2:
        return None
    listed = [f"{shown(name)} {count}" for name, count in list(counts.items())[:_NAMED]]
    more = f", and {len(counts) - _NAMED} more" if len(counts) > _NAMED else ""
    return f"{len(counts)} folders: {', '.join(listed)}{more}"


def _names(images: Iterable[LotImage]) -> Iterable[PurePosixPath]:
    return (PurePosixPath(image.name) for image in images)


def results_folder(number: int, name: str) -> str:
    """Folder of a group's results, relative to those of the lot.

    The number keeps apart the names that are alike once slashes are replaced or the end is cut off.
    """
    plain = "lot" if name == ROOT_GROUP else name.replace("/", "_")
    return f"{GROUPS}/{number:02}_{fitting(plain, _LONGEST)}"
