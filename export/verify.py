"""Check a bundle where it is: every file's hash, and a backend's numbers against the probe's."""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.bundle import open_bundle
from ..runtime.errors import BundleError
from ..runtime.onnx_backend import OnnxBackend
from ..runtime.types import Bundle, FeatureBackend
from .parity import TOLERANCES, Parity, compare, require
from .probe import load_probe, measure

BACKENDS: dict[str, Callable[[Bundle], FeatureBackend]] = {"cpu": OnnxBackend}


def verify(root: str, backend: str = "cpu") -> Parity:
    """Hash every file of the bundle in folder ``root`` and compare ``backend`` with the probe.

    Raises
    ------
    BundleError
        If a file was changed or the probe does not belong to the model.
    DeviceError
        If the backend does not run here.
    ParityError
        If the numbers differ by more than the tolerance of the bundle's precision.
    """
    bundle = open_bundle(root, check=None)
    manifest = bundle.manifest
    if manifest.precision not in TOLERANCES:
        raise BundleError(
            f"the bundle's precision {manifest.precision!r} is unknown; expected {list(TOLERANCES)}."
        )
    probe = load_probe(bundle.probe_path)
    expected = (len(manifest.layers), len(probe.images), len(probe.token_index), manifest.token_width)
    if probe.numbers.tokens.shape != expected or probe.images.shape[1:] != (*manifest.preprocess.size, 3):
        raise BundleError(
            f"{bundle.probe_path} does not fit the manifest: tokens {probe.numbers.tokens.shape}."
        )
    with BACKENDS[backend](bundle) as session:
        candidate = measure(session, probe.images, manifest).at(probe.token_index)
    parity = compare(probe.numbers, candidate, manifest.layers)
    require(parity, TOLERANCES[manifest.precision], f"backend {backend} on {bundle.root}")
    return parity
