"""Import torch's model libraries, and work around a mismatch that is common on edge devices.

torchvision's wheels hold operators that are compiled for one build of torch.  Beside another (a CPU build, or
the one of a Jetson) ``import torchvision`` fails with "operator torchvision::nms does not exist", and with it
open_clip and timm, which only need its resize and its model parts.  Declaring the two operators that are
missing lets the import pass; nothing here ever calls them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from .._extras import install
from ..runtime.errors import DeviceError
from .messages import Say

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # torch forgets the operators when the library object goes


def import_models(name: str, say: Say) -> ModuleType:
    """Import the module ``open_clip`` or ``timm``.

    Raises
    ------
    DeviceError
        If it cannot be imported; the message says what to install.
    """
    try:
        _import_torchvision(say)
        return importlib.import_module(name)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise DeviceError(
            f"{name} cannot be imported ({error}). Install versions that fit each other: "
            f"{install('export')} -c constraints.txt"
        ) from error


def _import_torchvision(say: Say) -> None:
    import torch

    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    new_library: Any = torch.library.Library  # has no types
    library = new_library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _BOXES)
    _declared.append(library)
    importlib.import_module("torchvision")
    say(
        "note: torchvision was built for another torch; its two missing operators, which are not used here, "
        "were declared for this process"
    )
