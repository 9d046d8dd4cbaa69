"""The shipped kernels through the nets that catch mutants: values, races, accesses out of bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.mutants import NETS
from support.nets import BATTERIES, Nets, findings


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", BATTERIES)
def test_nothing_is_found(nets: Nets, name: str, net: str, tmp_path: Path) -> None:
    assert findings(nets.build(name, net, tmp_path / "battery"), net) == ""
