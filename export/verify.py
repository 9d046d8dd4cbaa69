"""Check a bundle where it is: every file's hash, and a backend's numbers against the probe's."""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.bundle import open_bundle, open_kernels
from ..runtime.errors import BundleError
from ..runtime.onnx_backend import OnnxBackend
from ..runtime.types import Bundle, FeatureBackend
from .parity import TOLERANCES, Parity, compare, require
from .probe import Probe, load_probe, measure

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
    bundle = open_bundle(root, whole=True)
    open_kernels(bundle)
    manifest = bundle.manifest
    if manifest.precision not in TOLERANCES:
        raise BundleError(
            f"the bundle's precision {manifest.precision!r} is unknown; expected {list(TOLERANCES)}."
        )
    probe = load_probe(bundle.probe_path)
    _check_probe(bundle, probe)
    with BACKENDS[backend](bundle) as session:
        candidate = measure(session, probe.images, manifest).at(probe.token_index)
    parity = compare(probe.numbers, candidate, manifest.layers)
    require(parity, TOLERANCES[manifest.precision], f"backend {backend} on {bundle.root}")
    return parity


def _check_probe(bundle: Bundle, probe: Probe) -> None:
    """Raise BundleError unless the probe's arrays have the shapes that the manifest implies."""
    m = bundle.manifest
    count, kept = len(probe.images), len(probe.token_index)
    expected = {
        "images": (count, *m.preprocess.size, 3),
        "tokens": (len(m.layers), count, kept, m.token_width),
        "cls": (count, m.cls_width),
        "raw_scores": (count,),
    }
    numbers = probe.numbers
    arrays = {
        "images": probe.images,
        "tokens": numbers.tokens,
        "cls": numbers.cls,
        "raw_scores": numbers.raw_scores,
    }
    wrong = [
        f"{n} {arrays[n].shape}, expected {shape}"
        for n, shape in expected.items()
        if arrays[n].shape != shape
    ]
    if kept == 0 or probe.token_index.min() < 0 or probe.token_index.max() >= m.patches:
        wrong.append(f"token_index outside of the {m.patches} patches")
    if wrong:
        raise BundleError(
            f"{bundle.probe_path} does not fit the manifest: {'; '.join(wrong)}. Export it again."
        )
