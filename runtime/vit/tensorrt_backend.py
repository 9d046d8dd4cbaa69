"""The bundle's ViT as a TensorRT engine.

All objects of TensorRT and CUDA live in the one thread that owns the GPU: they are made after its context
became current and are gone before it is left.  While that thread waits for the GPU, others decode images.

If the scorer works on the GPU too, tokens are written right where it wants them: every CUDA context of this
process is the device's one primary context, so an address is valid in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from ...kernels.driver import GpuModel, find_gpu
from ...kernels.gpu import DeviceArray, Gpu, Stream
from ...kernels.pycuda_gpu import PycudaGpu
from ...kernels.thread import GpuThread
from ..errors import BundleError, DeviceError, device_errors
from ..types import Array, Bundle, DeviceSlot, FloatArray, Slot, Uploaded
from .engines import Engine, find_engine, read_plan, rebuild_command, require_proof
from .tensorrt_api import ICudaEngine, IExecutionContext, IRuntime
from .tensorrt_library import Library, installed_flavors, load_library, make_log, reasons


class _Session:
    """The objects that the GPU's thread holds while the backend is entered.

    Nothing else refers to them, not even a frame: one that an error's traceback keeps alive would let them
    outlive their context.
    """

    log: Any
    runtime: IRuntime
    engine: ICudaEngine
    context: IExecutionContext
    stream: Stream
    buffers: dict[str, DeviceArray]
    bound: dict[str, int]

    def clear(self) -> None:
        """Drop TensorRT's objects, each before the one it depends on."""
        # ``__dict__`` because after a failed load some of them do not exist.
        for name in ("context", "engine", "runtime", "log"):
            self.__dict__.pop(name, None)


class TensorRtBackend:
    """A ``FeatureBackend`` on TensorRT or TensorRT-RTX, whichever the engine was built by.

    Parameters
    ----------
    bundle : the bundle whose engine is run.
    batch : the largest batch that it will be given; None for as many images as the engine takes.
    engine : the engine to run; None for the bundle's engine for this GPU.
    proven : whether to refuse an engine that has not passed the parity gate; False in the gate itself.
    open_gpu : opens the GPU, in the thread that owns it.

    Raises
    ------
    DeviceError
        On entering, if there is no GPU, TensorRT or pycuda.
    BundleError
        On entering, if there is no engine for this GPU, graph and version, its file was changed, or other
        users could have written it.
    """

    name = "tensorrt"
    max_batch: int | None
    fills_device = True

    def __init__(
        self,
        bundle: Bundle,
        batch: int | None = None,
        *,
        engine: Engine | None = None,
        proven: bool = True,
        open_gpu: Callable[[], AbstractContextManager[Gpu]] = PycudaGpu,
    ) -> None:
        self._bundle = bundle
        self._batch = batch
        self._given = engine
        self._proven = proven
        self._open_gpu = open_gpu
        self._stack = ExitStack()

    @property
    def version(self) -> str:
        """The library, engine and GPU that the last bits of the features depend on."""
        return f"{self._library}, {self.engine.info.variant}, {self.engine.info.plan_sha256[:16]}, {self.gpu}"

    def __enter__(self) -> TensorRtBackend:
        self.gpu, self.engine, self._library, plan = self._choose()
        self._room = self._batch or self.engine.info.max_batch
        self.max_batch = self._room
        self._session = _Session()
        # The stack unwinds in reverse: TensorRT's objects go in the GPU's thread, before the thread gives up
        # the context.  A failed load unwinds it too; otherwise ``pop_all`` keeps it for ``__exit__``.
        with device_errors(), ExitStack() as stack:
            self._thread = stack.enter_context(GpuThread(self._open_gpu))
            stack.callback(self._thread.run, lambda gpu: self._session.clear())
            self._thread.run(partial(self._load, plan))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with device_errors():
            self._stack.__exit__(kind, error, trace)

    def upload(self, images: FloatArray) -> FloatArray:
        """Return ``images`` as they are: the one thread of the GPU uploads them when it runs them."""
        return images

    def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
        """Write the tokens (S,B,P,C) and CLS embeddings (B,D) of ``images`` (B,3,H,W) into ``slot``.

        Raises
        ------
        DeviceError
            If the run fails, or there are more images than the engine was opened for.
        """
        assert not isinstance(images, Uploaded)  # by another backend
        if len(images) > self._room:
            raise DeviceError(f"{len(images)} images at once, the engine was opened for {self._room}.")
        with device_errors():
            self._thread.run(partial(self._run, images, slot))

    # ---- before the GPU is touched ---------------------------------------------------------------

    def _choose(self) -> tuple[GpuModel, Engine, Library, bytes]:
        with device_errors():
            gpu = find_gpu()
        if self._given:
            engine, library = self._given, load_library(self._given.info.flavor)
        else:
            load_library()  # first, so that a missing TensorRT is reported before a missing engine
            engine = find_engine(self._bundle, gpu, installed_flavors())
            library = load_library(engine.info.flavor)
        plan = read_plan(engine, self._bundle, library, self._batch)
        if self._proven:
            require_proof(engine, self._bundle, gpu)
        return gpu, engine, library, plan

    # ---- in the GPU's thread ---------------------------------------------------------------------

    def _load(self, plan: bytes, gpu: Gpu) -> None:
        trt, session = self._library.module, self._session
        session.log = make_log(trt)
        session.runtime = trt.Runtime(session.log)
        engine = session.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BundleError(
                f"{self._library} cannot load {self.engine.path}: {reasons(session.log.errors)}. "
                f"Build it again with: {rebuild_command(self._bundle)}"
            )
        session.engine = engine
        del engine  # this frame must not hold a second reference, see ``_Session``
        context = session.engine.create_execution_context()
        if context is None:
            raise DeviceError(f"{self._library} cannot prepare the engine: {reasons(session.log.errors)}.")
        session.context = context
        del context
        session.stream, session.buffers, session.bound = gpu.stream(), self._allocate(gpu), {}

    def _allocate(self, gpu: Gpu) -> dict[str, DeviceArray]:
        """Allocate device memory for the largest batch of every input and output, by name."""
        trt, session = self._library.module, self._session
        names = [session.engine.get_tensor_name(index) for index in range(session.engine.num_io_tensors)]
        types = {name: np.dtype(trt.nptype(session.engine.get_tensor_dtype(name))) for name in names}
        shapes = {name: tuple(session.engine.get_tensor_shape(name))[1:] for name in names}
        found = {name: (types[name].name, *shapes[name]) for name in names}
        if found != self._expected():
            raise BundleError(
                f"the engine {self.engine.path} has inputs and outputs {found}, the manifest "
                f"{self._expected()}. Build it again with: {rebuild_command(self._bundle)}"
            )
        return {name: gpu.empty((self._room, *shapes[name]), types[name]) for name in names}

    def _expected(self) -> dict[str, tuple[object, ...]]:
        """Return dtype and shape, without the batch, of every input and output, as the manifest has them."""
        m = self._bundle.manifest
        tokens = {spec.name: (spec.dtype, m.patches, m.token_width) for spec in m.tokens}
        pixels, cls = (m.input.dtype, 3, *m.preprocess.size), (m.cls.dtype, m.cls_width)
        return {m.input.name: pixels, **tokens, m.cls.name: cls}

    def _run(self, images: FloatArray, slot: Slot | DeviceSlot, gpu: Gpu) -> None:
        session, m, count = self._session, self._bundle.manifest, len(images)
        pixels = session.buffers[m.input.name].rows(0, count)
        arrays = dict(session.buffers)
        names = [spec.name for spec in m.tokens]
        targets: list[tuple[str, Array]] = [(m.cls.name, slot.cls)]
        if isinstance(slot, DeviceSlot):
            arrays.update(zip(names, slot.tokens, strict=True))
        else:
            targets += zip(names, slot.tokens, strict=True)
        self._require(session.context.set_input_shape(m.input.name, pixels.shape), "set the batch")
        self._bind(arrays)
        gpu.upload(pixels, np.ascontiguousarray(images, pixels.dtype), session.stream)
        self._require(session.context.execute_async_v3(gpu.handle(session.stream)), "run the engine")
        # CLS always comes to the host.  Its download waits for the stream, so that on return tokens that stay
        # on the device are complete as well.
        for name, target in targets:
            np.copyto(target, gpu.download(session.buffers[name].rows(0, count), session.stream))

    def _bind(self, arrays: dict[str, DeviceArray]) -> None:
        """Tell TensorRT the addresses of its inputs and outputs that have changed since the last batch."""
        session = self._session
        for name, array in arrays.items():
            if session.bound.get(name) != array.address:
                done = session.context.set_tensor_address(name, array.address)
                self._require(done, f"set {name}'s address")
                session.bound[name] = array.address

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise DeviceError(f"{self._library} could not {what}: {reasons(self._session.log.errors)}.")
