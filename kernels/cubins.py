"""Find the kernels for a device: in the bundle, else in this user's cache, else compile them once.

Cubins of another source than this one are never used, and a damaged cubin is an error, not a reason to look
further.  A cubin is code, and no hash covers the cache: nothing is taken from it that other users could have
written, nor what is not signed where a signature is required.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .._files import first_way_in, make_folders
from .._signatures import DEVICE_KEY, Demands, demands, device_key
from .._signing_keys import SignatureError
from .compiler import Compiled, Compiler, compile_kernels, compiler_for
from .cubin_files import INDEX, CubinFolder, open_cubins, write_cubins
from .cuda_source import HOPPER, arch_number, source_digest
from .errors import KernelError, UnsignedKernelsError

FOLDER = "kernels"
"""The folder of kernels in a bundle and in the cache."""
_INTEGRATED = {72, 87, 101, 110}
"""Jetsons.  NVIDIA promises that a cubin also runs on later minor revisions, but not from other devices to
these, nor from these to other devices."""


@dataclass(frozen=True)
class FoundCubin:
    """A cubin and where it came from; ``notes`` tell the user what was passed over on the way."""

    code: bytes
    arch: str
    """The architecture that it was compiled for, which may be earlier than the device's."""
    compiler: str
    origin: str
    """Where it came from: "bundle", "cache" or "compiler"."""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.arch} by {self.compiler}, from the {self.origin}"


def find_cubin(arch: str, bundle_root: Path | None = None, wanted: Demands | None = None) -> FoundCubin:
    """Find the kernels for a device of ``arch``, such as "sm_87".

    Parameters
    ----------
    bundle_root : folder of a bundle, which is searched first.
    wanted : who must have signed them; None for what is required on this machine.

    Raises
    ------
    KernelError
        If there are none for this device and no compiler, or what is there was damaged, or those of the
        bundle are not signed as ``wanted``.
    """
    notes: list[str] = []
    wanted = _demands() if wanted is None else wanted
    found = _from_bundle(arch, bundle_root, wanted, notes) if bundle_root else None
    return replace(found or _from_cache(arch, bundle_root, wanted, notes), notes=tuple(notes))


def _demands() -> Demands:
    """Return what is required on this machine; UnsignedKernelsError if a key cannot be used."""
    try:
        return demands()
    except SignatureError as error:
        raise UnsignedKernelsError(str(error)) from error


def best_match(arch: str, available: Iterable[str]) -> str | None:
    """Return the architecture whose cubin a device of ``arch`` runs best, or None.

    That is its own, else the nearest earlier one of the same major version, sm_90 for sm_90a among them.
    """
    available = set(available)
    if arch in available:
        return arch
    # The last digit is the minor revision: sm_89 runs cubins for sm_86 and sm_80, none for sm_75 or sm_90.
    # The nearest one knows most of what the device can do.
    own = arch_number(arch)
    if own in _INTEGRATED:
        return None
    numbers = {arch_number(each): each for each in available if each != HOPPER}
    earlier = [n for n in numbers if n // 10 == own // 10 and n <= own and n not in _INTEGRATED]
    return numbers[max(earlier)] if earlier else None


def bundle_cubins(root: Path, wanted: Demands = ()) -> CubinFolder | None:
    """Open the kernels in the bundle ``root``, None without any.

    Raises
    ------
    KernelError
        If kernels.json is damaged, or not signed as ``wanted``.
    """
    return open_cubins(root / FOLDER, f"musc-export kernels {root}", wanted)


def user_cache() -> Path:
    """Return this user's cache, in $XDG_CACHE_HOME or ~/.cache; RuntimeError without a home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "musc-edge"


def cache_folder() -> Path:
    """Return the folder of this user's compiled kernels; KernelError without a home folder."""
    try:
        return user_cache() / FOLDER
    except RuntimeError as error:
        raise KernelError("this user has no home folder to keep kernels in: set $XDG_CACHE_HOME.") from error


def cached_cubins(
    arch: str = "sm_*", notes: list[str] | None = None, wanted: Demands | None = None
) -> list[CubinFolder]:
    """List the usable cubins in the cache for ``arch``, or for all, including those of other sources.

    Adds to ``notes`` why the rest cannot be used; ``wanted`` as for ``find_cubin``.
    """
    opened = []
    wanted = _demands() if wanted is None else wanted
    for path in sorted(path for path in cache_folder().glob(f"{arch}-*") if path.is_dir()):
        try:
            opened.append(_open_cached(path, wanted))
        except KernelError as error:
            if notes is not None:
                notes.append(str(error))
    return [each for each in opened if each]


def _open_cached(folder: Path, wanted: Demands) -> CubinFolder | None:
    """Open one folder of the cache; KernelError if it is damaged or unsigned, or others could write it."""
    _require_own(folder)
    try:
        return open_cubins(folder, f"rm -r {folder}", wanted)
    except UnsignedKernelsError as error:
        raise UnsignedKernelsError(
            f"kernels in {folder} are not used: {error} Or remove them, to have them compiled again: "
            f"rm -r {folder}"
        ) from error


def _require_own(folder: Path) -> None:
    """Raise KernelError if other users could have written a folder of the cache, or a file in it."""
    reason = first_way_in(folder.parent, folder, *folder.glob("*"))
    if reason:
        raise KernelError(
            f"kernels in {folder} are not used: {reason}, so that others could have put code there. Remove "
            f"them, and let nobody else write the cache: rm -r {folder}; chmod go-w {folder.parent}"
        )


def _from_bundle(arch: str, root: Path, wanted: Demands, notes: list[str]) -> FoundCubin | None:
    cubins = bundle_cubins(root, wanted)
    if cubins is None:
        return None
    if not cubins.current:
        notes.append(
            f"the kernels in {root} are of another source than this musc-edge's and were not used; make them "
            f"anew: {cubins.remake}"
        )
        return None
    match = best_match(arch, cubins.cubins)
    if match is None:
        notes.append(f"the bundle {root} has kernels for {', '.join(cubins.cubins)}, not for {arch}.")
        return None
    return FoundCubin(cubins.read(match), match, cubins.cubins[match].compiler, "bundle")


def _from_cache(arch: str, root: Path | None, wanted: Demands, notes: list[str]) -> FoundCubin:
    """Take the cubin from the cache, or compile it into the cache; without a compiler, take any in there."""
    try:
        compiler = compiler_for(arch, portable=False)
    except KernelError as error:
        for cubins in cached_cubins(arch, notes, wanted):
            if cubins.current:
                return FoundCubin(cubins.read(arch), arch, cubins.cubins[arch].compiler, "cache")
        passed = "".join(f"\n{note}" for note in notes)
        raise KernelError(
            f"{error}\nOr bring kernels in the bundle, made on any host: "
            f"musc-export kernels {root or 'BUNDLE'} --arch {arch}{passed}"
        ) from error
    # The folder's name holds source, architecture and compiler: a new version of any of them compiles anew.
    folder = cache_folder() / f"{arch}-{_key(arch, compiler)}"
    try:
        _require_own(folder)
    except KernelError as error:
        return _compiled_alone(arch, compiler, f"{error}.", notes)
    try:
        kept = _open_cached(folder, wanted)
        if not kept and wanted and not device_key():
            raise UnsignedKernelsError(f"what is kept has to be signed, and ${DEVICE_KEY} names no key.")
    except (SignatureError, UnsignedKernelsError) as error:
        return _compiled_alone(arch, compiler, str(error), notes)
    if kept:
        return FoundCubin(kept.read(arch), arch, compiler.name, "cache")
    compiled = compile_kernels(arch, compiler)
    _keep(folder, compiled, notes)
    return FoundCubin(compiled.code, arch, compiler.name, "compiler")


def _compiled_alone(arch: str, compiler: Compiler, why: str, notes: list[str]) -> FoundCubin:
    """Compile kernels that are not kept."""
    notes.append(f"{why} They were compiled for this run alone.")
    return FoundCubin(compile_kernels(arch, compiler).code, arch, compiler.name, "compiler")


def _key(arch: str, compiler: Compiler) -> str:
    return hashlib.sha256("\0".join((source_digest(), arch, compiler.name)).encode()).hexdigest()[:16]


def _keep(folder: Path, compiled: Compiled, notes: list[str]) -> None:
    """Put a cubin into the cache under a temporary name, then rename it; notes it if that is impossible."""
    try:
        make_folders(folder.parent, 0o755)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write_cubins(partial, [compiled])
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except UnsignedKernelsError as error:
        notes.append(f"the kernels were compiled, and not kept: {error}")
    except OSError as error:
        if not (folder / INDEX).is_file():  # else another process was faster and wrote the same
            notes.append(f"the kernels were compiled, but {folder} cannot be written: {error.strerror}.")
