"""Check a bundle on the machine it is on: every file's hash, the preprocessing, a backend's numbers."""

from __future__ import annotations

from .._signatures import device_key
from ..runtime.errors import BundleError, ParityError, signature_errors
from ..runtime.images.reading import normalise
from ..runtime.types import Bundle, FeatureBackend
from ..runtime.vit.bundle import open_bundle, open_kernels
from ..runtime.vit.engines import rebuild_command
from ..runtime.vit.graphs import PIECES, can_run_nodes, choose_graph, graphs_of
from ..runtime.vit.onnx_backend import OnnxBackend, import_onnxruntime
from ..runtime.vit.tensorrt_backend import TensorRtBackend
from .engine_store import save_proof
from .parity import TOLERANCES, Parity, Pixels, compare, require, with_nodes
from .probe import Probe, load_probe, measure, probe_images


def verify(root: str, backend: str = "cpu") -> Parity:
    """Hash every file of the bundle in folder ``root`` and compare ``backend`` with the probe.

    The probe's photographs, which come with this package, are also read and resized again, and compared with
    those in the probe, which the export has compared with the source model's own.

    Of a bundle with two graphs, every one is compared that ONNX Runtime can run here.  The one that
    ``backend`` does not take has to pass on a CPU in single precision and is shown alone elsewhere: a CPU's
    Attention of four axes, as the first bundles had it, rounds Q.K^T to float16 in half precision, and a
    GPU's may not keep all of float32.  An engine that
    passes counts as proven on this GPU from then on.

    Raises
    ------
    BundleError
        If a file was changed, the probe does not belong to the model, there is no engine for this GPU, or
        this device's key, with which the proof would be signed, cannot be used.
    DeviceError
        If the backend does not run here.
    ParityError
        If the numbers differ by more than the tolerance of the bundle's precision.
    """
    bundle = open_bundle(root, whole=True)
    open_kernels(bundle)
    probe = open_probe(bundle)
    if backend == "tensorrt":
        return _prove_engine(bundle, probe)
    version = import_onnxruntime().__version__
    graphs = [graph for graph in graphs_of(bundle) if graph == PIECES or can_run_nodes(version)]
    return with_nodes({graph: _verify_graph(bundle, backend, graph, probe) for graph in graphs})


def _verify_graph(bundle: Bundle, backend: str, graph: str, probe: Probe) -> Parity:
    taken = choose_graph(bundle, backend, import_onnxruntime().__version__)
    with OnnxBackend(bundle, name=backend, graph=graph) as session:
        if graph == taken or (backend, bundle.manifest.precision) == ("cpu", "fp32"):
            return require_parity(session, bundle, probe, graph)
        return _measured(session, bundle, probe)


def _prove_engine(bundle: Bundle, probe: Probe) -> Parity:
    with signature_errors():
        device_key()  # one that cannot be used is said before the engine is run
    with TensorRtBackend(bundle, proven=False) as session:
        try:
            parity = require_parity(session, bundle, probe)
        except ParityError as error:
            again = rebuild_command(bundle)
            raise ParityError(
                f"{error}\nBuild it on this device, which tries other forms: {again}"
            ) from error
        save_proof(bundle, session.engine.info, session.gpu, parity.as_dict())
    return parity


def open_probe(bundle: Bundle) -> Probe:
    """Read the bundle's probe; BundleError if it does not fit the manifest or has no known tolerance."""
    if bundle.manifest.precision not in TOLERANCES:
        raise BundleError(
            f"the bundle's precision {bundle.manifest.precision!r} is unknown; expected {list(TOLERANCES)}."
        )
    probe = load_probe(bundle.probe_path, bundle.manifest)
    _check_probe(bundle, probe)
    return probe


def require_parity(session: FeatureBackend, bundle: Bundle, probe: Probe, graph: str = "") -> Parity:
    """Compare an entered backend with the probe; returns the parity, or raises ParityError.

    ``graph`` says which of the bundle's graphs it runs, for the message.  A backend with a largest batch is
    compared twice, with single images and with the largest batch, since an engine can be right for one and
    wrong for the other; the latter parity is returned.
    """
    manifest = bundle.manifest
    batches = [None] if session.max_batch is None else sorted({1, session.max_batch})
    for batch in batches:
        parity = _measured(session, bundle, probe, batch)
        how = f", {batch} images at once," if batch else f", {graph}," if graph else ""
        require(parity, TOLERANCES[manifest.precision], f"backend {session.name} on {bundle.root}{how}")
    return parity


def _measured(session: FeatureBackend, bundle: Bundle, probe: Probe, batch: int | None = None) -> Parity:
    """Compare an entered backend with the probe."""
    manifest = bundle.manifest
    candidate = measure(session, probe.images, manifest, batch).at(probe.token_index)
    return compare(probe.numbers, candidate, manifest.layers, _pixels(bundle, probe))


def _pixels(bundle: Bundle, probe: Probe) -> Pixels | None:
    """Compare this machine's preprocessing of the probe's photographs with the export's."""
    spec = bundle.manifest.preprocess
    images = probe_images(spec)
    if len(images) != len(probe.images):
        raise BundleError(
            f"{bundle.probe_path} holds {len(probe.images)} images, this musc-edge has {len(images)}. "
            "Export the bundle again with this version."
        )
    return Pixels.between(normalise(probe.images, spec), images, spec)


def _check_probe(bundle: Bundle, probe: Probe) -> None:
    """Raise BundleError unless the probe's tokens belong to patches that the bundle has."""
    patches, index = bundle.manifest.patches, probe.token_index
    if len(index) == 0 or index.min() < 0 or index.max() >= patches:
        raise BundleError(
            f"{bundle.probe_path} does not fit the manifest: token_index outside of the {patches} patches. "
            "Export it again."
        )
