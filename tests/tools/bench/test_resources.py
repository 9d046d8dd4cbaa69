"""What a benchmark says of the machine: trees of files as Linux writes them, a fake GPU, a fake clock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from musc_edge.tools.bench import power
from musc_edge.tools.bench.power import EnergyMeter, NvmlGpu, Sensor, find_sensor, open_gpu, power_mode
from musc_edge.tools.bench.resources import NOT_AVAILABLE, Monitor, Usage, usage_text

MB = 10**6
TICKS = os.sysconf("SC_CLK_TCK")
NEVER_S = 1000.0  # a period so long that only the start and the end are sampled
DRIVER = "sys/bus/i2c/drivers"
HWMON = f"{DRIVER}/ina3221/1-0040/hwmon/hwmon3"
IIO = f"{DRIVER}/ina3221x/6-0040/iio:device0"
RAPL = "sys/class/powercap"
CPU = "sys/devices/system/cpu"
GARBLED = ["", "\n", "N/A\n", "12 34\n", "-5\n", "4.2.1\n", "\xff\xfe\n", "9" * 30]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeGpu:
    """Says what its fields say."""

    name = "a GPU"

    def __init__(self, **values: object) -> None:
        self.values = values
        self.asked = threading.Event()

    def memory(self) -> int | None:
        self.asked.set()
        return self.values.get("memory")  # type: ignore[return-value]

    def power(self) -> float | None:
        return self.values.get("power")  # type: ignore[return-value]

    def energy(self) -> float | None:
        return self.values.get("energy")  # type: ignore[return-value]

    def clock(self) -> float | None:
        return self.values.get("clock")  # type: ignore[return-value]

    def throttled(self) -> bool | None:
        return self.values.get("throttled")  # type: ignore[return-value]


def write(root: Path, files: dict[str, object]) -> Path:
    """Files with the newline that Linux ends each with."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="latin-1")
    return root


def status(peak: int, now: int) -> str:
    return f"Name:\tpython\nVmPeak:\t 9999999 kB\nVmHWM:\t {peak} kB\nVmRSS:\t {now} kB"


def stat(busy: int, idle: int = 7) -> str:
    """Six busy fields, steal the last; idle, iowait and both of guests, which user and nice hold already."""
    line = f"cpu  {busy} {busy} {busy} {idle} {idle} {busy} {busy} {busy} {idle} {idle}"
    return f"{line}\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 12345"


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """An Orin NX of L4T 36: 5 V and 1.2 A into the module; sysfs names devices by links."""
    chip = "sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040"
    names = {1: "VDD_IN", 2: "VDD_CPU_GPU_CV", 3: "VDD_SOC"}
    for number, name in names.items():
        hwmon = f"{chip}/hwmon/hwmon3"
        write(tmp_path, {f"{hwmon}/in{number}_label": name, f"{hwmon}/in{number}_input": 5000 + number - 1})
        write(tmp_path, {f"{hwmon}/curr{number}_input": 1200 // number})
    write(tmp_path, {f"{chip}/hwmon/hwmon3/in7_label": "sum of shunt voltages"})
    (tmp_path / DRIVER / "ina3221").mkdir(parents=True)
    (tmp_path / DRIVER / "ina3221" / "1-0040").symlink_to(tmp_path / chip, target_is_directory=True)
    for core, kilohertz in enumerate((729_600, 1_984_000)):
        write(tmp_path, {f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq": kilohertz})
    write(tmp_path, {"sys/class/devfreq/17000000.gpu/cur_freq": 306_000_000})
    write(tmp_path, {"sys/class/devfreq/15340000.vic/cur_freq": 115_200_000})
    write(
        tmp_path, {"proc/stat": stat(100), "proc/self/clear_refs": "", "proc/self/status": status(900, 400)}
    )
    command = write(
        tmp_path, {"usr/sbin/nvpmodel": '#!/bin/sh\n[ "$1" = -q ] && echo "NV Power Mode: 15W"; echo 0'}
    )
    (command / "usr/sbin/nvpmodel").chmod(0o755)
    return tmp_path


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """A Jetson Nano of L4T 32; the total is not the first rail in every model."""
    rails = {"POM_5V_GPU": 300, "POM_5V_IN": 2500, "POM_5V_CPU": 700}
    for number, (name, milliwatts) in enumerate(rails.items()):
        write(tmp_path, {f"{IIO}/rail_name_{number}": name, f"{IIO}/in_power{number}_input": milliwatts})
    return tmp_path


@pytest.fixture
def rapl(tmp_path: Path) -> Path:
    """Two sockets; their cores and the platform count the same energy again."""
    names = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}
    for folder, name in {**names, "intel-rapl:0:0": "core", "intel-rapl-mmio:0": "package-0"}.items():
        write(tmp_path, {f"{RAPL}/{folder}/name": name, f"{RAPL}/{folder}/energy_uj": 1_000_000})
        write(tmp_path, {f"{RAPL}/{folder}/max_energy_range_uj": 262_143_328_850})
    return tmp_path


def watch(root: Path, change: Callable[[], object] = lambda: None, gpu: FakeGpu | None = None) -> Usage:
    """The usage of a block of 10 s, by the clock, that changes files halfway."""
    clock = Clock()
    with Monitor(NEVER_S, root=root, open_gpu=lambda: gpu, clock=clock) as monitor:
        change()
        clock.now += 10.0
    return monitor.usage()


# --- power and energy


def test_orin_gives_volts_and_amperes_of_the_module(orin: Path) -> None:
    usage = watch(orin, lambda: write(orin, {f"{HWMON}/curr1_input": 2000}))
    assert usage.power_source == "INA3221, VDD_IN"
    assert usage.power_w == pytest.approx(8.0)  # from 6 W to 10 W
    assert usage.energy_j == pytest.approx(80.0)
    assert usage.wall_s == 10.0


def test_older_jetson_gives_milliwatts(nano: Path) -> None:
    usage = watch(nano, lambda: write(nano, {f"{IIO}/in_power1_input": 3500}))
    assert usage.power_source == "INA3221, POM_5V_IN"
    assert usage.power_w == pytest.approx(3.0)
    assert usage.energy_j == pytest.approx(30.0)


def test_agx_orin_has_no_rail_for_all_so_those_that_feed_the_rest_are_summed(tmp_path: Path) -> None:
    second = HWMON.replace("1-0040", "1-0041")
    for folder, number, name in (
        (HWMON, 1, "VDD_GPU_SOC"),
        (HWMON, 2, "VDD_CPU_CV"),
        (HWMON, 3, "VIN_SYS_5V0"),
        (second, 1, "NC"),
        (second, 2, "VDDQ_VDD2_1V8AO"),
    ):
        write(tmp_path, {f"{folder}/in{number}_label": name, f"{folder}/in{number}_input": 1000})
        write(tmp_path, {f"{folder}/curr{number}_input": 1000 * number})
    usage = watch(tmp_path)
    assert usage.power_w == pytest.approx(1.0 + 2.0 + 3.0)
    assert usage.power_source == "INA3221, VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"


def test_a_jetson_without_a_total_gives_none(orin: Path) -> None:
    write(orin, {f"{HWMON}/in1_label": "VDD_GPU"})
    assert watch(orin).power_w is None


def test_rapl_sums_packages_alone(rapl: Path) -> None:
    usage = watch(
        rapl,
        lambda: write(
            rapl,
            {
                f"{RAPL}/intel-rapl:0/energy_uj": 51_000_000,
                f"{RAPL}/intel-rapl:1/energy_uj": 21_000_000,
                f"{RAPL}/intel-rapl:0:0/energy_uj": 41_000_000,
                f"{RAPL}/intel-rapl:2/energy_uj": 91_000_000,
            },
        ),
    )
    assert usage.energy_j == pytest.approx(70.0)
    assert usage.power_w == pytest.approx(7.0)
    assert usage.power_source == "RAPL, processor packages"


def test_rapl_starts_over_at_its_range(rapl: Path) -> None:
    zero = f"{RAPL}/intel-rapl:0"
    write(rapl, {f"{zero}/energy_uj": 95_000_000, f"{zero}/max_energy_range_uj": 100_000_000})
    sensor = find_sensor(rapl, None)
    assert sensor is not None
    meter = EnergyMeter(sensor)
    for second, microjoules in enumerate((95_000_000, 99_000_000, 2_000_000, 98_000_000, 1_000_000)):
        write(rapl, {f"{zero}/energy_uj": microjoules})
        meter.sample(float(second))
    assert meter.mean_power() == pytest.approx((4 + 3 + 96 + 3) / 4)


@pytest.mark.parametrize("most", ["unknown", 90_000_000])
def test_rapl_that_goes_back_for_no_reason_gives_none(rapl: Path, most: object) -> None:
    zero = f"{RAPL}/intel-rapl:0"
    write(rapl, {f"{zero}/energy_uj": 95_000_000, f"{zero}/max_energy_range_uj": most})
    usage = watch(rapl, lambda: write(rapl, {f"{zero}/energy_uj": 2_000_000}))
    assert (usage.energy_j, usage.power_source) == (None, None)


def test_integral_over_uneven_times() -> None:
    watts = iter([2.0, 4.0, 4.0, 0.0])
    meter = EnergyMeter(Sensor("", lambda: next(watts)))
    for now in (50.0, 51.0, 53.0, 54.0):
        meter.sample(now)
    assert meter.mean_power() == pytest.approx((3.0 + 8.0 + 2.0) / 4)


def readings(values: list[float | None]) -> float | None:
    left = iter(values)
    meter = EnergyMeter(Sensor("", lambda: next(left)))
    for second in range(len(values)):
        meter.sample(float(second))
    return meter.mean_power()


def test_a_lost_reading_is_left_out_and_many_leave_nothing() -> None:
    assert readings([5.0] * 15 + [None] + [5.0] * 15) == pytest.approx(5.0)
    assert readings([5.0] * 8 + [None] + [5.0] * 8) is None
    assert readings([5.0] * 8 + [None] * 8) is None
    assert readings([5.0]) is None
    assert readings([]) is None


@pytest.mark.parametrize("text", GARBLED)
@pytest.mark.parametrize("when", ["before", "during"])
@pytest.mark.parametrize("name", ["in1_input", "curr1_input"])
def test_garbled_sensor(orin: Path, text: str, when: str, name: str) -> None:
    def garble() -> None:
        (orin / HWMON / name).write_text(text, encoding="latin-1")

    if when == "before":
        garble()
    usage = watch(orin, garble)
    assert (usage.power_w, usage.energy_j, usage.power_source) == (None, None, None)
    assert usage.cpu_clock_mhz == (729.6, 1984.0)


def test_everything_may_vanish_during_the_block(orin: Path) -> None:
    usage = watch(orin, lambda: shutil.rmtree(orin))
    assert (usage.power_w, usage.others_cores, usage.throttled, usage.nvpmodel) == (None,) * 4
    assert usage.cpu_clock_mhz == (729.6, 1984.0)  # what was seen stays true
    assert usage.peak_rss == 900 * 1024


def test_folders_in_place_of_files_are_not_available(orin: Path) -> None:
    for path in [p for p in orin.rglob("*") if p.is_file()]:
        path.unlink()
        path.mkdir()
    usage = watch(orin)
    assert {k for k, v in asdict(usage).items() if v is not None} == {"wall_s", "cpu_s", "cpu_cores"}


def test_a_machine_with_nothing(tmp_path: Path) -> None:
    usage = watch(tmp_path)
    assert {k for k, v in asdict(usage).items() if v is not None} == {"wall_s", "cpu_s", "cpu_cores"}
    assert not list(tmp_path.iterdir())


def test_which_source_is_taken(orin: Path, rapl: Path) -> None:
    gpu = FakeGpu(power=70.0, energy=5.0)
    found = find_sensor(orin, gpu)
    assert found is not None
    assert found.name == "INA3221, VDD_IN"  # the whole module, the GPU in it
    (orin / DRIVER / "ina3221" / "1-0040").unlink()
    found = find_sensor(orin, gpu)
    assert found is not None
    assert (found.name, found.counter) == ("a GPU", True)
    del gpu.values["energy"]
    found = find_sensor(orin, gpu)
    assert found is not None
    assert (found.name, found.counter) == ("a GPU", False)
    del gpu.values["power"]
    found = find_sensor(orin, gpu)
    assert found is not None
    assert found.name.startswith("RAPL")


# --- the GPU


def test_gpu_with_an_energy_counter(tmp_path: Path) -> None:
    gpu = FakeGpu(energy=1000.0, power=1.0, clock=1200.0, memory=300 * MB, throttled=False)
    usage = watch(
        tmp_path, lambda: gpu.values.update(energy=1500.0, clock=1980.0, memory=100 * MB, throttled=None), gpu
    )
    assert (usage.energy_j, usage.power_w, usage.power_source) == (500.0, 50.0, "a GPU")
    assert usage.gpu_clock_mhz == (1200.0, 1980.0)
    assert usage.peak_device_memory == 300 * MB
    assert usage.throttled is False


def test_gpu_with_power_alone(tmp_path: Path) -> None:
    gpu = FakeGpu(power=100.0)
    usage = watch(tmp_path, lambda: gpu.values.update(power=300.0), gpu)
    assert (usage.energy_j, usage.power_w) == (2000.0, 200.0)
    assert (usage.gpu_clock_mhz, usage.peak_device_memory, usage.throttled) == (None, None, None)


class Nvml(SimpleNamespace):
    """The functions of pynvml that are used, of a GPU that this process and others work on."""

    def __init__(self, **changes: object) -> None:
        processes = [(os.getpid() + 1, 900), (os.getpid(), 200), (os.getpid(), 30)]
        values: dict[str, object] = {
            "ComputeRunningProcesses": [SimpleNamespace(pid=p, usedGpuMemory=m) for p, m in processes],
            "PowerUsage": 71_250,
            "TotalEnergyConsumption": 9_000_500,
            "CurrentClocksThrottleReasons": 0,
        } | changes
        super().__init__(**{f"nvmlDeviceGet{name}": self._answer(value) for name, value in values.items()})

    @staticmethod
    def _answer(value: object) -> Callable[[object], object]:
        def answer(handle: object) -> object:
            assert handle == "handle 2"
            if isinstance(value, Exception):
                raise value
            return value

        return answer

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"handle {index}"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return {0: 111, 1: 1980, 2: 333}[kind]


def test_nvml_units_and_this_process_alone() -> None:
    gpu = NvmlGpu(Nvml(), 2)
    assert (gpu.memory(), gpu.power(), gpu.energy(), gpu.clock()) == (230, 71.25, 9000.5, 1980.0)
    assert gpu.throttled() is False
    assert gpu.name == "NVML, GPU 2"


@pytest.mark.parametrize(
    "processes",
    [
        [],
        [SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=5)],  # in a container: the host's numbers
        [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)],  # Windows, or a GPU that does not tell
        RuntimeError("Not Supported"),
    ],
)
def test_memory_of_this_process_unknown(processes: object) -> None:
    assert NvmlGpu(Nvml(ComputeRunningProcesses=processes), 2).memory() is None


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (0x01, False),  # idle
        (0x02, False),  # clocks that the user set
        (0x04, True),
        (0x08, True),
        (0x10, False),  # in step with other GPUs
        (0x20, True),
        (0x40, True),
        (0x80, True),
        (0x100, False),  # a display
        (0x21, True),
        (RuntimeError("Not Supported"), None),
    ],
)
def test_reasons_of_throttling(reasons: object, expected: bool | None) -> None:
    assert NvmlGpu(Nvml(CurrentClocksThrottleReasons=reasons), 2).throttled() is expected


def test_an_nvml_that_refuses_everything(tmp_path: Path) -> None:
    """As that of an integrated GPU does."""
    gpu = NvmlGpu(SimpleNamespace(nvmlDeviceGetHandleByIndex=lambda index: index))
    assert (gpu.memory(), gpu.power(), gpu.energy(), gpu.clock(), gpu.throttled()) == (None,) * 5


def test_open_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    gpu = open_gpu(2)
    assert gpu is not None
    assert gpu.power() == 71.25

    def fail() -> None:
        raise OSError("NVML Shared Library Not Found")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=fail))
    assert open_gpu() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert open_gpu() is None


# --- processor, memory, clocks, modes


def test_cores_of_others(orin: Path) -> None:
    usage = watch(orin, lambda: write(orin, {"proc/stat": stat(100 + 3 * TICKS, idle=99999)}))
    assert usage.others_cores == pytest.approx(6 * 3 / 10, abs=0.05)  # six fields of 3 s each, steal is one


def test_what_this_process_uses_is_not_of_others(orin: Path) -> None:
    def change() -> None:
        burn(0.35)
        write(orin, {"proc/stat": stat(100 + TICKS // 20)})  # six fields of 0.05 s each

    assert watch(orin, change).others_cores == 0


def test_others_never_use_less_than_nothing(orin: Path) -> None:
    assert watch(orin, lambda: write(orin, {"proc/stat": stat(90)})).others_cores == 0


@pytest.mark.parametrize(
    "text", ["", "cpu", "cpu 1 2 3 4", "cpu 1 2 x 4 5 6 7 8", "cpu0 1 2 3 4 5 6 7 8", "\xff"]
)
def test_garbled_stat(orin: Path, text: str) -> None:
    write(orin, {"proc/stat": text})
    assert watch(orin).others_cores is None


def test_no_time_has_no_averages(orin: Path) -> None:
    clock = Clock()
    with Monitor(NEVER_S, root=orin, open_gpu=lambda: None, clock=clock) as monitor:
        pass
    usage = monitor.usage()
    assert (usage.wall_s, usage.cpu_cores, usage.others_cores, usage.power_w) == (0.0, None, None, None)


def test_peak_of_memory_is_reset(orin: Path) -> None:
    usage = watch(orin, lambda: write(orin, {"proc/self/status": status(1500, 300)}))
    assert usage.peak_rss == 1500 * 1024
    assert (orin / "proc/self/clear_refs").read_text(encoding="ascii").startswith("5")


def test_largest_sample_where_the_peak_cannot_be_reset(orin: Path) -> None:
    (orin / "proc/self/clear_refs").unlink()
    usage = watch(orin, lambda: write(orin, {"proc/self/status": status(1500, 300)}))
    assert usage.peak_rss == 400 * 1024
    assert not (orin / "proc/self/clear_refs").exists()


@pytest.mark.parametrize("text", [*GARBLED, "VmHWM:\t many kB", "VmHWM: 12", "XVmHWM: 12 kB"])
def test_garbled_status(orin: Path, text: str) -> None:
    write(orin, {"proc/self/status": text})
    assert watch(orin).peak_rss is None


def test_clocks_of_all_cores_and_samples(orin: Path) -> None:
    def change() -> None:
        write(orin, {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": 115_200})
        write(orin, {"sys/class/devfreq/17000000.gpu/cur_freq": 918_000_000})
        (orin / CPU / "cpu1/cpufreq/scaling_cur_freq").unlink()  # a core was taken offline

    usage = watch(orin, change)
    assert usage.cpu_clock_mhz == (115.2, 1984.0)
    assert usage.gpu_clock_mhz == (306.0, 918.0)


def test_clocks_of_cpuinfo(tmp_path: Path) -> None:
    cores = [f"processor\t: {i}\nmodel name\t: X @ 3.2 MHz\ncpu MHz\t\t: {2445.406 + i}\n" for i in range(2)]
    write(tmp_path, {"proc/cpuinfo": "\n".join([*cores, "cpu MHz\t\t: unknown"])})
    assert watch(tmp_path).cpu_clock_mhz == (2445.406, 2446.406)


@pytest.mark.parametrize(("after", "expected"), [(5, False), (6, True), ("?", None)])
def test_throttling_of_a_core(tmp_path: Path, after: object, expected: bool | None) -> None:
    count = f"{CPU}/cpu1/thermal_throttle/core_throttle_count"
    write(tmp_path, {count: 5})
    assert watch(tmp_path, lambda: write(tmp_path, {count: after})).throttled is expected


def test_throttling_of_either(tmp_path: Path) -> None:
    count = f"{CPU}/cpu0/thermal_throttle/core_throttle_count"
    write(tmp_path, {count: 5})
    gpu = FakeGpu(throttled=True)
    assert watch(tmp_path, lambda: gpu.values.update(throttled=False), gpu).throttled is True
    assert watch(tmp_path, lambda: write(tmp_path, {count: 6}), FakeGpu(throttled=False)).throttled is True


def test_power_mode(orin: Path) -> None:
    assert watch(orin).nvpmodel == "NV Power Mode: 15W, 0"


@pytest.mark.parametrize("script", ["echo NVPM ERROR; exit 1", "exit 0", "exec sleep 60"])
def test_power_mode_that_fails_says_nothing_or_hangs(
    orin: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power, "_NVPMODEL_TIMEOUT_S", 0.3)
    write(orin, {"usr/sbin/nvpmodel": f"#!/bin/sh\n{script}"})
    start = time.monotonic()
    assert power_mode(orin) is None
    assert time.monotonic() - start < 20


# --- the thread


def sampler() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "resources"]


def test_the_thread_sees_what_is_over_before_the_end(tmp_path: Path) -> None:
    gpu = FakeGpu(memory=1)
    with Monitor(0.005, root=tmp_path, open_gpu=lambda: gpu) as monitor:
        (thread,) = sampler()
        assert thread.daemon
        gpu.values.update(memory=7)
        gpu.asked.clear()
        assert gpu.asked.wait(30)
        gpu.asked.clear()  # once it asks again, it has the first answer
        assert gpu.asked.wait(30)
        gpu.values.update(memory=2)
    assert monitor.usage().peak_device_memory == 7
    assert not sampler()


def test_the_thread_ends_when_the_block_fails(orin: Path) -> None:
    monitor = Monitor(NEVER_S, root=orin, open_gpu=lambda: None)
    with pytest.raises(ZeroDivisionError), monitor:
        raise ZeroDivisionError
    assert not sampler()
    assert monitor.usage().peak_rss == 900 * 1024


def test_usage_before_the_end_is_an_error(tmp_path: Path) -> None:
    monitor = Monitor(NEVER_S, root=tmp_path, open_gpu=lambda: None)
    with monitor, pytest.raises(RuntimeError, match="not ended"):
        monitor.usage()
    monitor.usage()
    with monitor, pytest.raises(RuntimeError, match="not ended"):  # a second time, from the start
        monitor.usage()
    assert not sampler()


# --- this machine


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_this_machine() -> None:
    with Monitor(0.02, open_gpu=lambda: None) as monitor:
        burn(0.3)
    usage = monitor.usage()
    assert 0.3 <= usage.cpu_s < 1.5
    assert 0.25 <= usage.wall_s < 60
    assert usage.cpu_cores is not None
    assert 0 < usage.cpu_cores < 4
    assert usage.others_cores is not None
    assert 0 <= usage.others_cores <= (os.cpu_count() or 1) + 0.5
    assert (usage.energy_j is None) == (usage.power_w is None) == (usage.power_source is None)


def test_peak_memory_is_that_of_the_block() -> None:
    """In a new process: this one may find room for the array in what it has freed before."""
    code = (
        "import numpy as np\n"
        "from musc_edge.tools.bench.resources import Monitor\n"
        "np.ones(80_000_000, np.uint8)\n"  # a peak before the block
        "with Monitor(0.02, open_gpu=lambda: None) as before: pass\n"
        "with Monitor(0.02, open_gpu=lambda: None) as monitor: np.ones(50_000_000, np.uint8)\n"
        "print(monitor.usage().peak_rss - before.usage().peak_rss)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 40 * MB < int(run.stdout) < 70 * MB


def test_children_count_once_they_are_waited_for() -> None:
    code = "import time\nwhile time.process_time() < 0.25: pass"
    with Monitor(0.1, open_gpu=lambda: None) as monitor:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert 0.24 <= monitor.usage().cpu_s < 1.5


# --- text


def test_text_of_a_full_usage() -> None:
    usage = Usage(
        *(75.0, 140.2, 1.869, 0.04, 512 * MB, 2345 * MB, 615.02, 8.2, "INA3221, VDD_IN"),
        *((729.6, 1984.0), (918.0, 918.0), True, "NV Power Mode: 15W, 0"),
    )
    assert usage_text(usage) == [
        ("wall time", "1 min 15 s"),
        ("CPU time", "2 min 20 s"),
        ("cores in use", "1.87"),
        ("cores of others", "0.04"),
        ("peak memory", "512 MB"),
        ("peak GPU memory", "2345 MB"),
        ("energy", "615.0 J"),
        ("power", "8.2 W, INA3221, VDD_IN"),
        ("CPU clock", "730 to 1984 MHz"),
        ("GPU clock", "918 MHz"),
        ("throttled", "yes"),
        ("power mode", "NV Power Mode: 15W, 0"),
    ]


def test_text_of_a_machine_that_tells_nothing() -> None:
    usage = Usage(0.0, 0.0, *[None] * (len(fields(Usage)) - 2))
    rows = dict(usage_text(usage))
    assert rows.pop("wall time") == rows.pop("CPU time") == "0.0 s"
    assert set(rows.values()) == {NOT_AVAILABLE}
    assert rows["power"] == "not available"


def test_zero_is_a_value() -> None:
    usage = Usage(1.0, 0.0, 0.0, 0.0, 0, 0, 0.0, 0.0, "RAPL", (0.0, 0.0), (0.0, 0.0), False, "15W")
    assert NOT_AVAILABLE not in dict(usage_text(usage)).values()
