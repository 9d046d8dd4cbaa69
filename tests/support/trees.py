"""Random folders as lots come: nested, with odd names, links, bins, hidden files and no images."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from support.places import DATA

_FOLDERS = (
    b"good", b"bad parts", b"caf\xe9", b"line\nbreak", b"-rf", b"a" * 200, "画像".encode(), b"set.png",
    b"eaDir", b"recycle", b"lost+found2", b"RECYCLED", b"trash", b"#recycle2",  # nearly bins
    b"@eaDir", b"#recycle", b"$RECYCLE.BIN", b"__MACOSX", b"lost+found", b".Trash-1000", b".thumbnails",
    b"System Volume Information", b".git", b".hidden", b"@Recently-Snapshot",
)  # fmt: skip
_OTHERS = (
    "notes.txt", "labels.json", "a.xml", "Thumbs.db", "desktop.ini", ".DS_Store", "README", "film.mp4",
    "x.npy", "no.png.txt", "png", "list",
)  # fmt: skip
_IMAGES = (
    "1.png",
    "2.PNG",
    "10.png",
    "x.jpg",
    "y.JPEG",
    "z.tif",
    "w.webp",
    "v.bmp",
    "caf\udce9.png",
    "p[1].png",
)
Make = Callable[[Path, random.Random], None]


def random_tree(root: Path, seed: int) -> None:
    """Fill ``root``, which is made: at least eight images that can be read, and all kinds of other things."""
    rng = random.Random(seed)
    folders = [root]
    root.mkdir()
    for number, image in enumerate(_lot()):
        shutil.copy(image, root / f"good {number}.png")
    for _ in range(rng.randint(4, 14)):
        folder = rng.choice(folders) / os.fsdecode(rng.choice(_FOLDERS))
        folder.mkdir(exist_ok=True)
        folders.append(folder)
    for folder in folders:
        for make in rng.sample(_KINDS, rng.randint(0, len(_KINDS))):
            make(folder, rng)
    for _ in range(rng.randint(0, 4)):
        link = rng.choice(folders) / f"link {rng.randint(0, 99)}"
        if not link.is_symlink():
            link.symlink_to(rng.choice(folders))


def files_of(root: Path) -> list[str]:
    """Everything below a folder that is no folder, links not followed, relative to it."""
    return [
        os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118 - as the search builds its names
        for folder, inner, names in os.walk(root)
        for name in [*names, *(each for each in inner if os.path.islink(os.path.join(folder, each)))]  # noqa: PTH114, PTH118
    ]


def _lot() -> Sequence[Path]:
    return sorted((DATA / "schema1/lot").iterdir())


def _put(folder: Path, name: str, content: bytes) -> None:
    if not (folder / name).exists() and not (folder / name).is_symlink():
        (folder / name).write_bytes(content)


def _an_image(rng: random.Random) -> bytes:
    return rng.choice(_lot()).read_bytes()


def _images(folder: Path, rng: random.Random) -> None:
    for name in rng.sample(_IMAGES, 3):
        _put(folder, name, _an_image(rng))


def _others(folder: Path, rng: random.Random) -> None:
    for name in rng.sample(_OTHERS, 4):
        _put(folder, name, rng.randbytes(20) if rng.random() < 0.5 else b"")


def _no_images_by_content(folder: Path, rng: random.Random) -> None:
    for name in ("empty.png", "text.jpg", "table.gif", "x.exr", "x.dcm"):
        _put(folder, name, rng.choice([b"", b"no image", b"<svg/>"]))


def _images_by_content(folder: Path, rng: random.Random) -> None:
    for name in ("scan", "scan.0001", "x.png~", "y.png.part", "z.jpg_original"):
        _put(folder, name, _an_image(rng))


def _hidden(folder: Path, rng: random.Random) -> None:
    for name in (".cell.png", "._cell.png", ".secret", ".far.jpg.icloud"):
        _put(folder, name, _an_image(rng))


def _raw(folder: Path, rng: random.Random) -> None:
    for name in ("1.cr2", "alone.NEF", "good 1.dng", "plan.psd"):
        _put(folder, name, rng.randbytes(30))


def _links(folder: Path, rng: random.Random) -> None:
    for name, target in (("gone.png", "nowhere"), ("self.png", "self.png"), ("gone", "nowhere")):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)


def _pipes(folder: Path, rng: random.Random) -> None:
    for name in ("pipe.png", "pipe"):
        if not (folder / name).exists():
            os.mkfifo(folder / name)


def _results(folder: Path, rng: random.Random) -> None:
    out = folder / "lot-musc"
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    marker = {"lot": "x", "images": 5, "skipped": [], "warnings": []}
    _put(out, "lot.json", json.dumps(marker).encode())
    for name in ("contact_sheet.png", "overlays/1.jpg", "scores.csv"):
        _put(out, name, _an_image(rng))


def _empty_folders(folder: Path, rng: random.Random) -> None:
    (folder / "nothing" / "at all").mkdir(parents=True, exist_ok=True)


_KINDS: tuple[Make, ...] = (
    _images, _images, _others, _no_images_by_content, _images_by_content, _hidden, _raw, _links, _pipes,
    _results, _empty_folders,
)  # fmt: skip
