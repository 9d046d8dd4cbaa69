"""TensorRT that is none: a plan is the ONNX file with a note, and ONNX Runtime runs it on the CPU.

It is as wrong as it is told to be: with "fused" among its ``faults``, engines that still have their softmax
where the fused kernels look for it give wrong numbers.
"""

from __future__ import annotations

import json
import threading
import weakref
from importlib.machinery import ModuleSpec
from math import prod
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from support.fake_pycuda import FakeDriver

CAST, CONSTANT, CONVOLUTION, MULTIPLY, SOFTMAX = "cast", "constant", "convolution", "multiply", "softmax"
FLOAT, HALF = "float", "half"


class FakeTensor:
    def __init__(self, name: str, shape: tuple[int, ...], layer: FakeLayer | None = None) -> None:
        self.name, self.shape, self.layer = name, shape, layer
        self.dtype = FLOAT


class FakeLayer:
    def __init__(self, kind: str, inputs: list[FakeTensor], shape: tuple[int, ...], number: int) -> None:
        self.type, self._inputs = kind, inputs
        self._output = FakeTensor(f"tensor {number}", shape, self)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> FakeTensor:
        return self._inputs[index]

    def get_output(self, index: int) -> FakeTensor:
        return self._output

    def set_input(self, index: int, tensor: FakeTensor) -> None:
        self._inputs[index] = tensor


class FakeNetwork:
    """A softmax and the product that reads it."""

    def __init__(self, flags: int) -> None:
        assert flags == 1, "strongly typed"
        self.model = ""
        self.layers: list[FakeLayer] = []
        self.pixels = FakeTensor("pixels", (-1, 3, 16, 24))

    def add(self, kind: str, *inputs: FakeTensor) -> FakeLayer:
        shape = inputs[0].shape if inputs else (1, 1, 1, 1)
        self.layers.append(FakeLayer(kind, list(inputs), shape, len(self.layers)))
        return self.layers[-1]

    def parse(self, model: str) -> None:
        self.model = model
        softmax = self.add(SOFTMAX, FakeTensor("logits", (-1, 2, 25, 25)))
        self.add(MULTIPLY, softmax.get_output(0), FakeTensor("values", (-1, 2, 25, 8)))

    @property
    def fused(self) -> bool:
        """Whether the last product but those that were added still reads the softmax itself."""
        source = self.layers[1].get_input(0).layer
        return source is not None and source.type == SOFTMAX

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    num_inputs = num_outputs = 1

    def get_layer(self, index: int) -> FakeLayer:
        return self.layers[index]

    def get_input(self, index: int) -> FakeTensor:
        return self.pixels

    def add_elementwise(self, first: FakeTensor, second: FakeTensor, op: str) -> FakeLayer:
        return self.add(op, first, second)

    def add_unary(self, tensor: FakeTensor, op: str) -> FakeLayer:
        return self.add(op, tensor)

    def add_reduce(self, tensor: FakeTensor, op: str, axes: int, keep: bool) -> FakeLayer:
        return self.add(op, tensor)

    def add_constant(self, shape: tuple[int, ...], weights: npt.NDArray[Any]) -> FakeLayer:
        return self.add(CONSTANT)


class FakeConfig(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(progress_monitor=None, profiles=[], flags={"TF32"}, workspace=None)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return 0

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def create_timing_cache(self, stored: bytes) -> Any:
        runs = int(stored.split()[-1]) if stored else 0
        timings = f"timings {runs + 1}".encode()
        return SimpleNamespace(serialize=lambda: timings)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.workspace = size


class FakeTensorRt(ModuleType):
    """The module tensorrt.

    Parameters
    ----------
    driver : the fake pycuda whose memory and queue engines use, and which notes their calls.
    faults : which plans give wrong numbers.

    ``late`` names the objects that outlived their context.
    """

    float32, float16 = FLOAT, HALF

    def __init__(self, driver: FakeDriver, version: str = "10.3.0", faults: tuple[str, ...] = ()) -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)
        self.__version__ = version
        self.driver, self.faults = driver, faults
        self.late: list[str] = []
        self.built: list[str] = []
        self.configs: list[FakeConfig] = []
        self.steps = 3
        severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)
        self.ILogger = type("ILogger", (), {"Severity": severity})
        self.IProgressMonitor = type("IProgressMonitor", (), {})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
        self.LayerType = SimpleNamespace(
            SOFTMAX=SOFTMAX, CONSTANT=CONSTANT, CAST=CAST, CONVOLUTION=CONVOLUTION
        )
        self.DataType = SimpleNamespace(FLOAT=FLOAT, HALF=HALF)
        self.ElementWiseOperation = SimpleNamespace(PROD="product", MIN="minimum")
        self.ReduceOperation = SimpleNamespace(MAX="maximum")
        self.UnaryOperation = SimpleNamespace(ABS="abs", EXP="exp")
        self.BuilderFlag = SimpleNamespace(TF32="TF32")
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")

    def nptype(self, dtype: str) -> type:
        return {FLOAT: np.float32, HALF: np.float16}[dtype]

    # ---- building --------------------------------------------------------------------------------

    def Builder(self, log: Any) -> Any:  # noqa: N802
        return SimpleNamespace(
            create_network=FakeNetwork,
            create_builder_config=self._config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *shapes: None),
            build_serialized_network=self._build,
        )

    def OnnxParser(self, network: FakeNetwork, log: Any) -> Any:  # noqa: N802
        def parse(model: str) -> bool:
            network.parse(model)
            return True

        return SimpleNamespace(parse_from_file=parse, num_errors=0)

    def _config(self) -> FakeConfig:
        self.configs.append(FakeConfig())
        return self.configs[-1]

    def _build(self, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("building", None, self.steps)
        for step in range(self.steps):
            if not monitor.step_complete("building", step):
                return None
        monitor.phase_finish("building")
        note = {"model": network.model, "fused": network.fused}
        self.built.append("fused" if network.fused else "unfused")
        return json.dumps(note).encode()

    # ---- running ---------------------------------------------------------------------------------

    def Runtime(self, log: Any) -> FakeRuntime:  # noqa: N802
        return FakeRuntime(self)


class _Tracked:
    """Notes when it is made and when it is gone."""

    def __init__(self, trt: FakeTensorRt) -> None:
        self.trt = trt
        trt.driver.enter(f"make {type(self).__name__}")
        weakref.finalize(self, _gone, trt, type(self).__name__)


def _gone(trt: FakeTensorRt, name: str) -> None:
    trt.driver.calls.append(f"delete {name}")
    if trt.driver.pushed != [threading.get_ident()]:
        trt.late.append(name)


class FakeRuntime(_Tracked):
    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        try:
            return FakeEngine(self.trt, json.loads(plan))
        except ValueError:
            return None


class FakeEngine(_Tracked):
    def __init__(self, trt: FakeTensorRt, note: dict[str, Any]) -> None:
        super().__init__(trt)
        self.wrong = note["fused"] and "fused" in trt.faults
        self.session = onnxruntime.InferenceSession(note["model"], providers=["CPUExecutionProvider"])
        nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.shapes = {node.name: (-1, *node.shape[1:]) for node in nodes}
        self.num_io_tensors = len(nodes)

    def get_tensor_name(self, index: int) -> str:
        return [str(shape) for shape in self.shapes][index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_dtype(self, name: str) -> str:
        return FLOAT

    def create_execution_context(self) -> FakeExecution:
        return FakeExecution(self.trt, self)


class FakeExecution(_Tracked):
    def __init__(self, trt: FakeTensorRt, engine: FakeEngine) -> None:
        super().__init__(trt)
        self.engine, self.addresses = engine, dict[str, int]()
        self.batch = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.trt.driver.enter(f"address {name}")
        self.addresses[name] = address
        return name in self.engine.shapes

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.batch = shape[0]
        return shape[1:] == self.engine.shapes[name][1:]

    def execute_async_v3(self, handle: int) -> bool:
        self.trt.driver.enter("execute")
        assert handle == 1000, "not the handle of a stream"
        assert set(self.addresses) == set(self.engine.shapes), "an address was not set"
        self.trt.driver.queue.append(self._compute)
        return True

    def _compute(self) -> None:
        session, at = self.engine.session, self.trt.driver.at
        name = session.get_inputs()[0].name
        shape = (self.batch, *self.engine.shapes[name][1:])
        pixels = at(self.addresses[name], 4 * prod(shape)).view(np.float32).reshape(shape)
        outputs = [output.name for output in session.get_outputs()]
        for output, value in zip(outputs, session.run(outputs, {name: pixels}), strict=True):
            values = value[::-1] + 1 if self.engine.wrong else value
            at(self.addresses[output], values.nbytes)[:] = (
                np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            )
