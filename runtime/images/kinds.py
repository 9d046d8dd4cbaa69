"""What a file or folder is by its name: an image of the lot, or something else.

A product that is not scored must not go unsaid, and what other programs keep beside the images (thumbnails,
bins, backups) is not a product.  Folders are told by their exact names alone, so that no product's folder is
taken for one of those.  The names are those that the programs document or their users report; public scanners
of photo libraries (immich, PhotoPrism, Jellyfin) and of synchronised folders (Syncthing) leave out the same.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_USUAL = """apng avif avifs bmp dib gif heic heics heif heifs j2c j2k jfif jif jp2 jpc jpe jpeg jpf jpg jpm
jpx jxl mpo pam pbm pgm png pnm ppm tif tiff webp"""
_RARE = "dcm dds dicom exr fits fts hdp hdr jxr pcx pfm psb psd qoi ras sgi tga wdp xcf"
_RAW = "3fr arw cr2 cr3 crw dng erf iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


RAW_SUFFIXES = _suffixes(_RAW)
"""Raw files of cameras: many are TIFFs whose first picture is a small preview."""

IMAGE_SUFFIXES = _suffixes(_USUAL) | _suffixes(_RARE) | RAW_SUFFIXES
"""Endings of images.  Not all can be decoded, but each has a row in scores.csv."""

_MASTERS = RAW_SUFFIXES | _suffixes("psb psd xcf")
_NEVER_IMAGES = _suffixes("csv db htm html ini json log md npy npz py toml txt xml yaml yml")  # not opened

_CLOUD = _suffixes("cloud icloud nextcloud owncloud")
_UNFINISHED = _suffixes("bak crdownload download filepart old orig part partial sav swp temp tmp")
_PREVIEW = ".thm"  # a camera's preview of a film or a raw file: a JPEG

SIDE_FOLDERS = frozenset(
    {
        "@eaDir", "#recycle", "#snapshot", "@tmp",  # Synology
        "@Recycle", "@Recently-Snapshot", "@__thumb", ".@__thumb",  # QNAP
        "~snapshot", ".snapshot", ".snapshots", ".zfs",  # NetApp, Btrfs, ZFS
        "$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information",  # Windows
        "__MACOSX", ".Trashes", ".AppleDouble", "Network Trash Folder", "Temporary Items",  # macOS
        "lost+found", "LOST.DIR",  # Linux, Android
        ".Trash", ".recycle", ".thumbnails", ".xvpics", ".thumbs", "_vti_cnf",
        ".picasaoriginals", ".stversions", ".dropbox.cache",
    }
)  # fmt: skip
"""Exact names of folders in which other programs keep thumbnails, deleted files, snapshots and backups."""

_NUMBERED = re.compile(r"\.Trash-[0-9]+|FOUND\.[0-9]{3}")  # of a user, of a check of the disk


def suffix(name: str) -> str:
    """Ending of a file's name in lower case, with its dot; that of ``.png``, a hidden file, is empty."""
    return PurePosixPath(name).suffix.lower()


def is_side_folder(name: str) -> bool:
    """Return whether other programs keep thumbnails, deleted files or backups in a folder of this name."""
    return name in SIDE_FOLDERS or _NUMBERED.fullmatch(name) is not None


def is_side_file(name: str) -> bool:
    """Return whether a file of this name is what macOS or a camera keeps beside another."""
    return name.startswith("._") or suffix(name) == _PREVIEW


def looks_like_image(name: str) -> bool:
    """Return whether a file has an image's ending."""
    return suffix(name) in IMAGE_SUFFIXES or suffix(name) == _PREVIEW


def is_unfinished(name: str) -> bool:
    """Return whether a file of this name is a backup of an image, or one that is still being copied."""
    return name.endswith(("~", "_original")) or suffix(name) in _UNFINISHED


def is_placeholder(name: str) -> bool:
    """Return whether a file of this name stands for an image that a cloud folder has not downloaded."""
    return suffix(name) in _CLOUD and suffix(name[: name.rindex(".")]) in IMAGE_SUFFIXES


def is_master(name: str) -> bool:
    """Return whether an image of this name is usually kept beside the picture that was made of it."""
    return suffix(name) in _MASTERS


def may_be_image(name: str) -> bool:
    """Return whether a file without an image's ending is worth opening."""
    return suffix(name) not in _NEVER_IMAGES


def refusal(name: str) -> tuple[str, str] | None:
    """Status and reason of a file that must not be decoded because of its name; None for all others."""
    if suffix(name) in RAW_SUFFIXES:
        return "unsupported", (
            f"a camera's raw file ({suffix(name)}), of which only a preview could be read; "
            "develop all of the lot alike, to TIFF or PNG"
        )
    if is_placeholder(name):
        return "unreadable", "a placeholder of a cloud folder; let it download the image itself"
    return None
