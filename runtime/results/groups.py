"""Split a lot into groups that are scored separately, one per subfolder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from ..errors import LotError
from ..types import LotImage
from .image_files import fitting
from .write import GROUPS

ROOT_GROUP = "."
_LONGEST = 100  # bytes of the group's name that its results folder takes


def group_by_folder(images: Sequence[LotImage], least: int) -> dict[str, tuple[LotImage, ...]]:
    """Group images by the folder they lie in, relative to the lot; the lot's own folder is ".".

    Raises
    ------
    LotError
        If a folder has fewer than ``least`` images; the message names every such folder.
    """
    groups: dict[str, list[LotImage]] = {}
    for image in images:
        groups.setdefault(str(PurePosixPath(image.name).parent), []).append(image)
    small = {name: len(members) for name, members in groups.items() if len(members) < least}
    if small:
        listed = ", ".join(f"{name} ({count})" for name, count in small.items())
        raise LotError(
            f"{len(small)} of {len(groups)} folders have fewer than {least} images: {listed}. "
            "Move their images, or score the lot as a whole."
        )
    return {name: tuple(members) for name, members in groups.items()}


def results_folder(number: int, name: str) -> str:
    """Folder of a group's results, relative to those of the lot.

    The number keeps apart the names that are alike once slashes are replaced or the end is cut off.
    """
    plain = "lot" if name == ROOT_GROUP else name.replace("/", "_")
    return f"{GROUPS}/{number:02}_{fitting(plain, _LONGEST)}"
