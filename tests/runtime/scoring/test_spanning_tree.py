"""The spanning tree by Borůvka against Prim's, which looks at one row of distances at a time."""

from __future__ import annotations

import numpy as np
import pytest

from musc_edge.runtime.scoring.spanning_tree import Link, spanning_tree
from musc_edge.runtime.types import Array


def prim(points: Array) -> list[float]:
    """The lengths of the links of a minimum spanning tree, in order."""
    nearest = np.full(len(points), np.inf)
    outside = np.ones(len(points), bool)
    current, lengths = 0, []
    for _ in range(len(points) - 1):
        outside[current] = False
        nearest = np.minimum(nearest, np.linalg.norm(points - points[current], axis=1))
        current = int(np.where(outside, nearest, np.inf).argmin())
        lengths.append(float(nearest[current]))
    return sorted(lengths)


def joined(links: list[Link], count: int) -> bool:
    """Whether links make one part of all points."""
    seen, fresh = {0}, [0]
    while fresh:
        point = fresh.pop()
        for link in links:
            if point in (link.a, link.b):
                other = link.a + link.b - point
                fresh += [other] * (other not in seen)
                seen.add(other)
    return len(seen) == count


def lots() -> dict[str, Array]:
    draw = np.random.default_rng(0)
    ball = draw.standard_normal((300, 8))
    return {
        "one": ball[:1],
        "two": ball[:2],
        "as few as are remembered": ball[:17],
        "a ball, in two blocks": ball,
        "two balls far apart": np.concatenate([ball[:90], ball[90:] + 50]),
        "one that lies alone": np.concatenate([ball, [[90.0] * 8]]),
        "many equal ones": np.repeat(ball[:9], 30, axis=0),
        "all equal": np.ones((60, 8)),
        "on a grid": np.stack(np.meshgrid(*[np.arange(4.0)] * 4), axis=-1).reshape(-1, 4),
    }


@pytest.mark.parametrize("name", lots())
def test_the_tree_is_as_short_as_prims(name: str) -> None:
    points = lots()[name]
    links = spanning_tree(points)
    np.testing.assert_allclose(sorted(link.length for link in links), prim(points), rtol=1e-9, atol=1e-6)
    assert joined(links, len(points))
    for link in links:
        assert link.length == pytest.approx(np.linalg.norm(points[link.a] - points[link.b]), abs=1e-6)
