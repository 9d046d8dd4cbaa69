"""What a new user is told: about weights, sizes, numbers and what comes next."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from musc_edge import score_lot
from musc_edge._numbers import counted, too_few
from musc_edge.runtime.results.text import ranking
from musc_edge.tools.demo import last_words
from support.command_line import Run, run_here
from support.lots import write_png
from support.sources import edit_manifest

WORDS = "random weights"


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle for images of 16 x 24 pixels, in whose manifest a test writes."""
    return Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("bundle") / "bundle"))


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    for k in range(12):
        write_png(tmp_path / "lot" / f"{k}.png", (16, 24), seed=k)
    return tmp_path / "lot"


def infer(lot: Path, bundle: Path, *options: str) -> Run:
    command = ["musc-edge", "infer", str(lot), "-b", str(bundle), "-o", str(lot.parent / "out"), *options]
    return run_here([*command, "--scorer", "numpy", "--overwrite"])


def about(lot: Path) -> dict[str, list[str]]:
    content: dict[str, list[str]] = json.loads((lot.parent / "out" / "lot.json").read_text(encoding="ascii"))
    return content


# ---- random weights --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pretrained", "warned"), [("none", True), ("openai", False), ("as in the source file", False)]
)
@pytest.mark.slow
def test_random_weights_are_said(bundle: Path, lot: Path, pretrained: str, warned: bool) -> None:
    edit_manifest(bundle, pretrained=pretrained)
    run = infer(lot, bundle)
    assert run.returncode == 0, run.stderr
    assert (f"warning: the bundle's ViT (tiny ViT) has {WORDS}" in run.stdout) == warned
    assert any(WORDS in text for text in about(lot)["warnings"]) == warned
    assert (
        any(WORDS in text for text in json.loads(infer(lot, bundle, "--json").stdout)["warnings"]) == warned
    )
    assert (WORDS in str(score_lot(lot, bundle))) == warned
    assert (f"({WORDS})" in run_here(["musc-edge", "inspect", str(bundle)]).stdout) == warned


# ---- sizes -----------------------------------------------------------------------------------


def test_images_that_are_shrunk_are_said(bundle: Path, lot: Path) -> None:
    assert "are reduced to" not in infer(lot, bundle).stdout
    for path in lot.iterdir():
        Image.new("RGB", (240, 160), "gray").save(path)
    run = infer(lot, bundle)
    said = "240 x 160 reduced 10 x 10; one patch is 40 x 40 pixels of your image"
    before, after = run.stdout.split("most suspicious")
    assert f"resolution: {said}\n" in before
    assert f"resolution     {said}\n" in after
    warning = "images of 240 x 160 pixels are reduced to 24 x 16: a patch covers 40 x 40 pixels"
    assert f"warning: {warning}" in after
    assert any("--image-size" in text for text in about(lot)["warnings"])


# ---- how many are shown ----------------------------------------------------------------------


def listed(run: Run) -> list[str]:
    return re.findall(r"^ +\d+ (\S+\.png) ", run.stdout, re.MULTILINE)


def height_of(picture: Path) -> int:
    with Image.open(picture) as opened:
        return opened.height


def test_top_is_for_the_list_and_the_sheet(bundle: Path, lot: Path) -> None:
    sheet = lot.parent / "out" / "contact_sheet.png"
    usual, height = listed(infer(lot, bundle)), height_of(sheet)
    assert len(usual) == 10
    assert listed(infer(lot, bundle, "--top", "3")) == usual[:3]
    assert height_of(sheet) < height
    assert len(listed(infer(lot, bundle, "--top", "400"))) == 12
    refused = infer(lot, bundle, "--top", "401")
    assert (refused.returncode, "at most 400 images" in refused.stderr) == (2, True)


def test_results_for_spreadsheets(bundle: Path, lot: Path) -> None:
    (lot / "0.png").rename(lot / "=0.png")
    infer(lot, bundle, "--csv", "excel")
    score_lot(lot, bundle).save(lot.parent / "saved", csv="excel")
    for folder in ("out", "saved"):
        with (lot.parent / folder / "scores.csv").open(encoding="utf-8-sig", newline="") as file:
            assert {"'=0.png", "1.png"} < {row["image"] for row in csv.DictReader(file)}


def test_groups_for_spreadsheets(bundle: Path, lot: Path) -> None:
    for k, path in enumerate(sorted(lot.iterdir())):
        (lot / "=ab"[k % 2 :]).mkdir(exist_ok=True)
        path.rename(lot / "=ab"[k % 2 :] / path.name)
    run = infer(lot, bundle, "--csv", "excel", "--group-by", "folder")
    assert run.returncode == 0, run.stderr
    content = (lot.parent / "out" / "scores.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfimage,")
    assert b"\n'=ab/" in content


def test_the_list_is_straight_beside_wide_letters() -> None:
    """A terminal gives two columns to each letter of Chinese, Japanese and Korean, and none to marks."""
    table = ranking([("电池.png", 0.5, 0.25), ("long name.png", 0.4, 0.2), ("e\u0301.png", 0.1, 0.1)])
    assert table[1:] == [
        "   1 电池.png       0.5000  0.2500",
        "   2 long name.png  0.4000  0.2000",
        "   3 e\u0301.png          0.1000  0.1000",
    ]


# ---- one of something ------------------------------------------------------------------------


def test_one_is_singular(bundle: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "lot" / "1.png")
    run = infer(tmp_path / "lot", bundle)
    assert run.returncode == 6
    assert "1 image in " in run.stdout
    assert "1 image is too few" in run.stderr


@pytest.mark.parametrize(
    ("given", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1000, "1000 files")]
)
def test_counted(given: int, text: str) -> None:
    assert counted(given, "file") == text
    assert too_few(given, "file") == f"{text} {'is' if given == 1 else 'are'} too few"


# ---- the end of the demo ---------------------------------------------------------------------


def test_the_demo_ends_with_a_command_that_runs(
    bundle: Path, lot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its path, since the commands of the demo's environment are on no PATH, quoted for a shell."""
    place = lot.parent / "my work"
    (place / "demo-venv" / "bin").mkdir(parents=True)
    monkeypatch.chdir(lot.parent)
    lines = last_words(place / "demo-venv" / "bin", place / "bundle", Path("my work/demo/results"))
    assert lines[-1] == f"  'my work/demo-venv/bin/musc-edge' infer YOUR_FOLDER -b '{place}/bundle'"
    assert "'my work/demo/results/contact_sheet.png'" in lines[-2]
    assert [line.split(" is ")[0] for line in lines[1:3]] == ["raw", "score"]
    elsewhere = last_words(Path("/opt/venv/bin"), Path("b"), Path("out"))
    assert elsewhere[-1] == "  /opt/venv/bin/musc-edge infer YOUR_FOLDER -b b"
