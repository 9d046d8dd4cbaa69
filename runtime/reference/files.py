"""Open and write a reference: a folder that is written once and never changed.

    manifest.json       what it is, with the sha256 of every other file
    layer_<l>.npy       the bank: tokens (M,P,C) of whole images, or chosen patches (R,n,M,C) as unit vectors
    lengths.npy         (S,M,R,P), of the pooled tokens of whole images; with chosen patches
    hollow.npy          (S,M,R), whether an image has patches without content
    counts.npy, moments.npy  by residual, with other layers: residual_bank.py
    cls.npy, looks.npy  of all images that were accepted: CLS embeddings (N,D), brightness and sharpness (N,2)
    calibration.npy     (n,) raw scores of images outside of the bank
    inside.npy          (M,P), with a region of interest: which patches of the bank's images take part
    thumbnails.npy      (N,T,T,3) the accepted images, small, to be looked at; older references have none

Nothing in it is a pickle.  It may be a stranger's: every size is known from the manifest before a file is
read, and the bytes that are used are those that were hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ..._files import open_regular, read_regular
from ..._json import read_json
from ..errors import LotError, ReferenceFolderError
from ..memory import memory_left, size_text
from ..scoring.image_pairs import best_filter, load_filter
from ..scoring.row import PatchBank, WholeBank
from ..settings import ANYTHING, RESIDUAL, Resources
from ..store.npy import read_data, read_header
from ..types import Array, Bundle, FloatArray
from ..vit.hashes import sha256
from .manifest import (
    AGAIN,
    CALIBRATION,
    CLS,
    COUNTS,
    FORMAT,
    HOLLOW,
    INSIDE,
    LENGTHS,
    LEVEL,
    LOOKS,
    MANIFEST,
    MOMENTS,
    THUMBNAILS,
    ReferenceManifest,
    layer_file,
    manifest_facts,
    parse_manifest,
)

NAMES = frozenset(
    {MANIFEST, CLS, LOOKS, CALIBRATION, LENGTHS, HOLLOW, THUMBNAILS, LEVEL, INSIDE, COUNTS, MOMENTS}
)
"""What a reference holds beside its layers."""


@dataclass(frozen=True, eq=False)
class ReferenceFolder:
    """An opened reference, without its bank (``open_reference``).

    Attributes
    ----------
    root : path
        Its folder.
    manifest : ReferenceManifest
        What manifest.json says: bundle, settings, names of images, how it was made.
    digest : str
        Hex sha256 of manifest.json, which is the reference's identity.
    cls : ndarray of shape (N, D)
        CLS embeddings of all images that were accepted, first those of the bank.
    looks : ndarray of shape (N, 2)
        Their brightness and sharpness.
    calibration : ndarray of shape (n,)
        Raw scores of images outside of the bank, ascending.
    level : ndarray of shape (Gh, Gw), optional
        What is subtracted from every map before its maximum is taken; None: nothing.
    """

    root: Path
    manifest: ReferenceManifest
    digest: str
    cls: FloatArray
    looks: Array
    calibration: Array
    level: FloatArray | None = None

    def require(self, bundle: Bundle) -> None:
        """Raise ReferenceFolderError unless this was made with ``bundle``."""
        if self.manifest.bundle != bundle.digest:
            raise ReferenceFolderError(
                f"the reference {self.root} was made with another bundle ({self.manifest.backbone}, "
                f"{self.manifest.bundle[:12]}...) than {bundle.root} ({bundle.manifest.backbone}, "
                f"{bundle.digest[:12]}...): their tokens cannot be compared. Give its own with -b, or make a "
                "reference with this one."
            )
        m, b = self.manifest, bundle.manifest
        if (m.grid, m.layers, m.token_width, m.cls_width) != (b.grid, b.layers, b.token_width, b.cls_width):
            raise ReferenceFolderError(f"{self.root} and its bundle {bundle.root} do not fit. {AGAIN}")


def open_reference(root: str | os.PathLike[str]) -> ReferenceFolder:
    """Open a reference, the folder that ``musc-edge reference`` writes, and check all but its bank.

    Parameters
    ----------
    root : str or path
        The reference's folder.

    Returns
    -------
    ReferenceFolder

    Raises
    ------
    ReferenceFolderError
        If the folder, the manifest or a file is missing, malformed, changed, or of a newer schema.
    """
    folder = Path(root)
    try:
        text = read_regular(folder / MANIFEST)
    except OSError as error:
        raise ReferenceFolderError(
            f"{folder} is no reference: {MANIFEST}: {error.strerror}. Make one with: musc-edge reference "
            "LOT_DIR -o REF"
        ) from error
    manifest = parse_manifest(text, folder)
    cls, looks, calibration = (read_array(folder, manifest, name) for name in (CLS, LOOKS, CALIBRATION))
    level = read_array(folder, manifest, LEVEL) if LEVEL in manifest.files else None
    digest = hashlib.sha256(text).hexdigest()
    return ReferenceFolder(folder, manifest, digest, cls, looks, np.sort(calibration), level)


def is_reference(root: str | os.PathLike[str]) -> bool:
    """Return whether a folder has a manifest that says so; not whether it can be used."""
    try:
        content = read_json(Path(root) / MANIFEST)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def names_in(root: Path) -> frozenset[str]:
    """Return the names of the files of a reference, as far as it can be opened; none elsewhere."""
    try:
        return frozenset(open_reference(root).manifest.files)
    except ReferenceFolderError:
        return frozenset()


def check_all(reference: ReferenceFolder) -> None:
    """Check the hash of every file of a reference; ReferenceFolderError if one is missing or changed."""
    for name, expected in reference.manifest.files.items():
        path = reference.root / name
        try:
            found = sha256(path)
        except OSError as error:
            raise ReferenceFolderError(f"{path} cannot be read: {error.strerror}. {AGAIN}") from error
        if found != expected:
            raise ReferenceFolderError(f"{path} was changed since it was written. {AGAIN}")


def require_room(reference: ReferenceFolder, resources: Resources, parts: int | None = None) -> None:
    """Raise LotError if ``parts`` of a reference, by default all, are larger than the memory budget."""
    m, left = reference.manifest, memory_left(resources.budget)
    needed = m.bank_bytes // len(m.parts) * (parts or len(m.parts))
    if needed > left:
        smaller = "" if m.by == RESIDUAL else ", or make a smaller reference with --images or --patches"
        raise LotError(
            f"the bank of {reference.root} takes {size_text(needed)}, and the memory budget leaves "
            f"{size_text(left)}. Allow more by --memory-budget{smaller}."
        )


def open_bank(
    reference: ReferenceFolder,
    resources: Resources = ANYTHING,
    part: str = "",
    beside: WholeBank | None = None,
) -> WholeBank | PatchBank:
    """Read the bank of a reference, or of the ``part`` of it that is for a tile, into memory, in float32.

    The scratch memory of a bank ``beside`` it, which is not used at the same time, is shared.

    Raises
    ------
    ReferenceFolderError
        If a file is missing, damaged or changed.
    LotError
        If the bank is larger than the memory budget.
    """
    m, folder = reference.manifest, reference.root
    require_room(reference, resources, 1)
    # Each layer becomes float32 before the next one is read.
    tokens = [read_array(folder, m, part + layer_file(k)).astype(np.float32, copy=False) for k in m.layers]
    if not m.whole:
        return PatchBank(m.method, tokens, read_array(folder, m, part + HOLLOW) != 0)
    kind = load_filter(best_filter("auto" if resources.scorer == "cuda" else resources.scorer)[0])
    lengths = read_array(folder, m, part + LENGTHS)
    return WholeBank(m.method, kind, tokens, lengths, resources.workers, read_inside(folder, m), beside)


def read_inside(folder: Path, manifest: ReferenceManifest) -> Array | None:
    """Read which patches (M,P) of the bank's images take part; None for all."""
    return read_array(folder, manifest, INSIDE) != 0 if manifest.excludes else None


def read_thumbnails(reference: ReferenceFolder) -> Array:
    """Read the thumbnails (N,T,T,3) of all accepted images; black ones if the reference has none.

    Raises
    ------
    ReferenceFolderError
        If the file is missing, damaged or changed.
    """
    m = reference.manifest
    if THUMBNAILS not in m.files:
        return np.zeros(m.shapes()[THUMBNAILS][1], np.uint8)
    return read_array(reference.root, m, THUMBNAILS)


def read_array(folder: Path, manifest: ReferenceManifest, name: str) -> Array:
    """Read the array in a file of a reference; ReferenceFolderError unless it is the one that was written."""
    dtype, shape = manifest.shapes()[name]
    path = folder / name
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64)):
                raise ValueError(f"it has {size} bytes, too few for an array of shape {shape}")
            hashed = _Hashed(file)
            values = read_data(cast(BinaryIO, hashed), read_header(cast(BinaryIO, hashed), dtype), shape)
    except OSError as error:
        raise ReferenceFolderError(f"{path} cannot be read: {error.strerror}. {AGAIN}") from error
    except ValueError as error:
        raise ReferenceFolderError(f"{path} is damaged: {error}. {AGAIN}") from error
    if hashed.hexdigest() != manifest.files[name]:
        raise ReferenceFolderError(f"{path} was changed since it was written. {AGAIN}")
    if not all(np.isfinite(part).all() for part in values):
        raise ReferenceFolderError(f"{path} holds values that are not finite. {AGAIN}")
    return values


class _Hashed:
    """Hashes what is read from a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._digest.update(content)
        return content

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def write_array(path: Path, dtype: str, shape: tuple[int, ...], parts: Iterable[Array]) -> str:
    """Write an array that comes in ``parts``, in the order of memory; returns the sha256 of its file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    written = 0
    with path.open("xb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)
            written += part.size
    if written != np.prod(shape, dtype=np.int64):
        raise AssertionError(f"{path.name}: {written} numbers for shape {shape}")
    return sha256(path)


def write_manifest(folder: Path, manifest: ReferenceManifest) -> None:
    """Write ``manifest.json`` into a reference that is being made."""
    text = json.dumps(manifest_facts(manifest), indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="ascii")
