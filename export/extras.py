"""Check that an extra of the package is installed before anything of it is imported."""

from __future__ import annotations

from importlib.util import find_spec

from ..runtime.errors import DeviceError

MODULES = {
    "onnx": ("onnx", "onnx_ir"),
    "export": ("onnx", "onnx_ir", "onnxscript", "torch", "torchvision", "open_clip", "timm", "safetensors"),
}
"""The modules of each extra that its commands import."""


def need(extra: str) -> None:
    """Raise DeviceError unless everything of an extra is installed."""
    missing = [name for name in MODULES[extra] if find_spec(name) is None]
    if missing:
        raise DeviceError(
            f"not installed here: {', '.join(missing)}. This command needs them: "
            f"pip install 'musc-edge[{extra}]'"
        )
