"""What each extra of the package brings: the one place that says what to install.

Extras add to each other.  A message names the one extra that brings what is missing, so that two messages
never disagree; [cpu] and [gpu] alone exclude each other, since both install the module onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

EXTRAS = {
    "cpu": "ONNX Runtime, which runs the ViT on the CPU",
    "gpu": "ONNX Runtime for NVIDIA GPUs, instead of [cpu]",
    "formats": "imagecodecs and pillow-heif, for JPEG XL, HEIC and rare kinds of TIFF",
    "fast": "numba, which makes mutual scoring faster",
    "mqtt": "paho-mqtt, to tell others of a line's results by MQTT",
    "cuda": "pycuda, which compares images on an NVIDIA GPU and feeds TensorRT",
    "kernels": "NVIDIA's compilers of CUDA kernels, for musc-export kernels",
    "tensorrt": "TensorRT for a workstation; a Jetson has it from JetPack",
    "rtx": "TensorRT-RTX, in place of TensorRT on a workstation",
    "onnx": "what musc-export dinov2-small and onnx need",
    "export": "what musc-export clip and timm need: torch, open_clip, timm",
    "bench": "matplotlib, for the picture of musc-bench ... -o DIR",
    "eval": "scikit-learn and matplotlib, for musc-edge eval",
    "cluster": "Ray, for lots beyond one machine: infer --cluster",
    "remote": "fsspec and s3fs, for lots at URLs such as s3://bucket/lot",
    "sign": "cryptography, to sign bundles and to check who signed them",
    "watch": "inotify_simple, by which musc-edge watch hears of new files",
    "serve": "uvicorn, starlette, python-multipart and prometheus_client, for musc-edge serve",
    "reference": "torch, for musc-bench scorer --against reference",
}

_ADOPT = {"onnx": "onnx", "onnx_ir": "onnx"}
_TORCH = _ADOPT | dict.fromkeys(("onnxscript", "torch", "torchvision", "safetensors"), "export")
NEEDS = {
    "musc-export dinov2-small": _ADOPT,
    "musc-export onnx": _ADOPT,
    "musc-export clip": _TORCH | {"open_clip": "export"},
    "musc-export timm": _TORCH | {"timm": "export"},
    "musc-edge watch": {"inotify_simple": "watch"},
    "musc-edge serve": dict.fromkeys(
        ("uvicorn", "starlette", "python_multipart", "prometheus_client"), "serve"
    ),
    "musc-edge eval": dict.fromkeys(("sklearn", "matplotlib"), "eval"),
}
"""The modules that a command imports beside those of ``musc-edge``, each with the extra that brings it."""


def install(*extras: str) -> str:
    """Return the command that installs extras: "pip install 'musc-edge[fast]'"."""
    return f"pip install 'musc-edge[{','.join(extras)}]'"


def missing(modules: Iterable[str]) -> list[str]:
    """Return those of ``modules`` that are not installed."""
    return [name for name in modules if find_spec(name) is None]
