"""Find, open and check a bundle: the folder that musc-export writes and the device reads.

A bundle is immutable.  Opening checks the schema, that every file it names lies inside the folder,
and the hashes of the files that will be read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import types
import typing
from pathlib import Path, PurePosixPath
from typing import Any

from ..kernels.cubin_files import CubinFolder
from ..kernels.cubins import bundle_cubins
from ..kernels.errors import KernelError
from .errors import BundleError, OutputError
from .types import Bundle, Manifest

SCHEMA_VERSION = 1
DTYPES = ("float32", "float16")
MANIFEST = "manifest.json"
MODEL = "model.onnx"
PROBE = "probe.npz"

_MAKE_ONE = "Make one with 'musc-export dinov2-small -o BUNDLE' (see 'musc-export --help')."


def open_bundle(root: str | os.PathLike[str], whole: bool = False) -> Bundle:
    """Open the bundle in folder ``root``.

    Parameters
    ----------
    root : path of the bundle folder.
    whole : also check the hash of the probe, which scoring does not read.

    Raises
    ------
    BundleError
        If the folder, the manifest or a file is missing, malformed, changed, made by a newer
        schema, or outside of the folder.
    """
    folder = Path(root)
    text = _read_manifest_text(folder)
    manifest = _parse_manifest(text, folder)
    for name in (MODEL, PROBE):
        if name not in manifest.files:
            raise BundleError(f"{folder / MANIFEST} lists no {name}. {_MAKE_ONE}")
    for name in manifest.files:
        path = _inside(folder, name)
        if not path.is_file():
            raise BundleError(
                f"the bundle {folder} lacks {name}, which its manifest lists. Copy the bundle again."
            )
    for name, expected in manifest.files.items():
        if whole or name != PROBE:
            check_hash(folder / name, expected)
    return Bundle(folder, manifest, hashlib.sha256(text).hexdigest())


def open_kernels(bundle: Bundle) -> CubinFolder | None:
    """The kernels for GPUs that were put into a bundle, all checked; None if it has none.

    Raises
    ------
    BundleError
        If a file of them was changed or is missing.
    """
    try:
        cubins = bundle_cubins(bundle.root)
        if cubins:
            for arch in cubins.cubins:
                cubins.read(arch)
    except KernelError as error:
        raise BundleError(str(error)) from error
    return cubins


def check_hash(path: Path, expected: str) -> None:
    """Raise BundleError unless the file's sha256 is ``expected``."""
    found = sha256(path)
    if found != expected:
        raise BundleError(
            f"{path} was changed since it was written: its sha256 is {found[:16]}..., "
            f"expected {expected[:16]}.... Copy or export the bundle again."
        )


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into a bundle that is in the making."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def find_bundle(explicit: str | None) -> Path:
    """The bundle to use: ``explicit``, else ``$MUSC_EDGE_BUNDLE``, else the user's default.

    Raises
    ------
    BundleError
        If none of the three names one.
    """
    named = explicit or os.environ.get("MUSC_EDGE_BUNDLE")
    if named:
        return Path(named)
    try:
        pointer = default_pointer()
    except RuntimeError:  # a user without a home folder has no default
        pointer = Path("/nonexistent")
    stored = pointer.read_bytes().removesuffix(b"\n") if pointer.is_file() else b""
    if stored:
        return Path(os.fsdecode(stored))
    raise BundleError(
        "no bundle given: use -b BUNDLE, set $MUSC_EDGE_BUNDLE, or make one the default with "
        "'musc-export ... --default'. " + _MAKE_ONE
    )


def set_default(bundle: Path) -> None:
    """Make ``bundle`` the one that is used when none is named; OutputError if that cannot be stored."""
    pointer = default_pointer()
    partial = pointer.with_name(f".{pointer.name}.{os.getpid()}")
    try:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(os.fsencode(bundle.resolve()) + b"\n")
        partial.replace(pointer)
    except OSError as error:
        raise OutputError(f"the default bundle cannot be stored in {pointer}: {error.strerror}.") from error


def default_pointer() -> Path:
    """The file that holds the path of the user's default bundle."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "musc-edge" / "default-bundle"


# ---- reading the manifest --------------------------------------------------------------------


def _read_manifest_text(folder: Path) -> bytes:
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a bundle: there is no such folder. {_MAKE_ONE}")
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: {MANIFEST} {error.strerror}. {_MAKE_ONE}") from error


def _parse_manifest(text: bytes, folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({error}). Copy or export the bundle again.") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}; this musc-edge reads {SCHEMA_VERSION}. Upgrade musc-edge."
        )
    try:
        manifest: Manifest = from_json(Manifest, data, "manifest")
        _check_consistency(manifest)
    except ValueError as error:
        raise BundleError(f"{path}: {error}. Export the bundle again.") from error
    return manifest


def _check_consistency(m: Manifest) -> None:
    """Raise ValueError where fields of the manifest contradict each other or cannot be."""
    if m.schema_version != SCHEMA_VERSION:
        raise ValueError(f"schema_version {m.schema_version} was never used; expected {SCHEMA_VERSION}")
    if not all(map(math.isfinite, (*m.preprocess.mean, *m.preprocess.std))) or min(m.preprocess.std) <= 0:
        raise ValueError(f"mean {m.preprocess.mean}, std {m.preprocess.std}: expected numbers, std above 0")
    for spec in (m.input, *m.tokens, m.cls):
        if spec.dtype not in DTYPES:
            raise ValueError(f"{spec.name} has dtype {spec.dtype!r}, expected one of {', '.join(DTYPES)}")
    if min(m.patch_size, m.token_width, m.cls_width, *m.grid) < 1:
        raise ValueError(
            f"patch {m.patch_size}, grid {m.grid}, widths {m.token_width}, {m.cls_width}: expected 1 or more"
        )
    grid = tuple(pixels // m.patch_size for pixels in m.preprocess.size)
    if grid != m.grid:
        raise ValueError(f"size {m.preprocess.size} at patch {m.patch_size} gives grid {grid}, not {m.grid}")
    if len(m.tokens) != len(m.layers) or not m.layers:
        raise ValueError(f"{len(m.tokens)} token outputs for {len(m.layers)} layers")
    if m.preprocess.resize != "squash" or m.preprocess.interpolation not in ("bicubic", "bilinear"):
        raise ValueError(
            f"preprocessing {m.preprocess.resize}/{m.preprocess.interpolation} is unknown; "
            "expected squash with bicubic or bilinear"
        )


def from_json(kind: Any, value: Any, where: str) -> Any:
    """Turn JSON ``value`` into ``kind`` (a dataclass, tuple, dict or plain type), or raise ValueError.

    ``where`` names the value in the error.
    """
    if typing.get_origin(kind) is types.UnionType and value is not None:  # a kind, or None
        kind = typing.get_args(kind)[0]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        fixed = args[-1] is not Ellipsis
        if not isinstance(value, list) or (fixed and len(value) != len(args)):
            raise ValueError(f"{where} is {value!r}, expected a list" + (f" of {len(args)}" if fixed else ""))
        kinds = args if fixed else [args[0]] * len(value)
        return tuple(
            from_json(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}, expected an object")
        return {k: from_json(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is Any or (value is None and type(None) in args):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where} is {value!r}, expected {kind.__name__}")
    return value


def _build_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}, expected an object")
    hints = typing.get_type_hints(kind)
    missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
    if missing or unknown:
        raise ValueError(f"{where} lacks {missing or 'nothing'} and has unknown {unknown or 'nothing'}")
    return kind(**{name: from_json(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _inside(folder: Path, name: str) -> Path:
    """The path of a bundle's file; BundleError if ``name`` leads outside of the folder."""
    pure = PurePosixPath(name)
    path = folder / pure
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        path.is_file()
    except (OSError, ValueError) as error:
        raise BundleError(
            f"the bundle {folder} names {name!r}, which cannot be a file's name. Do not use this bundle."
        ) from error
    if pure.is_absolute() or ".." in pure.parts or not inside:
        raise BundleError(
            f"the bundle {folder} names {name!r}, which lies outside of it. Do not use this bundle."
        )
    return path
