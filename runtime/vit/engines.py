"""TensorRT engines of a bundle: find them, read them, and check that they have passed the parity gate.

An engine is a plain TensorRT plan.  It belongs to one graph, one GPU model and one version of TensorRT, so it
is never part of the bundle's manifest: it lies in ``BUNDLE/engines`` or, where that cannot be written, in the
user's cache folder.  Beside each lie

    NAME.plan.json                       what it was built from and for (``EngineInfo``)
    proof-<plan's sha256>-<GPU>.json     that it gave the bundle's numbers on this GPU (``Proof``)

A plan is code, and no hash of the bundle covers it: one that other users could have written is not loaded.
Where the bundle had to be signed, sidecar and proof have to be as well, each by a file with .sig behind its
name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._files import first_way_in, read_regular
from ..._json import from_json, parse_json, shortly
from ..._signatures import ENGINE, PROOF, Demands, require_signed
from ...kernels.cubins import user_cache
from ...kernels.driver import GpuModel
from ..errors import BundleError, signature_errors
from ..types import Bundle
from .bundle import MODEL, weights_of
from .tensorrt_library import NAMES, Library

FOLDER = "engines"
FORMAT = 1
_LARGEST = 1 << 34
"""Limit of a plan's bytes and of an engine's batch."""
_LARGEST_TEXT = 1_000_000
"""Bytes: limit of a sidecar or a proof, which usually have about 2,000."""
_REMOVE = "Remove it, and build the engine again with: musc-export engine"


@dataclass(frozen=True)
class EngineInfo:
    """The sidecar of an engine: the graph it was built from and the GPUs it was built for.

    ``graph`` has the sha256 of the ONNX files by name.  ``gpu`` is None for an engine of TensorRT-RTX, which
    runs on every GPU of the listed compute capabilities.  ``variant`` tells how the graph was changed to pass
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
        """The GPUs that can run it, as text for a message."""
        return str(self.gpu) if self.gpu else f"GPUs of {', '.join(self.compute_capabilities)}"


@dataclass(frozen=True)
class Engine:
    """An engine's plan file with the content of its sidecar."""

    path: Path
    info: EngineInfo

    @property
    def way_in(self) -> str | None:
        """The reason why other users could have written it, or None if they could not."""
        return first_way_in(self.path.parent, self.path, sidecar_of(self.path))


@dataclass(frozen=True)
class BrokenEngine:
    """A plan file whose sidecar cannot be read, with the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Proof:
    """The record that a plan gave the bundle's numbers on a GPU; ``parity`` tells how closely."""

    plan_sha256: str
    gpu: GpuModel
    version: str
    parity: dict[str, Any]


def graph_files(bundle: Bundle) -> dict[str, str]:
    """Return the sha256, by name, of the files that an engine is built from: the graph, and its weights.

    Raises
    ------
    BundleError
        If the graph cannot be read.
    """
    weights = weights_of(bundle.model_path, bundle.manifest)
    # What is only called like the graph counts too, as it does in the sidecars of engines that are there.
    files = bundle.manifest.files
    return {name: files[name] for name in files if name.startswith(MODEL) or name in weights}


def rebuild_command(bundle: Bundle, *options: str) -> str:
    """Return the command that makes the engine for this machine."""
    return " ".join(["musc-export engine", str(bundle.root), *options])


# ---- folders ---------------------------------------------------------------------------------


def engine_folders(bundle: Bundle) -> tuple[Path, ...]:
    """Return the folders in which engines are looked for, the preferred one first."""
    beside = bundle.root / FOLDER
    try:
        cache = user_cache()
    except RuntimeError:  # a user without a home folder has no cache
        return (beside,)
    return beside, cache / bundle.digest[:16] / FOLDER


def engine_name(flavor: str, gpu: GpuModel | None, compute_capabilities: tuple[str, ...]) -> str:
    """Return the file name of a bundle's engine for a flavor and GPU; a new build replaces the old one."""
    targets = _slug(gpu) if gpu else "-".join(f"sm{c.replace('.', '')}" for c in compute_capabilities)
    return f"{flavor}-{targets}.plan"


def sidecar_of(plan: Path) -> Path:
    """Return the sidecar of a plan, the file that describes it."""
    return plan.with_name(f"{plan.name}.json")


def proof_name(info: EngineInfo, gpu: GpuModel) -> str:
    """Return the file name of the proof of an engine on a GPU."""
    return f"proof-{info.plan_sha256[:16]}-{_slug(gpu)}.json"


def _slug(gpu: GpuModel) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    return f"{name}-sm{gpu.compute_capability.replace('.', '')}-{gpu.multiprocessors}"


# ---- finding ---------------------------------------------------------------------------------


def list_engines(bundle: Bundle) -> list[Engine | BrokenEngine]:
    """List every engine of a bundle; those whose sidecar cannot be read or believed come with the reason."""
    sidecars = [path for folder in engine_folders(bundle) for path in sorted(folder.glob("*.plan.json"))]
    plans = [path.with_name(path.name.removesuffix(".json")) for path in sidecars]
    return [_open_engine(plan, bundle.demands) for plan in plans]


def find_engine(bundle: Bundle, gpu: GpuModel, flavors: tuple[str, ...]) -> Engine:
    """Find the engine for ``gpu``, of the first of the ``flavors`` that has one.

    Raises
    ------
    BundleError
        If there is none; the message lists the engines for other GPUs, broken ones, and those that other
        users could have written.
    """
    found = list_engines(bundle)
    engines = [e for e in found if isinstance(e, Engine)]
    fitting = [e for flavor in flavors for e in engines if e.info.flavor == flavor and _runs_on(e.info, gpu)]
    own = [e for e in fitting if e.way_in is None]
    # Sorted by flavor, then by folder: take the first flavor's.
    if own:
        best = [e for e in own if e.info.flavor == own[0].info.flavor]
        return min(best, key=lambda e: e.info.gpu is None)  # one built for this very GPU comes first
    if fitting:
        raise _distrust(fitting[0], bundle)
    others = "; ".join(f"{NAMES[e.info.flavor]} for {e.info.made_for}" for e in engines)
    broken = "".join(f" {e.reason}" for e in found if isinstance(e, BrokenEngine))
    raise BundleError(
        f"{bundle.root} has no engine for {gpu}{f', only {others}' if others else ''}. "
        f"Make one with: {rebuild_command(bundle)}{broken}"
    )


def _distrust(engine: Engine, bundle: Bundle) -> BundleError:
    folder = engine.path.parent
    return BundleError(
        f"the engine {engine.path} is not used: {engine.way_in}, and a plan is code that would run as this "
        f"user. Let nobody else write it (chmod -R go-w {folder}, chown -R), and build it again with: "
        f"{rebuild_command(bundle)}"
    )


def read_plan(engine: Engine, bundle: Bundle, library: Library, batch: int | None) -> bytes:
    """Read the plan of ``engine``, if ``library`` can run it for ``bundle``.

    ``batch`` is the largest batch that will be asked for; None for whatever the engine takes.  The file is
    read once, so that the bytes returned are those that were hashed.

    Raises
    ------
    BundleError
        If other users could have written it; or if it does not fit, with all the reasons.
    """
    if engine.way_in:
        raise _distrust(engine, bundle)
    info = engine.info
    wrong = []
    if info.graph != graph_files(bundle):
        wrong.append("it was built from another graph")
    if (info.flavor, info.version) != (library.flavor, library.version):
        wrong.append(f"it was built by {NAMES[info.flavor]} {info.version}, this is {library}")
    if batch is not None and batch > info.max_batch:
        wrong.append(f"it takes at most {info.max_batch} images at once, but {batch} were asked for")
    plan, found = b"", "missing"
    try:
        plan = read_regular(engine.path, info.plan_bytes, follow=False)
        found = hashlib.sha256(plan).hexdigest()
    except OSError as error:
        found = "missing" if isinstance(error, FileNotFoundError) else f"not there: {error.strerror}"
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
    return plan


def require_proof(engine: Engine, bundle: Bundle, gpu: GpuModel) -> None:
    """Raise BundleError unless ``engine`` has passed the gate on a GPU like this one."""
    if find_proof(engine, bundle, gpu) is None:
        others = [way for path in _proof_files(engine, bundle, gpu) if (way := _way_into_proof(path))]
        raise BundleError(
            f"the engine {engine.path} is not yet proven on {gpu}: its numbers have not been compared with "
            f"the bundle's{''.join(f' (a proof does not count: {way})' for way in others)}. "
            f"Do that with: musc-export verify {bundle.root} --backend tensorrt"
        )


def find_proof(engine: Engine, bundle: Bundle, gpu: GpuModel) -> Proof | None:
    """Find the proof of ``engine`` on such a GPU; one that other users could have written does not count.

    Raises
    ------
    BundleError
        If there is none, and one cannot be read, or is not signed as the bundle had to be.
    """
    refused: BundleError | None = None
    for path in _proof_files(engine, bundle, gpu):
        if _way_into_proof(path):
            continue
        try:
            proof: Proof = _read(Proof, path, PROOF, bundle.demands)
        except BundleError as error:  # the next folder may have a good one
            refused = refused or error
            continue
        if proof.plan_sha256 == engine.info.plan_sha256 and proof.gpu == gpu:
            return proof
    if refused:
        raise refused
    return None


def list_proofs(engine: Engine, bundle: Bundle) -> Iterator[tuple[Path, str | None]]:
    """Yield the proofs of ``engine`` on all kinds of GPUs; each with the reason why it is none, or None."""
    digest = engine.info.plan_sha256
    for folder in engine_folders(bundle):
        for path in sorted(folder.glob(f"proof-{digest[:16]}-*.json")):
            yield path, _why_no_proof(path, digest)


def _why_no_proof(path: Path, plan_sha256: str) -> str | None:
    if way := _way_into_proof(path):
        return way
    try:
        proof: Proof = _read(Proof, path, PROOF, ())
    except BundleError as error:
        return str(error)
    return None if proof.plan_sha256 == plan_sha256 else "it is the proof of another engine"


def _proof_files(engine: Engine, bundle: Bundle, gpu: GpuModel) -> list[Path]:
    paths = [folder / proof_name(engine.info, gpu) for folder in engine_folders(bundle)]
    return [path for path in paths if path.exists()]


def _way_into_proof(path: Path) -> str | None:
    return first_way_in(path.parent, path)


def _runs_on(info: EngineInfo, gpu: GpuModel) -> bool:
    return info.gpu == gpu if info.gpu else gpu.compute_capability in info.compute_capabilities


def _open_engine(plan: Path, wanted: Demands) -> Engine | BrokenEngine:
    path = sidecar_of(plan)
    try:
        info: EngineInfo = _read(EngineInfo, path, ENGINE, wanted)
    except BundleError as error:
        return BrokenEngine(plan, str(error))
    wrong = ""
    if info.format != FORMAT or info.flavor not in NAMES:
        wrong = (
            f"format {shortly(info.format)} and flavor {shortly(info.flavor)}, expected {FORMAT} and one of "
            f"{', '.join(NAMES)}"
        )
    numbers = (info.min_batch, info.opt_batch, info.max_batch, info.plan_bytes)
    if min(numbers) < 1 or max(numbers) > _LARGEST:
        wrong = f"batches and bytes {shortly(numbers)}, expected 1 to {_LARGEST}"
    if wrong:
        return BrokenEngine(plan, f"{path} has {wrong}. {_REMOVE}")
    return Engine(plan, info)


def _read(kind: type, path: Path, signed_as: str, wanted: Demands) -> Any:
    """Read a sidecar or a proof; BundleError if it cannot be read, or is not signed as ``wanted``."""
    try:
        text = read_regular(path, _LARGEST_TEXT)
        with signature_errors():
            require_signed(path, text, signed_as, wanted)
        return from_json(kind, parse_json(text), path.name)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}). {_REMOVE}") from error
