"""Find, open and check a bundle: the folder that musc-export writes and the device reads.

A bundle is immutable.  Opening it checks the schema, that every file which it or its graph names lies inside
the folder, and the hashes of the files that will be read.  It may be a stranger's, so nothing is used before
it is checked.  Weights are an exception (``open_beside``): they are numbers, with which a ViT may be loaded
and run while their hash is being computed, but nothing that it says is scored or kept before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ..._files import make_folders, read_regular, write_whole
from ..._json import from_json, parse_json, shortly
from ..._signatures import BUNDLE, Demands, Keys, demands, require_signed
from ...kernels.cubin_files import CubinFolder
from ...kernels.cubins import bundle_cubins
from ...kernels.errors import KernelError
from ..errors import BundleError, OutputError, signature_errors
from ..timing import UNTIMED, StageTimer
from ..types import Bundle, Manifest
from .external_data import external_files
from .hashes import check_beside, check_hash
from .only_ours import only_ours, require_only_ours

SCHEMA_VERSION = 1
DTYPES = ("float32", "float16")
MANIFEST = "manifest.json"
MODEL = "model.onnx"
ATTENTION_MODEL = "model.attention.onnx"
PROBE = "probe.npz"
_GRAPHS = (MODEL, ATTENTION_MODEL)
_NO_WEIGHTS = (*_GRAPHS, PROBE, MANIFEST)
"""Files that no graph may take weights from: who only scores does not check the probe's hash."""

_SMALL_FILE = 1_000_000
"""Bytes: limit of a manifest, which usually has 3,000, and of the file that names the default bundle."""
_MOST_FILES = 100
_LARGEST_SIDE = 1 << 14
"""Limit of an image's side in pixels, a token's width and a layer's number; ViTs have about 1,000."""
_LARGEST_IMAGE = 1 << 28
"""Limit of the numbers in one image's pixels, and in its tokens of all layers: 1 GB in float32."""
_LARGEST_SCALE = 1e6

_LONG = 1000
"""Most characters of a path in a message."""

_MAKE_ONE = "Make one with 'musc-export dinov2-small -o BUNDLE' (see 'musc-export --help')."


def open_bundle(
    root: str | os.PathLike[str],
    whole: bool = False,
    *,
    require_signature: Keys | None = None,
) -> Bundle:
    """Open and check a bundle, the folder that ``musc-export`` writes.

    Parameters
    ----------
    root : str or path
        The bundle's folder.
    whole : bool, default False
        Also check the hash of the probe, which scoring does not read.
    require_signature : str, path or sequence of them, optional
        Files, or folders, of public keys of which one must have signed the bundle; by default those of
        ``$MUSC_EDGE_REQUIRE_SIGNATURE``.  Those of /etc/musc-edge/trusted-keys are required in any case.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleError
        If the folder, the manifest or a file is missing, malformed, changed, made by a newer
        schema, or outside of the folder, or the graph takes values from a file that has no hash; or a
        signature that is required is missing or does not fit, or others could change the files meanwhile.
    DeviceError
        If a signature is required, and the package that checks it is not installed.
    """
    bundle = _listed(Path(root), _demands(require_signature))
    _check_all(bundle, whole)
    return bundle


def open_unsigned(root: str | os.PathLike[str], whole: bool = False) -> Bundle:
    """Open a bundle as ``open_bundle`` does, but ask for no signature: for who makes, changes or signs it."""
    bundle = _listed(Path(root), ())
    _check_all(bundle, whole)
    return bundle


def open_beside(root: str | os.PathLike[str], timer: StageTimer = UNTIMED) -> Bundle:
    """Open a bundle as ``open_bundle`` does, but go on checking its weights in a thread.

    Graphs, and all that is more than numbers, are checked on return; what comes of the weights may be used
    once ``Bundle.require_checked`` has returned.  Where a signature is required, all is checked on return.
    """
    bundle = _listed(Path(root), _demands(None))
    if bundle.demands:
        _check_all(bundle)
        return bundle
    weights = _check_graphs(bundle)
    files = bundle.manifest.files
    _check_files(bundle, set(files) - {*_GRAPHS, *weights, PROBE})
    if not weights:
        return bundle
    return dataclasses.replace(
        bundle, pending=check_beside({bundle.root / name: files[name] for name in sorted(weights)}, timer)
    )


def _demands(given: Keys | None) -> Demands:
    with signature_errors():
        return demands(given)


def _listed(folder: Path, wanted: Demands) -> Bundle:
    """Return the bundle in a folder, signed as ``wanted``, whose files are there and lie in it.

    None of them is checked but the manifest's signature.
    """
    if wanted:
        folder = only_ours(folder)
    text = _read_manifest_text(folder)
    with signature_errors():
        require_signed(folder / MANIFEST, text, BUNDLE, wanted)
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
        if wanted:
            require_only_ours(folder, path)
    return Bundle(folder, manifest, hashlib.sha256(text).hexdigest(), demands=wanted)


def _check_all(bundle: Bundle, whole: bool = False) -> None:
    """Check all hashes, that of the probe if ``whole``, and the kernels' signature if one is required."""
    _check_graphs(bundle)
    _check_files(bundle, set(bundle.manifest.files) - {*_GRAPHS, *(() if whole else (PROBE,))})
    if bundle.demands:
        open_kernels(bundle)


def _check_graphs(bundle: Bundle) -> set[str]:
    """Check the hashes of a bundle's graphs, and return which files they take weights from."""
    graphs = [name for name in _GRAPHS if name in bundle.manifest.files]
    _check_files(bundle, graphs)
    return {name for graph in graphs for name in weights_of(bundle.root / graph, bundle.manifest)}


def _check_files(bundle: Bundle, names: Collection[str]) -> None:
    """Check the hashes of some of a bundle's files, in the manifest's order."""
    for name, expected in bundle.manifest.files.items():
        if name in names:
            check_hash(bundle.root / name, expected)


def open_kernels(bundle: Bundle) -> CubinFolder | None:
    """Open and check the GPU kernels in a bundle; None if it has none.

    Raises
    ------
    BundleError
        If one of their files was changed or is missing, or not signed as the bundle had to be.
    """
    try:
        cubins = bundle_cubins(bundle.root, bundle.demands)
        if cubins:
            for arch in cubins.cubins:
                cubins.read(arch)
    except KernelError as error:
        raise BundleError(str(error)) from error
    return cubins


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into a bundle that is being made."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def find_bundle(explicit: str | None) -> Path:
    """Find the bundle to use: ``explicit``, else ``$MUSC_EDGE_BUNDLE``, else the user's default.

    Raises
    ------
    BundleError
        If none of the three names one, or the default cannot be read.
    """
    named = explicit or os.environ.get("MUSC_EDGE_BUNDLE")
    if named:
        return Path(named)
    stored = _read_pointer()
    if stored:
        return Path(os.fsdecode(stored))
    raise BundleError(
        "no bundle given: use -b BUNDLE, set $MUSC_EDGE_BUNDLE, or make one the default with "
        "'musc-export ... --default'. " + _MAKE_ONE
    )


def set_default(bundle: Path) -> None:
    """Make ``bundle`` the user's default; OutputError if that cannot be stored."""
    pointer = default_pointer()
    try:
        make_folders(pointer.parent)
        write_whole(pointer, os.fsencode(bundle.resolve()) + b"\n")
    except OSError as error:
        raise OutputError(f"the default bundle cannot be stored in {pointer}: {error.strerror}.") from error


def default_pointer() -> Path:
    """Return the file that holds the path of the user's default bundle."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "musc-edge" / "default-bundle"


def _read_pointer() -> bytes:
    """Return the path that is stored as the user's default, empty if there is none."""
    try:
        pointer = default_pointer()
    except RuntimeError:  # a user without a home folder has no default
        return b""
    try:
        return read_regular(pointer, _SMALL_FILE).removesuffix(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise BundleError(
            f"{pointer}, which names the default bundle, cannot be read: {error.strerror}. "
            "Remove it, or use -b BUNDLE."
        ) from error


# ---- reading the manifest --------------------------------------------------------------------


def _read_manifest_text(folder: Path) -> bytes:
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a bundle: there is no such folder. {_MAKE_ONE}")
    try:
        return read_regular(folder / MANIFEST, _SMALL_FILE)
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: {MANIFEST}: {error.strerror}. {_MAKE_ONE}") from error


def _parse_manifest(text: bytes, folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        data = parse_json(text)
    except ValueError as error:
        raise BundleError(
            f"{path} is not JSON that can be read ({error}). Copy or export the bundle again."
        ) from error
    # The version comes before everything else: a newer schema has fields that would only look malformed here.
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {shortly(version)}; this musc-edge reads {SCHEMA_VERSION}. "
            "Upgrade musc-edge."
        )
    try:
        manifest: Manifest = from_json(Manifest, data, "manifest")
        _check_consistency(manifest)
    except ValueError as error:
        raise BundleError(f"{path}: {error}. Export the bundle again.") from error
    return manifest


def _check_consistency(m: Manifest) -> None:
    """Raise ValueError if fields of the manifest are impossible or contradict each other."""
    if m.schema_version != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version {shortly(m.schema_version)} was never used; expected {SCHEMA_VERSION}"
        )
    _check_preprocessing(m)
    _check_sizes(m)
    if len(m.tokens) != len(m.layers) or not m.layers:
        raise ValueError(f"{len(m.tokens)} token outputs for {len(m.layers)} layers")
    names = [spec.name for spec in (m.input, *m.tokens, m.cls)]
    if len(set(names)) < len(names):
        raise ValueError(f"input and outputs are called {shortly(names)}, expected names that differ")
    for spec in (m.input, *m.tokens, m.cls):
        if spec.dtype not in DTYPES:
            raise ValueError(
                f"{shortly(spec.name)} has dtype {shortly(spec.dtype)}, expected one of {', '.join(DTYPES)}"
            )
    if len(m.files) > _MOST_FILES:
        raise ValueError(f"it lists {len(m.files)} files, expected at most {_MOST_FILES}")


def _check_preprocessing(m: Manifest) -> None:
    spec = m.preprocess
    if spec.resize != "squash" or spec.interpolation not in ("bicubic", "bilinear"):
        raise ValueError(
            f"preprocessing {shortly(spec.resize)}/{shortly(spec.interpolation)} is unknown; "
            "expected squash with bicubic or bilinear"
        )
    if max(map(abs, (*spec.mean, *spec.std))) > _LARGEST_SCALE or min(spec.std) < 1 / _LARGEST_SCALE:
        raise ValueError(
            f"mean {spec.mean}, std {spec.std}: expected numbers up to {_LARGEST_SCALE:g}, "
            f"std from {1 / _LARGEST_SCALE:g}"
        )


def _check_sizes(m: Manifest) -> None:
    """Raise ValueError unless image, grid, widths and layers are possible and fit together."""
    size = m.preprocess.size
    sides = (m.patch_size, *m.grid, m.token_width, m.cls_width)
    if min(*sides, *size) < 1 or max(*sides, *size) > _LARGEST_SIDE:
        raise ValueError(
            f"size {shortly(size)}, patch {shortly(m.patch_size)}, grid {shortly(m.grid)}, widths "
            f"{shortly(m.token_width)}, {shortly(m.cls_width)}: expected 1 to {_LARGEST_SIDE}"
        )
    grid = tuple(pixels // m.patch_size for pixels in size)
    if grid != m.grid:
        raise ValueError(f"size {size} at patch {m.patch_size} gives grid {grid}, not {m.grid}")
    if m.layers and not 0 <= min(m.layers) <= max(m.layers) <= _LARGEST_SIDE:
        raise ValueError(f"layers {shortly(m.layers)}: expected 0 to {_LARGEST_SIDE}")
    numbers = max(3 * size[0] * size[1], len(m.layers) * m.patches * m.token_width)
    if numbers > _LARGEST_IMAGE:
        raise ValueError(
            f"size {size}, {len(m.layers)} layers of {m.patches} patches of width {m.token_width}: "
            f"{numbers:,} numbers for an image, expected at most {_LARGEST_IMAGE:,}"
        )


def weights_of(model: Path, manifest: Manifest) -> set[str]:
    """Return the files that a graph takes weights from; BundleError if one has no hash, or no weights."""
    names = set()
    try:
        for name in external_files(model):
            if name not in manifest.files:
                raise BundleError(
                    f"{model} takes weights from {shortly(name, _LONG)}, which the manifest does not list: "
                    "no hash says what is in it. Do not use this bundle, or export it again."
                )
            if name in _NO_WEIGHTS:
                raise BundleError(
                    f"{model} takes weights from {name}, which holds none in a bundle that "
                    "musc-export wrote. Do not use this bundle, or export it again."
                )
            names.add(name)
    except ValueError as error:
        raise BundleError(
            f"cannot load {model}: it is not an ONNX graph ({error}). Copy or export the bundle again."
        ) from error
    except OSError as error:
        raise BundleError(f"{model} cannot be read: {error.strerror}. Copy the bundle again.") from error
    return names


def is_inside(folder: Path, name: str) -> bool:
    """Return whether the path ``name`` stays within ``folder``, links included.

    Raises
    ------
    ValueError
        If it cannot be the name of a file.
    """
    # Both the name and where it leads count: a link may point out of the folder, and a name with ".." is
    # refused even if it comes back into it.
    pure = PurePosixPath(name)
    try:
        inside = (folder / pure).resolve().is_relative_to(folder.resolve())
        (folder / pure).is_file()
    except (OSError, ValueError, RuntimeError) as error:  # the last for links without end
        raise ValueError(f"{shortly(name, _LONG)}, which cannot be a file's name") from error
    return inside and not pure.is_absolute() and ".." not in pure.parts


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a bundle's file; BundleError if ``name`` leads out of the folder."""
    try:
        if is_inside(folder, name):
            return folder / name
    except ValueError as error:
        raise BundleError(f"the bundle {folder} names {error}. Do not use this bundle.") from error
    raise BundleError(
        f"the bundle {folder} names {shortly(name, _LONG)}, which lies outside of it. Do not use this bundle."
    )
