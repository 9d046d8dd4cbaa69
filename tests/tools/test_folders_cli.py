"""From a folder to the images of a lot as a user meets it: taken, left out, grouped, chosen, copied."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from musc_edge.runtime.images.folder_tree import Entry, FolderTree
from support.command_line import run_here
from support.places import DATA

pytestmark = pytest.mark.slow

Run = subprocess.CompletedProcess[str]
Infer = Callable[..., Run]


@pytest.fixture(scope="module")
def cells(solar_cells: Path) -> list[Path]:
    return sorted((solar_cells / "elpv_dataset/data/images").iterdir())[:1200:20]


@pytest.fixture(scope="module")
def infer(quick_bundle: Path) -> Infer:
    """Scores real images with the real ViT."""

    def run(lot: Path | str, out: Path, *options: str, **kwargs: Any) -> Run:
        always = ["-b", str(quick_bundle), "--scorer", "numpy", "-o", str(out)]
        return run_here(["musc-edge", "infer", str(lot), *always, *options], **kwargs)

    return run


@pytest.fixture(scope="module")
def tiny() -> Infer:
    """Scores anything with a tiny ViT: for what is about the names alone."""

    def run(lot: Path | str, out: Path, *options: str, **kwargs: Any) -> Run:
        always = ["-b", str(DATA / "schema1/bundle"), "--scorer", "numpy", "-o", str(out)]
        return run_here(["musc-edge", "infer", str(lot), *always, *options], **kwargs)

    return run


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "scores.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def about(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "lot.json").read_text(encoding="ascii"))
    return content


def make_lot(folder: Path, images: list[Path]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        shutil.copy(image, folder)
    return folder


def small_lot(folder: Path, *names: str) -> Path:
    """Different tiny images of these names."""
    sources = sorted((DATA / "schema1/lot").iterdir())
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources[number % len(sources)], path)
    return folder


def ranks(out: Path) -> dict[str, int]:
    """Place of each image, the most suspicious first."""
    scored = {name: float(row["score"]) for name, row in rows(out).items() if row["score"]}
    return {name: place for place, name in enumerate(sorted(scored, key=lambda n: -scored[n]), 1)}


# ---- what is an image ------------------------------------------------------------------------


def test_every_usual_ending_has_a_row(cells: list[Path], infer: Infer, tmp_path: Path) -> None:
    """Seven of twenty pictures as jfif, jpe, gif, jp2, avif, pgm and dib used to be ignored."""
    lot = make_lot(tmp_path / "lot", cells[:13])
    jpeg2000, avif = b"\0\0\0\x0cjP  \r\n\x87\n\0\0", b"\0\0\0\x1cftypavif\0\0\0\0"
    for name, form in (
        ("a.jfif", "JPEG"),
        ("b.jpe", "JPEG"),
        ("c.gif", "GIF"),
        ("d.pgm", "PPM"),
        ("e.dib", "BMP"),
    ):
        Image.open(cells[20]).convert("L").save(lot / name, form)
    (lot / "f.jp2").write_bytes(jpeg2000)
    (lot / "g.avif").write_bytes(avif)
    run = infer(lot, tmp_path / "out")
    table = rows(tmp_path / "out")
    assert len(table) == 20
    assert {table[name]["status"] for name in ("a.jfif", "b.jpe", "e.dib")} == {"ok"}
    assert all(row["status"] == "ok" or row["error"] for row in table.values())
    assert {table[name]["status"] for name in ("f.jp2", "g.avif")} <= {"unsupported", "unreadable"}
    assert run.returncode == 3, run.stderr


def test_images_are_known_by_their_content_too(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", "1.png", "2.png", "3.png", "4.png", "scan", "scan.0001")
    (lot / "README").write_text("BM", encoding="ascii")
    run = tiny(lot, tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert set(rows(tmp_path / "out")) == {"1.png", "2.png", "3.png", "4.png", "scan", "scan.0001"}
    assert "images by their first bytes, not by their ending: 2 files" in run.stdout
    assert "not images, left out: 1 without an ending (first: README)" in run.stdout


def test_raw_files_of_cameras_are_never_scored_by_their_preview(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", *(f"{k}.png" for k in range(6)))
    for name in ("0.CR2", "alone.dng", "far.jpg.icloud"):
        shutil.copy(lot / "5.png", lot / name)
    run = tiny(lot, tmp_path / "out")
    assert run.returncode == 3
    table = rows(tmp_path / "out")
    assert (table["alone.dng"]["status"], table["far.jpg.icloud"]["status"]) == ("unsupported", "unreadable")
    assert "0.CR2" not in table
    assert "raw and working files beside an image of the same name: 1 file (first: 0.CR2)" in run.stdout


# ---- bins and thumbnails ---------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("bin_name", ["#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", ".Trash-1000"])
@pytest.mark.slow
def test_thumbnails_and_bins_change_no_score(
    cells: list[Path], infer: Infer, tmp_path: Path, bin_name: str
) -> None:
    """Three thumbnails of each image in @eaDir used to be scored as 72 more products."""
    lot = make_lot(tmp_path / "lot", cells[:8])
    assert infer(lot, tmp_path / "clean").returncode == 0
    for image in cells[:8]:
        for size in ("SM", "M", "XL"):
            thumbnail = lot / "@eaDir" / image.name / f"SYNOPHOTO_THUMB_{size}.jpg"
            thumbnail.parent.mkdir(parents=True, exist_ok=True)
            Image.open(image).resize((75, 75)).save(thumbnail)
    make_lot(lot / bin_name / "deep", cells[8:10])
    run = infer(lot, tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out/scores.csv").read_bytes() == (tmp_path / "clean/scores.csv").read_bytes()
    assert "thumbnails, bins, snapshots and caches of other programs: 2 folders with 26 files" in run.stdout
    entries = {entry["name"]: entry["files"] for entry in about(tmp_path / "out")["left_out"]["entries"]}
    assert entries == {"@eaDir/": 24, f"{bin_name}/": 2}


def test_folders_of_products_are_never_taken_for_bins(tiny: Infer, tmp_path: Path) -> None:
    names = [
        "recycle",
        "Recycled",
        "trash",
        "eaDir",
        "lost",
        "snapshot",
        "RECYCLE.BIN",
        "thumbnails",
        "thumbs",
    ]
    lot = small_lot(tmp_path / "lot", *(f"{name}/1.png" for name in names))
    assert tiny(lot, tmp_path / "out").returncode == 0
    assert len(rows(tmp_path / "out")) == len(names)


def test_what_the_bin_of_a_disk_hides_stops_nothing(tiny: Infer, tmp_path: Path) -> None:
    """lost+found is root's own on every disk."""
    from musc_edge.runtime.images.patterns import Patterns
    from musc_edge.runtime.images.search import Search

    lot = small_lot(tmp_path / "lot", "1.png", "lost+found/2.png")
    search = Search(Closed(lot), Patterns([]), Patterns([]))
    search.walk()
    assert search.found == ["1.png"]
    (left,) = search.left_out
    assert (left.name, left.files) == ("lost+found/", None)


class Closed(FolderTree):
    """A folder below which lost+found may not be read."""

    def entries(self, inside: str) -> Sequence[Entry]:
        if inside == "lost+found":
            raise PermissionError(13, "Permission denied")
        return super().entries(inside)


# ---- copies ----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(("images", "copies"), [(10, 1), (60, 4), (24, 7)])
@pytest.mark.slow
def test_copies_of_the_worst_image_are_named(
    cells: list[Path], infer: Infer, tmp_path: Path, images: int, copies: int
) -> None:
    lot = make_lot(tmp_path / "lot", cells[:images])
    assert infer(lot, tmp_path / "clean").returncode == 0
    assert about(tmp_path / "clean")["copies"] == []
    worst = min(places := ranks(tmp_path / "clean"), key=lambda name: places[name])
    names = [f"copy{k}.png" for k in range(copies)]
    for name in names:
        shutil.copy(lot / worst, lot / name)
    run = infer(lot, tmp_path / "out")
    assert run.returncode == 0, run.stderr
    (group,) = about(tmp_path / "out")["copies"]
    assert set(group["images"]) == {worst, *names}
    assert [set(each) for each in group["same_bytes"]] == [{worst, *names}]
    assert f"{copies + 1} images are copies of others: " in run.stdout
    assert "(the same bytes)" in run.stdout


def test_changed_copies_are_named(cells: list[Path], infer: Infer, tmp_path: Path) -> None:
    lot = make_lot(tmp_path / "lot", cells[:20])
    first = Image.open(cells[0])
    first.save(lot / "again.bmp")
    first.convert("RGB").save(lot / "again.jpg", quality=95)
    first.point([min(value + 1, 255) for value in range(256)]).save(lot / "brighter.png")
    run = infer(lot, tmp_path / "out")
    (group,) = about(tmp_path / "out")["copies"]
    assert set(group["images"]) == {cells[0].name, "again.bmp", "again.jpg", "brighter.png"}
    assert group["same_bytes"] == []
    assert "(nearly the same picture)" in run.stdout


# ---- groups ----------------------------------------------------------------------------------


def test_a_folder_that_is_too_small_does_not_stop_the_others(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", *(f"a/{k}.png" for k in range(8)))
    assert tiny(lot / "a", tmp_path / "alone").returncode == 0
    small_lot(lot, *(f"b/{k}.png" for k in range(3)), *(f"c/{k}.png" for k in range(6)))
    run = tiny(lot, tmp_path / "out", "--group-by", "folder")
    assert run.returncode == 3, run.stderr
    table = rows(tmp_path / "out")
    assert len(table) == 17
    alone = rows(tmp_path / "alone")
    for k in range(8):
        assert table[f"a/{k}.png"]["score"] == alone[f"{k}.png"]["score"]
    for k in range(3):
        row = table[f"b/{k}.png"]
        assert (row["status"], row["score"], row["map"]) == ("too_few", "", "")
        assert row["error"] == "3 images are too few: a group needs at least 5 that can be read"
    content = about(tmp_path / "out")
    assert set(content["groups"]) == {"groups/01_a", "groups/03_c"}
    (failed,) = content["groups_not_scored"]
    assert (failed["folder"], failed["status"], failed["images"]) == ("b", "too_few", 3)
    assert "warning: folder b: not scored (3 images are too few" in run.stdout
    assert sorted(path.name for path in (tmp_path / "out/groups").iterdir()) == ["01_a", "03_c"]


def test_a_folder_whose_images_cannot_be_read_does_not_stop_the_others(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", *(f"{group}/{k}.png" for group in "ab" for k in range(6)))
    for k in range(3):
        (lot / f"b/{k}.png").write_bytes(b"no image")
    run = tiny(lot, tmp_path / "out", "--group-by", "folder")
    assert run.returncode == 3, run.stderr
    table = rows(tmp_path / "out")
    statuses = [table[f"b/{k}.png"]["status"] for k in range(6)]
    assert statuses == ["unreadable"] * 3 + ["too_few"] * 3
    assert table["b/0.png"]["error"] == "not an image file"
    assert [table[f"a/{k}.png"]["status"] for k in range(6)] == ["ok"] * 6


def test_a_folder_that_needs_too_much_memory_does_not_stop_the_others(
    tiny: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from musc_edge.runtime.errors import LotError
    from musc_edge.runtime.planning import Planner

    lot = small_lot(tmp_path / "lot", *(f"{group}/{k}.png" for group in "abc" for k in range(6)))
    plan = Planner.plan
    calls: list[int] = []

    def second_fails(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise LotError("a memory budget of 1 MB is too small")
        return plan(self, *args, **kwargs)

    monkeypatch.setattr(Planner, "plan", second_fails)
    run = tiny(lot, tmp_path / "out", "--group-by", "folder")
    assert run.returncode == 3, run.stderr
    table = rows(tmp_path / "out")
    assert {table[f"b/{k}.png"]["status"] for k in range(6)} == {"failed"}
    assert table["b/0.png"]["error"] == "a memory budget of 1 MB is too small"
    assert {table[f"{g}/{k}.png"]["status"] for g in "ac" for k in range(6)} == {"ok"}


def test_nothing_is_written_where_no_folder_can_be_scored(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", "a/1.png", "b/1.png", "b/2.png")
    run = tiny(lot, tmp_path / "out", "--group-by", "folder")
    assert run.returncode == 6
    assert "2 of 2 folders have fewer than 5 images: a (1), b (2)" in run.stderr
    small_lot(lot, *(f"c/{k}.png" for k in range(5)))
    (lot / "c/0.png").write_bytes(b"")
    run = tiny(lot, tmp_path / "out", "--group-by", "folder")
    assert run.returncode == 6
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_each_group_has_a_list_of_its_own(tiny: Infer, tmp_path: Path) -> None:
    groups = [f"product {k}" for k in range(22)]
    lot = small_lot(tmp_path / "lot", *(f"{group}/{k}.png" for group in groups[:2] for k in range(8)))
    small_lot(lot, *(f"{group}/{k}.png" for group in groups[2:] for k in range(5)))
    run = tiny(lot, tmp_path / "out", "--group-by", "folder")
    assert run.returncode == 0, run.stderr
    assert "most suspicious of 8 images in groups/01_product 0" in run.stdout
    listed = run.stdout.split("most suspicious of 8 images in groups/02_product 1")[1].split("\n\n")[0]
    assert listed.count(".png") == listed.count("product 1/") == 3
    assert "... and 2 more groups" in run.stdout


def test_several_folders_are_said_before_the_work_begins(tiny: Infer, tmp_path: Path) -> None:
    names = [f"{product}/{k}.png" for product in ("nuts", "bolts") for k in range(5)]
    lot = small_lot(tmp_path / "lot", *names, "loose.png")
    run = tiny(lot, tmp_path / "out")
    said, work = run.stdout.split("plan: ")
    assert "they lie in 3 folders: bolts 5, . 1, nuts 5" in said
    assert "--group-by folder" in said
    assert "they lie in" not in tiny(lot, tmp_path / "grouped", "--group-by", "folder").stdout
    assert "they lie in" not in tiny(lot / "nuts", tmp_path / "nuts").stdout
    assert work


def test_results_inside_the_lot_are_said(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", *(f"{k}.png" for k in range(5)))
    for _ in range(2):
        run = run_here(
            [
                "musc-edge",
                "infer",
                ".",
                "-b",
                str(DATA / "schema1/bundle"),
                "--scorer",
                "numpy",
                "--overwrite",
            ],
            cwd=lot,
        )
        assert run.returncode == 0, run.stderr
        assert "the results, lot-musc, will lie in the lot's folder" in run.stdout.split("plan: ")[0]
        assert len(rows(lot / "lot-musc")) == 5
    assert "left out, results of earlier runs: 1 folder with " in run.stdout
    assert "in the lot's folder" not in tiny(lot, tmp_path / "out").stdout


# ---- the user's choice -----------------------------------------------------------------------


def test_include_and_exclude(tiny: Infer, tmp_path: Path) -> None:
    good = [f"day{d}/good/{k}.png" for d in (1, 2) for k in range(5)]
    lot = small_lot(tmp_path / "lot", *good, "day1/mask/0.png", "day2/good/0_mask.png", "day3/x.png")
    run = tiny(lot, tmp_path / "out", "--include", "day?/*", "--exclude", "mask", "--exclude", "*_mask.*")
    assert run.returncode == 0, run.stderr
    assert set(rows(tmp_path / "out")) == {*good, "day3/x.png"}
    assert (
        "left out, by --include or --exclude: 1 folder with 1 file, 1 of them images and 1 file" in run.stdout
    )
    run = tiny(lot, tmp_path / "first", "--include", "day1/good")
    assert set(rows(tmp_path / "first")) == {name for name in good if name.startswith("day1")}


@pytest.mark.parametrize("option", ["--include", "--exclude"])
def test_a_pattern_that_matches_nothing_is_an_error(tiny: Infer, tmp_path: Path, option: str) -> None:
    lot = small_lot(tmp_path / "lot", *(f"{k}.png" for k in range(6)))
    run = tiny(lot, tmp_path / "out", option, "*.PNG")
    assert run.returncode == 6
    assert f"no file or folder below {lot} matches the pattern '*.PNG' of {option[2:]}" in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_pattern_may_match_what_is_left_out_anyway(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", *(f"{k}.png" for k in range(6)), "@eaDir/a/1.png")
    (lot / "notes.txt").touch()
    options = [word for p in ("*.txt", "@eaDir", "@eaDir/a/*") for word in ("--exclude", p)]
    assert tiny(lot, tmp_path / "out", *options).returncode == 0
    assert len(rows(tmp_path / "out")) == 6


def test_a_list_of_files(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", *(f"{k}.png" for k in range(8)), ".hidden.png", "sub/a.png")
    listed = [
        *(f"{k}.png" for k in range(4, 0, -1)),
        ".hidden.png",
        "./sub/a.png",
        "sub/../1.png",
        "gone.png",
        "",
    ]
    listed.append(str(lot / "7.png"))
    (tmp_path / "list.txt").write_text("\ufeff" + "\r\n".join(listed), encoding="utf-8")
    run = tiny(lot, tmp_path / "out", "--list", str(tmp_path / "list.txt"))
    assert run.returncode == 3, run.stderr
    table = rows(tmp_path / "out")
    scored = ["1.png", "2.png", "3.png", "4.png", "7.png", ".hidden.png", "sub/a.png"]
    assert [name for name, row in table.items() if row["status"] == "ok"] == scored
    assert (table["gone.png"]["status"], table["gone.png"]["error"]) == (
        "unreadable",
        "No such file or directory",
    )
    assert "the lot is a list of 8 names; what else is in the folder was not looked at" in run.stdout
    assert "more than once in the list, and taken once: 1 name (first: 1.png)" in run.stdout


@pytest.mark.slow
def test_a_list_on_standard_input(tiny: Infer, tmp_path: Path) -> None:
    lot = small_lot(tmp_path / "lot", *(f"{k}\n.png" for k in range(8)))
    command = [sys.executable, "-m", "musc_edge", "infer", str(lot), "-b", str(DATA / "schema1/bundle")]
    names = "\0".join(f"{k}\n.png" for k in range(6)) + "\0"
    run = subprocess.run(
        [*command, "--list", "-", "-o", str(tmp_path / "out")],
        input=names,
        text=True,
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert list(rows(tmp_path / "out")) == [f"{k}\n.png" for k in range(6)]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, 2, "cannot be read: No such file"),
        (b"", 2, "names no file"),
        ("1.png\n".encode("utf-16"), 2, "is UTF-16; save it as UTF-8"),
        (b"../1.png\n", 6, "the list names '../1.png', which is no file below"),
        (b"/etc/passwd\n", 6, "the list names '/etc/passwd', which is no file below"),
        (b".\n", 6, "the list names '.', which is no file below"),
    ],
)
def test_lists_that_cannot_be_used(
    tiny: Infer, tmp_path: Path, content: bytes | None, code: int, says: str
) -> None:
    lot = small_lot(tmp_path / "lot", *(f"{k}.png" for k in range(8)))
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    run = tiny(lot, tmp_path / "out", "--list", str(tmp_path / "list"))
    assert (run.returncode, says in run.stderr) == (code, True), run.stderr
    assert not (tmp_path / "out").exists()


def test_patterns_and_lists_from_python(tmp_path: Path) -> None:
    from musc_edge import list_lot, score_lot

    lot = small_lot(tmp_path / "lot", *(f"{k}.png" for k in range(8)), "other/1.png")
    listing = list_lot(lot, exclude=["other"])
    assert [image.name for image in listing] == [f"{k}.png" for k in range(8)]
    result = score_lot(listing, DATA / "schema1/bundle")
    result.save(tmp_path / "out")
    assert about(tmp_path / "out")["left_out"]["by_reason"] == {"as asked": 1}
    assert [image.name for image in list_lot(lot, names=["3.png", "1.png"])] == ["1.png", "3.png"]
