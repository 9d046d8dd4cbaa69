"""The visual tower of an open_clip model as the source of a bundle.

Upstream open_clip differs from the authors' code in three points; ``preset`` decides whose way is taken:

                        authors (default)                         openclip
    position embedding  bicubic                                   bicubic, antialiased
    activation (auto)   QuickGELU for OpenAI's weights at their   as the model's name says
                        own size, and where the name says so
    interpolation       bicubic                                   as the tag's training had it

Both resize without regard to aspect, as the runtime does: upstream's center crop would not see a product's
ends.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..runtime.errors import BundleError
from ..runtime.types import PreprocessSpec
from ..runtime.vit.hashes import sha256
from .messages import Say
from .position import AUTHORS, UPSTREAM, resample
from .source import Description, check_layers, check_size, default_size
from .torch_setup import import_models
from .tower import LoadedTower
from .weights import State, assign, download, load_weights, near

# The text tower is not exported: the smallest one stands in for it.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
RANDOM = "none"


@dataclass(frozen=True)
class ClipSource:
    """The open_clip model to export; ``pretrained`` is a tag, or ``none`` for random weights of ``seed``.

    ``size`` None means about 518 pixels, ``layers`` None the authors' layers.  ``checkpoint`` is a file with
    the weights that ``pretrained`` names.
    """

    model: str
    pretrained: str
    size: tuple[int, int] | None = None
    layers: tuple[int, ...] | None = None
    activation: str = "auto"
    preset: str = "authors"
    checkpoint: Path | None = None
    seed: int = 0

    def load(self, say: Say) -> LoadedTower:
        """Build the tower and give it its weights.

        Raises
        ------
        BundleError
            If the model, tag, layers, size or checkpoint do not fit, or the weights cannot be had.
        DeviceError
            If open_clip is not installed.
        """
        open_clip = import_models("open_clip", say)
        config = _config(open_clip, self.model)
        tag = _tag(open_clip, self.model, self.pretrained)
        vision = config["vision_cfg"]
        if "timm_model_name" in vision or not isinstance(vision.get("layers", 12), int):
            raise BundleError(
                f"{self.model} has no ViT of open_clip's own. For a tower of timm use 'musc-export timm'."
            )
        patch = vision.get("patch_size", 16)
        size = self.size or default_size(patch)
        grid = check_size(size, patch)
        layers = check_layers(self.layers, vision.get("layers", 12))
        quick, why = self._quick_gelu(config, size)
        say(f"{self.model} ({self.pretrained}) at {size[0]}x{size[1]}, layers {list(layers)}")
        say(f"  activation {_name(quick)}: {why}")
        weights = self._weights(tag)
        tower = _build(open_clip, self.model, quick, self.seed)
        position = self._set_weights(tower, weights, grid)
        tower.grid_size, tower.image_size = grid, size
        say(f"  position embedding: {position}")
        spec = self._preprocess(tag, size)
        made_with = {
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "preset": self.preset,
            "activation": why,
            "position_embedding": position,
            "weights": f"random, seed {self.seed}" if weights is None else f"sha256 {sha256(weights)}",
        }
        description = Description(
            self.model, self._pretrained_name(), _name(quick), "residual", spec, layers, made_with
        )
        transform = _transform(spec)
        return LoadedTower(description, _Tower(tower, layers).eval(), transform, patch, grid)

    def _pretrained_name(self) -> str:
        if self.checkpoint is None:
            return self.pretrained
        file = f"file {self.checkpoint.name}"
        return file if self.pretrained == RANDOM else f"{self.pretrained}, {file}"

    def _quick_gelu(self, config: dict[str, Any], size: tuple[int, int]) -> tuple[bool, str]:
        """Decide whether the tower uses QuickGELU; returns that and why."""
        if self.activation != "auto":
            return self.activation == "quickgelu", "as asked for"
        if config.get("quick_gelu", False):
            return True, "the model's configuration says so"
        native = config["vision_cfg"].get("image_size", 224)
        if self.preset == "authors" and self.pretrained == "openai":
            at_home = size == (native, native)
            where = "at" if at_home else "at another than"
            return at_home, f"as the authors run OpenAI's weights {where} their own size, {native}"
        return False, "the model's configuration does not say QuickGELU"

    def _weights(self, tag: dict[str, Any]) -> Path | None:
        """Return the file of the weights; None for random ones."""
        if self.checkpoint is not None or self.pretrained == RANDOM:
            return self.checkpoint
        repository, _, name = tag["hf_hub"].rpartition("/")
        names = (name,) if name else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        return download(repository, names, f"with --pretrained {self.pretrained} --checkpoint FILE")

    def _set_weights(self, tower: Any, weights: Path | None, grid: tuple[int, int]) -> str:
        """Load the weights and resample the position embedding to ``grid``; returns how, for the manifest."""
        stored = tower.grid_size
        if weights is not None:
            state = _visual(load_weights(weights))
            assign(tower, state, str(weights))
        way = AUTHORS if self.preset == "authors" else UPSTREAM
        embedding = resample(tower.positional_embedding.detach(), stored, grid, way)
        tower.positional_embedding = torch.nn.Parameter(embedding, requires_grad=False)
        return way.say(stored, grid)

    def _preprocess(self, tag: dict[str, Any], size: tuple[int, int]) -> PreprocessSpec:
        from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        interpolation = "bicubic" if self.preset == "authors" else tag.get("interpolation", "bicubic")
        mean, std = tag.get("mean", OPENAI_DATASET_MEAN), tag.get("std", OPENAI_DATASET_STD)
        return PreprocessSpec(size, "squash", interpolation, tuple(mean), tuple(std))


class _Tower(torch.nn.Module):
    """The tower with taps: pixels (B,3,H,W) to the residual stream after each of ``layers``, and CLS."""

    def __init__(self, visual: Any, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.visual = visual
        self.layers = list(layers)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tokens (B,P,C) of each layer, and the projected CLS embedding (B,D)."""
        found = self.visual.forward_intermediates(
            pixels, indices=self.layers, normalize_intermediates=False, output_fmt="NLC"
        )
        return (*found["image_intermediates"], found["image_features"])


def _build(open_clip: Any, name: str, quick: bool, seed: int) -> Any:
    """Build the tower at its own size with random weights."""
    torch.manual_seed(seed)
    logging.disable(logging.WARNING)  # "No pretrained weights loaded": they come later
    try:
        model = open_clip.create_model(name, load_weights=False, quick_gelu=quick, text_cfg=dict(_NO_TEXT))
    finally:
        logging.disable(logging.NOTSET)
    return model.visual


def _config(open_clip: Any, name: str) -> dict[str, Any]:
    known = open_clip.list_models()
    if name not in known:
        raise BundleError(f"open_clip has no model {name!r}. Similar names: {near(name, known)}.")
    config: dict[str, Any] = open_clip.get_model_config(name)
    return config


def _tag(open_clip: Any, model: str, pretrained: str) -> dict[str, Any]:
    """Return open_clip's entry of a pretrained tag: where its weights are, and its preprocessing."""
    if pretrained == RANDOM:
        return {}
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(model)
        others = open_clip.list_pretrained_models_by_tag(pretrained)
        elsewhere = f" {pretrained!r} exists for {', '.join(others[:5])}." if others else ""
        raise BundleError(
            f"open_clip has no weights {pretrained!r} for {model}. Similar names: {near(pretrained, tags)}; "
            f"or give a file with --checkpoint.{elsewhere}"
        )
    return tag


def _visual(state: State) -> State:
    """Return the visual tower's part of a model's weights; all of them if there is only the tower."""
    part = {name.removeprefix("visual."): v for name, v in state.items() if name.startswith("visual.")}
    return part or state


def _transform(spec: PreprocessSpec) -> Any:
    """Make open_clip's own transform, with its resize that ignores aspect."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        resize_mode="squash",
    )
    return image_transform_v2(config, is_train=False)


def _name(quick: bool) -> str:
    return "quickgelu" if quick else "gelu"
