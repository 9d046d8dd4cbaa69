"""DeviceRow on an emulated GPU: what the CPU's rows give, and all memory given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from musc_edge import Checker, DeviceError, LotError, Resources, make_reference
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.gpu.row import DeviceRow, row_bytes
from musc_edge.runtime.scoring.image_pairs import load_filter
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.row import RowScorer, WholeBank
from support.emulated_gpu import EmulatedGpu
from support.references import BUNDLE, part, reference, write_lot

pytestmark = pytest.mark.slow

FINE = 3e-4
"""What half precision may cost in a score of random and narrow tokens."""


@pytest.fixture
def device(kernel_library: Path) -> Iterator[GpuThread]:
    with GpuThread(lambda: EmulatedGpu(kernel_library, seed=1)) as opened:
        yield opened
        assert opened.run(lambda gpu: gpu._used) == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("shape", "grid", "degrees", "interval"),
    [
        ((2, 7, 6, 33), (2, 3), (1, 3, 5), (0.0, 0.3)),
        ((1, 12, 10, 20), (5, 2), (3, 7), (0.3, 0.7)),
        ((1, 5, 132, 24), (11, 12), (5,), (0.0, 0.3)),
    ],
)
def test_scores_are_those_of_the_cpu(
    device: GpuThread,
    shape: tuple[int, int, int, int],
    grid: tuple[int, int],
    degrees: tuple[int, ...],
    interval: tuple[float, float],
) -> None:
    rng = np.random.default_rng(0)
    common = 1 + rng.standard_normal((shape[0], 1, *shape[2:]))
    bank = (common + rng.standard_normal(shape)).astype(np.float32)
    images = (common + rng.standard_normal((shape[0], 3, *shape[2:]))).astype(np.float32)
    images[:, 2, 0] = images[:, 2].mean()  # a patch without content, at degree 1
    method = Method(grid, degrees, interval)
    with (
        RowScorer(WholeBank.of(method, load_filter("numpy"), list(bank), 2), 2) as expected,
        DeviceRow(method, device, shape, lambda layer: bank[layer]) as found,
    ):
        for k in (0, 1, 2, 0):
            tokens = list(images[:, k])
            np.testing.assert_allclose(found.score(tokens), expected.score(tokens), atol=FINE)
        images[0, 0, 0, 0] = np.nan
        with pytest.raises(DeviceError, match="not finite"):
            found.score(list(images[:, 0]))


def test_memory_is_foreseen_and_given_back_when_there_is_too_little(kernel_library: Path) -> None:
    shape, method = (2, 20, 16, 32), Method((4, 4))
    needed = row_bytes(shape, 3)
    bank = np.zeros(shape, np.float32)
    gpus: list[EmulatedGpu] = []

    def opened(memory: int) -> GpuThread:
        def make() -> EmulatedGpu:
            gpus.append(EmulatedGpu(kernel_library, memory=memory))
            return gpus[-1]

        return GpuThread(make)

    with opened(1 << 30) as device, DeviceRow(method, device, shape, lambda layer: bank[layer]):
        pass
    assert 0.9 * needed < gpus[0].peak <= 1.05 * needed + 100_000
    with opened(needed // 2) as device:
        with pytest.raises(DeviceError), DeviceRow(method, device, shape, lambda layer: bank[layer]):
            pass
        assert gpus[1]._used == 0
    with opened(1 << 30) as device, pytest.raises(LotError):
        DeviceRow(method, device, (2, 1, 16, 32), lambda layer: bank[layer])


@pytest.mark.usefixtures("emulated_gpu")
def test_a_checker_compares_on_the_gpu(tmp_path: Path) -> None:
    write_lot(tmp_path / "lot", 14)
    whole = reference(tmp_path / "lot", tmp_path / "ref", hold_out=0.3)
    few = reference(tmp_path / "lot", tmp_path / "few", hold_out=0.3, patches=0.5)
    picture = part(99, 60)
    with (
        Checker(whole, BUNDLE, 0.3, Resources(scorer="cuda")) as by_gpu,
        Checker(whole, BUNDLE, 0.3, Resources(scorer="numpy")) as by_cpu,
    ):
        found, expected = by_gpu.check(picture), by_cpu.check(picture)
        assert found.raw_score == pytest.approx(expected.raw_score, abs=FINE)
        assert found.raw_score != expected.raw_score
        assert by_gpu.computed_by[1].startswith("cuda sm_00")
        assert by_cpu.computed_by[1].startswith("numpy ")
    with pytest.raises(DeviceError, match="--patches"):
        Checker(few, BUNDLE, 0.3, Resources(scorer="cuda"))
    with pytest.raises(DeviceError, match="on the GPU"):
        Checker(whole, BUNDLE, 0.3, Resources(scorer="cuda", device_memory=1000))
    in_int8 = Resources(scorer="cuda", precision="int8")
    with pytest.raises(DeviceError, match=r"precision int8 is for lots.*Leave the precision out"):
        Checker(whole, BUNDLE, 0.3, in_int8)
    with pytest.raises(DeviceError, match="precision int8 is for lots"):
        make_reference(tmp_path / "lot", BUNDLE, tmp_path / "int8", resources=in_int8)
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize("scorer", ["auto", "numba", "numpy"])
@pytest.mark.parametrize("precision", ["half", "int8"])
def test_a_precision_is_of_the_scorer_cuda(scorer: str, precision: str) -> None:
    with pytest.raises(LotError, match=f"--precision {precision} is for --scorer cuda.*scorer is {scorer}"):
        Resources(scorer=scorer, precision=precision)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(LotError, match=r"precision 'int4': expected half or int8\."):
        Resources(scorer="cuda", precision="int4")
