"""The tables of docs/cluster.md: clusters against one machine, bytes moved, kills, 10,000 images, on paper.

    python tests/measure/cluster.py ELPV WORK [--part start|speed|fast|tiles|exact|...]

ELPV is the unpacked package elpv-dataset 1.0.0.post1; WORK a folder, with a short path, that receives lots,
bundles of random weights and results.  Where the table says how many cores, commands are pinned to them by
taskset; "moved" makes two hosts of network namespaces, and needs root.  "paper" multiplies the rates that
"speed" has left in WORK.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge.runtime.cluster.arcs import cells, cut_circle, head_bytes, moved_bytes
from musc_edge.runtime.cluster.opened import kill_those_of
from musc_edge.runtime.scoring.plan import LotSize
from support.hosts import Host, two_hosts
from support.random_vit import Shape

PYTHON = [sys.executable, "-m", "musc_edge"]
WIDE = Shape(384, 4, 6, 14, 224)
"""A third of DINOv2-S's blocks, and tokens as large as its own: 4 layers of 256 patches."""
QUICK = Shape(128, 2, 2, 14, 112)
IMAGES, JUDGES, ROUNDS = 400, 64, 3
ONE_CORE, ONE_WORKER = "one machine, 1 core", "cluster, 1 worker on 1 core"
TWO_WORKERS = "cluster, 2 workers on 2 cores"
SMALL, TURNS = 40, 5
LOOK = 1.0  # seconds from one look at processes to the next, which takes a processor some 20 ms
ALL = 1000
SPILLED, STORE = 300, 200_000_000
KILLS = 30
MANY, FEW = 10_000, 20
LARGE, SIDE = 30, 1000


def make_lot(folder: Path, elpv: Path, count: int, side: int) -> Path:
    """A lot of ``count`` images that differ: those of ELPV, then these turned."""
    if folder.is_dir() and len(list(folder.iterdir())) == count:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted((elpv / "elpv_dataset/data/images").iterdir())
    for k in range(count):
        with Image.open(sources[k % len(sources)]) as image:
            image.rotate(90 * (k // len(sources))).resize((side, side)).save(folder / f"{k:05}.png")
    return folder


def make_bundle(folder: Path, shape: Shape, layers: str) -> Path:
    """A bundle of a ViT of random weights."""
    import onnx

    from musc_edge.tools.export import main as export
    from support.random_vit import random_vit

    if not (folder / "bundle").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(random_vit(shape), folder / "vit.onnx")
        options = ["--layers", layers, "--taps", "block_{layer}", "--cls", "cls", "--image-size"]
        export(["onnx", str(folder / "vit.onnx"), *options, str(shape.side), "-o", str(folder / "bundle")])
    return folder / "bundle"


@dataclass
class Ran:
    """What a command took: seconds in all and by stage, and the most memory of head and of a worker in MB.

    ``processors`` are the seconds that processors worked for it, in all of its processes, by a look now and
    then.
    """

    seconds: float
    about: dict[str, Any]
    head: float
    worker: float
    processors: float
    forecast: str

    @property
    def compared(self) -> float:
        """Seconds of comparing."""
        return float(self.about["timings_s"]["score"])

    @property
    def work(self) -> float:
        """Seconds of ViT and comparing alone."""
        timings = self.about["timings_s"]
        return float(timings["extract"] + timings.get("wait for images", 0)) + self.compared


def infer(out: Path, lot: Path, bundle: Path, *more: str, before: tuple[str, ...] = ()) -> Ran:
    """Score a lot into ``out``, and watch memory meanwhile."""
    command = [*before, *PYTHON, "infer", str(lot), "-b", str(bundle), "-o", str(out), "--overwrite"]
    command += ["--backend", "cpu", "--method", "paper", *more]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with watched(process.pid) as peaks:
        printed, said = process.communicate()
    seconds = time.monotonic() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said}")
    about = json.loads((out / "lot.json").read_text(encoding="ascii"))
    forecast = next((line.strip() for line in (printed + said).splitlines() if "time about" in line), "")
    return Ran(seconds, about, peaks["head"], peaks["worker"], peaks["processors"], forecast)


@contextmanager
def watched(head: int) -> Iterator[dict[str, float]]:
    """The most private memory, in MB, of a process and of any of Ray's workers, and seconds of processors."""
    peaks, spent = {"head": 0.0, "worker": 0.0, "processors": 0.0}, {head: 0.0}

    def look() -> None:
        spent.update(seconds_below(spent))
        peaks["processors"] = sum(spent.values())
        peaks["head"] = max(peaks["head"], private(head))
        peaks["worker"] = max(peaks["worker"], *[private(pid) for pid in workers()], 0.0)

    with again_and_again(look, LOOK):
        yield peaks


@contextmanager
def again_and_again(look: Callable[[], None], every: float) -> Iterator[None]:
    """Look, in a thread, each time so many seconds have passed."""
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(every):
            look()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def seconds_below(known: Iterable[int]) -> dict[int, float]:
    """Seconds that processors have worked for some processes, and for all that these have started."""
    parents, seconds = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (path / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            parents[int(path.name)] = int(fields[1])
            seconds[int(path.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    ours = set(known)
    for pid in sorted(parents):  # a process is mostly younger than its parent
        if parents[pid] in ours:
            ours.add(pid)
    return {pid: seconds[pid] for pid in ours & seconds.keys()}


def private(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in text.splitlines() if "RssAnon" in line), 0.0)


def workers() -> list[int]:
    """Ray's processes that do tasks, on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if name.startswith("ray::") and "Agent" not in name:
            found.append(int(path.name))
    return found


def same(one: Path, other: Path) -> str:
    """Whether two folders of results have the same tables and maps, by every byte."""
    names = sorted(
        path.relative_to(one) for path in one.rglob("*") if path.suffix in (".csv", ".npy") and path.is_file()
    )
    assert names
    return (
        "same bytes" if all((one / n).read_bytes() == (other / n).read_bytes() for n in names) else "DIFFER"
    )


# ---- parts -----------------------------------------------------------------------------------


def start(elpv: Path, work: Path) -> None:
    """A lot so small that a cluster's start is most of its time, in turn without a cluster and with one."""
    lot, bundle = make_lot(work / "lot40", elpv, SMALL, 300), make_bundle(work / "wide", WIDE, "0,1,2,3")
    rows = {
        f"{name}, {threads} of 2 cores": (cores, "--threads", str(threads), *more)
        for cores, threads in (("0", 1), ("0,1", 2))
        for name, more in (("one machine", ()), ("cluster", ("--cluster", "auto")))
    }
    ran: dict[str, list[Ran]] = {name: [] for name in rows}
    for _ in range(TURNS):
        for name, (cores, *more) in rows.items():
            given = ["--group-size", "16", *more]
            ran[name].append(infer(work / "start", lot, bundle, *given, before=("taskset", "-c", cores)))
    print(f"{SMALL} images, the median of {TURNS} runs in turn; load {Path('/proc/loadavg').read_text()[:4]}")
    print("| | in all s | of processors s | opening s | ViT and comparing s |")
    for name, runs in ran.items():
        found = ([each.seconds, each.processors, each.about["timings_s"]["open"], each.work] for each in runs)
        print(
            f"| {name} | " + " | ".join(f"{median(column):.1f}" for column in zip(*found, strict=True)) + " |"
        )


PINNED = {
    ONE_CORE: ("0", "--threads", "1"),
    "one machine, 2 cores": ("0,1", "--threads", "2"),
    ONE_WORKER: ("0", "--threads", "1", "--cluster", "auto"),
    TWO_WORKERS: ("0,1", "--threads", "2", "--cluster", "auto"),
}
"""Cores and options of a command, by its name in the tables."""


def speed(elpv: Path, work: Path) -> None:
    """One machine against clusters of 1, 2 and 4 workers."""
    rows = {**PINNED, "cluster, 4 workers on 2 cores": ("0,1", "--threads", "4", "--cluster", "auto")}
    print(f"{IMAGES} images at {WIDE.side}, 4 blocks of a ViT and 4 layers, {JUDGES} judges each")
    ran = in_turn(
        make_lot(work / "lot400", elpv, IMAGES, 300), work, "speed", rows, "--group-size", str(JUDGES)
    )
    vit, compared = (median(found) for found in zip(*map(parts_of, ran[ONE_WORKER]), strict=True))
    rates = {"vit": vit, "compare": compared, "images": IMAGES, "pairs": IMAGES * JUDGES // 2 * 4}
    (work / "rates.json").write_text(json.dumps(rates), encoding="ascii")


def fast(elpv: Path, work: Path) -> None:
    """The same lot by residual: no pairs."""
    print(f"{IMAGES} images at {WIDE.side}, 4 blocks of a ViT and 4 layers, by residual")
    in_turn(make_lot(work / "lot400", elpv, IMAGES, 300), work, "fast", PINNED, "--method", "fast")


def tiles(elpv: Path, work: Path) -> None:
    """Large images, cut into tiles."""
    print(f"{LARGE} images of {SIDE} x {SIDE} pixels, 2 x 3 tiles at {WIDE.side}, by all others")
    in_turn(make_lot(work / f"lot{LARGE}", elpv, LARGE, SIDE), work, "tiles", PINNED, "--tiles", "2x3")


def in_turn(
    lot: Path, work: Path, part: str, rows: dict[str, tuple[str, ...]], *options: str
) -> dict[str, list[Ran]]:
    """Score a lot in several ways, in turn, and print the medians."""
    bundle = make_bundle(work / "wide", WIDE, "0,1,2,3")
    ran: dict[str, list[Ran]] = {name: [] for name in rows}
    found: dict[str, str] = {}
    alone: dict[str, Path] = {}  # RsCIN's last bits are those of so many processors
    for _ in range(ROUNDS):
        for number, (name, (cores, *more)) in enumerate(rows.items()):
            out = work / f"{part}{number}"
            ran[name].append(infer(out, lot, bundle, *options, *more, before=("taskset", "-c", cores)))
            found[name] = same(alone.setdefault(cores, out), out)
    print(f"the median of {ROUNDS} runs in turn; load {Path('/proc/loadavg').read_text()[:4]}")
    print("| | ViT s | comparing s | both s | in all s | from, to | head MB | worker MB | results |")
    for name, runs in ran.items():
        vit, compared = (median(column) for column in zip(*map(parts_of, runs), strict=True))
        seconds = [each.seconds for each in runs]
        print(
            f"| {name} | {vit:.1f} | {compared:.1f} | {vit + compared:.1f} | {median(seconds):.1f} | "
            f"{min(seconds):.1f}, {max(seconds):.1f} | {max(each.head for each in runs):.0f} | "
            f"{max(each.worker for each in runs):.0f} | {found[name]} |"
        )
    one, by_one, by_two = (
        median(each.seconds for each in ran[name]) for name in (ONE_CORE, ONE_WORKER, TWO_WORKERS)
    )
    print(f"one worker takes {by_one / one - 1:+.0%}; two are {by_one / by_two:.2f} times as fast as one")
    return ran


def parts_of(ran: Ran) -> tuple[float, float]:
    """Seconds of the ViT, and of comparing."""
    return ran.work - ran.compared, ran.compared


def exact(elpv: Path, work: Path) -> None:
    """Each image by all others: clusters against one machine, and what the plan says."""
    lot, bundle = make_lot(work / f"lot{ALL}", elpv, ALL, 112), make_bundle(work / "quick", QUICK, "1")
    print(f"{ALL} images at {QUICK.side}, one layer, by all others")
    print(
        "| | ViT s | comparing s | in all s | of processors s | head MB | worker MB | results | by the plan |"
    )
    alone: dict[str, Path] = {}
    for number, (name, (cores, *more)) in enumerate(PINNED.items()):
        out = work / f"exact{number}"
        ran = infer(out, lot, bundle, "--maps", "none", *more, before=("taskset", "-c", cores))
        print(
            f"| {name} | {ran.work - ran.compared:.1f} | {ran.compared:.1f} | {ran.seconds:.1f} | "
            f"{ran.processors:.1f} | {ran.head:.0f} | {ran.worker:.0f} | "
            f"{same(alone.setdefault(cores, out), out)} | "
            f"{planned(ran)} |", flush=True
        )  # fmt: skip


def planned(ran: Ran) -> str:
    """What the plan said: the time, and the memory of head and worker."""
    plan = ran.about["plan"]
    worker = f", a worker {plan['cluster']['worker_bytes'] / 1e6:.0f}" if plan.get("cluster") else ""
    return f"{ran.forecast}; head {plan['memory_bytes'] / 1e6:.0f} MB{worker}"


def spill(elpv: Path, work: Path) -> None:
    """Tokens of DINOv2-S's size, more than the machine's memory for objects."""
    lot, bundle = (
        make_lot(work / f"lot{SPILLED}", elpv, SPILLED, 300),
        make_bundle(work / "wide", WIDE, "0,1,2,3"),
    )
    given = ["--group-size", str(JUDGES)]
    infer(work / "spill0", lot, bundle, *given, "--threads", "2")
    with own_ray(work, STORE) as (address, environment, temporary), spilled_to(temporary) as on_disk:
        os.environ.update(environment)
        ran = infer(work / "spill1", lot, bundle, *given, "--cluster", address)
    tokens = SPILLED * 4 * 256 * 384 * 4
    print(f"{SPILLED} images at {WIDE.side}, {JUDGES} judges each: {tokens / 1e6:.0f} MB of tokens")
    print(
        f"{STORE / 1e6:.0f} MB for objects: {on_disk['most'] / 1e6:.0f} MB on disk at most, "
        f"{ran.seconds:.0f} s, {same(work / 'spill0', work / 'spill1')}; head {ran.head:.0f} MB, "
        f"a worker {ran.worker:.0f} MB at most; by the plan: {planned(ran)}"
    )


@contextmanager
def own_ray(work: Path, store: int) -> Iterator[tuple[str, dict[str, str], Path]]:
    """A cluster of this machine by ``ray start``: its address, token, and folder for temporary files."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = work / "ray"
    given = ["--head", "--node-ip-address", "127.0.0.1", "--port", str(port), "--include-dashboard", "false"]
    given += ["--num-cpus", "2", "--object-store-memory", str(store), "--memory", "4000000000"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *given, "--temp-dir", str(temporary)]
    everything = {**os.environ, **environment, "RAY_USAGE_STATS_ENABLED": "0"}
    everything["RAY_local_fs_capacity_threshold"] = "0.99"  # it refuses a disk that is filled to 95 %
    try:
        subprocess.run(command, env=everything, check=True, capture_output=True)
        yield f"127.0.0.1:{port}", environment, temporary
    finally:
        kill_those_of(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def spilled_to(temporary: Path) -> Iterator[dict[str, int]]:
    """The most bytes of objects that lie in files, twice a second."""
    found = {"most": 0}

    def look() -> None:
        with suppress(OSError):  # files come and go
            files = temporary.glob("session_2*/ray_spilled_objects*/**/*")
            found["most"] = max(found["most"], sum(path.stat().st_size for path in files if path.is_file()))

    with again_and_again(look, 0.5):
        yield found


def moved(elpv: Path, work: Path) -> None:
    """Two hosts, one core each: bytes over the cable against the plan."""
    lot, bundle = make_lot(work / "lot100", elpv, 100, 300), make_bundle(work / "wide", WIDE, "0,1,2,3")
    ways = {
        "by all others": (),
        "by all others, tiles": ("--tiles", "1x2"),
        "by residual": ("--method", "fast"),
    }
    with two_hosts() as (head, other), ray_on(head, other, work) as environment:
        os.environ.update(environment)
        there = ("--cluster", f"{head.address}:6379")
        print("two hosts, 100 images\n| | MB over the cable | at most, by the plan | in all s | results |")
        for name, way in ways.items():
            infer(work / "moved0", lot, bundle, "--threads", "1", *way)
            before = head.sent() + other.sent()
            ran = infer(work / "moved1", lot, bundle, *there, *way, before=tuple(head.command([])))
            count = head.sent() + other.sent() - before
            most = ran.about["plan"]["cluster"]["moved_bytes"]
            print(
                f"| {name} | {count / 1e6:.0f} | {most / 1e6:.0f} | {ran.seconds:.1f} | "
                f"{same(work / 'moved0', work / 'moved1')} |", flush=True
            )  # fmt: skip


@contextmanager
def ray_on(head: Host, other: Host, work: Path) -> Iterator[dict[str, str]]:
    """A cluster of two hosts, by the commands of docs/cluster.md."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    everything = {**os.environ, **environment, "RAY_USAGE_STATS_ENABLED": "0"}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    sizes = ["--num-cpus", "1", "--object-store-memory", "400000000", "--memory", "2000000000"]
    temporary = work / "ray"
    first = ["--head", "--node-ip-address", head.address, "--port", "6379", "--include-dashboard", "false"]
    start, join = [*ray, "start"], ["--address", f"{head.address}:6379", "--node-ip-address", other.address]
    started: list[int] = []
    try:
        before = set(ray_processes())
        head.run([*start, *first, *sizes, "--temp-dir", str(temporary)], everything)
        other.run([*start, *join, *sizes], everything)
        started += sorted(set(ray_processes()) - before)
        yield environment
    finally:
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)


def ray_processes() -> list[int]:
    """Processes of Ray's own, on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if b"/ray/" in command and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def kills(elpv: Path, work: Path) -> None:
    """Workers killed at random, and then kept work that is damaged."""
    lot, bundle = make_lot(work / "lot400", elpv, IMAGES, 300), make_bundle(work / "wide", WIDE, "0,1,2,3")
    given = ["--group-size", str(JUDGES), "--threads", "2"]
    if not (work / "speed0").is_dir():
        infer(work / "speed0", lot, bundle, *given)
    draw, killed, done = random.Random(0), 0, threading.Event()

    def kill() -> None:
        nonlocal killed
        while killed < KILLS and not done.wait(draw.uniform(1, 4)):
            if found := workers():
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(found), signal.SIGKILL)
                    killed += 1

    thread = threading.Thread(target=kill)
    thread.start()
    ran = infer(work / "killed", lot, bundle, *given, "--cluster", "auto")
    done.set()
    thread.join()
    print(f"{killed} workers killed in {ran.seconds:.0f} s: {same(work / 'speed0', work / 'killed')}")


def large(elpv: Path, work: Path) -> None:
    """10,000 images with groups, end to end."""
    lot, bundle = make_lot(work / "lot10000", elpv, MANY, 112), make_bundle(work / "quick", QUICK, "1")
    options = ["--group-size", str(FEW), "--maps", "none", "--threads", "2"]
    ran = infer(work / "large", lot, bundle, *options, "--cluster", "auto")
    plan = ran.about["plan"]
    print(f"{MANY} images at {QUICK.side}, {FEW} judges each, 2 workers: {ran.seconds:.0f} s")
    print({name: round(seconds, 1) for name, seconds in ran.about["timings_s"].items()})
    print(
        f"head {ran.head:.0f} MB of {plan['memory_bytes'] / 1e6:.0f} by the plan; a worker at most "
        f"{ran.worker:.0f} MB"
    )


def paper(elpv: Path, work: Path) -> None:
    """100,000 and 1,000,000 images on 8 and 64 machines of 16 cores, by the measured rates."""
    rates = json.loads((work / "rates.json").read_text(encoding="ascii"))
    per_image = 3 * rates["vit"] / rates["images"]  # DINOv2-S has three times the blocks
    per_pair = rates["compare"] / rates["pairs"]
    print(f"one core: {per_image:.3f} s of DINOv2-S per image, {1e3 * per_pair:.2f} ms per pair and layer")
    columns = "images judges machines ViT_h comparing_h head_GB objects_TB moved_TB MB/s_per_machine"
    print(f"| {' | '.join(columns.split()).replace('_', ' ')} |")
    for images in (100_000, 1_000_000):
        for judges in (200, images - 1):
            size = LotSize(4, images, 256, 384, 4, 3, judges)
            cut = cut_circle(size)
            for machines in (8, 64):
                cores = 16 * machines
                vit = per_image * images / cores / 3600
                compare = 4 * per_pair * images * judges / 2 / cores / 3600
                objects = size.token_bytes + images * 256 * 384 * 4 + size.cosine_bytes
                network = moved_bytes(size, cut)
                rate = network / ((vit + compare) * 3600) / machines / 1e6
                print(
                    f"| {images:,} | {judges:,} | {machines} | {vit:,.1f} | {compare:,.1f} | "
                    f"{head_bytes(size, pairs=True) / 1e9:,.0f} | {objects / 1e12:,.1f} | "
                    f"{network / 1e12:,.1f} | {rate:,.0f} |"
                )
            print(f"tasks in each layer: {cells(size, cut):,}")


PARTS = {
    "start": start,
    "speed": speed,
    "fast": fast,
    "tiles": tiles,
    "exact": exact,
    "spill": spill,
    "moved": moved,
    "kills": kills,
    "large": large,
    "paper": paper,
}


def main() -> None:
    """Run the parts that are asked for, by default all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("elpv", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name in args.part or PARTS:
        PARTS[name](args.elpv.absolute(), args.work.absolute())


if __name__ == "__main__":
    main()
