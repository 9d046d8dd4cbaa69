"""What tests and measurements of ``musc-edge watch`` share: images that come, and what must be in OUT."""

from __future__ import annotations

import csv
import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from support.references import BUNDLE, part, reference, write_lot

SPOT = 200.0
TURN = 0.02
PATIENCE_S = 0.3


def make_reference(folder: Path) -> Path:
    """A reference of the tiny ViT in ``folder``, by which a part with ``SPOT`` is rejected."""
    write_lot(folder / "lot", 30)
    reference(folder / "lot", folder / "ref", hold_out=0.7)
    return folder / "ref"


def watch_command(folder: Path, ref: Path, out: Path, *options: str, bundle: Path = BUNDLE) -> list[str]:
    """The arguments of ``musc-edge`` that watch ``folder``, in no time for files that settle."""
    quick = ["--settle", "0.1", "--patience", str(PATIENCE_S)]
    given = ["watch", str(folder), "--reference", str(ref), "-b", str(bundle), "-o", str(out), *quick]
    return [*given, *options]


def wait_for(state: Callable[[], bool], patience: float = 120.0) -> None:
    """Wait until ``state`` holds; fail if it does not for very long."""
    end = time.monotonic() + patience
    while not state():
        assert time.monotonic() < end, "nothing more happens"
        time.sleep(TURN)


def recorded(out: Path) -> list[str]:
    """Names of the images in results.jsonl, while it may be written."""
    try:
        lines = (out / "results.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line)["image"] for line in lines]


def write_slowly(path: Path, content: bytes, pause: float, pieces: int = 4) -> None:
    """Write a file in pieces, as a copy over a share does."""
    step = len(content) // pieces + 1
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), step):
            file.write(content[start : start + step])
            time.sleep(pause)


class Arrivals:
    """Images that come into ``folder`` in all the ways that there are; ``expected`` counts the results.

    Every tenth image has a spot, and is rejected; every 25th is damaged.
    """

    def __init__(self, folder: Path, seed: int = 0, pause: float = 0.01) -> None:
        self.folder, self._pause, self._chance = folder, pause, random.Random(seed)
        self.expected: Counter[str] = Counter()

    def add(self, number: int) -> None:
        """Let one image come."""
        inside = "" if number % 3 else f"sub{number // 100}/"
        name = f"{inside}{number}.png"
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        content = png(number, SPOT if number % 10 == 0 else 0)
        self.expected[name] += 1
        if number % 25 == 0:
            content = content[: len(content) // 2]
        how = self._chance.choice(("rename", "write", "slowly", "linked"))
        if how == "slowly":
            write_slowly(path, content, self._pause)
        elif how == "write":
            path.write_bytes(content)
        else:
            partial = path.with_name(f".{number}.png.part")
            partial.write_bytes(content)
            if how == "rename":
                partial.rename(path)
            else:
                path.hardlink_to(partial)
                partial.unlink()
        if number % 7 == 0 and number % 25:  # the copier sets the time afterwards: still the same image
            os.utime(path, ns=(number, 10**18 + number))


def png(seed: int, spot: float = 0.0) -> bytes:
    """The content of an image file."""
    from io import BytesIO

    content = BytesIO()
    part(seed, spot).save(content, "PNG", compress_level=1)
    return content.getvalue()


def problems(out: Path, expected: Counter[str]) -> Iterator[str]:
    """Yield what is not as it must be in the results of a watch that has ended."""
    base = sqlite3.connect(f"file:{out / 'results.sqlite'}?mode=ro", uri=True)
    rows = base.execute("SELECT id, key, facts FROM results ORDER BY id").fetchall()
    base.close()
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    with (out / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    names = [json.loads(row[2])["image"] for row in rows]
    yield from _order("sqlite", [row[0] for row in rows], names, expected)
    yield from _order("jsonl", [line["id"] for line in lines], [line["image"] for line in lines], expected)
    yield from _order("csv", [int(row["id"]) for row in table], [row["image"] for row in table], expected)
    yield from _pictures(out, [(row[1], json.loads(row[2])) for row in rows])


def _order(where: str, ids: Sequence[int], names: Sequence[str], expected: Counter[str]) -> Iterator[str]:
    if list(ids) != list(range(1, len(ids) + 1)):
        yield f"{where}: ids are not 1, 2, ..."
    found = Counter(names)
    for name in sorted(expected - found):
        yield f"{where}: {name} is missing"
    for name in sorted(found - expected):
        yield f"{where}: {name} is there {found[name]} times, not {expected[name]}"


def _pictures(out: Path, results: Sequence[tuple[bytes, dict[str, object]]]) -> Iterator[str]:
    """Every rejected image has its three files, and there are no others."""
    named = set()
    for key, facts in results:
        files = [str(facts[kind]) for kind in ("picture", "overlay", "map") if kind in facts]
        if (len(files) == 3) != (facts["verdict"] == "reject"):
            yield f"{facts['image']}: {facts['verdict']}, with {len(files)} files"
        if not all(key.hex() in file for file in files):
            yield f"{facts['image']}: files of another"
        named.update(files)
    there = {
        str(path.relative_to(out))
        for folder in ("pictures", "overlays", "maps")
        for path in (out / folder).iterdir()
    }
    for name in sorted(there ^ named):
        yield f"{name}: {'without a result' if name in there else 'missing'}"
