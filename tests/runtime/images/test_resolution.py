"""What of an image's pixels reaches the ViT, in words."""

from __future__ import annotations

import pytest

from musc_edge.runtime.images.resolution import Resolution


def seen(width: int, height: int, model: tuple[int, int] = (224, 224), sizes: int = 1) -> Resolution:
    return Resolution(width, height, sizes, model, 14)


@pytest.mark.parametrize(
    ("resolution", "text"),
    [
        (
            seen(2592, 1944),
            "2592 x 1944 reduced 11.6 x 8.7; one patch is 162 x 122 pixels of your image",
        ),
        (seen(224, 224), "224 x 224 reduced 1 x 1; one patch is 14 x 14 pixels of your image"),
        (seen(112, 56), "112 x 56 enlarged 2 x 4; one patch is 7 x 3.5 pixels of your image"),
        (
            seen(448, 112),
            "448 x 112 brought to 0.5 x its width and 2 x its height; one patch is 28 x 7 pixels of your "
            "image",
        ),
        (
            seen(400, 300, (200, 100), sizes=3),
            "400 x 300 (the median of 3 sizes) reduced 4 x 1.5; one patch is 56 x 21 pixels of your image",
        ),
    ],
)
def test_the_text(resolution: Resolution, text: str) -> None:
    assert resolution.text == text


@pytest.mark.parametrize(
    ("width", "height", "said", "drastic"),
    [
        (300, 300, False, False),
        (895, 895, False, False),
        (896, 896, True, False),
        (3000, 100, False, False),  # long, and shorter than the input
        (300, 10000, True, False),
        (1792, 1792, True, True),
        (2592, 1944, True, True),
    ],
)
def test_a_note_from_four_times_on_and_a_warning_from_eight(
    width: int, height: int, said: bool, drastic: bool
) -> None:
    resolution = seen(width, height)
    assert (bool(resolution.caution), resolution.drastic) == (said, drastic)


def test_the_caution_says_what_a_larger_input_would_show() -> None:
    caution = seen(2592, 1944).caution
    assert caution.startswith(
        "images of 2592 x 1944 pixels are reduced to 224 x 224: a patch covers 162 x 122 pixels"
    )
    assert "of which a patch at 448 is 81 x 61 pixels" in caution


def test_facts_for_json() -> None:
    facts = seen(2592, 1944).facts()
    assert (facts["reduced"], facts["patch"]) == ([11.571, 8.679], [162.0, 121.5])
