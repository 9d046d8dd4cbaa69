"""Images that are copies of each other and do not judge each other, held against plain loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musc_edge.runtime.scoring.judges import choose
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array, FloatArray
from support import oracle
from support.repeated import GRID, repeated_defect

METHOD = Method(GRID, (1, 3))
COPIES = [[0, 3, 12], [5, 6]]


def lot_with_copies(images: int = 16) -> FloatArray:
    """Tokens (2,N,12,C) in which COPIES are equal but for a little noise."""
    tokens = repeated_defect(images, 1)
    for first, *others in COPIES:
        for other in others:
            noise = np.random.default_rng(other).standard_normal(tokens[:, first].shape)
            tokens[:, other] = tokens[:, first] + 0.01 * noise
    return tokens


def scored(
    tokens: Array, copies: list[list[int]], method: Method = METHOD, kind: str = "numpy", threads: int = 2
) -> FloatArray:
    scorer, store = CpuScorer(method, kind), HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))
    return scorer.score(store, scorer.plan(store.shape, 4, HostNeeds(threads=threads)), copies=copies)


@pytest.mark.parametrize("kind", ["numpy", "numba"])
@pytest.mark.parametrize("burn_out", [False, True])
def test_each_image_is_judged_by_those_that_are_no_copies_of_it(kind: str, burn_out: bool) -> None:
    tokens = lot_with_copies()
    expected = oracle.mutual_scores(tokens, GRID, (1, 3), (0.0, 0.3), burn_out=burn_out, copies=COPIES)
    found = scored(tokens, COPIES, replace(METHOD, burn_out=burn_out), kind)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_an_image_without_copies_keeps_its_bytes() -> None:
    tokens = lot_with_copies()
    alone = [row for row in range(16) if not any(row in group for group in COPIES)]
    assert scored(tokens, COPIES)[alone].tobytes() == scored(tokens, [])[alone].tobytes()


def test_a_defect_on_all_copies_stands_out_again() -> None:
    tokens = lot_with_copies()
    assert scored(tokens, [])[[0, 3, 12]].max() < scored(tokens, COPIES)[[0, 3, 12]].max(axis=1).min()


@pytest.mark.parametrize("group_size", [None, 8, 9])
def test_the_number_of_judges_is_each_images_own(group_size: int | None) -> None:
    judges = choose(15, group_size).apart(COPIES)
    counts, of_group = judges.counts(), {row: number for number, g in enumerate(COPIES) for row in g}
    for place in range(15):
        image, others = judges.order[place], judges.order[judges.of(place)]
        own = [j for j in others if of_group.get(int(j), -1) != of_group.get(int(image), -2)]
        judging = judges.judging(place)
        assert counts[place] == len(own)
        assert others.tolist() == own if judging is None else others[judging].tolist() == own


def test_threads_change_no_byte() -> None:
    tokens = lot_with_copies()
    assert len({scored(tokens, COPIES, threads=n).tobytes() for n in (1, 2, 3)}) == 1


def test_a_group_that_leaves_too_few_judges_is_told() -> None:
    assert METHOD.can_be_apart(8, [[0, 1, 2, 3], [4, 5]]) == [True, True]  # 4 others
    assert METHOD.can_be_apart(8, [[0, 1, 2, 3, 4], [5, 6]]) == [False, True]  # 3 others
    assert METHOD.can_be_apart(8, []) == []


def test_kept_scores_with_other_copies_are_not_used(tmp_path: Path) -> None:
    tokens = lot_with_copies()
    store = HostStore(tokens, np.empty((16, 0), np.float32))
    scorer = CpuScorer(METHOD, "numpy")
    plan = scorer.plan(store.shape, 4, HostNeeds(keep=True))
    for copies in (COPIES, COPIES, [COPIES[1]], []):
        kept = Checkpoint(tmp_path / "kept", {}, {})
        found = scorer.score(store, plan, kept=kept, copies=copies)
        kept.close()
        assert found.tobytes() == scored(tokens, copies).tobytes()
