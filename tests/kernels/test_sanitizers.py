"""The shipped kernels through the nets that catch mutants: values, races, accesses out of bounds."""

from __future__ import annotations

import pytest

from support.mutants import NETS, RACES
from support.nets import BATTERIES, Nets

pytestmark = pytest.mark.long

CASES = [(name, net) for name in BATTERIES for net in NETS if (name, net) != ("gram_hopper", RACES)]
"""ThreadSanitizer is not told of barriers in shared memory, nor of copies and products beside the threads."""


@pytest.mark.parametrize(("name", "net"), CASES)
def test_nothing_is_found(nets: Nets, name: str, net: str) -> None:
    assert nets.find(name, net) == ""
