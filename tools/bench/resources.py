"""Measure the resources that a run uses: time, cores, memory, energy, clocks, sampled while a block runs.

::

    with Monitor(period_s=0.1) as monitor:
        ...  # work
    usage = monitor.usage()

A figure that the machine does not provide is None, printed as "not available"; nothing is estimated instead.
Sampling every 0.1 s took 0.5 % of a core on two loaded cores of an EPYC 7003, without sensors to read.
"""

from __future__ import annotations

import os
import re
import resource
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..progress import duration
from . import power
from .power import EnergyMeter, Gpu, find_sensor, power_mode, read_number, read_text

NOT_AVAILABLE = "not available"
_BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; guests are part of user
_CPU = "sys/devices/system/cpu/cpu[0-9]*"
_GPUS = ("gpu", "ga10b", "gv11b", "gp10b")  # how the devfreq folders of Jetson GPUs end

Range = tuple[float, float]


@dataclass(frozen=True)
class Usage:
    """The resources that a block used; None for figures that the machine does not provide."""

    wall_s: float
    cpu_s: float  # of this process, the sampling included, and of children that it has waited for
    cpu_cores: float | None  # average in use
    others_cores: float | None  # average used by other processes, or taken by a hypervisor
    peak_rss: int | None  # bytes; what was held before the block counts
    peak_device_memory: int | None  # bytes of this process on the GPU
    energy_j: float | None  # mean power times wall_s
    power_w: float | None  # mean
    power_source: str | None  # whose power and energy it is
    cpu_clock_mhz: Range | None  # smallest and largest of all samples and cores
    gpu_clock_mhz: Range | None
    throttled: bool | None  # a core by heat, or the GPU by heat or a power limit
    nvpmodel: str | None  # a Jetson's power mode


class Monitor:
    """Samples the machine in a thread of its own while its block runs.

    Parameters
    ----------
    period_s : float
        From one sample to the next, in s.  The start and the end of the block are sampled too.
    root : Path
        Folder with /proc, /sys and /usr in it.
    open_gpu : callable
        Gives the GPU to ask, or None; called when the block is entered.  For a run on the processor
        alone ``lambda: None``: energy is then that of the processor, not that of an idle GPU.
    clock : callable
        Gives s, monotonic.
    """

    def __init__(
        self,
        period_s: float = 0.1,
        *,
        root: Path = Path("/"),
        open_gpu: Callable[[], Gpu | None] = power.open_gpu,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._period_s, self._root, self._open_gpu, self._clock = period_s, root, open_gpu, clock
        self._usage: Usage | None = None

    def __enter__(self) -> Monitor:
        self._usage = None
        self._samples = _Samples(self._root, self._open_gpu())
        self._samples.take(self._clock())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)
        self._thread.start()
        self._start = self._instant()
        return self

    def __exit__(self, *error: object) -> None:
        end = self._instant()
        self._stop.set()
        self._thread.join()
        self._samples.take(self._clock())
        self._usage = _usage(self._start, end, self._samples, power_mode(self._root))

    def usage(self) -> Usage:
        """Return the resources that the block used.

        Raises
        ------
        RuntimeError
            If the block has not ended.
        """
        if self._usage is None:
            raise RuntimeError("usage() of a Monitor whose block has not ended: call it after the block")
        return self._usage

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._samples.take(self._clock())

    def _instant(self) -> _Instant:
        return _Instant(self._clock(), _own_cpu_s(), _busy_s(self._root))


class _Instant(NamedTuple):
    """Times up to a moment, in s: on the clock, of this process, of all cores together."""

    clock_s: float
    cpu_s: float
    busy_s: float | None


class _Samples:
    """Peaks, ranges and integrals of all samples; files are searched only once, since that takes longer."""

    def __init__(self, root: Path, gpu: Gpu | None) -> None:
        self._root, self._gpu = root, gpu
        sensor = find_sensor(root, gpu)
        self.meter = EnergyMeter(sensor) if sensor else None
        # A peak that cannot be reset may be from before the block: then the largest sample has to do.
        self._memory_field = "VmHWM" if _reset_peak(root) else "VmRSS"
        self._clock_files = sorted(root.glob(f"{_CPU}/cpufreq/scaling_cur_freq"))
        self._gpu_clock_files = [p for end in _GPUS for p in root.glob(f"sys/class/devfreq/*.{end}/cur_freq")]
        self._throttles = _throttle_counts(root)
        self._gpu_throttled: set[bool] = set()
        self.peak_rss: int | None = None
        self.peak_device_memory: int | None = None
        self.cpu_clock_mhz: Range | None = None
        self.gpu_clock_mhz: Range | None = None

    def take(self, now_s: float) -> None:
        """Read everything once."""
        if self.meter is not None:
            self.meter.sample(now_s)
        self.peak_rss = _largest(self.peak_rss, _memory(self._root, self._memory_field))
        self.cpu_clock_mhz = _widened(self.cpu_clock_mhz, self._cpu_clocks())
        self.gpu_clock_mhz = _widened(self.gpu_clock_mhz, self._gpu_clocks())
        if self._gpu is not None:
            self.peak_device_memory = _largest(self.peak_device_memory, self._gpu.memory())
            throttled = self._gpu.throttled()
            self._gpu_throttled |= set() if throttled is None else {throttled}

    def throttled(self) -> bool | None:
        """Return whether a core's throttle count rose or the GPU reported it; None if neither can be read."""
        after = _throttle_counts(self._root)
        rose = {after[path] > count for path, count in self._throttles.items() if path in after}
        known = rose | self._gpu_throttled
        return any(known) if known else None

    def _cpu_clocks(self) -> list[float]:
        if self._clock_files:
            return [kilohertz / 1e3 for kilohertz in _numbers(self._clock_files).values()]
        text = read_text(self._root / "proc/cpuinfo") or ""
        return [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*(\d+\.?\d*)$", text, re.MULTILINE)]

    def _gpu_clocks(self) -> list[float]:
        mhz = self._gpu.clock() if self._gpu else None
        if mhz is not None:
            return [mhz]
        return [hertz / 1e6 for hertz in _numbers(self._gpu_clock_files).values()]


def _usage(start: _Instant, end: _Instant, samples: _Samples, nvpmodel: str | None) -> Usage:
    wall_s, cpu_s = end.clock_s - start.clock_s, end.cpu_s - start.cpu_s
    others_cores = None
    if wall_s > 0 and start.busy_s is not None and end.busy_s is not None:
        others_cores = max(end.busy_s - start.busy_s - cpu_s, 0.0) / wall_s
    power_w = samples.meter.mean_power() if samples.meter else None
    return Usage(
        wall_s=wall_s,
        cpu_s=cpu_s,
        cpu_cores=cpu_s / wall_s if wall_s > 0 else None,
        others_cores=others_cores,
        peak_rss=samples.peak_rss,
        peak_device_memory=samples.peak_device_memory,
        energy_j=None if power_w is None else power_w * wall_s,
        power_w=power_w,
        power_source=samples.meter.sensor.name if samples.meter and power_w is not None else None,
        cpu_clock_mhz=samples.cpu_clock_mhz,
        gpu_clock_mhz=samples.gpu_clock_mhz,
        throttled=samples.throttled(),
        nvpmodel=nvpmodel,
    )


def usage_text(usage: Usage) -> list[tuple[str, str]]:
    """Format rows of names and values, each with a unit or "not available"."""
    source = f", {usage.power_source}" if usage.power_source else ""
    return [
        ("wall time", duration(usage.wall_s)),
        ("CPU time", duration(usage.cpu_s)),
        ("cores in use", _text(usage.cpu_cores, "{:.2f}")),
        ("cores of others", _text(usage.others_cores, "{:.2f}")),
        ("peak memory", _text(usage.peak_rss, "{:.0f} MB", 1e6)),
        ("peak GPU memory", _text(usage.peak_device_memory, "{:.0f} MB", 1e6)),
        ("energy", _text(usage.energy_j, "{:.1f} J")),
        ("power", _text(usage.power_w, "{:.1f} W") + source),
        ("CPU clock", _range_text(usage.cpu_clock_mhz)),
        ("GPU clock", _range_text(usage.gpu_clock_mhz)),
        ("throttled", {True: "yes", False: "no", None: NOT_AVAILABLE}[usage.throttled]),
        ("power mode", usage.nvpmodel or NOT_AVAILABLE),
    ]


def _text(value: float | None, form: str, unit: float = 1.0) -> str:
    return NOT_AVAILABLE if value is None else form.format(value / unit)


def _range_text(mhz: Range | None) -> str:
    if mhz is None:
        return NOT_AVAILABLE
    low, high = (f"{value:.0f}" for value in mhz)
    return f"{low} MHz" if low == high else f"{low} to {high} MHz"


def _own_cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages)


def _busy_s(root: Path) -> float | None:
    """Return the time that all cores together have not been idle, in s."""
    lines = (read_text(root / "proc/stat") or "").splitlines()
    name, *ticks = lines[0].split() if lines else [""]
    if name != "cpu" or len(ticks) <= max(_BUSY) or not all(map(str.isdecimal, ticks)):
        return None
    return sum(int(ticks[i]) for i in _BUSY) / os.sysconf("SC_CLK_TCK")


def _reset_peak(root: Path) -> bool:
    """Reset this process's peak memory to what it holds now; False if that is not possible."""
    try:
        # Path.open would create the file where there is none, or ask for the right to read it.
        with os.fdopen(os.open(root / "proc/self/clear_refs", os.O_WRONLY), "wb") as file:
            file.write(b"5")
    except OSError:
        return False
    return True


def _memory(root: Path, field: str) -> int | None:
    """Return a field of this process's status, in bytes."""
    found = re.search(
        rf"^{field}:\s*(\d+) kB$", read_text(root / "proc/self/status") or "", re.MULTILINE | re.ASCII
    )
    return int(found[1]) * 1024 if found else None


def _throttle_counts(root: Path) -> dict[Path, int]:
    return _numbers(root.glob(f"{_CPU}/thermal_throttle/core_throttle_count"))


def _numbers(paths: Iterable[Path]) -> dict[Path, int]:
    """Return the numbers in those files that can be read."""
    found = {path: read_number(path) for path in paths}
    return {path: number for path, number in found.items() if number is not None}


def _largest(a: int | None, b: int | None) -> int | None:
    return max((x for x in (a, b) if x is not None), default=None)


def _widened(known: Range | None, values: list[float]) -> Range | None:
    both = [*(known or ()), *values]
    return (min(both), max(both)) if both else None
