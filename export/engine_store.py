"""Store engines and proofs so that nothing half-written is ever taken for one.

Other users cannot write them, whatever the umask: the runtime refuses files that others could have written.
Sidecars and proofs are signed as they are written, where this device has a key.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._files import first_way_in, make_folders
from .._signatures import ENGINE, PROOF, device_key, write_signed
from ..kernels.driver import GpuModel
from ..runtime.errors import OutputError, signature_errors
from ..runtime.types import Bundle
from ..runtime.vit.engines import (
    Engine,
    EngineInfo,
    Proof,
    engine_folders,
    engine_name,
    proof_name,
    sidecar_of,
)
from ..runtime.vit.tensorrt_library import NAMES


def writable_folder(bundle: Bundle) -> Path:
    """Return the first folder for engines that this user alone can write; OutputError if there is none."""
    problems = []
    for folder in engine_folders(bundle):
        try:
            make_folders(folder, 0o755)
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
            continue
        way_in = first_way_in(folder)
        if os.access(folder, os.W_OK) and not way_in:
            return folder
        problems.append(f"{folder}: {way_in or 'not writable'}")
    raise OutputError(
        f"no folder for engines can be written ({'; '.join(problems)}). "
        "Make the bundle's folder writable, for this user alone (chmod go-w), or set $XDG_CACHE_HOME."
    )


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield a new, empty file beside ``target``, removed when the block ends unless it was renamed."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    with _writing(target.parent):
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def write_plan(path: Path, plan: Any) -> None:
    """Write the plan that TensorRT built, a buffer; OutputError if that fails, as on a full disk."""
    try:
        path.write_bytes(plan)
    except OSError as error:
        raise OutputError(
            f"the engine cannot be written to {path.parent}: {error.strerror}. "
            f"It needs {memoryview(plan).nbytes / 1e6:.0f} MB."
        ) from error


def store_engine(engine: Engine) -> Path:
    """Move an engine from its temporary name to its own, and write its sidecar; returns its path.

    Raises
    ------
    BundleError
        If this device's key cannot be used; an engine that was there stays then.
    OutputError
        If it cannot be written.
    """
    with signature_errors():
        device_key()
    # A plan without a sidecar is not an engine.  The old sidecar goes first and the new one comes last, so
    # that a sidecar never stands beside a plan that is not its own.
    info = engine.info
    path = engine.path.with_name(engine_name(info.flavor, info.gpu, info.compute_capabilities))
    with _writing(path.parent):
        sidecar_of(path).unlink(missing_ok=True)
        engine.path.replace(path)
        _write_json(sidecar_of(path), dataclasses.asdict(info), ENGINE)
    return path


def save_proof(bundle: Bundle, info: EngineInfo, gpu: GpuModel, parity: Mapping[str, Any]) -> None:
    """Store that an engine passed the gate on ``gpu``; OutputError if that cannot be written."""
    proof = Proof(info.plan_sha256, gpu, f"{NAMES[info.flavor]} {info.version}", dict(parity))
    folder = writable_folder(bundle)
    with _writing(folder):
        _write_json(folder / proof_name(info, gpu), dataclasses.asdict(proof), PROOF)


def _write_json(path: Path, content: Mapping[str, Any], kind: str) -> None:
    with signature_errors():
        write_signed(path, (json.dumps(content, indent=2) + "\n").encode(), kind, 0o644)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"the engine cannot be written to {folder}: {error.strerror}.") from error
