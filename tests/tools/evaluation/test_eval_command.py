"""``musc-edge eval`` on results as they are written: numbers, files, several products, refusals."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.scoring.anomaly_map import upsample
from musc_edge.tools.edge import main
from musc_edge.tools.evaluation.pixel_metrics import pixel_metrics
from support.command_line import Run, run_here
from support.places import DATA

RESULTS = DATA / "schema1" / "results"
NAMES = [f"{i}.png" for i in range(8)]
DEFECTIVE = ("5.png", "2.png")


def evaluate(*arguments: str | Path) -> Run:
    return run_here(["musc-edge", "eval", *map(str, arguments)])


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """A table that calls two of eight images defective, with masks of their upper left quarter."""
    pixels = np.zeros((40, 40), np.uint8)
    pixels[:20, :20] = 255
    for name in DEFECTIVE:
        Image.fromarray(pixels).save(tmp_path / f"mask_{name}")
    rows = [
        f"{name},{int(name in DEFECTIVE)},{f'mask_{name}' if name in DEFECTIVE else ''}" for name in NAMES
    ]
    table = tmp_path / "truth.csv"
    table.write_text("\n".join(["image,label,mask", *rows]) + "\n")
    return table


def scores() -> dict[str, float]:
    with (RESULTS / "scores.csv").open() as file:
        return {row["image"]: float(row["score"]) for row in csv.DictReader(file)}


def test_numbers_and_files(truth: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    run = evaluate(RESULTS, "--truth", truth, "--bootstrap", "20", "-o", out, "--json")
    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout)
    assert json.loads((out / "evaluation.json").read_text()) == facts
    (product,) = facts["products"]
    values = scores()
    pairs = [(values[bad] > values[good]) for bad in DEFECTIVE for good in NAMES if good not in DEFECTIVE]
    assert product["image"]["auroc"]["value"] == pytest.approx(np.mean(pairs))
    assert (product["image"]["good"], product["image"]["defective"]) == (6, 2)

    def maps() -> Any:
        for name in NAMES:
            grid = np.load(RESULTS / "maps" / name.replace("png", "npy"))
            mask = np.zeros((32, 32), bool)
            mask[:15, :15] = name in DEFECTIVE  # the 16th is only partly inside, once resized
            yield upsample(grid[None], (32, 32))[0], mask

    expected = pixel_metrics(maps())
    assert product["pixel"]["auroc"] == pytest.approx(expected.auroc)
    assert product["pixel"]["aupro"]["0.3"] == pytest.approx(expected.aupro[0.3])
    assert product["pixel"]["regions"] == 2
    with (out / "evaluation.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["px AUROC"]) == pytest.approx(100 * expected.auroc, abs=1e-3)
    with Image.open(out / "curves.png") as picture:
        assert picture.size[0] > 1000
    again = evaluate(RESULTS, "--truth", truth, "-o", out)
    assert again.returncode == 7
    assert "--overwrite" in again.stderr


def test_text_has_intervals_confusion_and_remarks(truth: Path) -> None:
    truth.write_text(truth.read_text().replace("0.png,0,\n", ""))
    run = evaluate(RESULTS, "--truth", truth, "--threshold", "0.0", "--bootstrap", "20")
    assert run.returncode == 0, run.stderr
    assert "AUROC" in run.stdout
    assert "95 % of bootstrap draws" in run.stdout
    assert "(the threshold given): 2 defects found, 0 missed, 5 false alarms, 0 good passed" in run.stdout
    assert "1 of 8 images are not in the table and are left out: 0.png" in run.stdout


def test_several_products_have_a_mean(truth: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(RESULTS, other)
    about = json.loads((other / "lot.json").read_text())
    (other / "lot.json").write_text(json.dumps({**about, "lot": "/data/bottle/test"}))
    run = evaluate(RESULTS, other, "--truth", truth, "--bootstrap", "0", "--json")
    facts = json.loads(run.stdout)
    assert [product["name"] for product in facts["products"]] == ["lot", "bottle"]
    one = facts["products"][0]["image"]["auroc"]["value"]
    assert facts["mean_percent"]["AUROC"] == pytest.approx(100 * one)
    assert facts["mean_percent"]["images"] == 16


def test_groups_are_products(truth: Path, tmp_path: Path) -> None:
    out = tmp_path / "grouped"
    shutil.copytree(RESULTS, out / "groups" / "01_a")
    about = json.loads((RESULTS / "lot.json").read_text())
    content = {"lot": "x", "images": 8, "skipped": [], "warnings": [], "groups": {"groups/01_a": about}}
    (out / "lot.json").write_text(json.dumps(content))
    run = evaluate(out, "--truth", truth, "--bootstrap", "0", "--json")
    assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)["products"]) == 1


def test_verdicts_of_the_results_count(truth: Path, tmp_path: Path) -> None:
    other = tmp_path / "judged"
    shutil.copytree(RESULTS, other)
    lines = (other / "scores.csv").read_text().splitlines()
    judged = [f"{line},{'reject' if line.startswith('5.png') else 'not flagged'}" for line in lines[1:]]
    (other / "scores.csv").write_text("\n".join([f"{lines[0]},verdict", *judged]) + "\n")
    run = evaluate(other, "--truth", truth, "--bootstrap", "0")
    assert "the verdicts in scores.csv): 1 defects found, 1 missed, 0 false alarms, 6 good" in run.stdout


def test_verdicts_that_musc_edge_gives_count(truth: Path, tmp_path: Path) -> None:
    """What musc-edge verdict writes is what eval counts; a review is shown, and counts as not rejected."""
    other = tmp_path / "judged"
    shutil.copytree(RESULTS, other)
    assert main(["verdict", str(other), "--threshold", "0.15", "--review-from", "0.12"]) == 0
    run = evaluate(other, "--truth", truth, "--bootstrap", "0")
    assert "the verdicts in scores.csv): 1 defects found, 1 missed, 0 false alarms, 6 good" in run.stdout
    assert "for review, of those missed or passed: 0 defects, 2 good" in run.stdout
    facts = json.loads(evaluate(other, "--truth", truth, "--bootstrap", "0", "--json").stdout)
    assert facts["products"][0]["review"] == {"defective": 0, "good": 2}


def test_images_without_a_verdict_are_said(truth: Path, tmp_path: Path) -> None:
    other = tmp_path / "marked"
    shutil.copytree(RESULTS, other)
    (tmp_path / "marks.csv").write_text("image,mark\n5.png,bad\n0.png,good\n")
    assert main(["verdict", str(other), "--marks", str(tmp_path / "marks.csv")]) == 0
    run = evaluate(other, "--truth", truth, "--bootstrap", "0")
    assert "1 defects found, 1 missed, 0 false alarms, 6 good" in run.stdout
    assert "6 images have no verdict and count as not rejected" in run.stdout


@pytest.mark.parametrize("kind", ["tiff", "png16", "png8"])
def test_maps_of_every_format(kind: str, truth: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(RESULTS, other)
    about = json.loads((other / "lot.json").read_text())
    scale = about["png_map_scale"]
    for path in (other / "maps").glob("*.npy"):
        values = np.load(path)
        unit = (values - scale["low"]) / (scale["high"] - scale["low"])
        top, dtype = (255, np.uint8) if kind == "png8" else (65535, np.uint16)
        pixels = values if kind == "tiff" else np.round(unit * top).astype(dtype)
        Image.fromarray(pixels).save(path.with_suffix(".tiff" if kind == "tiff" else ".png"))
    about["settings"]["map_format"] = kind
    (other / "lot.json").write_text(json.dumps(about))
    suffix = ".tiff" if kind == "tiff" else ".png"
    (other / "scores.csv").write_text((other / "scores.csv").read_text().replace(".npy", suffix))
    found, plain = (
        json.loads(evaluate(folder, "--truth", truth, "--bootstrap", "0", "--json").stdout)["products"][0]
        for folder in (other, RESULTS)
    )
    tolerance = {"tiff": 1e-9, "png16": 1e-3, "png8": 0.02}[kind]
    assert found["pixel"]["auroc"] == pytest.approx(plain["pixel"]["auroc"], abs=tolerance)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("lot.json", "holds no results"),
        ("scores.csv", r"scores.csv cannot be read"),
        ("maps/5.npy", "the map"),
    ],
)
def test_missing_files(damage: str, says: str, truth: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(RESULTS, other)
    (other / damage).unlink()
    run = evaluate(other, "--truth", truth)
    assert run.returncode == 6
    assert says in run.stderr


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b'{"lot": 1}', b"\xff", b'{"lot": "x", "images": 8, "skipped": []}']
)
def test_a_lot_json_that_is_not_ours(content: bytes, truth: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(RESULTS, other)
    (other / "lot.json").write_bytes(content)
    run = evaluate(other, "--truth", truth)
    assert run.returncode == 6
    assert "lot.json" in run.stderr


def test_without_its_libraries(truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musc_edge._extras.find_spec", lambda name: None)
    run = evaluate(RESULTS, "--truth", truth)
    assert run.returncode == 5
    assert "pip install 'musc-edge[eval]'" in run.stderr
