"""Put compiled kernels into a bundle, on any host with a compiler; no GPU is needed.

Kernels depend on their source alone and not on the model, so the manifest stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._signatures import SUFFIX as SIGNED
from .._signatures import device_key
from ..kernels.compiler import Compiled, compile_kernels, compiler_for
from ..kernels.cubin_files import INDEX, SUFFIX, CubinFolder, write_cubins
from ..kernels.cubins import FOLDER
from ..runtime.errors import BundleError, device_errors, signature_errors
from ..runtime.results.output import new_folder
from ..runtime.vit.bundle import open_kernels, open_unsigned
from .messages import Say


def add_kernels(root: str, arches: Sequence[str], say: Say = print) -> CubinFolder:
    """Compile the kernels for ``arches`` into the bundle ``root``, replacing those that it has.

    They load on every machine with such a GPU and a driver of CUDA 12 (from sm_100 on: 13) or later, and are
    signed if this device has a key.

    Raises
    ------
    BundleError
        If ``root`` is no bundle, or this device's key cannot be used.
    DeviceError
        If this machine has no compiler for one of ``arches``; nothing is written then.
    OutputError
        If the bundle cannot be written; what was there stays as it was.
    """
    bundle = open_unsigned(root)
    with signature_errors():
        device_key()  # one that cannot be used is said before kernels are compiled
    folder = bundle.root / FOLDER
    ours = frozenset({INDEX, f"{INDEX}{SIGNED}", *(path.name for path in folder.glob(f"*{SUFFIX}"))})
    with device_errors():
        chosen = [(arch, compiler_for(arch, portable=True)) for arch in arches]
        with new_folder(folder, True, INDEX, ours, "Copy the bundle to where it can be written.") as partial:
            compiled = []
            for arch, compiler in chosen:
                compiled.append(compile_kernels(arch, compiler))
                say(_line(compiled[-1]))
            write_cubins(partial, compiled)
    cubins = open_kernels(bundle)
    if cubins is None:
        raise BundleError(f"{folder} is gone: it was removed just now. Make the kernels again.")
    return cubins


def _line(compiled: Compiled) -> str:
    most = max((kernel.registers for kernel in compiled.kernels.values()), default=0)
    spilled = sum(kernel.spill_bytes for kernel in compiled.kernels.values())
    return (
        f"  {compiled.arch:<7} {compiled.compiler:<15} {len(compiled.code) / 1e3:.0f} KB, "
        f"at most {most} registers, {spilled} bytes spilled"
    )
