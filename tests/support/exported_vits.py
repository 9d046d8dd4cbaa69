"""Small random ViTs of transformers, timm and torchvision, exported as their users do it.

Beside each file are the numbers of the torch model itself, which hooks took: what each block and the final
norm gave, and the outputs.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from musc_edge.export.torch_setup import import_models
from support.tiny_clip import quiet

Array = npt.NDArray[Any]
SIDE, PATCH, PATCHES = 32, 8, 16
_HF = {"hidden_size": 32, "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH}
_MLP = {"intermediate_size": 48}
_TIMM = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": 32, "num_heads": 2}
HF_OUTPUTS = ("last_hidden_state", "pooler_output")


@dataclass(frozen=True)
class Vit:
    """A model: ``blocks`` and ``norm`` are names of its modules, ``outputs`` those that are exported."""

    make: Callable[[], Any]
    blocks: str
    norm: str
    outputs: Sequence[str] = HF_OUTPUTS


def _transformers(kind: str, config: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        library: Any = import_models("transformers", quiet)
        known = {**_HF, "num_hidden_layers": 2, "attn_implementation": "eager", **options}
        return getattr(library, kind)(getattr(library, config)(**known))

    return make


def _timm(kind: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        module, _, name = kind.partition(".")
        library: Any = import_models("timm", quiet).models
        return getattr(getattr(library, module), name)(**{**_TIMM, "depth": 2, "num_classes": 0, **options})

    return make


def _torchvision() -> Any:
    library: Any = import_models("torchvision", quiet).models
    size = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 48}
    return library.VisionTransformer(image_size=SIDE, patch_size=PATCH, **size)


_CLIP = {**_MLP, "num_hidden_layers": 12}
_REGISTERS = {"num_register_tokens": 4}
VITS = {
    "clip": Vit(
        _transformers("CLIPVisionModel", "CLIPVisionConfig", **_CLIP), "encoder.layers", "post_layernorm"
    ),
    "clip of two blocks": Vit(
        _transformers("CLIPVisionModel", "CLIPVisionConfig", **_MLP), "encoder.layers", "post_layernorm"
    ),
    "clip projected": Vit(
        _transformers("CLIPVisionModelWithProjection", "CLIPVisionConfig", **_MLP, projection_dim=24),
        "vision_model.encoder.layers",
        "vision_model.post_layernorm",
        ("image_embeds", "last_hidden_state"),
    ),
    "vit": Vit(_transformers("ViTModel", "ViTConfig", **_MLP), "layers", "layernorm"),
    "dinov2": Vit(_transformers("Dinov2Model", "Dinov2Config", mlp_ratio=2), "encoder.layer", "layernorm"),
    "dinov2 with registers": Vit(
        _transformers("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", mlp_ratio=2, **_REGISTERS),
        "encoder.layer",
        "layernorm",
    ),
    "dinov3": Vit(
        _transformers("DINOv3ViTModel", "DINOv3ViTConfig", **_MLP, **_REGISTERS), "model.layer", "norm"
    ),
    "siglip": Vit(
        _transformers("SiglipVisionModel", "SiglipVisionConfig", **_MLP), "encoder.layers", "post_layernorm"
    ),
    "timm": Vit(_timm("vision_transformer.VisionTransformer", num_classes=5), "blocks", "norm", ("logits",)),
    "timm with registers": Vit(
        _timm("vision_transformer.VisionTransformer", reg_tokens=4, init_values=0.1),
        "blocks",
        "norm",
        ("out",),
    ),
    "timm siglip": Vit(
        _timm("vision_transformer.VisionTransformer", class_token=False, global_pool="map"),
        "blocks",
        "norm",
        ("pooled",),
    ),
    "torchvision": Vit(_torchvision, "encoder.layers", "encoder.ln", ("logits",)),
}
EXPORTERS = ("torchscript", "twice", "dynamo")
"""torch's older one, the same with a wrapper that calls the model for each output, and the default."""


class _Wrapper(torch.nn.Module):
    """A ViT whose outputs are a tuple, which exporters want."""

    def __init__(self, model: Any, outputs: Sequence[str], twice: bool) -> None:
        super().__init__()
        self.model, self.outputs, self.twice = model, outputs, twice

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(pixel_values)
        if torch.is_tensor(found):
            return (found,)
        return tuple((self.model(pixel_values) if self.twice else found)[name] for name in self.outputs)


def export(name: str, exporter: str, folder: Path) -> None:
    """Write model.onnx and numbers.npz of the model ``name`` into ``folder``."""
    vit = VITS[name]
    torch.manual_seed(0)
    model = vit.make().eval()
    pixels = torch.randn(2, 3, SIDE, SIDE)
    numbers: dict[str, Any] = {"pixels": pixels.numpy(), **_numbers(vit, model, pixels)}
    np.savez(folder / "numbers.npz", **numbers)
    twice = exporter == "twice"
    free: dict[str, Any] = {"dynamic_axes": {"pixel_values": {0: "batch"}}, "opset_version": 16}
    if exporter == "dynamo":
        free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    with _silence():  # with gradients, since attention takes another way without, which has no operator
        torch.onnx.export(
            _Wrapper(model, vit.outputs, twice).eval(),
            (pixels,),
            folder / "model.onnx",
            input_names=["pixel_values"],
            output_names=list(vit.outputs),
            dynamo=exporter == "dynamo",
            **free,
        )


def _numbers(vit: Vit, model: Any, pixels: torch.Tensor) -> dict[str, Array]:
    """Run the model with hooks: ``block_0``, ..., ``norm`` and the outputs."""
    found: dict[str, Array] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            found[name] = (output if torch.is_tensor(output) else output[0]).numpy()

        return hook

    for layer, block in enumerate(model.get_submodule(vit.blocks)):
        block.register_forward_hook(keep(f"block_{layer}"))
    model.get_submodule(vit.norm).register_forward_hook(keep("norm"))
    with torch.inference_mode():
        outputs = _Wrapper(model, vit.outputs, False)(pixels)
    found |= {name: value.numpy() for name, value in zip(vit.outputs, outputs, strict=True)}
    for module in model.modules():
        module._forward_hooks.clear()
    return found


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Discard what the exporters print and warn about: their own deprecations, and traced constants."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
