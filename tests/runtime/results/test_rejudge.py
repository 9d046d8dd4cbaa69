"""Judging results anew: what changes, what stays, and what is refused."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge import Auto, LotResult, RejectCount, Threshold, ThresholdFrom, read_judged_lot
from musc_edge.runtime.errors import LotError, OutputError
from musc_edge.runtime.results import rejudge as module
from musc_edge.runtime.results.image_files import MAP_FORMATS, OutputOptions
from musc_edge.runtime.results.read_results import read_results
from musc_edge.runtime.results.rejudge import Request, judged_results, rejudge
from musc_edge.runtime.results.write import COLUMNS, combine, write_results
from musc_edge.runtime.types import SkippedImage
from musc_edge.runtime.verdict.marks import Mark, Marks
from support.lots import lot_result
from support.places import DATA

pytestmark = pytest.mark.slow

NAMES = [f"{k}.png" for k in range(24)]
SKIPPED = [SkippedImage("99.png", "unreadable", "the file is empty")]
OLD = DATA / "schema1" / "results"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> LotResult:
    return lot_result(tmp_path_factory.mktemp("lot") / "lot", NAMES, SKIPPED, size=(20, 30))


@pytest.fixture(scope="module")
def saved(result: LotResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "out"
    result.save(folder, overlays=True)
    return folder


@pytest.fixture
def out(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "out"))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def about(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "lot.json").read_text())
    return content


def files(out: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its identity and content."""
    found = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {str(path.relative_to(out)): (path.stat().st_ino, path.read_bytes()) for path in found}


def marks(**of: str) -> Marks:
    return Marks(Path("marks.csv"), {f"{name[1:]}.png": Mark(mark) for name, mark in of.items()})


@pytest.mark.parametrize("rule", [RejectCount(5), Threshold(0.7, 0.6, by="raw_score"), Auto()])
@pytest.mark.parametrize("map_format", MAP_FORMATS)
def test_judged_anew_is_as_judged_at_once(
    result: LotResult, out: Path, tmp_path: Path, rule: Any, map_format: str
) -> None:
    """The files that a lot has that was judged when it was written, but for what 8 or 16 bits cannot hold."""
    result.judge(rule).save(tmp_path / "other", overlays=True, map_format=map_format)
    result.save(out, overlays=True, map_format=map_format, overwrite=True)
    rejudge(out, Request(rule))
    assert (out / "scores.csv").read_bytes() == (tmp_path / "other" / "scores.csv").read_bytes()
    assert about(out)["verdicts"] == about(tmp_path / "other")["verdicts"]
    mine, other = (table(folder / "regions.csv") for folder in (out, tmp_path / "other"))
    if not map_format.startswith("png"):
        assert mine == other
    assert bool(mine) == bool(other)


def test_all_else_is_the_same_file(out: Path) -> None:
    before = files(out)
    rejudge(out, Request(RejectCount(3)))
    after = files(out)
    changed = {"scores.csv", "lot.json"}
    assert after.keys() - before.keys() == {"regions.csv"}
    assert {name for name in before if after[name] != before[name]} == changed
    assert sum(name.startswith("maps/") for name in before) == 24
    rejudge(out, Request(clear=True))
    cleared = files(out)
    assert {name: content for name, (_, content) in cleared.items()} == {
        name: content for name, (_, content) in before.items()
    }


def test_only_verdicts_change_in_the_table(out: Path) -> None:
    before = table(out / "scores.csv")
    rejudge(out, Request(RejectCount(3)))
    after = table(out / "scores.csv")
    assert [{**row, "verdict": "", "p": ""} for row in after] == before
    worst = sorted(before[:-1], key=lambda row: -float(row["score"]))[:3]
    assert {row["image"] for row in after if row["verdict"] == "reject"} == {row["image"] for row in worst}
    assert after[-1]["image"] == "99.png"
    assert after[-1]["verdict"] == ""


def test_columns_of_a_later_version_stay(out: Path) -> None:
    lines = (out / "scores.csv").read_text().splitlines()
    (out / "scores.csv").write_text(
        "\n".join([f"{lines[0]},new", *(f"{line},x" for line in lines[1:])]) + "\n"
    )
    rejudge(out, Request(RejectCount(1)))
    rows = table(out / "scores.csv")
    assert list(rows[0]) == [*COLUMNS, "new"]
    assert {row["new"] for row in rows} == {"x"}


def test_results_of_an_earlier_version_are_judged(tmp_path: Path) -> None:
    """Without columns for verdicts and sizes of images; regions take the images' files."""
    out = Path(shutil.copytree(OLD, tmp_path / "out"))
    facts = about(out)
    (judged,) = rejudge(out, Request(RejectCount(1)))
    assert judged.unlocated == ("5.png",)
    assert [row["verdict"] for row in table(out / "scores.csv")].count("reject") == 1
    assert {**about(out), "verdicts": None} == {**facts, "verdicts": None}
    facts["lot"] = str(DATA / "schema1" / "lot")
    (out / "lot.json").write_text(json.dumps(facts))
    (judged,) = rejudge(out, Request(RejectCount(1)))
    assert judged.unlocated == ()
    assert {row["image"] for row in table(out / "regions.csv")} == {"5.png"}


def test_marks_go_before_the_rule_and_stay(out: Path) -> None:
    rejudge(out, Request(Threshold(0.6)))
    before = {row["image"]: row["verdict"] for row in table(out / "scores.csv")}
    worst, best = max(before, key=before.get), "1.png"  # type: ignore[arg-type]
    assert before[worst] == "reject"
    said = {worst: Mark("good"), best: Mark("bad", "a dent")}
    rejudge(out, Request(marks=Marks(Path("m"), said)))
    expected = {**before, worst: "not flagged", best: "reject"}
    assert {row["image"]: row["verdict"] for row in table(out / "scores.csv")} == expected
    assert about(out)["verdicts"]["rule"] == "threshold"
    assert about(out)["verdicts"]["marks"][best] == {"mark": "bad", "remark": "a dent"}
    rejudge(out, Request(Threshold(2.0)))  # another rule: what a person said still holds
    assert {row["image"] for row in table(out / "scores.csv") if row["verdict"] == "reject"} == {best}
    rejudge(out, Request(marks=Marks(Path("m"), {})))  # other marks take the place of these
    assert "reject" not in {row["verdict"] for row in table(out / "scores.csv")}


def test_p_of_the_rule_stays_when_marks_come(out: Path) -> None:
    rejudge(out, Request(Auto()))
    before = [row["p"] for row in table(out / "scores.csv")]
    assert all(before[:-1])
    rejudge(out, Request(marks=marks(_3="bad")))
    assert [row["p"] for row in table(out / "scores.csv")] == before


def test_marks_without_a_rule(out: Path) -> None:
    rejudge(out, Request(marks=marks(_3="bad", _4="good")))
    found = {row["image"]: row["verdict"] for row in table(out / "scores.csv") if row["verdict"]}
    assert found == {"3.png": "reject", "4.png": "not flagged"}
    assert about(out)["verdicts"]["rule"] == "marks"


def test_small_regions_are_left_out(out: Path) -> None:
    rejudge(out, Request(Threshold(0.6, by="raw_score")))
    areas = [int(row["area"]) for row in table(out / "regions.csv")]
    least = sorted(areas)[len(areas) // 2]
    rejudge(out, Request(min_region=least))
    assert sorted(int(row["area"]) for row in table(out / "regions.csv")) == sorted(
        a for a in areas if a >= least
    )
    assert about(out)["verdicts"]["min_region"] == least


def test_a_flagged_image_reaches_the_limit_of_the_pixels(out: Path) -> None:
    """Judged by raw scores, each has a region, whose peak lies in its box and in its own map."""
    rejudge(out, Request(Threshold(0.6, by="raw_score")))
    flagged = {row["image"] for row in table(out / "scores.csv") if row["verdict"] == "reject"}
    rows = table(out / "regions.csv")
    assert {row["image"] for row in rows} == flagged
    assert flagged
    for row in rows:
        x, y, width, height, peak_x, peak_y = (
            int(row[name]) for name in ("x", "y", "width", "height", "peak_x", "peak_y")
        )
        assert 0 <= x <= peak_x < x + width <= 30
        assert 0 <= y <= peak_y < y + height <= 20


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5)])
def test_an_image_smaller_than_its_peak_still_has_a_region(tmp_path: Path, size: tuple[int, int]) -> None:
    """At its own size the largest value may lie between two pixels."""
    result = lot_result(tmp_path / "lot", NAMES, size=size)
    result.judge(Threshold(0.85, by="raw_score")).save(tmp_path / "out")
    flagged = {row["image"] for row in table(tmp_path / "out/scores.csv") if row["verdict"] == "reject"}
    assert flagged
    assert {row["image"] for row in table(tmp_path / "out/regions.csv")} == flagged


def test_without_maps_there_are_no_regions(result: LotResult, tmp_path: Path) -> None:
    result.judge(RejectCount(3)).save(tmp_path / "out", maps="none")
    rejudge(tmp_path / "out", Request(RejectCount(2)))
    assert not (tmp_path / "out" / "regions.csv").exists()


def test_groups_are_judged_by_themselves(tmp_path: Path) -> None:
    out, parts = tmp_path / "out", {}
    for number, group in enumerate(("a", "b"), 1):
        place = f"groups/0{number}_{group}"
        (out / place).mkdir(parents=True)
        result = lot_result(tmp_path / "lot", [f"{group}/{name}" for name in NAMES])
        about_group, rows = write_results(result, out / place, tmp_path / "lot", OutputOptions(csv="excel"))
        parts[place] = (rows, about_group)
    combine(out, tmp_path / "lot", parts, form="excel")
    rejudge(out, Request(RejectCount(2), marks=Marks(Path("m"), {"b/0.png": Mark("bad")})))
    rows_read = {row["image"]: row for row in table(out / "scores.csv")}
    assert sum(row["verdict"] == "reject" for row in rows_read.values()) in (4, 5)
    assert rows_read["b/0.png"]["verdict"] == "reject"
    for place in parts:
        inner = table(out / place / "scores.csv")
        assert [row["verdict"] for row in inner] == [rows_read[row["image"]]["verdict"] for row in inner]
        assert about(out)["groups"][place]["verdicts"] == about(out / place)["verdicts"]
    both = [row for place in parts for row in table(out / place / "regions.csv")]
    assert table(out / "regions.csv") == both
    assert (out / "scores.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_names_that_a_spreadsheet_would_run_keep_one_apostrophe(tmp_path: Path) -> None:
    result = lot_result(tmp_path / "lot", [f"={k}.png" for k in range(3)])
    result.judge(RejectCount(1)).save(tmp_path / "once", csv="excel")
    result.save(tmp_path / "out", csv="excel")
    rejudge(tmp_path / "out", Request(RejectCount(1)))
    for name in ("scores.csv", "regions.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()
    assert [image.name for image in read_results(tmp_path / "out")[0].images] == [
        "=0.png",
        "=1.png",
        "=2.png",
    ]


def test_a_limit_from_another_lot(result: LotResult, out: Path, tmp_path: Path) -> None:
    rejudge(out, Request(marks=marks(_0="bad", _1="bad")))
    lot = read_judged_lot(out)
    rest = np.delete(result.raw_scores, [0, 1])
    assert lot.known == "not marked bad"
    assert sorted(lot.good) == pytest.approx(sorted(rest), abs=1e-6)
    judged = result.judge(ThresholdFrom(lot)).judgement
    assert judged
    assert judged.limits.reject_from == pytest.approx(rest.max(), abs=2e-6)
    rejudge(out, Request(marks=marks(_0="bad", _5="good", _6="good")))
    assert (read_judged_lot(out).known, len(read_judged_lot(out).good)) == ("marked good", 2)
    rejudge(out, Request(clear=True))
    assert len(read_judged_lot(out).good) == 24
    rejudge(out, Request(RejectCount(4)))
    lot = read_judged_lot(out)
    assert (lot.known, len(lot.good), len(lot.bad)) == ("not flagged", 20, 4)
    rejudge(out, Request(Threshold(0)))
    with pytest.raises(LotError, match="no image that counts as good"):
        read_judged_lot(out)


# ---- what is refused, and leaves all as it was ------------------------------------------------


def refused(out: Path, request: Request, said: str, error: type[Exception] = LotError) -> None:
    before = files(out)
    with pytest.raises(error, match=said):
        rejudge(out, request)
    assert files(out) == before
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_a_lot_that_is_too_small_for_the_rule(tmp_path: Path) -> None:
    out = Path(shutil.copytree(OLD, tmp_path / "out"))
    refused(out, Request(Auto()), "8 images are too few to say what is unusual")


def test_marks_of_others(out: Path) -> None:
    refused(out, Request(marks=marks(_77="bad")), "77.png, for which these results have no score")
    other = Marks(Path("m.json"), {}, lot="elsewhere", bundle="ab" * 32)
    refused(out, Request(marks=other), "is about the lot 'elsewhere'")


def test_results_of_somebody_else(out: Path) -> None:
    (out / "thesis.docx").write_bytes(b"x")
    refused(out, Request(RejectCount(1)), "not ours", OutputError)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lot.json", b"{}"),
        ("lot.json", b"["),
        ("scores.csv", b"image,status\n1.png,ok\n"),
        ("scores.csv", b"image,status,raw_score,score,lot_score,map,error\n1.png,ok,nan,0.1,0,,\n"),
        ("scores.csv", b"image,status,raw_score,score,lot_score,map,error\n1.png,ok,0.1\n"),
    ],
)
def test_damaged_results(out: Path, name: str, content: bytes) -> None:
    (out / name).write_bytes(content)
    refused(out, Request(RejectCount(1)), f"{name} .*(again|musc-edge infer)")


@pytest.mark.parametrize(
    ("change", "request_"),
    [
        ({"verdicts": {"rule": "threshold"}}, Request(min_region=2)),
        ({"verdicts": [1]}, Request(min_region=2)),
        ({"verdicts": {"marks": {"1.png": 3}}}, Request(RejectCount(1))),
        ({"judges_per_image": "many"}, Request(RejectCount(1))),
    ],
)
def test_a_damaged_judgement(out: Path, change: dict[str, Any], request_: Request) -> None:
    (out / "lot.json").write_text(json.dumps({**about(out), **change}))
    refused(out, request_, "damaged")


@pytest.mark.parametrize("size", ["0x5", "9999999x9999999", "x", 7, [2, 3]])
def test_a_size_that_none_can_be(out: Path, size: object) -> None:
    (out / "lot.json").write_text(json.dumps({**about(out), "image_sizes": dict.fromkeys(NAMES, size)}))
    refused(out, Request(RejectCount(1)), "is no size")


def test_a_map_that_is_missing(out: Path) -> None:
    shutil.rmtree(out / "maps")
    refused(out, Request(RejectCount(24)), "the map .* cannot be read")


def test_a_full_disk_leaves_all_as_it_was(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_json", fail)
    refused(out, Request(RejectCount(1)), "No space left", OutputError)


def test_a_second_run_at_the_same_time_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(*args: object) -> None:
        with pytest.raises(OutputError, match="another run is writing"):
            rejudge(out, Request(RejectCount(2)))

    monkeypatch.setattr(module, "_link", meanwhile)
    rejudge(out, Request(clear=True))


def test_links_are_not_followed(out: Path, tmp_path: Path) -> None:
    """A results folder that is a link: its target is judged; a link inside stays one."""
    (tmp_path / "secret").write_text("x")
    (out / "maps" / "link").symlink_to(tmp_path / "secret")
    (out / "overlays" / "folder").symlink_to(tmp_path)
    (tmp_path / "alias").symlink_to(out)
    rejudge(tmp_path / "alias", Request(RejectCount(1)))
    assert (tmp_path / "alias").is_symlink()
    assert not out.is_symlink()
    assert (out / "maps" / "link").is_symlink()
    assert (out / "overlays" / "folder").is_symlink()
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_a_file_system_without_hard_links(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    before = files(out)
    monkeypatch.setattr(os, "link", fail)
    rejudge(out, Request(RejectCount(1)))
    after = files(out)
    assert all(after[name][1] == before[name][1] for name in before if name not in ("scores.csv", "lot.json"))


def test_reading_alone_changes_nothing(out: Path) -> None:
    before = files(out)
    assert judged_results(out, Request())[0].judgement is None
    assert judged_results(out, Request(RejectCount(2)))[0].judgement is not None
    assert files(out) == before
