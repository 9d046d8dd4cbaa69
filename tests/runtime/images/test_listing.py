"""Listing a lot: which files belong to it, in which order, and what is said when there is none."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from musc_edge._files import make_folders, remove_folder
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.images.kinds import IMAGE_SUFFIXES
from musc_edge.runtime.images.listing import list_lot, natural_key
from musc_edge.runtime.images.reading import ImageError, read_image
from musc_edge.runtime.results.image_files import OutputOptions
from musc_edge.runtime.results.write import write_results
from support.lots import lot_result, write_png


def make(folder: Path, *names: str) -> Path:
    """Empty files: what lies in a file does not matter for the list."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listed(folder: Path, exclude: Path | None = None) -> list[str]:
    return [image.name for image in list_lot(folder, exclude)]


# ---- order -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["1.png", "2.png", "10.png", "100.png"], id="numbers by value"),
        pytest.param(["cell 9.png", "cell 10.png", "cell 10a.png", "cell 11.png"], id="numbers in names"),
        pytest.param(["a2b9.png", "a2b10.png", "a10b1.png"], id="several numbers"),
        pytest.param(["day 2/10.png", "day 10/2.png", "day 10/11.png"], id="nested folders"),
        pytest.param(["2/1/3.png", "2/1/20.png", "2/3.png", "10/1.png"], id="deeper folders"),
        pytest.param(["x1.jpg", "x1.png", "x2.bmp", "x2.png"], id="one stem, two extensions"),
        pytest.param(["a.png", "B.png", "c.png"], id="case does not separate"),
        pytest.param(["A1.png", "a1.png", "A2.png", "a2.png"], id="names that differ in case only"),
        pytest.param(["01.png", "1.png", "002.png", "02.png", "2.png"], id="leading zeros"),
        pytest.param(["a.png", "e.png", "é.png", "ö.png", "画像2.png", "画像10.png"], id="unicode"),
        pytest.param(["٣.png", "１.png"], id="other scripts' digits"),
        pytest.param(["1b3.png", "1²3.png"], id="superscript among digits"),
        pytest.param(["20250101123456789012345678901.png", "20250101123456789012345678902.png"], id="long"),
    ],
)
def test_natural_order(tmp_path: Path, names: list[str]) -> None:
    shuffled = list(names)
    random.Random(0).shuffle(shuffled)
    assert listed(make(tmp_path, *shuffled)) == names
    assert sorted(shuffled, key=natural_key) == names


def test_names_are_relative_with_forward_slashes_and_paths_lead_to_the_files(tmp_path: Path) -> None:
    write_png(tmp_path / "late shift" / "7.png")
    (image,) = list_lot(tmp_path)
    assert image.name == "late shift/7.png"
    assert image.path == tmp_path / "late shift" / "7.png"


def test_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "sub/1.png")
    monkeypatch.chdir(tmp_path)
    (image,) = list_lot(".")
    assert image.name == "sub/1.png"
    assert image.local.is_file()


# ---- what belongs to a lot -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_kind_in_either_case(tmp_path: Path, suffix: str) -> None:
    assert listed(make(tmp_path, f"a{suffix}", f"b{suffix.upper()}")) == [f"a{suffix}", f"b{suffix.upper()}"]


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "1.png", ".2.png", ".png", ".thumbs/3.png", "sub/.hidden/4.png", "._1.png")
    make(tmp_path, "notes.txt", "scores.csv", "png", "5.png.part", "6.mp4", "7.npy", "sub/8", "9.png ")
    listing = list_lot(tmp_path)
    assert [image.name for image in listing] == ["1.png"]
    assert {left.name: left.why for left in listing.left_out} == {
        **dict.fromkeys([".2.png", ".png", "sub/.hidden/"], "hidden"),
        **dict.fromkeys(["._1.png", ".thumbs/"], "of other programs"),
        **dict.fromkeys(["5.png.part", "6.mp4", "7.npy", "9.png ", "notes.txt"], "not an image"),
        **dict.fromkeys(["png", "scores.csv", "sub/8"], "not an image"),
    }
    names = [left.name for left in listing.left_out]
    assert names == sorted(names, key=natural_key)


def test_folder_with_an_image_name_is_searched_and_not_listed(tmp_path: Path) -> None:
    assert listed(make(tmp_path, "set.png/1.png")) == ["set.png/1.png"]


def test_results_of_an_earlier_run_are_left_out(tmp_path: Path) -> None:
    result = lot_result(tmp_path, ["1.png", "2.png", "sub/3.png"])
    out = tmp_path / "sub" / "lot-musc"
    out.mkdir()
    write_results(result, out, tmp_path, OutputOptions())
    assert (out / "contact_sheet.png").is_file()
    assert listed(tmp_path) == ["1.png", "2.png", "sub/3.png"]


def test_lot_json_in_the_lot_itself_does_not_hide_the_lot(tmp_path: Path) -> None:
    assert listed(make(tmp_path, "1.png", "lot.json")) == ["1.png"]


def test_excluded_folder_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "1.png", "out/contact_sheet.png", "out/deep/2.png", "outer/3.png")
    assert listed(tmp_path, tmp_path / "out") == ["1.png", "outer/3.png"]
    assert listed(tmp_path, tmp_path / "outer" / ".." / "out") == ["1.png", "outer/3.png"]
    monkeypatch.chdir(tmp_path)
    assert listed(tmp_path, Path("out")) == ["1.png", "outer/3.png"]


def test_excluded_folder_that_does_not_exist_changes_nothing(tmp_path: Path) -> None:
    assert listed(make(tmp_path, "1.png"), tmp_path / "out") == ["1.png"]


# ---- links -----------------------------------------------------------------------------------


def test_linked_files_and_folders_are_followed(tmp_path: Path) -> None:
    lot, elsewhere = make(tmp_path / "lot", "1.png"), make(tmp_path / "elsewhere", "2.png", "deep/3.png")
    (lot / "file.png").symlink_to(elsewhere / "2.png")
    (lot / "folder").symlink_to(elsewhere)
    assert listed(lot) == ["1.png", "file.png", "folder/2.png", "folder/deep/3.png"]


def test_lot_that_is_a_link(tmp_path: Path) -> None:
    make(tmp_path / "lot", "1.png")
    (tmp_path / "link").symlink_to("lot")
    assert listed(tmp_path / "link") == ["1.png"]


def test_links_to_parents_end(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "a/2.png", "b/3.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert listed(tmp_path) == ["1.png", "a/2.png", "b/3.png"]  # each once, or it would be its own neighbor


def test_folders_are_found_as_what_they_are_rather_than_through_a_link(tmp_path: Path) -> None:
    make(tmp_path / "lot", "z/1.png")
    make(tmp_path / "elsewhere", "2.png")
    (tmp_path / "lot" / "a").symlink_to("z")
    (tmp_path / "lot" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lot" / "c").symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path / "lot") == ["b/2.png", "z/1.png"]


def test_links_that_lead_to_each_folder_in_millions_of_ways(tmp_path: Path) -> None:
    for k in range(26):
        make(tmp_path, f"{k}/{k}.png")
        (tmp_path / f"{k}" / "left").symlink_to(tmp_path / f"{k + 1}")
        (tmp_path / f"{k}" / "right").symlink_to(tmp_path / f"{k + 1}")
    make(tmp_path, "26/26.png")
    assert listed(tmp_path) == [f"{k}/{k}.png" for k in range(27)]


def test_folders_nested_deeper_than_python_calls_itself(tmp_path: Path) -> None:
    name = "/".join("d" * 1200)
    make_folders(tmp_path / "lot" / name)
    (tmp_path / "lot" / name / "deep.png").touch()
    make(tmp_path / "lot", "1.png")
    assert listed(tmp_path / "lot") == ["1.png", f"{name}/deep.png"]
    remove_folder(tmp_path / "lot")  # pytest could not


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large", "endless", "nested"])
def test_what_is_named_as_results_are_is_looked_at_with_care(tmp_path: Path, kind: str) -> None:
    make(tmp_path, "1.png", "part/2.png")
    marker = tmp_path / "part" / "lot.json"
    if kind == "pipe":
        os.mkfifo(marker)
    elif kind == "device":
        marker.symlink_to("/dev/zero")
    elif kind == "folder":
        marker.mkdir()
    elif kind == "nested":
        marker.write_text("[" * 100_000, encoding="ascii")
    else:
        marker.touch()
        os.truncate(marker, 2**33 if kind == "large" else 2**40)
        with pytest.raises(LotError, match=r"part/lot.json is larger than 67 MB: .*Move it out of the lot"):
            list_lot(tmp_path)
        return
    assert listed(tmp_path) == ["1.png", "part/2.png"]


@pytest.mark.parametrize("target", ["gone.png", "5.png"], ids=["nothing", "itself"])
def test_broken_link_is_listed_so_that_it_is_reported(tmp_path: Path, target: str) -> None:
    make(tmp_path, "1.png")
    (tmp_path / "5.png").symlink_to(target)
    images = list_lot(tmp_path)
    assert [image.name for image in images] == ["1.png", "5.png"]
    with pytest.raises(ImageError) as caught:
        read_image(images[1].path)
    assert caught.value.status == "unreadable"


# ---- unusual names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b" two  spaces .png", id="spaces"),
        pytest.param(b"line\nbreak.png", id="newline"),
        pytest.param(b"-rf.png", id="leading dash"),
        pytest.param(b"caf\xe9.png", id="not UTF-8"),
        pytest.param(b'"quo\'ted",;.png', id="quotes"),
        pytest.param(b"back\\slash*?[1].png", id="glob characters"),
        pytest.param(b"a" * 251 + b".png", id="as long as a name can be"),
    ],
)
def test_unusual_names_lead_back_to_their_files(tmp_path: Path, raw: bytes) -> None:
    with (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw))).open("wb") as file:
        file.write(b"content")
    (image,) = list_lot(tmp_path)
    assert os.fsencode(image.name) == raw
    assert image.local.read_bytes() == b"content"


# ---- no lot ----------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(LotError) as caught:
        list_lot(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert "Give the folder" in str(caught.value)


def test_file_instead_of_folder(tmp_path: Path) -> None:
    with pytest.raises(LotError, match="is a file, not a folder") as caught:
        list_lot(write_png(tmp_path / "1.png"))
    assert str(tmp_path / "1.png") in str(caught.value)
    assert "Give the folder" in str(caught.value)


@pytest.mark.parametrize("names", [[], ["notes.txt", "sub/1.mp4", ".1.png"]], ids=["empty", "no image"])
def test_no_images(tmp_path: Path, names: list[str]) -> None:
    make(tmp_path, *names)
    with pytest.raises(LotError, match="no image was found") as caught:
        list_lot(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "Expected files such as a.png, b.jpg" in str(caught.value)
    if names:
        assert "not images, left out: 1 .txt, 1 .mp4 (first: notes.txt)" in str(caught.value)
        assert "left out, hidden: 1 file (first: .1.png)" in str(caught.value)
