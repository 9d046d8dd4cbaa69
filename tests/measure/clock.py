"""Set the clock back while ``musc-edge`` runs, and between a run that is killed and the next.

    python tests/measure/clock.py [--tries 5] [--seed 0]

Needs a C compiler.  A library that is loaded before the system's own (LD_PRELOAD) tells a process another
time of day: an hour less for each tenth of a second that has passed, from a day that is earlier for each run.
Clocks that only measure stay right, and so do the times that the system gives to files, which now lie in the
future.  Each command must write what it writes otherwise, whose lot.json must hold no time below zero, and
``watch`` must record each image once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.fault_lots import BUNDLE, EDGE, EXPORT, TIMED, digests, fresh, onnx_source, small_lot, tool
from support.watching import Arrivals, make_reference, problems, recorded, wait_for, watch_command

DAY = 24 * 3600
OF_EXPORT = (*TIMED, "manifest.json", "probe.npz")
SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static long begin;

static long tenths(void) {
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 10 + now.tv_nsec / 100000000;
}

__attribute__((constructor)) static void find(void) {
    real = dlsym(RTLD_NEXT, "clock_gettime");
    begin = tenths();
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    if (!real) find();
    int failed = real(clock, out);
    const char *back = getenv("SECONDS_BACK");
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        out->tv_sec -= (back ? atol(back) : 0) + 3600 * (tenths() - begin);
    return failed;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """Starts commands whose time of day runs backwards, each a day earlier than the last."""

    def __init__(self, folder: Path) -> None:
        self._library, self._days = folder / "clock.so", 0
        source = folder / "clock.c"
        source.write_text(SOURCE, encoding="ascii")
        build = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"]
        subprocess.run(build, check=True)
        code = "import time; a = time.time(); time.sleep(0.3); print(time.time() < a - 3600)"
        assert self.start([sys.executable, "-c", code]).communicate()[0] == "True\n"

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        self._days += 1
        env = {**os.environ, "LD_PRELOAD": str(self._library), "SECONDS_BACK": str(self._days * DAY)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        process: subprocess.Popen[str] = subprocess.Popen(command, env=env, **pipes)
        return process


def run(process: subprocess.Popen[str], seconds: float | None = None) -> None:
    """Let a command complete, or kill it after ``seconds``."""
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return
    assert process.returncode == 0, err


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def try_command(name: str, command: list[str], clock: Clock, work: Path, chance: random.Random) -> int:
    """Run it as ever, with the clock set back, and killed again and again; the runs that were tried."""
    left_out = OF_EXPORT if name == "export" else TIMED
    out, runs = work / "out" / "out", 1
    fresh(out.parent)
    begin = time.monotonic()
    subprocess.run([*command, "-o", str(out)], check=True, capture_output=True)
    seconds, expected = time.monotonic() - begin, digests(out, left_out)
    for kills in (0, 2):
        fresh(out.parent)
        for _ in range(kills):
            run(clock.start([*command, "-o", str(out)]), chance.uniform(0.3, 0.9) * seconds)
            runs += 1
            if out.exists():
                fresh(out.parent)
        run(clock.start([*command, "-o", str(out)]))
        assert digests(out, left_out) == expected, name
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        if (out / "lot.json").exists():
            timings = json.loads((out / "lot.json").read_text(encoding="ascii"))["timings_s"]
            assert min(numbers(timings)) >= 0, timings
        runs += 1
    return runs


@contextmanager
def watching(clock: Clock, command: list[str]) -> Iterator[None]:
    """``musc-edge watch`` from where it says that it watches."""
    with tempfile.TemporaryFile("w+") as log:
        process = clock.start(tool(EDGE, *command), stdout=log, stderr=subprocess.STDOUT)

        def ready() -> bool:
            log.seek(0)
            assert process.poll() is None, log.read()
            return "watching " in log.read()

        wait_for(ready)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def try_watch(clock: Clock, work: Path, runs: int, images: int = 15) -> int:
    """Images come while it runs, started ``runs`` times; how many there were."""
    folder, out = fresh(work / "in"), work / "watched"
    command = watch_command(folder, make_reference(work), out)
    arrivals, number = Arrivals(folder), 0
    for _ in range(runs):
        with watching(clock, command):
            for _ in range(images):
                arrivals.add(number := number + 1)
            wait_for(lambda: len(recorded(out)) >= arrivals.expected.total(), 300)
    found = list(problems(out, arrivals.expected))
    assert not found, found
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert min(json.loads(line).get("seconds", 0) for line in lines) >= 0
    return len(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="clock_") as folder:
        work = Path(folder)
        clock, lot = Clock(work), small_lot(work / "lot")
        (work / "source").mkdir()
        infer = ["infer", lot, "-b", BUNDLE, "--scorer", "numpy", "--overlays", "--report"]
        commands = {
            "infer --resume": tool(EDGE, *infer, "--resume"),
            "infer --tiles 2x2 --resume": tool(EDGE, *infer, "--tiles", "2x2", "--resume"),
            "reference": tool(EDGE, "reference", lot, "-b", BUNDLE),
            "export": tool(EXPORT, *onnx_source(work / "source")),
        }
        for name, command in commands.items():
            runs = sum(try_command(name, command, clock, work, chance) for _ in range(args.tries))
            print(f"{name}: {runs} runs, the same bytes", flush=True)
        print(f"watch: {args.tries} runs, {try_watch(clock, work, args.tries)} images, each recorded once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
