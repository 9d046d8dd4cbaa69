"""What positions have in all images: the level that is subtracted, and whether a lot is aligned."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from musc_edge import LotError, ScoreSettings
from musc_edge.runtime.scoring import position
from musc_edge.runtime.scoring.position import (
    ALIGNED,
    HALF,
    LEAST_IMAGES,
    LOGARITHM_BYTES,
    alignment,
    position_level,
    settled,
)

AUTO = ScoreSettings(position_median="auto")


def lot(seed: int, *, edge: float, images: int = 40) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Maps (N,8,8) with noise, whose border scores higher by ``edge`` in every image."""
    generator = np.random.default_rng(seed)
    maps = generator.uniform(0.3, 0.5, (images, 8, 8))
    maps[:, [0, -1]] += edge
    maps[:, :, [0, -1]] += edge
    return maps.astype(np.float32)


def test_the_level_is_a_share_of_the_median_at_each_position() -> None:
    maps = np.array([[[1.0, 4.0]], [[3.0, 0.0]], [[2.0, 1.0]]], np.float32)
    np.testing.assert_array_equal(position_level(maps, 0.5), [[1.0, 0.5]])
    assert position_level(maps, 0.0) is None


def test_alignment_by_hand() -> None:
    # Logarithms without the images' medians: -a, 0, a in each of three images, and one entry apart.
    logs = np.array([[-2.0, 0.0, 2.0], [-2.0, 0.0, 2.0], [-3.0, 0.0, 2.0]])
    logs += np.array([[5.0], [1.0], [0.0]])
    rest = np.array([0, 0, 0, 0, 0, 0, -1, 0, 0])
    mad = np.median(np.abs([-2.0, 0.0, 2.0])), np.median(np.abs(rest - np.median(rest)))
    expected = mad[0] ** 2 / (mad[0] ** 2 + mad[1] ** 2)
    assert alignment(np.exp(logs)[:, None].astype(np.float32)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_lot_is_aligned_where_places_score_alike(seed: int) -> None:
    aligned, texture = settled(AUTO, lot(seed, edge=0.3)), settled(AUTO, lot(seed, edge=0.0))
    assert (aligned.position_median, texture.position_median) == (HALF, 0.0)
    for settings in (aligned, texture):
        (choice,) = settings.chosen
        assert (choice.option, choice.value) == ("position_median", settings.position_median)
        assert f"{100 * ALIGNED:.0f} %" in choice.why


def test_defects_and_brightness_do_not_align_a_lot() -> None:
    maps = lot(1, edge=0.0)
    maps[:8, 2:4, 2:4] += 1.0
    maps *= np.linspace(0.7, 1.3, len(maps), dtype=np.float32)[:, None, None]
    assert alignment(maps) < 0.1


def test_a_few_images_are_not_told_to_be_aligned() -> None:
    few = settled(AUTO, lot(0, edge=0.3, images=LEAST_IMAGES - 1))
    assert few.position_median == 0.0
    assert "fewer than 20" in few.chosen[0].why
    assert alignment(lot(0, edge=0.0, images=5)) > 0.1  # of noise


def test_equal_maps_are_not_aligned() -> None:
    assert alignment(np.zeros((5, 2, 2), np.float32)) == 0.0


def test_places_outside_of_some_image_are_left_out() -> None:
    maps = lot(0, edge=0.3)
    maps[3, 0, 1] = np.nan
    level = position_level(maps, 0.5)
    assert level is not None
    assert level[0, 1] == 0.5 * np.median(np.delete(maps[:, 0, 1], 3))  # by the other images
    others = np.delete(maps.reshape(len(maps), -1), 1, axis=1)[:, None]
    assert alignment(maps) == alignment(others)
    assert alignment(np.full((3, 2, 2), np.nan, np.float32)) == 0.0


def test_memory_is_that_of_the_logarithms_and_a_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.random.default_rng(0).uniform(0.3, 0.5, (200, 64, 64)).astype(np.float32)
    whole = alignment(maps), position_level(maps, HALF)
    monkeypatch.setattr(position, "_BLOCK", 20_000)
    again, peak = traced(lambda: alignment(maps))
    assert again == whole[0]
    assert peak < LOGARITHM_BYTES * maps.size + 1_000_000
    level, peak = traced(lambda: position_level(maps, HALF))
    np.testing.assert_array_equal(level, whole[1])
    assert peak < 1_000_000


def traced(work: Callable[[], object]) -> tuple[Any, int]:
    """What ``work`` returns, and the most bytes that it held."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_share_that_is_given_stays() -> None:
    settings = ScoreSettings(position_median=0.3)
    assert settled(settings, lot(0, edge=0.3)) is settings


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "half"])
def test_a_share_that_is_none_is_refused(share: float | str) -> None:
    with pytest.raises(LotError, match="expected a share from 0 to 1, or 'auto'"):
        ScoreSettings(position_median=share)
