"""What is said of where burn-out acted: only of lots that are large enough, and of enough patches."""

from __future__ import annotations

import numpy as np
import pytest

from musc_edge.runtime.scoring.repeated import repeated_caution, repeated_patches
from musc_edge.runtime.types import FloatArray


def later_of(images: int, repeated: int, patches: int) -> tuple[list[str], FloatArray]:
    """Names and shares (N,4,5): the first images have repeated patches, the first of them one more."""
    later = np.full((images, 4, 5), 0.4, np.float32)
    later.reshape(images, -1)[:repeated, :patches] = 0.6
    later.reshape(images, -1)[0, : patches + 1] = 0.5
    return [f"{i}.png" for i in range(images)], later


def test_a_patch_counts_from_half_of_layers_and_degrees_on() -> None:
    _, later = later_of(50, 8, 3)
    assert repeated_patches(later).sum(axis=1)[:9].tolist() == [4, 3, 3, 3, 3, 3, 3, 3, 0]


def test_a_repeated_defect_is_told_with_the_images_that_have_most_of_it() -> None:
    (text,) = repeated_caution(*later_of(50, 8, 3))
    assert "25 patches of 8 images" in text
    assert "most of them in 0.png (4), 1.png (3), 2.png (3), 3.png (3), 4.png (3)." in text


@pytest.mark.parametrize(("images", "repeated", "patches"), [(39, 8, 3), (50, 6, 3), (400, 50, 3)])
def test_nothing_is_said_of_small_lots_or_few_patches(images: int, repeated: int, patches: int) -> None:
    assert repeated_caution(*later_of(images, repeated, patches)) == ()


def test_nothing_is_said_without_burn_out() -> None:
    assert repeated_caution(["a"] * 50, None) == ()
