"""Nothing goes without a word: in random folders every file has a row, or is among what was left out."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from musc_edge._files import remove_folder
from support.command_line import run_here
from support.places import DATA
from support.trees import files_of, random_tree


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 20))]
)
@pytest.mark.slow
def test_every_file_is_accounted_for(tmp_path: Path, seed: int) -> None:
    lot, out = tmp_path / "lot", tmp_path / "out"
    random_tree(lot, seed)
    bundle = str(DATA / "schema1/bundle")
    run = run_here(["musc-edge", "infer", str(lot), "-b", bundle, "--scorer", "numpy", "-o", str(out)])
    assert run.returncode in (0, 3), run.stderr
    table = rows(out)
    named = {row["image"]: row["status"] for row in table}
    assert len(named) == len(table)
    assert (run.returncode == 3) == any(status != "ok" for status in named.values())
    left_out = json.loads((out / "lot.json").read_text(encoding="ascii"))["left_out"]
    entries = {entry["name"]: entry for entry in left_out["entries"]}
    assert left_out["entries_not_named"] == 0
    folders = tuple(name for name in entries if name.endswith("/"))
    for name in files_of(lot):
        inside = [folder for folder in folders if name.startswith(folder)]
        through = f"{name}/" in entries or any(
            each.startswith(f"{name}/") for each in named
        )  # a linked folder
        homes = [name in named, name in entries, bool(inside), through]
        assert sum(homes) == 1, (name, homes)
    assert not [row for row in named if row.startswith(folders)]
    for folder in folders:
        linked = (lot / folder.rstrip("/")).is_symlink()
        counted = 0 if linked else len(files_of(lot / folder))
        assert entries[folder]["files"] == counted, folder
    assert left_out["files"] == sum(entry["files"] for entry in entries.values())
    assert left_out["files"] == sum(left_out["by_reason"].values())
    remove_folder(lot)


def test_some_of_everything_was_met(tmp_path: Path) -> None:
    """The trees are worth the test above only if together they hold every reason and status."""
    from musc_edge.runtime.images.listing import list_lot

    wanted = {
        "not an image", "hidden", "of other programs", "results", "backup or unfinished", "beside its image",
        "link",
    }  # fmt: skip
    files = {"scan", "scan.0001", "gone.png", "pipe.png", "empty.png", "alone.NEF", ".far.jpg.icloud"}
    for seed in range(20):
        random_tree(tmp_path / str(seed), seed)
        listing = list_lot(tmp_path / str(seed))
        wanted -= {entry.why for entry in listing.left_out}
        files -= {os.path.basename(image.name) for image in listing}  # noqa: PTH119
        remove_folder(tmp_path / str(seed))
        if not wanted | files:
            break
    assert not wanted | files
