"""The pooled products of two images, with numpy and with numba, against sums in plain float64."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest

from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.scoring import image_pairs
from musc_edge.runtime.scoring.aggregate import centre, pooled_lengths
from musc_edge.runtime.scoring.gram_numpy import NumpyFilter
from musc_edge.runtime.scoring.image_pairs import best_filter, load_filter, prepare_near
from musc_edge.runtime.scoring.protocols import GramFilter
from support import oracle
from support.forks import run_forked

Array = npt.NDArray[Any]
Grid = tuple[int, int]

GRIDS = [(1, 1), (1, 6), (5, 1), (3, 7), (16, 16)]
DEGREES = [(1,), (3,), (7, 1, 3), (15, 999), (5, 41)]
KINDS = ["numpy", "numba"]


def two_images(grid: Grid, C: int = 24, seed: int = 0) -> tuple[Array, Array]:
    """Centred tokens (P,C) float32 of two images."""
    tokens = np.random.default_rng(seed).normal(size=(2, grid[0] * grid[1], C)).astype(np.float32)
    a, b = centre(tokens)
    return a, b


def windows(grid: Grid, degree: int) -> list[tuple[slice, slice]]:
    """The part of the grid that each patch's neighborhood covers."""
    reach = degree // 2
    return [
        (slice(max(y - reach, 0), y + reach + 1), slice(max(x - reach, 0), x + reach + 1))
        for y in range(grid[0])
        for x in range(grid[1])
    ]


def box_filter(gram: Array, grid: Grid, degree: int) -> Array:
    """The Gram (P,P) summed over both patches' neighborhoods, in float64."""
    P = len(gram)
    axes = gram.astype(np.float64).reshape(*grid, P)
    rows = np.array([axes[window].sum(axis=(0, 1)) for window in windows(grid, degree)])
    axes = rows.reshape(P, *grid)
    return np.array([axes[:, v, u].sum(axis=(1, 2)) for v, u in windows(grid, degree)]).T


def inverse_lengths(tokens: Array, grid: Grid, degrees: Sequence[int]) -> Array:
    lengths = pooled_lengths(tokens, grid, degrees)
    return np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def maxima(
    kind: type[GramFilter], a: Array, b: Array, grid: Grid, degrees: Sequence[int]
) -> tuple[Array, Array]:
    """Largest cosines (R,P) of the rows and the columns."""
    rows, columns = np.full((2, len(degrees), grid[0] * grid[1]), np.nan, np.float32)
    own, others = (inverse_lengths(tokens, grid, degrees) for tokens in (a, b))
    gram = a @ b.T
    before = gram.copy()
    kind(grid, degrees).maxima(gram, own, others, rows, columns)
    np.testing.assert_array_equal(gram, before)
    return rows, columns


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("degrees", DEGREES)
def test_maxima_are_those_of_the_box_filter(kind: str, grid: Grid, degrees: tuple[int, ...]) -> None:
    a, b = two_images(grid)
    rows, columns = maxima(load_filter(kind), a, b, grid, degrees)
    own, others = (inverse_lengths(tokens, grid, degrees).astype(np.float64) for tokens in (a, b))
    for t, degree in enumerate(degrees):
        cosines = box_filter(a @ b.T, grid, degree) * own[t][:, None] * others[t]
        np.testing.assert_allclose(rows[t], cosines.max(axis=1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(columns[t], cosines.max(axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degrees", [(1, 3), (7,), (999,)])
def test_maxima_are_the_cosines_of_pooled_tokens(kind: str, degrees: tuple[int, ...]) -> None:
    grid = (3, 7)
    a, b = two_images(grid, seed=1)
    rows, columns = maxima(load_filter(kind), a, b, grid, degrees)
    for t, degree in enumerate(degrees):
        units = [
            oracle.normalise(oracle.aggregate(tokens.astype(np.float64), grid, degree)) for tokens in (a, b)
        ]
        cosines = units[0] @ units[1].T
        np.testing.assert_allclose(rows[t], cosines.max(axis=1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(columns[t], cosines.max(axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", [*GRIDS, (9, 31)])
def test_twins_agree(grid: Grid) -> None:
    degrees = (1, 3, 5, 9)
    a, b = two_images(grid, C=64, seed=2)
    for one, other in zip(
        maxima(load_filter("numpy"), a, b, grid, degrees),
        maxima(load_filter("numba"), a, b, grid, degrees),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_filter_serves_pair_after_pair(kind: str) -> None:
    grid, degrees = (3, 7), (7, 1, 3)
    filters = load_filter(kind)(grid, degrees)
    for seed in range(3):
        a, b = two_images(grid, seed=seed)
        rows, columns = np.empty((2, 3, 21), np.float32)
        own, others = (inverse_lengths(tokens, grid, degrees) for tokens in (a, b))
        filters.maxima(a @ b.T, own, others, rows, columns)
        fresh = maxima(load_filter(kind), a, b, grid, degrees)
        assert (rows.tobytes(), columns.tobytes()) == (fresh[0].tobytes(), fresh[1].tobytes())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degree", [1, 3, 5])
@pytest.mark.parametrize("large", [0, 100, 255])
def test_a_large_token_does_not_reach_windows_without_it(kind: str, degree: int, large: int) -> None:
    grid = (16, 16)
    a, b = two_images(grid, C=64, seed=3)
    a[large] *= 1000
    without = [
        p
        for p, window in enumerate(windows(grid, degree))
        if large not in np.arange(256).reshape(grid)[window]
    ]
    units = [oracle.normalise(oracle.aggregate(x.astype(np.float64), grid, degree)) for x in (a, b)]
    expected = (units[0] @ units[1].T).max(axis=1)[without]
    rows, _ = maxima(load_filter(kind), a, b, grid, (degree,))
    np.testing.assert_allclose(rows[0][without], expected, rtol=0, atol=1e-6)
    _, columns = maxima(load_filter(kind), b, a, grid, (degree,))
    np.testing.assert_allclose(columns[0][without], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_patches_without_content_have_cosine_zero(kind: str) -> None:
    grid, degrees = (3, 4), (1, 3)
    a, b = two_images(grid, seed=4)
    b[:] = -np.abs(b)
    a[:] = np.abs(a)
    a[:6] = 0  # a whole row of windows of degree 3 is empty
    rows, columns = maxima(load_filter(kind), a, b, grid, degrees)
    assert np.all(rows[0][:6] == 0)
    assert np.all(rows[1][:1] == 0)
    assert rows[1][11] < 0
    assert np.all(columns == 0)  # nothing is nearer than a patch without content


def test_auto_takes_numba_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_filter("auto") == ("numba", "")
    monkeypatch.delitem(sys.modules, "musc_edge.runtime.scoring.gram_numba")
    monkeypatch.setitem(sys.modules, "numba", None)
    assert best_filter("auto") == ("numpy", "")
    assert load_filter("numpy") is NumpyFilter
    with pytest.raises(DeviceError, match=r"musc-edge\[fast\]"):
        load_filter("numba")


@pytest.mark.parametrize("error", [EOFError("Ran out of input"), OSError(28, "No space left on device")])
def test_a_numba_that_does_not_work_is_said(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("musc_edge.runtime.scoring.gram_numba.compile_now", fail)
    with pytest.raises(DeviceError, match=rf"does not work \({type(error).__name__}: .*NUMBA_CACHE_DIR"):
        load_filter("numba")
    name, passed_over = best_filter("auto")
    assert name == "numpy"
    assert str(error) in passed_over
    with pytest.raises(DeviceError):
        best_filter("numba")


def test_a_numba_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "musc_edge.runtime.scoring.gram_numba", raising=False)
    monkeypatch.setitem(sys.modules, "numba", ModuleType("numba"))  # a damaged one
    with pytest.raises(DeviceError, match=r"does not work \((Import|Attribute)Error: "):
        load_filter("numba")
    name, passed_over = best_filter("auto")
    assert name == "numpy"
    assert "does not work" in passed_over


@pytest.mark.parametrize("name", ["cuda", "", "Numba", "torch"])
def test_unknown_filters_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="expected numpy, numba or auto"):
        best_filter(name)


def gram_numba() -> Any:
    """The module, which must not be imported with this file: a process with another cache imports that."""
    return sys.modules[load_filter("numba").__module__]


@pytest.mark.parametrize("window", [None, 0, 1, 9])
@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 1), (3, 4)])
def test_numba_stays_within_its_arrays(
    monkeypatch: pytest.MonkeyPatch, grid: Grid, window: int | None
) -> None:
    """Compiled code reads on beyond an array's end, also what a mask of 0 then hides: Python does not."""
    module, degrees = gram_numba(), (1, 3, 5, 999)
    a, b = two_images(grid, seed=5)
    own, others = (inverse_lengths(tokens, grid, degrees) for tokens in (a, b))
    inside = None if window is None else (np.arange(len(a)) % 3 != 1, np.arange(len(a)) % 4 != 1)

    def run() -> Array:
        found = np.full((2, len(degrees), len(a)), np.nan, np.float32)
        numba_filter = module.NumbaFilter(grid, degrees, window)
        numba_filter.maxima(a @ b.T, own, others, found[0], found[1], inside)
        return found

    compiled = run()
    for name, function in vars(module).items():
        if hasattr(function, "py_func"):
            monkeypatch.setattr(module, name, function.py_func)
    monkeypatch.setattr(module, "_larger", max)
    np.testing.assert_allclose(run(), compiled, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("seconds", "said"), [(1.96, ""), (2.0, "2"), (12.4, "12")])
def test_compiling_for_regions_is_told_where_one_waited(
    monkeypatch: pytest.MonkeyPatch, seconds: float, said: str
) -> None:
    clock = iter([500.0, 500.0 + seconds])
    compiled: list[str] = []
    monkeypatch.setattr(image_pairs, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(gram_numba(), "compile_near", lambda: compiled.append("near"))
    note = f"numba compiled its pass for regions and windows in {said} s"
    assert prepare_near("numba") == (note if said else "")
    assert compiled == ["near"]
    assert prepare_near("numpy") == ""
    assert compiled == ["near"], "numpy has nothing to compile"


# ---- numba's cache ---------------------------------------------------------------------------


class Planted:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._trace,)


def keep_cache_in(folder: Path) -> None:
    """What $NUMBA_CACHE_DIR does when numba is imported."""
    config: Any = numba.config
    config.CACHE_DIR = str(folder)


def load_in_a_new_process(cache: Path) -> tuple[str, str]:
    """What ``best_filter`` says with numba's cache in ``cache``."""
    code = (
        "from musc_edge.runtime.scoring.image_pairs import best_filter\nprint(*best_filter('numba'), sep=';')"
    )
    run = run_forked([sys.executable, "-c", code], prepare=partial(keep_cache_in, cache))
    assert run.returncode == 0, run.stderr
    name, _, note = run.stdout.strip().partition(";")
    return name, note


@pytest.mark.long
def test_a_cache_that_others_could_have_written_is_not_read(tmp_path: Path) -> None:
    """numba's cache is made of pickles: what is planted there would run."""
    assert load_in_a_new_process(tmp_path) == ("numba", "")
    (folder,) = tmp_path.iterdir()
    indices = list(folder.glob("*.nbi"))
    assert indices
    for path in indices:
        path.write_bytes(pickle.dumps(Planted(tmp_path / "trace")))
    for path, mode in ((folder, 0o777), (indices[0], 0o666)):
        path.chmod(mode)
        name, note = load_in_a_new_process(tmp_path)
        assert name == "numba"
        assert f"compiled for this run alone: everybody may write {path}" in note
        path.chmod(0o755)
    assert not (tmp_path / "trace").exists()
