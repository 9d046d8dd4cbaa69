"""Regions of interest: which patches a rectangle or a mask has, in every orientation, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.images.inside import Inside, patches_inside
from musc_edge.runtime.images.reading import Header
from musc_edge.runtime.images.roi import (
    PatchRegion,
    Rectangle,
    Roi,
    RoiOption,
    coverage,
    half_or_more,
    overlaps,
    read_mask,
)
from musc_edge.runtime.images.survey import ReadOptions, Survey, survey_lot
from musc_edge.runtime.types import LotImage
from support.lots import write_png

Array = npt.NDArray[Any]
GRID = (4, 3)
SIZE = 40, 60
"""Height and width of the images: patches of 10 x 20 pixels."""


def lot(folder: Path, names: tuple[str, ...] = ("a.png", "b/c.png")) -> list[LotImage]:
    return [LotImage(name, write_png(folder / name, SIZE, seed)) for seed, name in enumerate(names)]


def surveyed(images: list[LotImage], roi: RoiOption | None, background: str | None = None) -> Survey:
    return survey_lot(images, ReadOptions(roi=roi, mask_background=background), threads=2)


def inside(images: list[LotImage], roi: RoiOption | None) -> Array:
    found = patches_inside(surveyed(images, roi), GRID, 2)
    assert isinstance(found, Inside)
    return found.patches.reshape(-1, *GRID)


def save_mask(path: Path, values: Array, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(path, exif=exif)
    return path


# ---- patches ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(40, 60), (41, 67), (3, 2), (500, 7)])
def test_the_share_of_a_patch_by_counting(height: int, width: int) -> None:
    """Each pixel is cut into 12 x 12 parts, which lie in one patch each."""
    mask = np.random.default_rng(0).random((height, width)) < 0.4
    fine = np.repeat(np.repeat(mask, 12, axis=0), 12, axis=1)
    expected = fine.reshape(4, height * 3, 3, width * 4).mean(axis=(1, 3))
    np.testing.assert_allclose(coverage(mask, GRID), expected, atol=1e-6)
    np.testing.assert_allclose(overlaps(height, 4).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("rectangle", "patches"),
    [
        ((0, 0, 60, 40), [[1, 1, 1]] * 4),
        ((20, 10, 20, 10), [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]),
        ((30, 10, 10, 10), [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]),  # half of it
        ((10, 5, 40, 20), [[0, 1, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0]]),
    ],
)
def test_a_patch_is_inside_if_half_of_it_is(tmp_path: Path, rectangle: Rectangle, patches: Array) -> None:
    x, y, width, height = rectangle
    mask = np.zeros(SIZE, bool)
    mask[y : y + height, x : x + width] = True
    by_mask = half_or_more(coverage(mask, GRID))
    found = inside(lot(tmp_path), rectangle)
    np.testing.assert_array_equal(found, [by_mask, by_mask])
    np.testing.assert_array_equal(by_mask, np.array(patches, bool))


def test_nothing_asked_for_is_nothing_to_do(tmp_path: Path) -> None:
    assert patches_inside(surveyed(lot(tmp_path), None), GRID, 2) is None


# ---- masks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("light", [255, 200, 1])
def test_one_mask_for_all(tmp_path: Path, light: int) -> None:
    values = np.zeros(SIZE, np.uint8)
    values[:10] = light
    mask = save_mask(tmp_path / "mask.png", values)
    assert inside(lot(tmp_path / "lot"), mask).tolist() == [[[True] * 3, *[[False] * 3] * 3]] * 2


def test_a_region_for_all_is_counted_once_for_each_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = lot(tmp_path, tuple(f"{number}.png" for number in range(5)))
    images.append(LotImage("wide.png", write_png(tmp_path / "wide.png", (40, 90), 9)))
    counted: list[tuple[int, int]] = []

    def count(roi: Roi, image: LotImage, header: Header, *rest: Any) -> Array:
        counted.append((header.width, header.height))
        return coverage_of(roi, image, header, *rest)

    coverage_of = Roi.coverage
    monkeypatch.setattr(Roi, "coverage", count)
    found = inside(images, (0, 0, 60, 10))
    assert counted == [(60, 40), (90, 40)]
    assert found[:5].tolist() == [[[True] * 3, *[[False] * 3] * 3]] * 5
    assert found[5].tolist() == [[True, True, False], *[[False] * 3] * 3]


def test_a_mask_for_each_image_by_its_name(tmp_path: Path) -> None:
    left, right = np.zeros((2, *SIZE), np.uint8)
    left[:, :20], right[:, 40:] = 255, 255
    save_mask(tmp_path / "masks/a.png", left)
    save_mask(tmp_path / "masks/b/c.bmp", right)
    found = inside(lot(tmp_path / "lot"), tmp_path / "masks")
    assert found[:, 0].tolist() == [[True, False, False], [False, False, True]]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_masks_are_as_images_are_shown(tmp_path: Path, orientation: int) -> None:
    """The camera stores a lying picture and says how to turn it; the mask was drawn on what is shown."""
    stored = Image.new("RGB", (60, 40) if orientation in (1, 3) else (40, 60), "gray")
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "lot").mkdir()
    stored.save(tmp_path / "lot/a.jpg", exif=exif)
    values = np.zeros(SIZE, np.uint8)
    values[:10] = 255
    mask = save_mask(tmp_path / "mask.png", values)
    images = [LotImage("a.jpg", tmp_path / "lot/a.jpg")]
    assert inside(images, mask)[0, :, 0].tolist() == [True, False, False, False]
    turned = save_mask(tmp_path / "turned.png", np.rot90(values, -1).copy(), orientation=8)
    np.testing.assert_array_equal(read_mask(turned), read_mask(mask))


# ---- what is refused -------------------------------------------------------------------------


def refused(images: list[LotImage], roi: RoiOption) -> str:
    with pytest.raises(LotError) as raised:
        patches_inside(surveyed(images, roi), GRID, 2)
    return str(raised.value)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    mask = save_mask(tmp_path / "mask.png", np.full((60, 40), 255, np.uint8))
    text = refused(lot(tmp_path / "lot"), mask)
    assert "has 40 x 60 pixels and the image a.png 60 x 40 as it is shown: expected the same size" in text
    assert "give a folder with a mask for each" in text


def test_a_missing_mask(tmp_path: Path) -> None:
    save_mask(tmp_path / "masks/a.png", np.full(SIZE, 255, np.uint8))
    text = refused(lot(tmp_path / "lot"), tmp_path / "masks")
    assert "has no mask for b/c.png: expected one for every image" in text
    assert "--exclude" in text


def test_a_mask_that_is_dark_everywhere(tmp_path: Path) -> None:
    mask = save_mask(tmp_path / "mask.png", np.zeros(SIZE, np.uint8))
    text = refused(lot(tmp_path / "lot"), mask)
    assert "the region leaves no patch of a.png and 1 more" in text
    assert "light is inside" in text


def test_a_mask_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("not an image")
    assert "mask.png cannot be read" in refused(lot(tmp_path / "lot"), tmp_path / "mask.png")


@pytest.mark.parametrize(
    ("rectangle", "text"),
    [
        ((50, 0, 11, 40), "ends at 61, 40 and the image a.png has 60 x 40 pixels"),
        ((0, 0, 0, 9), "expected x,y,w,h in pixels, w and h of 1 or more"),
        ((3, 3, 2, 2), "leaves no patch of a.png"),
    ],
)
def test_rectangles_that_do_not_fit(tmp_path: Path, rectangle: Rectangle, text: str) -> None:
    assert text in refused(lot(tmp_path), rectangle)


def test_a_region_that_does_not_exist(tmp_path: Path) -> None:
    assert "does not exist: expected x,y,w,h" in refused(lot(tmp_path), str(tmp_path / "gone.png"))


def test_the_memory_for_masks_is_kept(tmp_path: Path) -> None:
    mask = save_mask(tmp_path / "mask.png", np.full(SIZE, 255, np.uint8))
    with pytest.raises(LotError, match=r"mask\.png needs .* of the memory budget are left"):
        patches_inside(surveyed(lot(tmp_path / "lot"), mask), GRID, 2, room=1000)


def test_a_region_of_patches_is_for_one_size(tmp_path: Path) -> None:
    patches = np.eye(4, 3, dtype=bool)
    found = inside(lot(tmp_path), PatchRegion((60, 40), patches))
    np.testing.assert_array_equal(found, [patches, patches])
    assert "is for images of 9 x 9" in refused(lot(tmp_path), PatchRegion((9, 9), patches))


# ---- plain backgrounds -----------------------------------------------------------------------


def photograph(seed: int, plain: bool = True) -> Image.Image:
    """A textured part on a plain table, with noise; or on a table as textured as itself."""
    rng = np.random.default_rng(seed)
    picture = rng.normal((200, 200, 205), 3, (120, 180, 3))
    if not plain:
        picture = rng.normal(110, 40, (120, 180, 3))
    picture[30:90, 60:165] = rng.normal(110, 40, (60, 105, 3))
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def photographs(folder: Path, plain: list[bool]) -> list[LotImage]:
    folder.mkdir()
    images = []
    for number, each in enumerate(plain):
        images.append(LotImage(f"{number}.png", folder / f"{number}.png"))
        photograph(number, each).save(images[-1].local)
    return images


PRODUCT = [[0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]]
"""The part reaches over three quarters of the third column, which is less than 90 %."""


def test_a_plain_background_is_left_out(tmp_path: Path) -> None:
    found = patches_inside(surveyed(photographs(tmp_path / "lot", [True] * 3), None, "auto"), GRID, 2)
    assert found
    assert found.patches.reshape(-1, *GRID).astype(int).tolist() == [PRODUCT] * 3
    assert "the plain background was masked in 3 of 3 images" in found.notes


def test_where_it_is_not_clear_nothing_is_masked_and_a_note_says_so(tmp_path: Path) -> None:
    found = patches_inside(surveyed(photographs(tmp_path / "lot", [True, False]), None, "auto"), GRID, 2)
    assert found
    assert found.patches.all()
    assert any("no background was masked: in 1 of 2 images" in note for note in found.notes)


def test_a_few_where_it_is_not_clear_get_the_usual_region(tmp_path: Path) -> None:
    images = photographs(tmp_path / "lot", [True] * 9 + [False])
    found = patches_inside(surveyed(images, None, "auto"), GRID, 2)
    assert found
    assert found.patches[-1].reshape(GRID).astype(int).tolist() == PRODUCT
    assert any("masked in 9 of 10 images; the others" in note for note in found.notes)
