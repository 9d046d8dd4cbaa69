"""Keys and signed bundles for the tests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musc_edge._signatures import BUNDLE, sign
from musc_edge._signing_keys import PrivateKey, new_key, public_path, read_private_key
from musc_edge.kernels.driver import GpuModel
from musc_edge.runtime.types import Bundle
from musc_edge.runtime.vit.engines import EngineInfo, Proof, graph_files, proof_name

from .lots import make_bundle, sha256

GPU = GpuModel("Orin", "8.7", 16)
PLAN = b"a plan stands here"


@dataclass(frozen=True)
class Pair:
    """A pair of keys: the files, and the private one."""

    private: Path
    public: Path
    key: PrivateKey


class FakeCompiler:
    """Compiles anything for a Jetson at once, to ``code``."""

    name, major, arches = "NVRTC 12.6.85", 12, frozenset({"sm_87"})

    def __init__(self, code: bytes = b"\x7fELF stands for kernels") -> None:
        self._code = code

    def compile(self, arch: str, options: tuple[str, ...], files: Mapping[str, bytes]) -> tuple[bytes, str]:
        return self._code, ""


def new_pair(folder: Path, name: str) -> Pair:
    """Make a pair of keys in ``folder``."""
    private = folder / f"{name}.pem"
    new_key(private)
    return Pair(private, public_path(private), read_private_key(private))


def sign_manifest(bundle: Path, pair: Pair, kind: str = BUNDLE) -> Path:
    """Sign a bundle's manifest, whatever else is in the bundle; returns the bundle."""
    manifest = bundle / "manifest.json"
    sign(manifest, manifest.read_bytes(), kind, pair.key)
    return bundle


def signed_bundle(folder: Path, *pairs: Pair, **changed: Any) -> Path:
    """A bundle as of ``make_bundle``, signed."""
    bundle = make_bundle(folder, **changed)
    for pair in pairs:
        sign_manifest(bundle, pair)
    return bundle


def flip(path: Path, bit: int = 0) -> None:
    """Change a file by one bit, in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << bit
    path.write_bytes(content)


def put_engine(bundle: Bundle, folder: Path, plan: bytes = PLAN, **changes: Any) -> Path:
    """Put an engine with its proof into a folder; returns the sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    about = (graph_files(bundle), "tensorrt", "10.3.0", GPU, ("8.7",), 1, 4, 4, "as exported", 1.0)
    info = EngineInfo(1, *about, plan_bytes=len(plan), plan_sha256=sha256(plan))
    info = dataclasses.replace(info, **changes)
    (folder / "e.plan").write_bytes(plan)
    (folder / "e.plan.json").write_text(json.dumps(dataclasses.asdict(info)))
    proof = Proof(info.plan_sha256, GPU, "TensorRT 10.3.0", {})
    (folder / proof_name(info, GPU)).write_text(json.dumps(dataclasses.asdict(proof)))
    return folder / "e.plan.json"
