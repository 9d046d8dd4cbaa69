"""Verdicts at the command line: options of infer, musc-edge verdict, exit codes, what is printed."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.command_line import Run, run_here
from support.places import DATA

pytestmark = pytest.mark.slow

KEPT = DATA / "schema1"
BUNDLE, LOT, RESULTS = KEPT / "bundle", KEPT / "lot", KEPT / "results"


def edge(*arguments: str | Path, cwd: Path | None = None) -> Run:
    return run_here(["musc-edge", *map(str, arguments)], cwd=cwd)


def infer(out: Path, *options: str | Path, lot: Path = LOT) -> Run:
    return edge("infer", lot, "-b", BUNDLE, "--scorer", "numpy", "-o", out, *options)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RESULTS, tmp_path / "out"))


def verdicts(out: Path) -> dict[str, str]:
    with (out / "scores.csv").open(newline="") as file:
        return {row["image"]: row["verdict"] for row in csv.DictReader(file)}


def test_infer_judges_and_says_what_it_means(tmp_path: Path) -> None:
    run = infer(tmp_path / "out", "--method", "paper", "--reject-rate", "25%", "--min-region", "3")
    assert run.returncode == 0, run.stderr
    assert "2 reject, 0 review, 6 not flagged; reject from 0.1289" in run.stdout
    assert "Rejects at most 25 % of a lot" in run.stdout
    assert [name for name, word in verdicts(tmp_path / "out").items() if word == "reject"] == [
        "1.png",
        "5.png",
    ]
    facts = json.loads((tmp_path / "out/lot.json").read_text())["verdicts"]
    assert (facts["rule"], facts["counts"]["reject"], facts["min_region"]) == ("reject-rate", 2, 3)
    assert (tmp_path / "out/regions.csv").is_file()


def test_infer_without_a_rule_says_nothing_of_verdicts(tmp_path: Path) -> None:
    run = infer(tmp_path / "out", "--json")
    content = json.loads(run.stdout)
    assert content["verdicts"] is None
    assert {row["verdict"] for row in content["ranked"]} == {""}
    assert set(verdicts(tmp_path / "out").values()) == {""}
    assert not (tmp_path / "out/regions.csv").exists()


def test_json_of_infer(tmp_path: Path) -> None:
    content = json.loads(infer(tmp_path / "out", "--threshold", "0.15", "--json").stdout)
    assert content["verdicts"]["counts"] == {"reject": 1, "review": 0, "not flagged": 7}
    assert content["ranked"][0]["verdict"] == "reject"


@pytest.mark.parametrize(
    ("rule", "fail_on", "code"),
    [
        (["--threshold", "0.15"], "reject", 9),
        (["--threshold", "1.5"], "reject", 0),
        (["--threshold", "1.5", "--review-from", "0.15"], "reject", 0),
        (["--threshold", "1.5", "--review-from", "0.15"], "review", 9),
        (
            ["--verdict", "auto"],
            "reject",
            9,
        ),
    ],
)
def test_fail_on(tmp_path: Path, rule: list[str], fail_on: str, code: int) -> None:
    """A lot that is too small for auto has no verdicts, which does not mean that it has no reject."""
    assert infer(tmp_path / "out", *rule, "--fail-on", fail_on).returncode == code
    assert (tmp_path / "out/scores.csv").is_file()


def test_a_verdict_goes_before_skipped_images(tmp_path: Path) -> None:
    """3 says that images were not scored; 9 was asked for."""
    lot = Path(shutil.copytree(LOT, tmp_path / "lot"))
    (lot / "broken.png").write_bytes(b"")
    assert infer(tmp_path / "a", "--threshold", "0.15", "--fail-on", "reject", lot=lot).returncode == 9
    assert infer(tmp_path / "b", "--threshold", "1.5", "--fail-on", "reject", lot=lot).returncode == 3
    assert verdicts(tmp_path / "a")["broken.png"] == ""


def test_a_lot_that_is_too_small_for_auto_is_scored_without_verdicts(tmp_path: Path) -> None:
    run = infer(tmp_path / "out", "--verdict", "auto")
    assert run.returncode == 0
    assert "no verdicts: 8 images are too few to say what is unusual" in run.stdout
    assert set(verdicts(tmp_path / "out").values()) == {""}


def test_groups_are_judged_by_themselves(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(LOT, tmp_path / "lot" / name)
    run = infer(tmp_path / "out", "--group-by", "folder", "--reject-count", "1", lot=tmp_path / "lot")
    assert run.returncode == 0, run.stderr
    rejected = [name for name, word in verdicts(tmp_path / "out").items() if word == "reject"]
    assert rejected == ["a/5.png", "b/5.png"]
    assert edge("verdict", tmp_path / "out", "--reject-count", "2").returncode == 0
    assert list(verdicts(tmp_path / "out").values()).count("reject") == 4


def test_a_limit_from_another_lot(tmp_path: Path) -> None:
    assert infer(tmp_path / "good").returncode == 0
    run = infer(tmp_path / "out", "--threshold-from", tmp_path / "good")
    assert run.returncode == 0, run.stderr
    assert "0 reject, 0 review, 8 not flagged" in run.stdout
    assert "the limit comes from 8 good images alone" in run.stdout
    with (tmp_path / "out/scores.csv").open() as file:
        p = [float(row["p"]) for row in csv.DictReader(file)]
    assert sorted(p) == pytest.approx(np.arange(2, 10) / 9, abs=1e-5)
    other = infer(tmp_path / "no", "--threshold-from", tmp_path / "good", "--degrees", "1")
    assert other.returncode == 6
    assert "with degrees (1, 5), this lot with (1,)" in other.stderr
    assert not (tmp_path / "no").exists()


def test_a_limit_takes_the_other_lots_share_of_the_position_median(tmp_path: Path) -> None:
    assert infer(tmp_path / "good", "--position-median", "0.5").returncode == 0
    run = infer(tmp_path / "out", "--threshold-from", tmp_path / "good")  # 8 images alone settle on 0
    assert run.returncode == 0, run.stderr
    assert "0 reject, 0 review, 8 not flagged" in run.stdout
    chosen = json.loads((tmp_path / "out/lot.json").read_text())["chosen"]
    assert {"option": "position_median", "value": 0.5, "why": f"as in {tmp_path / 'good'}"} in chosen
    inside = infer(tmp_path / "no", "--threshold-from", tmp_path / "good", "--roi", "0,0,20,20")
    assert inside.returncode == 6
    assert "over whole images, this lot within the region 0,0,20,20" in inside.stderr


def test_verdict_shows_what_is_there(out: Path) -> None:
    before = (out / "scores.csv").read_bytes()
    assert "no verdicts: give a rule" in edge("verdict", out).stdout
    assert (out / "scores.csv").read_bytes() == before
    edge("verdict", out, "--reject-count", "1")
    run = edge("verdict", out, "--fail-on", "reject")
    assert run.returncode == 9
    assert "1 5.png" in run.stdout
    assert "reject" in run.stdout


def test_verdict_as_json(out: Path) -> None:
    content = json.loads(edge("verdict", out, "--reject-count", "1", "--json").stdout)
    (lot,) = content["lots"]
    assert lot["verdicts"]["rule"] == "reject-count"
    assert lot["images"][0] == {
        "image": "5.png",
        "verdict": "reject",
        "raw_score": 0.250605,
        "score": 0.166921,
    }
    assert "no regions of 1 flagged images" in lot["warnings"][0]


def test_marks_with_the_threshold_that_the_person_chose(out: Path, tmp_path: Path) -> None:
    about = json.loads((out / "lot.json").read_text())
    content: dict[str, Any] = {
        "format": "musc-edge marks", "schema": 1, "lot": about["lot"], "bundle": about["bundle"]["sha256"],
        "threshold": 0.128, "judged_by": "score",
        "marks": [{"image": "1.png", "mark": "good", "remark": "dust"}],
    }  # fmt: skip
    marks = tmp_path / "marks.json"
    marks.write_text(json.dumps(content))
    run = edge("verdict", out, "--marks", marks)
    assert run.returncode == 0, run.stderr
    assert verdicts(out) == {**dict.fromkeys(verdicts(out), ""), "1.png": "not flagged"}
    run = edge("verdict", out, "--marks", marks, "--threshold-of-marks")
    assert run.returncode == 0, run.stderr
    assert [name for name, word in verdicts(out).items() if word == "reject"] == ["5.png"]
    assert "and 1 mark of a person" in run.stdout
    marks.write_text(json.dumps({**content, "review_from": 0.0}))
    run = edge("verdict", out, "--marks", marks, "--threshold-of-marks")
    assert run.returncode == 0, run.stderr
    assert "review" in verdicts(out).values()
    assert edge("verdict", out, "--clear").returncode == 0
    assert set(verdicts(out).values()) == {""}
    marks.write_text(json.dumps({**content, "bundle": "other"}))
    run = edge("verdict", out, "--marks", marks)
    assert run.returncode == 6
    assert "is about the bundle" in run.stderr


def test_exports_are_written_with_the_verdicts(tmp_path: Path) -> None:
    out = tmp_path / "out"
    infer(out, "--threshold", "0.1", "--by", "raw_score")
    coco, tasks = tmp_path / "coco.json", tmp_path / "tasks.json"
    run = edge("verdict", out, "--coco", coco, "--label-studio", tasks)
    assert run.returncode == 0, run.stderr
    content = json.loads(coco.read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{k}.png" for k in range(8)]
    for annotation in content["annotations"]:
        height, width = annotation["segmentation"]["size"]
        counts = annotation["segmentation"]["counts"]
        inside = np.repeat(np.arange(len(counts)) % 2, counts)
        mask = np.pad(inside, (0, height * width - len(inside))).reshape(width, height).T
        assert mask.sum() == annotation["area"]
        x, y, w, h = annotation["bbox"]
        assert mask[y : y + h, x : x + w].sum() == mask.sum()
    listed = json.loads(tasks.read_text())
    assert len(listed) == 8
    rectangles = [each for task in listed for made in task["predictions"] for each in made["result"]]
    assert len(rectangles) == len(content["annotations"]) > 0
    assert all(0 <= each["value"]["x"] + each["value"]["width"] <= 100 for each in rectangles)
    before = (out / "scores.csv").read_bytes()
    again = edge("verdict", out, "--reject-count", "1", "--coco", coco)
    assert again.returncode == 7
    assert "--overwrite" in again.stderr
    assert (out / "scores.csv").read_bytes() == before
    assert edge("verdict", out, "--coco", coco, "--overwrite").returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threshold", "0.5", "--reject-count", "2"], "exclude each other"),
        (["--verdict", "auto", "--threshold", "0.5"], "exclude each other"),
        (["--threshold", "3"], "'3': expected a distance from 0 to 2"),
        (["--threshold", "nan"], "expected a distance"),
        (["--reject-rate", "0"], "expected a share"),
        (["--reject-rate", "5"], "'5': expected a share such as 0.05 or 5%"),
        (["--reject-rate", "x%"], "expected a share"),
        (["--reject-count", "0"], "expected a whole number of 1 or more"),
        (["--verdict", "otsu"], "expected auto"),
        (["--review-from", "0.2"], "--review-from belongs to --threshold"),
        (["--threshold", "0.2", "--review-from", "0.3"], "expected a review below"),
        (["--good-rejected", "0.1", "--threshold", "0.2"], "belongs to --threshold-from"),
        (["--by", "score"], "--by belongs to a rule"),
        (["--threshold-from", "nowhere"], "nowhere is no folder"),
        (["--threshold-from", str(RESULTS), "--by", "score"], "judges by raw_score"),
    ],
)
@pytest.mark.parametrize("command", ["infer", "verdict"])
def test_options_that_make_no_sense(
    command: str, options: list[str], said: str, out: Path, tmp_path: Path
) -> None:
    run = edge(command, LOT if command == "infer" else out, *options, cwd=tmp_path)
    assert run.returncode == 2
    assert said in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--clear", "--threshold", "0.5"], "--clear takes verdicts away"),
        (["--marks", "nowhere.json"], "nowhere.json does not exist"),
        (["--threshold-of-marks"], "--threshold-of-marks takes --marks"),
    ],
)
def test_options_of_verdict_that_make_no_sense(options: list[str], said: str, out: Path) -> None:
    run = edge("verdict", out, *options)
    assert run.returncode == 2
    assert said in run.stderr


def test_folders_that_are_no_results(tmp_path: Path) -> None:
    assert edge("verdict", tmp_path / "nowhere", "--reject-count", "1").returncode == 2
    assert edge("verdict", tmp_path, "--reject-count", "1").returncode == 6
    assert list(tmp_path.iterdir()) == []
