"""Sign a bundle: its manifest, and the kernels and engines that are in it.

What is signed was checked just before: every hash, and that nobody else could change it meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._files import first_way_in, read_regular, way_to
from .._signatures import BUNDLE, ENGINE, KERNELS, PROOF, sign
from .._signing_keys import PrivateKey
from ..kernels.cubin_files import INDEX
from ..runtime.errors import BundleError, OutputError, signature_errors
from ..runtime.types import Bundle
from ..runtime.vit.bundle import MANIFEST, open_kernels, open_unsigned
from ..runtime.vit.engines import (
    FOLDER,
    BrokenEngine,
    Engine,
    graph_files,
    list_engines,
    list_proofs,
    sidecar_of,
)
from ..runtime.vit.hashes import sha256


@dataclass(frozen=True)
class Signed:
    """What was signed, and what was not, with the reason."""

    files: tuple[Path, ...]
    left_out: tuple[str, ...]


def sign_bundle(root: str, key: PrivateKey) -> Signed:
    """Sign the bundle in folder ``root`` and all in it; signatures of other keys stay.

    An engine or a proof that is damaged, or that others could have written, is left out.

    Raises
    ------
    BundleError
        If ``root`` is no bundle, something in it was changed, or others could change it.
    OutputError
        If a signature cannot be written.
    """
    bundle = open_unsigned(root, whole=True)
    _require_only_ours(bundle)
    work = [(bundle.root / MANIFEST, BUNDLE)]
    if cubins := open_kernels(bundle):
        work.append((cubins.path / INDEX, KERNELS))
    engines, left_out = _engines(bundle)
    work += engines
    for path, kind in work:
        _sign(path, kind, key)
    return Signed(tuple(path for path, _ in work), tuple(left_out))


def _require_only_ours(bundle: Bundle) -> None:
    """Raise BundleError if others could change the bundle between the check and the signature."""
    files = [path for path in bundle.root.rglob("*") if path.relative_to(bundle.root).parts[0] != FOLDER]
    if reason := way_to(bundle.root) or first_way_in(*files):
        raise BundleError(
            f"the bundle {bundle.root} is not signed: {reason}, so that what is signed could be another than "
            "what was checked. Let nobody but this user and root write it: chmod -R go-w, chown -R"
        )


def _engines(bundle: Bundle) -> tuple[list[tuple[Path, str]], list[str]]:
    """Return the sidecars and proofs to sign, each with its kind, and why others are left out."""
    work, left_out = [], []
    for engine in list_engines(bundle):
        reason = _why_not(engine, bundle)
        if isinstance(engine, BrokenEngine) or reason:
            left_out.append(f"{engine.path}: {reason}")
            continue
        work.append((sidecar_of(engine.path), ENGINE))
        for path, reason in list_proofs(engine, bundle):
            if reason:
                left_out.append(f"{path}: {reason}")
            else:
                work.append((path, PROOF))
    return work, left_out


def _why_not(engine: Engine | BrokenEngine, bundle: Bundle) -> str | None:
    if isinstance(engine, BrokenEngine):
        return engine.reason
    if engine.way_in:
        return engine.way_in
    if engine.info.graph != graph_files(bundle):
        return "it was built from another graph"
    try:
        found = sha256(engine.path)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if found == engine.info.plan_sha256 else "its file was changed since it was built"


def _sign(path: Path, kind: str, key: PrivateKey) -> None:
    try:
        with signature_errors():
            sign(path, read_regular(path, follow=False), kind, key)
    except OSError as error:
        raise OutputError(f"the signature of {path} cannot be written: {error.strerror}.") from error
