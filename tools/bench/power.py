"""Read power and GPU sensors (a Jetson's, NVML, RAPL), and integrate energy over time.

Each reading may fail by itself: a file that is missing, garbled or not readable gives None, not an error.

On a Jetson the whole module counts: the rail VDD_IN (Orin NX, Orin Nano, Xavier NX, TX2) or POM_5V_IN
(Nano).  The AGX modules have no such rail; there it is the sum of the rails that are not fed by one
another, and ``Sensor.name`` lists them.  VDDQ_VDD2_1V8AO of AGX Orin is left out: VIN_SYS_5V0 feeds it.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

_TOTALS = (
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
_LEAST_COVERED = 0.9
_NVPMODEL_TIMEOUT_S = 5.0

# nvmlClocksThrottleReason: SwPowerCap, HwSlowdown, SwThermal-, HwThermal-, HwPowerBrakeSlowdown
_CAPPED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
_NVML_CLOCK_SM = 1


class Gpu(Protocol):
    """A GPU's readings; None for those that it does not provide."""

    name: str

    def memory(self) -> int | None: ...  # bytes that this process uses on it
    def power(self) -> float | None: ...  # W
    def energy(self) -> float | None: ...  # J, counted from any origin
    def clock(self) -> float | None: ...  # MHz
    def throttled(self) -> bool | None: ...  # by heat or a power limit, now


class NvmlGpu:
    """A ``Gpu`` that asks NVML, through the module ``pynvml`` or one with the same functions."""

    def __init__(self, nvml: Any, index: int = 0) -> None:
        self.name = f"NVML, GPU {index}"
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def memory(self) -> int | None:
        # In a container NVML lists the host's process numbers: not found is unknown, not 0 bytes.
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses") or []
        used = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
        return None if not used or None in used else int(sum(used))

    def power(self) -> float | None:
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1e3

    def energy(self) -> float | None:
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def clock(self) -> float | None:
        mhz = self._ask("nvmlDeviceGetClockInfo", _NVML_CLOCK_SM)
        return None if mhz is None else float(mhz)

    def throttled(self) -> bool | None:
        reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return None if reasons is None else bool(reasons & _CAPPED)

    def _ask(self, function: str, *args: object) -> Any:
        try:
            return getattr(self._nvml, function)(self._handle, *args)
        except Exception:  # NVMLError of many kinds, or a function that this version does not have
            return None


def open_gpu(index: int = 0) -> Gpu | None:
    """Open the GPU with this number; None without pynvml, a driver or a GPU.

    Numbers are NVML's, in the order of the PCI bus; CUDA_VISIBLE_DEVICES does not change them.
    NVML stays open until the process ends: others in the process may be using it.
    """
    try:
        nvml = importlib.import_module("pynvml")  # by name, so that type checks do not depend on it
        nvml.nvmlInit()
        return NvmlGpu(nvml, index)
    except Exception:  # the driver's library may fail in any way; a benchmark runs without it
        return None


@dataclass(frozen=True)
class Sensor:
    """A sensor of power in W, or, if it is a counter, of energy in J from any origin; None if unreadable."""

    name: str
    read: Callable[[], float | None]
    counter: bool = False


def find_sensor(root: Path, gpu: Gpu | None) -> Sensor | None:
    """Find the first readable sensor: a Jetson's whole module, the GPU, the processor's packages."""
    return next((s for s in _sensors(root, gpu) if s.read() is not None), None)


def _sensors(root: Path, gpu: Gpu | None) -> Iterator[Sensor]:
    rails = _rails(root)
    for names in _TOTALS:
        if rails.keys() >= set(names):
            yield Sensor(f"INA3221, {' + '.join(names)}", _sum([rails[name] for name in names]))
    if gpu is not None:
        # The counter first: power is a mean over up to a second, which is late for a short run.
        yield Sensor(gpu.name, gpu.energy, counter=True)
        yield Sensor(gpu.name, gpu.power)
    folders = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    packages = [f for f in folders if (read_text(f / "name") or "").startswith("package")]
    if packages:  # not psys, core and uncore, which hold the same energy again
        counters = [_RaplCounter(folder).joules for folder in packages]
        yield Sensor("RAPL, processor packages", _sum(counters), counter=True)


def _rails(root: Path) -> dict[str, Callable[[], float | None]]:
    """Return functions that read a rail's power in W, by name; old (L4T 32, iio) and new drivers (hwmon)."""
    drivers = root / "sys/bus/i2c/drivers"
    rails: dict[str, Callable[[], float | None]] = {}
    for label in sorted(drivers.glob("ina3221*/*/hwmon/hwmon*/in[1-3]_label")):
        number = label.name[2]
        volts, amperes = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
        rails[read_text(label) or ""] = partial(_product, volts, amperes)
    for label in sorted(drivers.glob("ina3221*/*/iio:device*/rail_name_*")):
        power = label.with_name(f"in_power{label.name.removeprefix('rail_name_')}_input")
        rails[read_text(label) or ""] = partial(_scaled, power, 1e-3)
    return rails


def _product(millivolts: Path, milliamperes: Path) -> float | None:
    volts, amperes = _scaled(millivolts, 1e-3), _scaled(milliamperes, 1e-3)
    return None if volts is None or amperes is None else volts * amperes


def _scaled(path: Path, unit: float) -> float | None:
    number = read_number(path)
    return None if number is None else number * unit


def _sum(reads: list[Callable[[], float | None]]) -> Callable[[], float | None]:
    """Make a function that adds all readings; None if any of them is None."""

    def read() -> float | None:
        values = [value for one in reads if (value := one()) is not None]
        return sum(values) if len(values) == len(reads) else None

    return read


class _RaplCounter:
    """Energy of one processor package in J; its file wraps to 0 after a few minutes to hours."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = read_number(folder / "max_energy_range_uj")
        self._last = read_number(self._file)
        self._total = 0

    def joules(self) -> float | None:
        now = read_number(self._file)
        if now is None:
            return None
        last, self._last = self._last, now
        if last is None or (now < last and (self._range is None or self._range < last)):
            return None
        self._total += now - last if now >= last else now - last + (self._range or 0)
        return self._total / 1e6


class EnergyMeter:
    """Integrates a sensor over the times of its samples, in s of any clock.

    An interval counts if both of its ends could be read.  If these intervals cover less than nine tenths of
    the time, there is no result.
    """

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        self._first_s: float | None = None
        self._latest_s = 0.0
        self._latest: float | None = None
        self._joules = self._covered_s = 0.0

    def sample(self, now_s: float) -> None:
        """Read the sensor; times must not decrease."""
        value, before = self.sensor.read(), self._latest
        if self._first_s is None:
            self._first_s = now_s
        if value is not None and before is not None:
            interval_s = now_s - self._latest_s
            self._joules += value - before if self.sensor.counter else (value + before) / 2 * interval_s
            self._covered_s += interval_s
        self._latest, self._latest_s = value, now_s

    def mean_power(self) -> float | None:
        """Return the mean power in W from the first to the latest sample, or None."""
        span_s = 0.0 if self._first_s is None else self._latest_s - self._first_s
        if span_s <= 0 or self._covered_s < _LEAST_COVERED * span_s:
            return None
        return self._joules / self._covered_s


def power_mode(root: Path) -> str | None:
    """Return a Jetson's power mode as printed by ``nvpmodel -q``, on one line; None without that command."""
    command = shutil.which("nvpmodel", path=f"{root / 'usr/sbin'}{os.pathsep}{root / 'usr/bin'}")
    if command is None:
        return None
    try:
        run = subprocess.run(
            [command, "-q"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_NVPMODEL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = ", ".join(line.strip() for line in run.stdout.splitlines() if line.strip())
    return text if run.returncode == 0 and text else None


def read_text(path: Path) -> str | None:
    """Read a small file, with non-ASCII characters replaced; None if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """Read a file that holds a single non-negative whole number; None if it does not."""
    text = read_text(path)
    return int(text) if text is not None and text.isdecimal() and len(text) < 20 else None
