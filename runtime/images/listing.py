"""List the images of a lot: every image below a folder, in natural order, and what was left out of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from ..._files import shown
from ..._numbers import counted
from ..errors import LotError
from ..remote import RemoteFolder, is_url
from ..types import FilePath, LotImage, LotRoot
from .folder_tree import FolderTree
from .kinds import looks_like_image
from .left_out import ODD, LeftOut, notes_on
from .patterns import Patterns
from .remote_tree import RemoteTree
from .search import Search


@dataclass(frozen=True, eq=False)
class Listing(Sequence[LotImage]):
    """The images of a lot in natural order, a sequence of LotImage, with what was left out.

    Attributes
    ----------
    images : tuple of LotImage
        The files to be scored, or to be listed as not scored.
    left_out : tuple of LeftOut
        Files and folders below the lot's that are not among them, in natural order.
    remarks : tuple of str
        What else the user should know.
    """

    images: tuple[LotImage, ...]
    left_out: tuple[LeftOut, ...] = ()
    remarks: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> LotImage: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LotImage, ...]: ...
    def __getitem__(self, index: int | slice) -> LotImage | tuple[LotImage, ...]:
        return self.images[index]

    def __len__(self) -> int:
        return len(self.images)

    def notes(self) -> list[str]:
        """Remarks for the user, with what was left out by reason."""
        return [*self.remarks, *notes_on(self.left_out)]


def list_lot(
    root: str | os.PathLike[str] | RemoteFolder,
    out: str | os.PathLike[str] | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    names: Iterable[str] | None = None,
) -> Listing:
    """List the images below a folder, subfolders included, in natural order (2.png before 10.png).

    A file is an image by its ending, or else by its first bytes.  Hidden files and folders, those in which
    other programs keep thumbnails, deleted files and the like (``@eaDir``, ``$RECYCLE.BIN``), backups, and
    results of earlier runs are left out.  Linked folders are followed, but every folder is searched only
    once: an image that is listed twice would be its own nearest neighbor.

    Parameters
    ----------
    root : the lot's folder, or a URL such as s3://bucket/lot (docs/urls.md).
    out : folder for the results, which is left out if it is below ``root``.
    include : shell patterns on names relative to ``root``, with forward slashes; by default all images are
        taken.  A pattern without a slash is compared with every part of a name; one with a slash with the
        name from ``root`` on, part by part, and also takes what is below a folder that it matches.  ``*`` is
        any text in a part, ``**`` any number of parts, ``?`` any character, ``[ab]`` and ``[!ab]`` one of
        these and none of these.  Case counts.
    exclude : the same for files and folders that are left out; it goes before ``include``.
    names : files relative to ``root``.  Then these are the lot, whatever they are called, and the folder is
        not searched; a file that is not there is listed all the same, so that it is reported.

    Raises
    ------
    LotError
        If ``root`` is not a readable folder or URL, no image is below it, a pattern matches nothing, a name
        leads out of ``root``, or a ``lot.json`` is too large to tell whether it is ours.
    DeviceError
        If what reads the URL is not installed.
    """
    folder = lot_root(root)
    tree = RemoteTree(folder) if isinstance(folder, RemoteFolder) else _folder_tree(folder, out)
    search = Search(tree, Patterns(include), Patterns(exclude))
    if names is None:
        search.walk()
    else:
        search.take(names)
    _require_use(folder, search)
    if isinstance(tree, RemoteTree):
        search.left_out += [LeftOut(key, ODD, 1, int(looks_like_image(key))) for key in tree.odd]
    left_out = tuple(sorted(search.left_out, key=lambda entry: natural_key(entry.name)))
    if not search.found:
        raise LotError(_nothing(folder, left_out))
    found = sorted(search.found, key=natural_key)
    remarks = list(search.remarks)
    if search.by_content:
        first = min(search.by_content, key=natural_key)
        remarks.append(
            "images by their first bytes, not by their ending: "
            f"{counted(len(search.by_content), 'file')} of the lot (first: {shown(first)})"
        )
    return Listing(tuple(LotImage(name, file_at(folder, name)) for name in found), left_out, tuple(remarks))


def lot_root(given: str | os.PathLike[str] | RemoteFolder) -> LotRoot:
    """Tell a URL from a folder; LotError if a URL cannot be taken."""
    if isinstance(given, RemoteFolder):
        return given
    return RemoteFolder.of(given) if isinstance(given, str) and is_url(given) else Path(given)


def file_at(root: LotRoot, name: str) -> FilePath:
    """The file of this name below a lot's root."""
    return root.file(name) if isinstance(root, RemoteFolder) else root / name


def _folder_tree(folder: Path, out: str | os.PathLike[str] | None) -> FolderTree:
    if not folder.exists():
        raise LotError(f"there is no folder {folder}. Give the folder that holds the lot's images.")
    if not folder.is_dir():
        raise LotError(f"{folder} is a file, not a folder. Give the folder that holds the lot's images.")
    return FolderTree(folder, Path(out) if out else None)


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a sort key that orders runs of digits by value and everything else without case.

    The name itself comes last, so that names that differ only in case or leading zeros keep one order.
    """
    parts = re.split(r"([0-9]+)", name)
    # Triples of one kind, so that a number can be compared with a text: it comes first.
    key = tuple(
        (0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts if part
    )
    return key, name


def _require_use(folder: LotRoot, search: Search) -> None:
    """Raise LotError if a pattern has matched nothing: it is mistyped, or meant for another folder."""
    for what, patterns in (("include", search.include), ("exclude", search.exclude)):
        for pattern in patterns.unused():
            raise LotError(
                f"no file or folder below {folder} matches the pattern {pattern!r} of {what}. Patterns are "
                "compared with names relative to that folder, and case counts."
            )


def _nothing(folder: LotRoot, left_out: Sequence[LeftOut]) -> str:
    """The message for a folder without images."""
    said = "".join(f"\n  {note}" for note in notes_on(left_out))
    return f"no image was found below {folder}. Expected files such as a.png, b.jpg, c.tif or d.webp.{said}"
