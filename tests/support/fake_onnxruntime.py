"""ONNX Runtime that says it has a GPU, and runs on the CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from musc_edge.runtime.vit import onnx_backend
from musc_edge.runtime.vit.bundle import ATTENTION_MODEL
from musc_edge.runtime.vit.onnx_backend import FAULTY_ON_CPU

CUDA = "CUDAExecutionProvider"


class FakeOnnxRuntime:
    """ONNX Runtime with a GPU that is none: ``listed`` says that it has CUDA, ``loads`` that it works.

    Addresses "on the GPU" are those of the host's memory, as an emulated GPU's are.
    """

    def __init__(self, listed: bool = True, loads: bool = True) -> None:
        self._listed, self._loads = listed, loads
        self.asked: list[tuple[Any, Any]] = []
        self.fallback = True
        self.preloaded = False
        self.bound: list[tuple[str, str]] = []
        self.uploaded: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    @property
    def OrtValue(self) -> Any:  # noqa: N802
        def from_numpy(values: Any, kind: str, number: int) -> Any:
            self.uploaded.append((kind, number))
            return onnxruntime.OrtValue.ortvalue_from_numpy(values.copy())

        return SimpleNamespace(ortvalue_from_numpy=from_numpy)

    def preload_dlls(self) -> None:
        self.preloaded = True

    def get_available_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"] if self._listed else ["CPUExecutionProvider"]

    def InferenceSession(  # noqa: N802
        self,
        path: str,
        options: Any,
        providers: Any,
        provider_options: Any,
        disabled_optimizers: list[str] | None,
    ) -> Any:
        self.asked.append((providers, provider_options))
        # It is a CPU that computes here, whatever was asked for.
        faulty = FAULTY_ON_CPU if Path(path).name == ATTENTION_MODEL else None
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=faulty
        )
        first = [CUDA] if providers == [CUDA] and self._loads else []

        def disable_fallback() -> None:
            self.fallback = False

        return SimpleNamespace(
            get_providers=lambda: [*first, "CPUExecutionProvider"],
            get_inputs=session.get_inputs,
            get_outputs=session.get_outputs,
            io_binding=lambda: _Binding(session.io_binding(), self.bound),
            run_with_iobinding=lambda binding: session.run_with_iobinding(binding.real),
            disable_fallback=disable_fallback,
        )


class _Binding:
    """Notes which output is bound to which kind of memory, and binds it to the host's."""

    def __init__(self, real: Any, bound: list[tuple[str, str]]) -> None:
        self.real, self._bound = real, bound

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def bind_output(self, name: str, kind: str, *arguments: object) -> None:
        self._bound.append((name, kind))
        self.real.bind_output(name, "cpu", *arguments)


def install_onnxruntime(monkeypatch: pytest.MonkeyPatch, runtime: FakeOnnxRuntime, *packages: str) -> None:
    monkeypatch.setattr(onnx_backend, "import_onnxruntime", lambda: runtime)
    monkeypatch.setattr(onnx_backend, "installed_packages", lambda: set(packages or ("onnxruntime-gpu",)))
