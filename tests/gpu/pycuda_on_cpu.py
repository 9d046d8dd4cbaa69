"""Runs pycuda itself, and the scorer through it, on a machine without a GPU.

    python tests/gpu/pycuda_on_cpu.py [--pycuda WHEEL|SDIST|FOLDER]

Needs g++ and the headers of a CUDA toolkit.  Builds pycuda in .work/gpu, which takes minutes once, and a
driver that runs the kernels on the CPU (support/cuda/cuda_driver_cpu.cpp); prints what was checked.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for gpu and support

from gpu.checkout import WORK, run_from_checkout

if __name__ == "__main__":
    run_from_checkout()

import argparse
import gc
import subprocess
import threading
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

from gpu.cpu_driver import CUBIN, Counts, CpuDriver, build_driver
from gpu.pycuda_build import DRIVER, install_pycuda
from musc_edge.kernels import launches
from musc_edge.kernels.errors import KernelError
from musc_edge.kernels.gpu import Gpu, Launch
from musc_edge.kernels.pycuda_gpu import PycudaGpu
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.types import DevicePlan
from musc_edge.tools.selftest.kernel_checks import check_kernels
from support.scorer_checks import check_scorer, make_lot, plan_from_host

GRID = (3, 4)
LOT = make_lot(layers=2, images=6, grid=GRID, width=24)
NOTHING = Counts(0, 0, 0, 0, 0, 0, 0, 0)


def raised(kind: type[Exception], *words: str) -> Callable[[Callable[[], object]], Exception]:
    """Call something that must raise ``kind`` with all ``words``; the error, with its traceback."""

    def check(work: Callable[[], object]) -> Exception:
        try:
            work()
        except kind as error:
            missing = [word for word in words if word not in str(error)]
            if missing:
                raise AssertionError(f"{missing} not in: {error}") from error
            return error
        raise AssertionError(f"no {kind.__name__} was raised")

    return check


def score(prepare: Callable[[DevicePlan], object] = lambda plan: None) -> tuple[bytes, list[str]]:
    """Scores of the lot, and notes; ``prepare`` is called when the plan is made."""
    with GpuThread(PycudaGpu) as device:
        device.run(lambda gpu: gpu.load(CUBIN, "sm_00"))
        scorer = CudaScorer(Method(GRID), device)
        plan = plan_from_host(scorer, LOT)
        assert plan.device is not None
        prepare(plan.device)
        return scorer.score(LOT, plan).tobytes(), scorer.notes


def collect_elsewhere() -> None:
    """Collect garbage in a thread in which no context is current."""
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


# ---- what is checked -------------------------------------------------------------------------------


def every_kernel_as_numpy(driver: CpuDriver) -> None:
    """Each kernel, launched by pycuda, gives what numpy does, at sizes with tails."""
    with GpuThread(PycudaGpu) as device:
        device.run(lambda gpu: gpu.load(CUBIN, "sm_00"))
        device.run(lambda gpu: check_kernels(gpu, large=False))
    assert driver.counts() == NOTHING


def the_scorer_as_the_cpu(driver: CpuDriver) -> None:
    """The scorer agrees with the CPU's, and gives the same bits again, by other plans, in another order."""
    for seed in (0, 1):
        driver.set_up(seed=seed)
        with GpuThread(PycudaGpu) as device:
            device.run(lambda gpu: gpu.load(CUBIN, "sm_00"))
            check_scorer(device, LOT, GRID)
        assert driver.counts() == NOTHING


def a_smaller_plan(driver: CpuDriver) -> None:
    """Where the device has less memory than planned, a smaller plan is taken, said, and changes no bit."""
    expected, notes = score()
    assert not notes
    found, notes = score(lambda plan: driver.set_up(memory=plan.memory_bytes - 1000))
    assert found == expected
    assert notes
    assert "has too little memory for allocating" in notes[0]
    driver.set_up()
    assert driver.counts() == NOTHING


def no_device(driver: CpuDriver) -> None:
    """No device, a device that does not open, and a module that is none, are said with a cure."""
    driver.set_up(devices=0)
    raised(KernelError, "opening the GPU failed", "no CUDA-capable device", "nvidia-smi")(score)
    driver.set_up()
    from pycuda import driver as pycuda

    with mock.patch.object(pycuda.Device, "get_attribute", side_effect=pycuda.LogicError("not now")):
        raised(KernelError, "opening the GPU failed", "not now")(score)
    with GpuThread(PycudaGpu) as device:
        raised(KernelError, "loading the kernels for sm_86", "must be compiled")(
            lambda: device.run(lambda gpu: gpu.load(b"no module", "sm_00"))
        )
    assert driver.counts() == NOTHING


def a_launch_that_is_refused(driver: CpuDriver) -> None:
    """A refused launch is named, and leaves nothing, though its error is kept and the context is held."""
    driver.retain()
    with mock.patch.object(launches, "_gram_shared", return_value=10**6):
        kept = raised(DeviceError, "launching gram_min (grid (", "1000000 bytes", "--scorer numpy")(score)
    collect_elsewhere()
    assert kept.__traceback__ is not None
    assert driver.counts().living == 0, driver.counts()
    driver.release()
    assert driver.counts() == NOTHING


def a_kernel_that_fails(driver: CpuDriver) -> None:
    """A kernel's failure comes out as it was, with the launches before it, and the context goes with it."""
    driver.fail("gram_min")
    kept = raised(DeviceError, "an illegal memory access", "gram_min (grid (", "CUDA_LAUNCH_BLOCKING")(score)
    collect_elsewhere()
    assert kept.__traceback__ is not None
    counts = driver.counts()
    assert (counts.living, counts.references) == (0, 0), counts
    score()
    assert driver.counts() == NOTHING


def an_error_of_the_callers(driver: CpuDriver) -> None:
    """Whatever ends the work, memory, page-locked memory, streams, events and module are given back."""
    driver.retain()

    def work(gpu: Gpu) -> None:
        gpu.load(CUBIN, "sm_00")
        stream, array = gpu.stream(), gpu.empty((3, 5), np.float32)
        gpu.upload(array, np.ones((3, 5), np.float32), stream)
        gpu.record(gpu.event(), stream)
        counts.append(driver.counts())
        raise ZeroDivisionError

    def run() -> None:
        with GpuThread(PycudaGpu) as device:
            device.run(work)

    counts: list[Counts] = []
    kept = raised(ZeroDivisionError)(run)
    collect_elsewhere()
    assert kept.__traceback__ is not None
    assert counts[0].living == 6, counts  # memory, page-locked memory, stream, two events, module
    assert driver.counts().living == 0
    driver.release()


def the_driver_itself(driver: CpuDriver) -> None:
    """The driver refuses calls without a context, arguments of other types, and all other calls."""
    from pycuda import driver as pycuda

    raised(pycuda.Error, "invalid device context")(lambda: pycuda.mem_alloc(4))
    with GpuThread(PycudaGpu) as device:
        device.run(lambda gpu: gpu.load(CUBIN, "sm_00"))
        launch = Launch("column_mean", (1, 1, 1), (32, 32, 1), 4096)
        raised(KernelError, "launching column_mean")(
            lambda: device.run(lambda gpu: gpu.launch(launch, (np.int32(1),), gpu.stream()))
        )
    done = subprocess.run([sys.executable, *sys.argv, "--unknown-call"], check=False, capture_output=True)
    assert done.returncode == 97
    assert b"is not emulated" in done.stderr


CHECKS = (
    every_kernel_as_numpy,
    the_scorer_as_the_cpu,
    a_smaller_plan,
    no_device,
    a_launch_that_is_refused,
    a_kernel_that_fails,
    an_error_of_the_callers,
    the_driver_itself,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pycuda", type=Path, help="wheel, sdist or their folder; without it pip is asked")
    parser.add_argument("--unknown-call", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    site = install_pycuda(options.pycuda, WORK / "pycuda")
    sys.path.insert(0, str(site))
    if options.unknown_call:
        CpuDriver(WORK / DRIVER)
        from pycuda import driver as pycuda

        pycuda.init()
        pycuda.Device(0).total_memory()
    driver = CpuDriver(build_driver(site, WORK))
    from pycuda import VERSION_TEXT

    print(f"pycuda {VERSION_TEXT}, driver on the CPU")
    for check in CHECKS:
        start = time.perf_counter()
        check(driver)
        print(f"  ok  {time.perf_counter() - start:5.1f} s  {check.__doc__}", flush=True)


if __name__ == "__main__":
    main()
