"""Protocols for the calls of TensorRT that are used.

TensorRT 10.3 to 11 and TensorRT-RTX have all of them under these names; a test looks each one up in the
installed module.  The types exist because TensorRT's own stubs cannot be installed without TensorRT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..types import Array


class ITensor(Protocol):
    """A tensor of a network; a free dimension is -1."""

    name: str

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> object: ...


class ILayer(Protocol):
    """An operation of a network."""

    @property
    def type(self) -> object: ...

    @property
    def num_inputs(self) -> int: ...

    def get_input(self, index: int) -> ITensor | None: ...

    def get_output(self, index: int) -> ITensor: ...

    def set_input(self, index: int, tensor: ITensor) -> None: ...


class INetworkDefinition(Protocol):
    """The graph that an engine is built from."""

    @property
    def num_layers(self) -> int: ...

    @property
    def num_inputs(self) -> int: ...

    @property
    def num_outputs(self) -> int: ...

    def get_layer(self, index: int) -> ILayer: ...

    def get_input(self, index: int) -> ITensor: ...

    def get_output(self, index: int) -> ITensor: ...

    def add_constant(self, shape: tuple[int, ...], weights: Array) -> ILayer: ...

    def add_cast(self, input: ITensor, to_type: object) -> ILayer: ...

    def add_reduce(self, input: ITensor, op: object, axes: int, keep_dims: bool) -> ILayer: ...

    def add_shuffle(self, input: ITensor) -> ILayer: ...

    def add_unary(self, input: ITensor, op: object) -> ILayer: ...

    def add_elementwise(self, input1: ITensor, input2: ITensor, op: object) -> ILayer: ...


class IOptimizationProfile(Protocol):
    """The input shapes that an engine accepts."""

    def set_shape(
        self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]
    ) -> None: ...


class ITimingCache(Protocol):
    """The measurements of earlier builds."""

    def serialize(self) -> Any: ...


class IBuilderConfig(Protocol):
    """The options of a build; ``num_compute_capabilities`` and its setter exist in TensorRT-RTX only."""

    progress_monitor: object
    num_compute_capabilities: int

    def set_memory_pool_limit(self, pool: object, pool_size: int) -> None: ...

    def clear_flag(self, flag: object) -> None: ...

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...

    def get_timing_cache(self) -> ITimingCache | None: ...

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...

    def set_compute_capability(self, compute_capability: object, index: int) -> bool: ...


class IBuilder(Protocol):
    """Builds engines."""

    def create_network(self, flags: int) -> INetworkDefinition: ...

    def create_builder_config(self) -> IBuilderConfig: ...

    def create_optimization_profile(self) -> IOptimizationProfile: ...

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any: ...


class IOnnxParser(Protocol):
    """Turns an ONNX file into a network."""

    @property
    def num_errors(self) -> int: ...

    def parse_from_file(self, model: str) -> bool: ...

    def get_error(self, index: int) -> Any: ...


class IExecutionContext(Protocol):
    """The state of one use of an engine: shapes, addresses and scratch memory."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...

    def set_tensor_address(self, name: str, memory: int) -> bool: ...

    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    """An engine that has been loaded."""

    @property
    def num_io_tensors(self) -> int: ...

    def get_tensor_name(self, index: int) -> str: ...

    def get_tensor_mode(self, name: str) -> object: ...

    def get_tensor_dtype(self, name: str) -> object: ...

    def get_tensor_shape(self, name: str) -> Sequence[int]: ...

    def create_execution_context(self) -> IExecutionContext | None: ...


class IRuntime(Protocol):
    """Loads engines."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...
