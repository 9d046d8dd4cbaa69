"""The shipped kernels through the nets that catch mutants: values, races, accesses out of bounds."""

from __future__ import annotations

import pytest

from support.mutants import NETS
from support.nets import BATTERIES, Nets


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", BATTERIES)
def test_nothing_is_found(nets: Nets, name: str, net: str) -> None:
    assert nets.find(name, net) == ""
