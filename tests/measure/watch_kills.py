"""Kill ``musc-edge watch`` at random moments while images arrive; each result must be recorded exactly once.

    python tests/measure/watch_kills.py [--kills 100] [--seed 0] [--poll SECONDS] [--work DIR]

Images come by rename, at once, slowly, by hard link and with their time set afterwards, in subfolders too; a
tenth are rejected and have pictures, a 25th are damaged.  Each run is ended by SIGKILL, while it starts or up
to some images later; the last ends in good order.  Then results.sqlite, results.csv and results.jsonl must
each have every image once, in the same order, and the pictures must be those of the rejected, no more.
Processes are forked from one that has the libraries.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.forks import Forked
from support.watching import Arrivals, make_reference, problems, recorded, wait_for, watch_command

AHEAD = 60
TURN = 0.1
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from musc_edge.tools.edge import main; sys.exit(main(sys.argv[1:]))",
]


def arrive(arrivals: Arrivals, out: Path, ended: threading.Event, chance: random.Random) -> None:
    """Let images come, in bursts and one at a time, until it is over, not far ahead of what is recorded."""
    number = 1
    while not ended.is_set():
        if number - len(recorded(out)) > AHEAD:
            ended.wait(TURN)
            continue
        for _ in range(chance.choice((1, 1, 5, 40))):
            arrivals.add(number)
            number += 1
        ended.wait(chance.uniform(0, 0.6))


def start(command: list[str], log: Path) -> Forked:
    with log.open("ab") as file:
        return Forked([*COMMAND, *command], out=file.fileno())


def ready(log: Path, process: Forked, times: int) -> bool:
    assert process.poll() is None, process.communicate()
    return log.exists() and log.read_text().count("watching ") >= times


def reached(out: Path, images: int) -> bool:
    return len(recorded(out)) >= images


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--poll", help="search so often, instead of listening to the kernel")
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    work = args.work or Path(tempfile.mkdtemp(prefix="watch_kills_"))
    folder, out, log = work / "in", work / "out", work / "log"
    folder.mkdir(parents=True)
    options = ["--poll", args.poll] if args.poll else []
    command = watch_command(folder, make_reference(work), out, *options)
    process = start(command, log)
    wait_for(lambda: ready(log, process, 1))  # what comes before is "existing"
    arrivals, ended = Arrivals(folder, args.seed), threading.Event()
    thread = threading.Thread(target=arrive, args=(arrivals, out, ended, random.Random(args.seed)))
    thread.start()
    times, between = 1, 0
    for kill in range(args.kills):
        if chance.random() < 0.2:  # while it starts
            time.sleep(chance.uniform(0, 2.5))
        else:
            wait_for(partial(ready, log, process, times))
            more = len(recorded(out)) + chance.randrange(8)
            wait_for(partial(reached, out, more), 600)
            time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        times = log.read_text().count("watching ") + 1
        lines = [(out / name).read_bytes().count(b"\n") for name in ("results.csv", "results.jsonl")]
        between += lines[0] != lines[1] + 1
        if kill % 10 == 9:
            print(f"{kill + 1} kills, {lines[1]} images recorded", flush=True)
        process = start(command, log)
    ended.set()
    thread.join()
    wait_for(lambda: len(recorded(out)) >= arrivals.expected.total(), 600)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 0
    found = list(problems(out, arrivals.expected))
    print(*found, sep="\n")
    rejects = len(list((out / "pictures").iterdir()))
    killed = f"{args.kills} kills, {between} of them between results.csv and results.jsonl"
    total = arrivals.expected.total()
    print(f"{killed}; {total} images, {rejects} of them with pictures; {len(found)} problems")
    if not found and not args.work:
        shutil.rmtree(work)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
