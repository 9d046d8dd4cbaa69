"""What the tests of clusters share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.inline_cluster import leave_worker


@pytest.fixture(autouse=True)
def left_worker() -> Iterator[None]:
    """Tasks of an inline cluster make a worker of this process, for one test."""
    yield
    leave_worker()
