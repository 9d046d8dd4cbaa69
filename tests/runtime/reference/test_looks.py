"""Brightness, sharpness and kinship: what is said of an image beside its score."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from musc_edge import Checker, open_bundle
from musc_edge.runtime.images.reading import preprocess
from musc_edge.runtime.reference.looks import look
from support.references import BUNDLE, part, reference, write_lot

SPEC = open_bundle(BUNDLE).manifest.preprocess


def test_brightness_is_that_of_the_pixels() -> None:
    for value in (0, 51, 255):
        brightness, sharpness = look(preprocess(Image.new("RGB", (50, 30), (value,) * 3), SPEC), SPEC)
        assert brightness == pytest.approx(value / 255, abs=1e-5)
        assert sharpness == pytest.approx(0, abs=1e-5)


def test_sharpness_is_the_deviation_of_the_laplacian() -> None:
    pixels = np.random.default_rng(0).random((3, 6, 7)).astype(np.float32)
    normalised = (pixels - np.reshape(SPEC.mean, (3, 1, 1))) / np.reshape(SPEC.std, (3, 1, 1))
    gray = 0.299 * pixels[0] + 0.587 * pixels[1] + 0.114 * pixels[2]
    values = [
        gray[y - 1, x] + gray[y + 1, x] + gray[y, x - 1] + gray[y, x + 1] - 4 * gray[y, x]
        for y in range(1, 5)
        for x in range(1, 6)
    ]
    assert look(normalised.astype(np.float32), SPEC)[1] == pytest.approx(np.std(values), rel=1e-4)


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Checker:
    root = tmp_path_factory.mktemp("looks")
    write_lot(root / "lot", 16)
    return Checker(reference(root / "lot", root / "ref"), BUNDLE)


def test_a_part_like_the_others_has_no_warning(checker: Checker) -> None:
    assert checker.check(part(123)).warnings == ()


def test_light_and_focus_are_noticed(checker: Checker) -> None:
    usual = part(123)
    for picture, word in (
        (usual.point(lambda value: value * 0.7), "darker"),
        (usual.point(lambda value: min(255, value * 1.5)), "brighter"),
        (usual.filter(ImageFilter.GaussianBlur(2)), "blurrier"),
        (usual.filter(ImageFilter.UnsharpMask(3, 400, 0)), "sharper"),
    ):
        assert any(f"it is {word} than all images" in text for text in checker.check(picture).warnings), word


def test_another_product_is_noticed(checker: Checker) -> None:
    stripes = Image.fromarray((np.arange(40)[:, None] // 5 % 2 * 200 + np.zeros((1, 40))).astype(np.uint8))
    assert any("another product" in text for text in checker.check(stripes).warnings)
