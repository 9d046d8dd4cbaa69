"""Labels and masks of every layout are found, and what cannot be matched is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.errors import LotError
from musc_edge.tools.evaluation.truth import Truth, find_truth


def mask(path: Path, value: int = 255, size: tuple[int, int] = (8, 8)) -> None:
    """Write a mask whose left half is ``value``."""
    pixels = np.zeros(size, np.uint8)
    pixels[:, : size[1] // 2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def kinds(truth: Truth) -> dict[str, str]:
    return {name: known.kind for name, known in truth.images.items()}


# layout: mask file below the data set, lot, names of a good and of a defective image
LAYOUTS = {
    "mvtec": ("bottle/ground_truth/crack/000_mask.png", "bottle/test", "good/000.png", "crack/000.png"),
    "mvtec2": (
        "can/test_public/ground_truth/bad/000_regular_mask.png", "can/test_public",
        "good/000_regular.png", "bad/000_regular.png",
    ),
    "btad": ("01/ground_truth/ko/0003.bmp", "01/test", "ok/0003.bmp", "ko/0003.bmp"),
    "visa": ("candle/Data/Masks/Anomaly/003.png", "candle/Data/Images", "Normal/003.JPG", "Anomaly/003.JPG"),
    "folder": ("marks/scratch/7.png", "parts", "ok/7.jpg", "scratch/7.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("whole", [False, True], ids=["folder of masks", "whole data set"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, whole: bool, tmp_path: Path) -> None:
    file, lot, good, bad = LAYOUTS[layout]
    mask(tmp_path / file)
    if whole:  # the images lie beside the masks, and another product has a mask of the same name
        mask(tmp_path / lot / bad)
        mask(tmp_path / "other" / Path(*Path(file).parts[1:]))
    source = tmp_path if whole else (tmp_path / file).parents[1]
    truth = find_truth(source, layout, tmp_path / lot, [good, bad])
    assert kinds(truth) == {good: "", bad: Path(bad).parent.name}
    if layout == "folder" and whole:
        return  # its masks are called like nothing else: the folder itself has to be given
    assert truth.images[bad].mask == tmp_path / file
    assert not truth.remarks
    assert not truth.mask(good, (4, 4)).any()
    found = truth.mask(bad, (4, 4))
    assert found[:, :1].all()
    assert not found[:, 3:].any()


def test_what_a_resized_border_belongs_to(tmp_path: Path) -> None:
    for layout, columns in (("mvtec", 2), ("visa", 3)):  # a border in the middle of the third of five pixels
        mask(tmp_path / layout / "bad" / "0.png", size=(10, 10))
        truth = find_truth(tmp_path / layout, layout, tmp_path, ["bad/0.png"])
        assert truth.mask("bad/0.png", (5, 5)).sum() == 5 * columns


@pytest.mark.parametrize("value", [1, 3])
def test_masks_that_number_their_kinds(value: int, tmp_path: Path) -> None:
    mask(tmp_path / "bad" / "0.png", value)
    for layout in ("visa", "folder"):
        truth = find_truth(tmp_path, layout, tmp_path, ["bad/0.png"])
        assert truth.mask("bad/0.png", (8, 8)).sum() == 32


def test_a_defect_without_a_mask_is_named(tmp_path: Path) -> None:
    mask(tmp_path / "bad" / "0.png")
    truth = find_truth(tmp_path, "folder", tmp_path, ["good/0.png", "bad/0.png", "bad/1.png"])
    assert truth.remarks == ["1 of 3 defective images have no mask: bad/1.png"]


def test_two_masks_for_one_image(tmp_path: Path) -> None:
    mask(tmp_path / "bad" / "0.png")
    mask(tmp_path / "bad" / "0_mask.png")
    with pytest.raises(LotError, match="two masks for one image"):
        find_truth(tmp_path, "folder", tmp_path, ["bad/0.png"])


def test_a_mask_that_cannot_be_read(tmp_path: Path) -> None:
    mask(tmp_path / "bad" / "0.png")
    truth = find_truth(tmp_path, "folder", tmp_path, ["bad/0.png"])
    (tmp_path / "bad" / "0.png").write_bytes(b"no picture")
    with pytest.raises(LotError, match=r"0\.png cannot be read"):
        truth.mask("bad/0.png", (4, 4))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LotError, match="is no folder"):
        find_truth(tmp_path / "none", "mvtec", tmp_path, ["bad/0.png"])


# ---- a table -------------------------------------------------------------------------------------


def test_a_table(tmp_path: Path) -> None:
    mask(tmp_path / "masks" / "b.png")
    table = tmp_path / "truth.csv"
    table.write_text(
        "image,label,mask\n0/a.png,0,\n0/b.png,1,masks/b.png\nc.png,scratch,\nd.png,OK,\n",
        encoding="utf-8-sig",
    )
    truth = find_truth(table, "csv", tmp_path, ["0/a.png", "0/b.png", "sub/c.png", "d.png", "e.png"])
    assert kinds(truth) == {"0/a.png": "", "0/b.png": "defect", "sub/c.png": "scratch", "d.png": ""}
    assert truth.images["0/b.png"].mask == tmp_path / "masks" / "b.png"
    assert truth.remarks == ["1 of 5 images are not in the table and are left out: e.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "columns of no name"),
        ("name,label\na.png,0\n", "columns name, label; expected image and label"),
        ("image,label\na.png,0.33\n", "line 2: label '0.33'; expected 0 or 1"),
        ("image,label\na.png,\n", "line 2: label ''"),
        ("image,label\nz.png,0\n", "names none of the images, such as a.png; its first is z.png"),
        ("image,label\n", "names none of the images, such as a.png; its first is none"),
    ],
)
def test_a_table_of_no_use(text: str, says: str, tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_text(text)
    with pytest.raises(LotError, match=says):
        find_truth(table, "csv", tmp_path, ["a.png"])


def test_equal_names_in_a_table_are_not_guessed(tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_text("image,label\nx/a.png,0\ny/a.png,1\nb.png,0\n")
    truth = find_truth(table, "csv", tmp_path, ["a.png", "b.png"])
    assert kinds(truth) == {"b.png": ""}
