"""The bundle's ViT in ONNX Runtime, on the CPU or on an NVIDIA GPU.

Outputs are bound to the store's own memory, on the host or on the GPU, so that a batch of tokens is written
only once.  Tokens that a GPU computes for a store on the host are copied.
"""

from __future__ import annotations

import os
from importlib import metadata
from types import TracebackType
from typing import Any

import numpy as np

from ..._extras import install
from ..._numbers import counted
from ...kernels.driver import find_gpu
from ...kernels.gpu import DeviceArray
from ..errors import BundleError, DeviceError, device_errors
from ..limits import limit_reached, too_few_threads, too_little_memory
from ..types import Array, Bundle, DeviceSlot, FloatArray, Slot, TensorSpec, Uploaded
from .graphs import NODES, choose_graph, graph_path, graphs_of

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OPTIONS = {"cpu": {}, "cuda": {"use_tf32": "0"}}  # the graph says how precise it is
FAULTY_ON_CPU = ["NchwcTransformer"]
"""Optimizers of ONNX Runtime that end the process where a norm takes float16 on a CPU (seen with 1.32).

It lays out convolutions otherwise, which a ViT has one of.
"""
_PACKAGES = {"onnxruntime", "onnxruntime-gpu"}
_INSTALL_GPU = f"pip uninstall -y onnxruntime onnxruntime-gpu; {install('gpu')}"


class OnnxBackend:
    """A ``FeatureBackend`` on ONNX Runtime.

    Parameters
    ----------
    bundle : the bundle whose graph is run.
    threads : threads inside one operator on the CPU; 0 lets ONNX Runtime choose.
    name : the device, "cpu" or "cuda".
    graph : which of the bundle's graphs is run, ``PIECES`` or ``NODES``; None for the faster one.

    Raises
    ------
    DeviceError
        On entering, if ONNX Runtime is not installed or runs on another provider than asked for.
    BundleError
        On entering, if the graph cannot be loaded or is not the one that the manifest describes.
    """

    max_batch: int | None = None

    def __init__(self, bundle: Bundle, threads: int = 0, name: str = "cpu", graph: str | None = None) -> None:
        self.name = name
        self.fills_device = name == "cuda"
        self._bundle = bundle
        self._threads = threads
        self._graph = graph
        self._session: Any = None

    @property
    def version(self) -> str:
        """The library that the last bits of the features depend on, with the device if it is a GPU.

        And the graph, where the bundle has more than one.
        """
        device = () if self.name == "cpu" else (self.name,)
        graph = (self.graph,) if len(graphs_of(self._bundle)) > 1 else ()
        return ", ".join([f"ONNX Runtime {import_onnxruntime().__version__}", *device, *graph])

    @property
    def graph(self) -> str:
        """Which of the bundle's graphs is run."""
        return self._graph or choose_graph(self._bundle, self.name, import_onnxruntime().__version__)

    def __enter__(self) -> OnnxBackend:
        ort, provider = import_onnxruntime(), _PROVIDERS[self.name]
        if self.name == "cuda":
            _require_cuda(ort)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        options.enable_mem_pattern = (
            False  # with it the second run would allocate anew what the first one had
        )
        # Idle threads must not spin: the cores are needed for decoding the next images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = graph_path(self._bundle, self.graph)
        try:
            session = ort.InferenceSession(
                str(path),
                options,
                providers=[provider],
                provider_options=[_OPTIONS[self.name]],
                disabled_optimizers=FAULTY_ON_CPU if self.name == "cpu" and self.graph == NODES else None,
            )
        except Exception as error:  # ONNX Runtime has no common base for its errors
            if found := _limit(error):
                raise found from error
            raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {path}: {error}") from error
        if session.get_providers()[:1] != [provider]:
            raise DeviceError(
                f"asked ONNX Runtime for {provider}, received {session.get_providers()}: CUDA, cuDNN or the "
                f"driver does not load. See musc-edge doctor, and install them with: {_INSTALL_GPU}"
            )
        session.disable_fallback()  # else a run that fails would go on with another provider
        self._check_interface(session)
        self._session = session
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def upload(self, images: FloatArray) -> FloatArray | Uploaded:
        """Copy ``images`` (B,3,H,W) to the GPU, also while another batch runs; on the CPU they stay."""
        if self.name == "cpu":
            return images
        values = np.ascontiguousarray(images)
        try:
            value = import_onnxruntime().OrtValue.ortvalue_from_numpy(values, self.name, 0)
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime could not copy {counted(len(images), 'image')} to the GPU: {error}"
            ) from error
        return Uploaded(len(images), value)

    def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
        """Write the tokens (S,B,P,C) and CLS embeddings (B,D) of ``images`` (B,3,H,W) into ``slot``.

        Raises
        ------
        DeviceError
            If the run fails.
        """
        manifest = self._bundle.manifest
        binding = self._session.io_binding()
        if isinstance(images, Uploaded):
            binding.bind_ortvalue_input(manifest.input.name, images.value)
        else:
            binding.bind_cpu_input(manifest.input.name, np.ascontiguousarray(images))
        for spec, target in (*zip(manifest.tokens, slot.tokens, strict=True), (manifest.cls, slot.cls)):
            _bind(binding, spec, target)
        try:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime failed on a batch of {counted(len(images), 'image')}: {error}"
            ) from error

    def _check_interface(self, session: Any) -> None:
        """Raise BundleError unless the graph's inputs and outputs are those of the manifest."""
        m = self._bundle.manifest
        tokens_shape = [m.patches, m.token_width]
        expected = {_signature(spec.name, spec.dtype, tokens_shape) for spec in m.tokens}
        expected |= {
            _signature(m.cls.name, m.cls.dtype, [m.cls_width]),
            _signature(m.input.name, m.input.dtype, [3, *m.preprocess.size]),
        }
        nodes = [*session.get_inputs(), *session.get_outputs()]
        found = {_signature(node.name, _numpy_name(node.type), node.shape[1:]) for node in nodes}
        if found != expected:
            extra, lacking = (", ".join(sorted(s)) or "nothing" for s in (found - expected, expected - found))
            raise BundleError(
                f"{graph_path(self._bundle, self.graph)} does not fit its manifest: unexpected are {extra}; "
                f"missing are {lacking}. Export the bundle again."
            )


def _bind(binding: Any, spec: TensorSpec, target: Array | DeviceArray) -> None:
    """Bind an output to ``target``, so that it is written there; DeviceError if it does not fit."""
    if isinstance(target, DeviceArray):
        device, address, contiguous = "cuda", target.address, True
    else:
        device, address, contiguous = "cpu", target.ctypes.data, target.flags.c_contiguous
    if not contiguous or target.dtype != spec.dtype:
        raise DeviceError(f"slot for {spec.name} is {target.dtype}, expected contiguous {spec.dtype}.")
    binding.bind_output(spec.name, device, 0, target.dtype, target.shape, address)


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, without its telemetry; DeviceError with what to do if that fails."""
    # From 1.32 on it keeps a number of this device, and a database for its maker, in the user's home unless
    # this is set before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        if found := limit_reached(error):
            raise found from error
        raise DeviceError(
            f"ONNX Runtime cannot be imported ({error}). Install it with: {install('cpu')}"
        ) from error
    return onnxruntime


def _limit(error: Exception) -> DeviceError | None:
    """Return the error to raise instead if ONNX Runtime lacks threads or memory: it has words only."""
    text = str(error)
    if "pthread_create" in text:
        return too_few_threads(error)
    return too_little_memory(error) if "bad_alloc" in text or "bad allocation" in text else None


def _require_cuda(ort: Any) -> None:
    """Raise DeviceError unless there is a GPU and the ONNX Runtime that can use it."""
    with device_errors():
        find_gpu()
    both = installed_packages()
    if len(both) > 1:
        raise DeviceError(
            f"{' and '.join(sorted(both))} are both installed and overwrite each other's files. "
            f"Keep one: {_INSTALL_GPU}"
        )
    if _PROVIDERS["cuda"] not in ort.get_available_providers():
        raise DeviceError(
            f"this ONNX Runtime {ort.__version__} has no {_PROVIDERS['cuda']}, only "
            f"{', '.join(ort.get_available_providers())}. Install the one that has: {_INSTALL_GPU} "
            "(x86-64; on a Jetson use --backend tensorrt)"
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA and cuDNN of the pip packages, which the loader does not find by itself


def installed_packages() -> set[str]:
    """Return the packages of ONNX Runtime that are installed; there should be one."""
    # Asked for by name: to read what each of some hundred packages is called takes a tenth of a second.
    return {name for name in _PACKAGES if _is_installed(name)}


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _signature(name: str, dtype: str, shape: list[Any]) -> str:
    return f"{name} {dtype} (B, {', '.join(map(str, shape))})"


def _numpy_name(onnx_type: str) -> str:
    """'tensor(float16)' -> 'float16'; ONNX's plain 'float' is numpy's float32."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)
