"""What the tests of the kernels share."""

from __future__ import annotations

import shutil

import pytest

from nets import Nets


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Nets:
    """Builds of the kernels for the CPU, with and without sanitizers."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the CUDA kernels cannot be run on the CPU")
    return Nets(tmp_path_factory.mktemp("nets"))
