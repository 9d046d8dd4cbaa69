"""Search a folder for images, and take note of all that is not one."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable

from ..._files import shown
from ..._numbers import counted
from ..errors import LotError
from .folder_tree import Entry, Tree
from .kinds import (
    is_master,
    is_placeholder,
    is_side_file,
    is_side_folder,
    is_unfinished,
    looks_like_image,
    may_be_image,
    suffix,
)
from .left_out import ASKED, HIDDEN, LINK, MASTER, OTHER, RESULTS, SIDE, UNFINISHED, LeftOut
from .patterns import Patterns


class Search:
    """A search of a tree: names relative to its root, with forward slashes, in no particular order.

    Attributes
    ----------
    found : names of images.
    by_content : those of them that have no image's ending.
    left_out : all other files, and folders that were not entered.
    remarks : what else the user should know.
    """

    def __init__(self, tree: Tree, include: Patterns, exclude: Patterns) -> None:
        self.include, self.exclude = include, exclude
        self.found: list[str] = []
        self.by_content: list[str] = []
        self.left_out: list[LeftOut] = []
        self.remarks: list[str] = []
        self._tree = tree

    def take(self, names: Iterable[str]) -> None:
        """Take the files of these names, each once; LotError if one leads out of the folder."""
        counts = Counter(map(self._tree.relative, names))
        repeated = [name for name, count in counts.items() if count > 1]
        self.remarks.append(
            f"the lot is a list of {counted(len(counts), 'name')}; what else is in the folder was not "
            "looked at"
        )
        if repeated:
            self.remarks.append(
                f"more than once in the list, and taken once: {counted(len(repeated), 'name')} "
                f"(first: {shown(repeated[0])})"
            )
        for name in counts:
            self._keep(name, self._asked_out(name))

    def walk(self) -> None:
        """Search every folder once, however many links lead to it, and by its own path if it has one.

        Links are followed when no other folder is left.  Waiting folders are kept in a list, since they may
        be nested deeper than Python can recurse.
        """
        seen: set[Hashable] = set()
        waiting, linked = [""], deque[str]()
        while waiting or linked:
            is_link = not waiting
            inside = linked.popleft() if is_link else waiting.pop()
            try:
                identity, entries = self._tree.identity(inside), self._tree.entries(inside)
            except OSError as error:
                raise LotError(
                    f"{self._tree.where(inside)} cannot be read: {error.strerror}. Check its permissions, "
                    "or leave it out with an exclude pattern."
                ) from error
            if identity in seen:
                self.left_out.append(LeftOut(f"{inside}/", LINK, 0))
            elif inside and self._tree.is_results(inside, entries):
                self._leave(inside, RESULTS, is_link)
            else:
                for entry in entries:
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    if not _is_folder(entry):
                        self._look(entry, name)
                    elif why := self._why_not_enter(entry.name, name):
                        self._leave(name, why, entry.is_symlink())
                    else:
                        (linked if entry.is_symlink() else waiting).append(name)
            seen.add(identity)
        self._leave_masters()

    def _why_not_enter(self, base: str, name: str) -> str | None:
        if self.exclude.match(name):
            return ASKED
        if is_side_folder(base):
            return SIDE
        return HIDDEN if base.startswith(".") else None

    def _look(self, entry: Entry, name: str) -> None:
        """Decide on a file, or what else is no folder."""
        asked_out = self._asked_out(name)
        if is_side_file(entry.name):
            self._leave_file(name, SIDE)
        elif is_placeholder(entry.name):
            self._keep(name, asked_out)
        elif entry.name.startswith("."):
            self._leave_file(name, HIDDEN)
        elif looks_like_image(name):
            self._keep(name, asked_out)
        elif not (may_be_image(name) and self._tree.starts_like_image(name)):
            self._leave_file(name, OTHER)
        elif is_unfinished(name):
            self._leave_file(name, UNFINISHED)
        else:
            self._keep(name, asked_out)
            self.by_content += [] if asked_out else [name]

    def _asked_out(self, name: str) -> bool:
        """Return whether the user's patterns leave out a file."""
        included = self.include.match(name) or not self.include
        return self.exclude.match(name) or not included

    def _keep(self, name: str, asked_out: bool) -> None:
        """Take an image, unless it was asked to be left out."""
        if asked_out:
            self._leave_file(name, ASKED)
        else:
            self.found.append(name)

    def _leave_file(self, name: str, why: str) -> None:
        self.left_out.append(LeftOut(name, why, 1, int(looks_like_image(name))))

    def _leave(self, name: str, why: str, is_link: bool) -> None:
        """Leave out a folder with all that is in it; what a link leads to is not counted."""
        self.left_out.append(LeftOut(f"{name}/", why, *((0, 0) if is_link else self._count(name))))

    def _count(self, name: str) -> tuple[int | None, int]:
        """Count files below a folder, and how many look like images; None if it is closed to us."""
        files = images = 0
        waiting = [name]
        while waiting:
            inside = waiting.pop()
            try:
                entries = self._tree.entries(inside)
            except OSError:
                return None, images
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{inside}/{entry.name}")
                    continue
                files, images = files + 1, images + looks_like_image(entry.name)
                self._asked_out(f"{inside}/{entry.name}")  # a pattern for what is left out anyway is of use
        return files, images

    def _leave_masters(self) -> None:
        """Leave out raw and working files beside the picture that was made of them."""
        pictures = {_stem(name) for name in self.found if not is_master(name)}
        masters = [name for name in self.found if is_master(name) and _stem(name) in pictures]
        if masters:
            gone = set(masters)
            self.found = [name for name in self.found if name not in gone]
            for name in masters:
                self._leave_file(name, MASTER)


def _is_folder(entry: Entry) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _stem(name: str) -> str:
    return name[: len(name) - len(suffix(name))].casefold()
