"""TensorRT engines of a bundle: where they lie, what each is for, and which have passed the parity gate.

An engine is a plain TensorRT plan.  It belongs to one graph, one GPU model and one version of TensorRT, so it
is never part of the bundle's manifest: it is in ``BUNDLE/engines`` or, where that cannot be written, in the
user's cache folder.  Beside each lie

    NAME.plan.json                       what it was built from and for (``EngineInfo``)
    proof-<plan's sha256>-<GPU>.json     that it gave the bundle's numbers on this GPU (``Proof``)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._json import from_json
from ..kernels.cubins import user_cache
from ..kernels.driver import GpuModel
from .bundle import MODEL, sha256
from .errors import BundleError
from .tensorrt_library import NAMES, Library
from .types import Bundle

FOLDER = "engines"
FORMAT = 1


@dataclass(frozen=True)
class EngineInfo:
    """What an engine was built from and for.

    ``graph`` has the sha256 of the ONNX files by name.  ``gpu`` is None for an engine of TensorRT-RTX, which
    is for every GPU of the listed compute capabilities.  ``variant`` says how the graph was changed to pass
    the gate.
    """

    format: int
    graph: dict[str, str]
    flavor: str
    version: str
    gpu: GpuModel | None
    compute_capabilities: tuple[str, ...]
    min_batch: int
    opt_batch: int
    max_batch: int
    variant: str
    build_seconds: float
    plan_bytes: int
    plan_sha256: str

    @property
    def made_for(self) -> str:
        """The GPUs that can run it, for a message."""
        return str(self.gpu) if self.gpu else f"GPUs of {', '.join(self.compute_capabilities)}"


@dataclass(frozen=True)
class Engine:
    """An engine's plan file, and what is known of it."""

    path: Path
    info: EngineInfo


@dataclass(frozen=True)
class Proof:
    """That a plan gave the bundle's numbers on a GPU, with how closely."""

    plan_sha256: str
    gpu: GpuModel
    version: str
    parity: dict[str, Any]


def graph_files(bundle: Bundle) -> dict[str, str]:
    """sha256 by name of the files that an engine is built from."""
    return {name: digest for name, digest in bundle.manifest.files.items() if name.startswith(MODEL)}


def rebuild_command(bundle: Bundle, *options: str) -> str:
    """The command that makes the engine for this machine."""
    return " ".join(["musc-export engine", str(bundle.root), *options])


# ---- folders ---------------------------------------------------------------------------------


def engine_folders(bundle: Bundle) -> tuple[Path, ...]:
    """Where engines are looked for, the preferred folder first."""
    beside = bundle.root / FOLDER
    try:
        cache = user_cache()
    except RuntimeError:  # a user without a home folder has no cache
        return (beside,)
    return beside, cache / bundle.digest[:16] / FOLDER


def engine_name(flavor: str, gpu: GpuModel | None, compute_capabilities: tuple[str, ...]) -> str:
    """File name of the one engine of a bundle for a flavor and GPU; a new build takes the old one's place."""
    targets = _slug(gpu) if gpu else "-".join(f"sm{c.replace('.', '')}" for c in compute_capabilities)
    return f"{flavor}-{targets}.plan"


def sidecar_of(plan: Path) -> Path:
    """The file that says what a plan is."""
    return plan.with_name(f"{plan.name}.json")


def proof_name(info: EngineInfo, gpu: GpuModel) -> str:
    """File name of the proof of an engine on a GPU."""
    return f"proof-{info.plan_sha256[:16]}-{_slug(gpu)}.json"


def _slug(gpu: GpuModel) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    return f"{name}-sm{gpu.compute_capability.replace('.', '')}-{gpu.multiprocessors}"


# ---- finding ---------------------------------------------------------------------------------


def list_engines(bundle: Bundle) -> list[Engine]:
    """Every engine of a bundle; BundleError if a sidecar cannot be read."""
    sidecars = [path for folder in engine_folders(bundle) for path in sorted(folder.glob("*.plan.json"))]
    return [Engine(path.with_name(path.name.removesuffix(".json")), _read_info(path)) for path in sidecars]


def find_engine(bundle: Bundle, gpu: GpuModel, flavors: tuple[str, ...]) -> Engine:
    """The engine for ``gpu``, of the first of the ``flavors`` that has one.

    Raises
    ------
    BundleError
        If there is none: it says for which GPUs there are.
    """
    engines = list_engines(bundle)
    for flavor in flavors:
        fitting = [e for e in engines if e.info.flavor == flavor and _runs_on(e.info, gpu)]
        if fitting:
            return min(fitting, key=lambda e: e.info.gpu is None)  # rather the one built here
    others = "; ".join(f"{NAMES[e.info.flavor]} for {e.info.made_for}" for e in engines)
    raise BundleError(
        f"{bundle.root} has no engine for {gpu}{f', only {others}' if others else ''}. "
        f"Make one with: {rebuild_command(bundle)}"
    )


def check_engine(engine: Engine, bundle: Bundle, library: Library, batch: int | None) -> None:
    """Raise BundleError, with all that differs, unless ``library`` can run ``engine`` for ``bundle``.

    ``batch`` is the largest that will be asked for; None for whatever the engine takes.
    """
    info = engine.info
    wrong = []
    if info.graph != graph_files(bundle):
        wrong.append("it was built from another graph")
    if (info.flavor, info.version) != (library.flavor, library.version):
        wrong.append(f"it was built by {NAMES[info.flavor]} {info.version}, here is {library}")
    if batch is not None and batch > info.max_batch:
        wrong.append(f"it takes at most {info.max_batch} images at once, asked for are {batch}")
    found = sha256(engine.path) if engine.path.is_file() else "missing"
    if found != info.plan_sha256:
        wrong.append(
            f"its file was changed since it was built (sha256 {found[:16]}, not {info.plan_sha256[:16]})"
        )
    if wrong:
        options = ["--max-batch", str(batch)] if batch and batch > info.max_batch else []
        smaller = f", or take at most {info.max_batch} at once" if options else ""
        raise BundleError(
            f"the engine {engine.path} cannot be used: {'; '.join(wrong)}. "
            f"Build it again with: {rebuild_command(bundle, *options)}{smaller}"
        )


def require_proof(engine: Engine, bundle: Bundle, gpu: GpuModel) -> None:
    """Raise BundleError unless ``engine`` has passed the gate on a GPU like this one."""
    if find_proof(engine, bundle, gpu) is None:
        raise BundleError(
            f"the engine {engine.path} is not yet proven on {gpu}: its numbers have not been compared with "
            f"the bundle's. Do that with: musc-export verify {bundle.root} --backend tensorrt"
        )


def find_proof(engine: Engine, bundle: Bundle, gpu: GpuModel) -> Proof | None:
    """The proof of ``engine`` on a GPU like this one, if there is one."""
    for folder in engine_folders(bundle):
        path = folder / proof_name(engine.info, gpu)
        if not path.is_file():
            continue
        proof: Proof = _read(Proof, path)
        if proof.plan_sha256 == engine.info.plan_sha256 and proof.gpu == gpu:
            return proof
    return None


def _runs_on(info: EngineInfo, gpu: GpuModel) -> bool:
    return info.gpu == gpu if info.gpu else gpu.compute_capability in info.compute_capabilities


def _read_info(path: Path) -> EngineInfo:
    info: EngineInfo = _read(EngineInfo, path)
    if info.format != FORMAT or info.flavor not in NAMES:
        raise BundleError(
            f"{path} has format {info.format} and flavor {info.flavor!r}, expected {FORMAT} and one of "
            f"{', '.join(NAMES)}. Remove it, and build the engine again with: musc-export engine"
        )
    return info


def _read(kind: type, path: Path) -> Any:
    try:
        return from_json(kind, json.loads(path.read_bytes()), path.name)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} cannot be read ({error}). Remove it, and build the engine again with: musc-export engine"
        ) from error
