"""``musc-export clip`` and ``musc-export timm``: options for models that torch libraries carry."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import arguments
from .usage import Parser

if TYPE_CHECKING:
    from ..export.source import Source

Make = Callable[[argparse.Namespace, "Source"], int]


class AddOutput(Protocol):
    """Adds the options of every command that writes a bundle."""

    def __call__(self, parser: argparse.ArgumentParser, size: int | None) -> None: ...


def add_commands(
    commands: argparse._SubParsersAction[Parser],
    add_output: AddOutput,
    make: Make,
) -> None:
    """Add the two commands; ``make`` turns a source into a bundle."""
    clip = commands.add_parser("clip", help="the ViT of an open_clip model")
    _add_clip(clip)
    add_output(clip, None)
    clip.set_defaults(run=lambda args: make(args, _clip(args)))
    timm = commands.add_parser("timm", help="a timm ViT: DINO, DINOv2, CLIP, SigLIP, ...")
    _add_timm(timm)
    add_output(timm, None)
    timm.set_defaults(run=lambda args: make(args, _timm(args)))


def _add_clip(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="open_clip's name, such as ViT-L-14-336")
    add("--pretrained", default="openai", metavar="TAG",
        help="open_clip's tag of the weights; none for random ones (default: openai)")  # fmt: skip
    _add_weights(parser)
    add("--activation", choices=("auto", "gelu", "quickgelu"), default="auto",
        help="auto: as the authors' code chooses, QuickGELU for OpenAI's weights at their own size only "
        "(default: auto)")  # fmt: skip
    add("--preset", choices=("authors", "openclip"), default="authors",
        help="whose position embedding, activation and interpolation (default: authors)")  # fmt: skip


def _add_timm(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model", required=True, metavar="NAME", help="timm's name, such as vit_small_patch14_dinov2.lvd142m"
    )
    add("--pretrained", choices=("yes", "none"), default="yes",
        help="none for random weights; the tag is the name's part behind the dot (default: yes)")  # fmt: skip
    _add_weights(parser)
    add("--tap", choices=("residual", "norm"), default="residual",
        help="norm: the model's final norm on every tapped block, as the authors run DINO "
        "(default: residual)")  # fmt: skip
    add("--interpolation", choices=("bicubic", "bilinear"),
        help="of the resize; the authors run DINO with bilinear (default: the model's own)")  # fmt: skip


def _add_weights(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", type=Path, metavar="FILE",
        help="read the weights from this safetensors file, or torch file of tensors alone")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of random weights (default: 0)")
    add("--layers", type=arguments.integers, metavar="L,L,...",
        help="blocks to tap, 0-based (default: the last of each quarter, such as 5,11,17,23)")  # fmt: skip


def _clip(args: argparse.Namespace) -> Source:
    from .extras import need

    need("musc-export clip")
    from ..export.clip import ClipSource

    return ClipSource(
        model=args.model,
        pretrained=args.pretrained,
        size=args.image_size,
        layers=args.layers,
        activation=args.activation,
        preset=args.preset,
        checkpoint=args.checkpoint,
        seed=args.seed,
    )


def _timm(args: argparse.Namespace) -> Source:
    from .extras import need

    need("musc-export timm")
    from ..export.timm_vit import TimmSource

    return TimmSource(
        model=args.model,
        size=args.image_size,
        layers=args.layers,
        tap=args.tap,
        interpolation=args.interpolation,
        pretrained=args.pretrained == "yes",
        checkpoint=args.checkpoint,
        seed=args.seed,
    )
