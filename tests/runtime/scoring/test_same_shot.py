"""Two photographs of one thing are two shots, however alike they lie; what was saved again is one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from musc_edge.runtime.scoring.same_shot import SameShot, remainder
from musc_edge.runtime.types import FloatArray

SIDE, NOISE = 96, 3.0


def surface(seed: int = 0) -> FloatArray:
    """A cloth of strong texture, (H,W)."""
    rough = np.random.default_rng(seed).standard_normal((SIDE, SIDE)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 1.2)
    return np.asarray(128 + 40 * smooth / smooth.std(), np.float32)


def photograph(seed: int, shift: float = 0.7, of: int = 0) -> FloatArray:
    """The surface, moved by up to ``shift`` pixels, in other light, with a sensor's noise."""
    rng = np.random.default_rng(seed)
    dx, dy = rng.uniform(-shift, shift, 2)
    moved = cv2.warpAffine(
        surface(of),
        np.array([[1, 0, dx], [0, 1, dy]]),
        (SIDE, SIDE),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )
    noisy = moved * rng.uniform(0.97, 1.03) + rng.normal(0, NOISE, moved.shape)
    return np.asarray(noisy.round().clip(0, 255), np.float32)


def saved_again(image: FloatArray, quality: int = 95) -> FloatArray:
    ok, content = cv2.imencode(".jpg", image.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE), np.float32)


LOT = [photograph(seed) for seed in range(8)]
CHANGED = {
    "the same": LOT[0],
    "saved again": saved_again(LOT[0]),
    "brighter": LOT[0] + 10,
    "darker": LOT[0] * np.float32(0.9),
    "moved": np.roll(LOT[0], 1, 1),
}
OTHERS = ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])


@pytest.mark.parametrize("change", CHANGED)
def test_a_shot_that_was_saved_again_is_found_among_photographs_of_the_same(change: str) -> None:
    lot = [*LOT, CHANGED[change]]
    assert SameShot(lot.__getitem__)(0, 8, OTHERS)
    assert SameShot(lot.__getitem__)(8, 0, OTHERS)


def test_two_photographs_are_two_shots_even_if_nothing_moved() -> None:
    lot = [*LOT, photograph(20, shift=0.0), photograph(21, shift=0.0)]
    compare = SameShot(lot.__getitem__)
    for a, b in ((8, 9), (0, 1), (0, 8)):
        near = [row for row in range(len(lot)) if row not in (a, b)][:5]
        assert not compare(a, b, (near, near))


def test_photographs_of_other_things_say_what_is_usual() -> None:
    """Where all others differ much, a copy may differ by more noise than a sensor has."""
    lot = [surface(seed) for seed in range(1, 7)]
    lot += [photograph(1, of=30), photograph(2, of=30)]
    assert SameShot(lot.__getitem__)(6, 7, ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5]))


def test_what_is_left_of_two_photographs_is_their_noise() -> None:
    left = remainder(photograph(1), photograph(2))
    assert left == pytest.approx(2 * NOISE**2, rel=0.35)
    assert remainder(LOT[0], LOT[0]) == pytest.approx(0, abs=1e-6)
    assert remainder(LOT[0], np.roll(LOT[0], 2, 0)) < 1


def test_pictures_that_are_gone_and_even_ones_change_nothing() -> None:
    assert SameShot(lambda row: None)(0, 1, OTHERS)
    assert SameShot(lambda row: LOT[row] if row < 2 else None)(0, 1, ([2, 3], [4, 5]))
    even = np.full((SIDE, SIDE), 7, np.float32)
    assert remainder(even, even) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(remainder(even, LOT[0]))
    assert np.isfinite(remainder(LOT[0][:3, :4], LOT[1][:3, :4]))


def test_each_picture_is_asked_for_once_in_a_while() -> None:
    asked: list[int] = []

    def picture(row: int) -> FloatArray:
        asked.append(row)
        return LOT[row]

    compare = SameShot(picture)
    compare(0, 1, OTHERS)
    compare(1, 0, OTHERS)
    assert sorted(asked) == [0, 1, 2, 3, 4, 5]
