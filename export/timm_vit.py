"""A timm VisionTransformer (DINO, DINOv2, CLIP, SigLIP, ...) as the source of a bundle.

The authors run DINO and DINOv2 with the final norm on every tapped block (``tap="norm"``), Pillow's bilinear
resize and a position embedding scaled by (grid+0.1)/stored.  The last is done here for every DINO model but
DINOv2 with registers, which Meta's own code resamples with antialiasing.  A bundle's CLS is L2-normalised;
the authors' CLS of DINO is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..runtime.errors import BundleError
from ..runtime.types import PreprocessSpec
from ..runtime.vit.hashes import sha256
from .messages import Say
from .position import AUTHORS, AUTHORS_DINO, UPSTREAM, Resampling, resample
from .source import Description, check_layers, check_size, default_size
from .torch_setup import import_models
from .tower import LoadedTower
from .weights import download, load_weights, near

TAPS = ("residual", "norm")


@dataclass(frozen=True)
class TimmSource:
    """The timm model to export, such as ``vit_small_patch14_dinov2.lvd142m``; its tag follows the dot.

    ``size`` None means about 518 pixels.  ``tap`` is ``residual``, the stream after a block, or ``norm``,
    with the model's final norm on it.  ``interpolation`` None is the model's own.  ``pretrained`` False gives
    random weights of ``seed``.
    """

    model: str
    size: tuple[int, int] | None = None
    layers: tuple[int, ...] | None = None
    tap: str = "residual"
    interpolation: str | None = None
    pretrained: bool = True
    checkpoint: Path | None = None
    seed: int = 0

    def load(self, say: Say) -> LoadedTower:
        """Build the model and give it its weights.

        Raises
        ------
        BundleError
            If the model, layers, size or checkpoint do not fit, or the weights cannot be had.
        DeviceError
            If timm is not installed.
        """
        timm = import_models("timm", say)
        config = _config(timm, self.model)
        weights = self._weights(config)
        vit = self._build(timm, weights)
        patch = vit.patch_embed.patch_size[0]
        size = self.size or default_size(patch)
        grid = check_size(size, patch)
        layers = check_layers(self.layers, len(vit.blocks))
        say(f"{self.model} at {size[0]}x{size[1]}, layers {list(layers)}, tap {self.tap}")
        position = self._set_grid(vit, grid, size)
        say(f"  position embedding: {position}")
        spec = self._preprocess(timm, vit, size)
        made_with = {
            "torch": torch.__version__,
            "timm": timm.__version__,
            "position_embedding": position,
            "weights": f"random, seed {self.seed}" if weights is None else f"sha256 {sha256(weights)}",
        }
        file = f"file {self.checkpoint.name}" if self.checkpoint else None
        description = Description(
            backbone=self.model,
            pretrained="none" if weights is None else file or self.model.partition(".")[2] or "default",
            activation=type(vit.blocks[0].mlp.act).__name__.lower(),
            tap=self.tap,
            preprocess=spec,
            layers=layers,
            made_with=made_with,
        )
        tower = _Tower(vit, layers, self.tap == "norm").eval()
        return LoadedTower(description, tower, _transform(timm, spec), patch, grid)

    def _weights(self, config: Any) -> Path | None:
        """Return the file of the weights; None for random ones."""
        if self.checkpoint is not None or not self.pretrained:
            return self.checkpoint
        if config is None or not config.hf_hub_id:
            raise BundleError(f"timm has no weights for {self.model}. Give a file with --checkpoint.")
        given = config.hf_hub_filename
        names = (given,) if given else ("model.safetensors", "pytorch_model.bin")
        return download(config.hf_hub_id, names, "with --checkpoint FILE")

    def _build(self, timm: Any, weights: Path | None) -> Any:
        """Build the model at its own size, with its weights or random ones; timm converts foreign names."""
        torch.manual_seed(self.seed)
        options: dict[str, Any] = {}
        if weights is not None:
            options = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": load_weights(weights)}}
        try:
            vit = timm.create_model(self.model, num_classes=0, **options)
        except (RuntimeError, KeyError, ValueError) as error:
            if weights is None:
                raise
            reason = " ".join(str(error).split())[:300]
            raise BundleError(f"{weights} is of another architecture than {self.model}: {reason}") from error
        if not isinstance(vit, timm.models.vision_transformer.VisionTransformer):
            raise BundleError(
                f"{self.model} is a {type(vit).__name__}: expected one of timm's VisionTransformer, such as "
                "vit_small_patch14_dinov2.lvd142m. Export it by torch.onnx.export and use 'musc-export onnx'."
            )
        return vit

    def _set_grid(self, vit: Any, grid: tuple[int, int], size: tuple[int, int]) -> str:
        """Resample the position embedding to ``grid``; returns how, for the manifest."""
        stored = vit.patch_embed.grid_size
        # ``set_input_size`` resamples the embedding too, in timm's way: the stored one is taken instead.
        old = vit.pos_embed
        vit.set_input_size(img_size=size)
        if old is None:
            return "none"
        way = _way(self.model)
        new = resample(old.detach()[0], stored, grid, way)
        vit.pos_embed = torch.nn.Parameter(new[None], requires_grad=False)
        return way.say(stored, grid)

    def _preprocess(self, timm: Any, vit: Any, size: tuple[int, int]) -> PreprocessSpec:
        config = timm.data.resolve_model_data_config(vit)
        interpolation = self.interpolation or config["interpolation"]
        return PreprocessSpec(size, "squash", interpolation, tuple(config["mean"]), tuple(config["std"]))


class _Tower(torch.nn.Module):
    """The ViT with taps: pixels (B,3,H,W) to the patch tokens after each of ``layers``, and CLS."""

    def __init__(self, vit: Any, layers: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        self.vit = vit
        self.layers = list(layers)
        self.norm = norm

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tokens (B,P,C) of each layer, and the pooled embedding after the final norm (B,D)."""
        final, tokens = self.vit.forward_intermediates(
            pixels, indices=self.layers, norm=self.norm, output_fmt="NLC"
        )
        return (*tokens, self.vit.forward_head(final, pre_logits=True))


def _config(timm: Any, name: str) -> Any:
    known = {*timm.list_models(), *timm.list_pretrained()}
    if name not in known:
        raise BundleError(f"timm has no model {name!r}. Similar names: {near(name, sorted(known))}.")
    return timm.models.get_pretrained_cfg(name)


def _way(name: str) -> Resampling:
    """Return the way in which the model's own authors resample its position embedding."""
    if "reg4_dinov2" in name:
        return UPSTREAM
    return AUTHORS_DINO if "dino" in name else AUTHORS


def _transform(timm: Any, spec: PreprocessSpec) -> Any:
    """Make timm's own transform, with its resize that ignores aspect."""
    return timm.data.create_transform(
        input_size=(3, *spec.size),
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        crop_pct=1.0,
        crop_mode="squash",
    )
