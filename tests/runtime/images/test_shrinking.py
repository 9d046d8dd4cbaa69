"""The note on images that are much larger than the ViT's input."""

from __future__ import annotations

import pytest

from musc_edge.runtime.images.shrinking import shrink_note


def test_five_megapixels_at_224() -> None:
    note = shrink_note([(2592, 1944)] * 5, (224, 224), 14)
    assert note.startswith(
        "images of 2592 x 1944 pixels are shrunk to 224 x 224, 11.6 by 8.68 times: a patch covers 162 x 122 "
    )


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([], False),
        ([(300, 300)] * 9, False),
        ([(895, 895)], False),
        ([(896, 896)], True),
        ([(100, 100), (100, 100), (5000, 5000)], False),  # most are small
        ([(100, 100), (5000, 5000), (5000, 5000)], True),
        ([(3000, 100)], False),  # long, and shorter than the input
        ([(300, 10000)], True),
    ],
)
def test_from_four_times_on(sizes: list[tuple[int, int]], said: bool) -> None:
    assert bool(shrink_note(sizes, (224, 224), 14)) == said
