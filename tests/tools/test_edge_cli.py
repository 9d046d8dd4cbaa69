"""``musc-edge`` as a user runs it: the installed command on real images with the real ViT."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.tools.demo import auroc, read_scores
from support.command_line import run_here
from support.forks import Forked, run_forked, start_forked
from support.places import golden_folder, listen_to_interrupts

Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((golden_folder() / "elpv_mono_60.json").read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module")
def lot(golden: dict[str, Any], solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first twelve images of the golden lot, the last two in a subfolder."""
    folder = tmp_path_factory.mktemp("lot") / "cells"
    (folder / "late shift").mkdir(parents=True)
    for k, name in enumerate(golden["files"][:12]):
        shutil.copy(solar_cells / name, folder / "late shift" if k >= 10 else folder)
    return folder


@pytest.fixture(scope="module")
def infer(commands: Path, real_bundle: Path) -> Any:
    """The console script, started as a user starts it."""
    return runner(commands, real_bundle)


@pytest.fixture(scope="module")
def infer_forked(commands: Path, wide_bundle: Path) -> Any:
    """In a process of its own, for tests that are about neither its start nor the real scores."""
    start = [str(commands / "musc-edge"), "infer"]

    def run(lot: Path | str, out: Path, *options: str) -> Run:
        return run_forked(
            [*start, str(lot), "-b", str(wide_bundle), "-o", str(out), *options], cwd=out.parent
        )

    return run


@pytest.fixture(scope="module")
def quick(commands: Path, quick_bundle: Path) -> Any:
    """For tests that are about everything but the scores and the process."""
    return runner_here(commands, quick_bundle, "--scorer", "numpy")


@pytest.fixture(scope="module")
def infer_here(commands: Path, wide_bundle: Path) -> Any:
    """As ``infer_forked``, for tests that are not about the process."""
    return runner_here(commands, wide_bundle)


def runner(commands: Path, bundle: Path, *always: str) -> Any:
    start = [str(commands / "musc-edge"), "infer"]

    def run(lot: Path | str, out: Path, *options: str, env: dict[str, str] | None = None) -> Run:
        return subprocess.run(
            [*start, str(lot), "-b", str(bundle), *always, "-o", str(out), *options],
            capture_output=True,
            text=True,
            check=False,
            cwd=out.parent,
            env={**os.environ, **(env or {})},
        )

    return run


def runner_here(commands: Path, bundle: Path, *always: str) -> Any:
    start = [str(commands / "musc-edge"), "infer"]

    def run(lot: Path | str, out: Path, *options: str) -> Run:
        return run_here(
            [*start, str(lot), "-b", str(bundle), *always, "-o", str(out), *options], cwd=out.parent
        )

    return run


def least_budget(refused: Run) -> int:
    """MB of the smallest budget that works, as a run with a tiny one names it."""
    (megabytes,) = re.findall(r"the smallest that works is (\d+) MB", refused.stderr)
    return int(megabytes)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_golden_lot_of_60_solar_cells(
    golden: dict[str, Any], solar_cells: Path, infer: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    for name in golden["files"]:
        shutil.copy(solar_cells / name, folder)
    run = infer(folder, tmp_path / "out", "--method", "paper")
    assert run.returncode == 0, run.stderr
    names = [Path(name).name for name in golden["files"]]
    raw, rescored, score = (
        read_scores(tmp_path / "out/scores.csv", c) for c in ("raw_score", "lot_score", "score")
    )
    np.testing.assert_allclose([raw[n] for n in names], golden["image_scores"], atol=1e-4)
    np.testing.assert_allclose([rescored[n] for n in names], golden["rescored"], atol=1e-3)
    labels = dict(zip(names, map(bool, golden["labels"]), strict=True))
    assert auroc(raw, labels) == pytest.approx(golden["auroc_image"], abs=0.002)
    assert auroc(rescored, labels) == pytest.approx(golden["auroc_rescored"], abs=0.002)
    assert auroc(score, labels) == auroc(rescored, labels)
    low, high = min(raw.values()), max(raw.values())
    expected = [low + (high - low) * rescored[n] for n in names]
    np.testing.assert_allclose([score[n] for n in names], expected, atol=2e-6)


@pytest.mark.long
def test_results_are_complete(lot: Path, infer_forked: Any, tmp_path: Path) -> None:
    run = infer_forked(lot, tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # no progress where nobody watches
    out = tmp_path / "out"
    table = rows(out)
    columns = ["image", "status", "raw_score", "score", "lot_score", "map", "error", "verdict", "p"]
    assert list(table[0]) == columns
    assert len(table) == 12
    assert {row["status"] for row in table} == {"ok"}
    assert sum(row["image"].startswith("late shift/") for row in table) == 2
    for row in table:
        grid = np.load(out / row["map"])
        assert grid.shape == (16, 16)
        assert grid.dtype == np.float32
        assert grid.max() >= float(row["raw_score"]) - 1e-6
    about = json.loads((out / "lot.json").read_text(encoding="utf-8"))
    assert about["images"] == 12
    assert len(about["warnings"]) == 1
    assert "only 12 images" in about["warnings"][0]
    assert about["notes"] == []
    assert about["settings"]["degrees"] == [1, 5]
    assert about["settings"]["judge_by"] == "raw_score"
    assert about["settings"]["group_size"] is None
    assert (about["scorer"], about["judges_per_image"]) == ("numba", 11)
    assert "plan: 12 images scored by all others: 66 pairs in 4 layers" in run.stdout
    stages = "looking at the files .*, the ViT with reading .*, comparing .*, writing "
    assert re.search(f"time about .*: {stages}", run.stdout)
    worst = max(table, key=lambda row: float(row["raw_score"]))["image"]
    assert run.stdout.split("   1 ")[1].startswith(worst)
    assert str(out / "contact_sheet.png") in run.stdout


@pytest.mark.long
def test_runs_budgets_and_batches_give_the_same_bytes(
    lot: Path, infer_forked: Any, infer_here: Any, tmp_path: Path
) -> None:
    least = least_budget(infer_forked(lot, tmp_path / "none", "--memory-budget", "1M"))
    budget = f"{least + 5}M"  # a process does not take the same memory every time
    variants = [
        (infer_forked, []),
        (infer_here, []),
        (infer_here, ["--batch", "5"]),
        (infer_forked, ["--memory-budget", budget]),
    ]
    outs = [tmp_path / f"out{k}" for k in range(len(variants))]
    for out, (start, options) in zip(outs, variants, strict=True):
        run = start(lot, out, *options)
        assert run.returncode == 0, run.stderr
    plan = json.loads((outs[3] / "lot.json").read_text(encoding="utf-8"))["plan"]
    assert plan["tokens_on_disk"]
    assert plan["cosines_on_disk"]
    assert plan["program_bytes"] < plan["memory_bytes"] <= plan["budget"] == (least + 5) * 10**6
    for name in ["scores.csv", *(row["map"] for row in rows(outs[0]))]:
        assert len({(out / name).read_bytes() for out in outs}) == 1, name


def test_what_auto_chose_is_said_with_its_reason(lot: Path, infer_here: Any, tmp_path: Path) -> None:
    run = infer_here(lot, tmp_path / "out", "--method", "paper", "--degrees", "auto", "--maps", "none")
    assert run.returncode == 0, run.stderr
    about = json.loads((tmp_path / "out/lot.json").read_text(encoding="utf-8"))
    method, degrees = about["chosen"]
    assert (method["option"], method["value"]) == ("method", "paper")
    assert (degrees["option"], degrees["value"]) == ("degrees", about["settings"]["degrees"])
    said = " ".join(run.stdout.split())
    assert f"degrees {','.join(map(str, degrees['value']))} ({degrees['why']})" in said


def test_options_reach_the_method(lot: Path, infer_here: Any, tmp_path: Path) -> None:
    options = [
        "--method",
        "paper",
        "--degrees",
        "3",
        "--interval",
        "0.1,0.5",
        "--neighbors",
        "1",
        "--maps",
        "pixel",
        "--json",
    ]
    run = infer_here(lot, tmp_path / "out", *options)
    assert run.returncode == 0, run.stderr
    about = json.loads(run.stdout)
    expected = {"degrees": [3], "interval": [0.1, 0.5], "neighbors": [1], "maps": "pixel", "bit_depth": 8}
    assert expected.items() <= about["settings"].items()
    given = {choice["option"]: choice["why"] for choice in about["chosen"][1:]}
    assert given == dict.fromkeys(("degrees", "interval", "neighbors"), "as given")
    assert [r["score"] for r in about["ranked"]] == sorted(
        (r["score"] for r in about["ranked"]), reverse=True
    )
    assert all(r["score"] == r["raw_score"] for r in about["ranked"])  # neighbors 1 is the identity
    assert np.load(tmp_path / "out" / rows(tmp_path / "out")[0]["map"]).shape == (224, 224)


def test_damaged_images_are_listed_and_never_scored(lot: Path, quick: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    shutil.copytree(lot, folder)
    whole = next(folder.glob("*.png")).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.bmp").write_text("no image", encoding="ascii")
    odd = os.fsencode(folder) + b"/-caf\xe9\n.png"
    Path(os.fsdecode(odd)).write_bytes(b"")
    run = quick(folder, tmp_path / "out")
    assert run.returncode == 3, run.stderr
    table = {row["image"]: row for row in rows(tmp_path / "out")}
    assert len(table) == 16
    bad = ["cut.png", "empty.jpg", "text.bmp", os.fsdecode(b"-caf\xe9\n.png")]
    for name in bad:
        assert table[name]["status"] == "unreadable"
        assert table[name]["error"]
        assert table[name]["score"] == table[name]["raw_score"] == table[name]["map"] == ""
    assert "4 of 16 images could not be scored" in run.stdout
    alone = quick(lot, tmp_path / "alone")
    assert alone.returncode == 0
    for row in rows(tmp_path / "alone"):
        assert row == table[row["image"]]  # the damaged files changed no score


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--degrees", "2"], 2, "odd"),
        (["--degrees", "one"], 2, "whole numbers"),
        (["--interval", "0.3,0.1"], 2, "lo < hi"),
        (["--neighbors", "0"], 2, "1 or more"),
        (["--batch", "0"], 2, "1 or more"),
        (["--memory-budget", "lots"], 2, "500M or 2G"),
        (["--group-size", "0"], 2, "1 or more"),
        (["--group-size", "few"], 2, "1 or more"),
        (["--group-size", "3"], 6, "needs at least 4 other images"),
        (["--group-size", "7", "--interval", "0.3,0.4"], 6, "choose a group size of 8"),
        (["--neighbors", "0,1"], 2, "1 or more"),
        (["--scorer", "opencl"], 2, "expected auto, cuda, numba or numpy"),
        (["--memory-budget", "1M"], 6, "smallest that works"),
        (["--interval", "0,0.05"], 6, "at least 21"),
        (["-b", "no/such/bundle"], 4, "no such folder"),
    ],
)
def test_unusable_options(
    lot: Path, quick: Any, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    run = quick(lot, tmp_path / "out", *options)
    assert run.returncode == code, run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_unusable_lots(lot: Path, quick: Any, tmp_path: Path) -> None:
    out = tmp_path / "results" / "out"
    out.parent.mkdir()
    (tmp_path / "none").mkdir()
    few = tmp_path / "few"
    few.mkdir()
    for path in list(lot.glob("*.png"))[:4]:
        shutil.copy(path, few)
    for k in range(3):
        (few / f"bad{k}.png").write_bytes(b"not an image")
    cases = [
        (tmp_path / "nowhere", 2, "does not exist"),
        (next(lot.glob("*.png")), 2, "is a file"),
        (tmp_path / "none", 6, "no image was found"),
        (few, 6, "4 images are too few"),
    ]
    for folder, code, message in cases:
        run = quick(folder, out)
        assert (run.returncode, message in run.stderr) == (code, True), run.stderr
        assert list(out.parent.iterdir()) == []


def test_output_in_the_way(lot: Path, quick: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine", encoding="ascii")
    for options in ([], ["--overwrite"]):
        run = quick(lot, out, *options)
        assert run.returncode == 7
        assert "not ours" in run.stderr
    (out / "thesis.txt").unlink()
    assert quick(lot, out).returncode == 0
    before = (out / "scores.csv").read_bytes()
    refused = quick(lot, out)
    assert refused.returncode == 7
    assert "--overwrite" in refused.stderr
    assert quick(lot, out, "--overwrite").returncode == 0
    assert (out / "scores.csv").read_bytes() == before


def test_default_output_and_bundle(
    lot: Path, commands: Path, quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    monkeypatch.delenv("MUSC_EDGE_BUNDLE", raising=False)
    command = [str(commands / "musc-edge"), "infer", str(lot)]
    run = run_forked(command, cwd=tmp_path, env=env)
    assert run.returncode == 4
    assert "--default" in run.stderr
    run = run_forked(command, cwd=tmp_path, env={**env, "MUSC_EDGE_BUNDLE": str(quick_bundle)})
    assert run.returncode == 0, run.stderr
    assert len(rows(tmp_path / "cells-musc")) == 12


def test_earlier_results_inside_the_lot_are_not_images_of_it(lot: Path, quick: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    shutil.copytree(lot, folder)
    for name in ("first", "second"):
        assert quick(folder, folder / name).returncode == 0
    assert len(rows(folder / "second")) == 12
    assert quick(folder, folder / "second", "--overwrite").returncode == 0
    assert len(rows(folder / "second")) == 12


MOMENTS: dict[str, Callable[[str, Path], bool]] = {
    "imports": lambda line, root: line.startswith("12 images in "),  # next the libraries are imported
    "output": lambda line, root: (root / ".out.partial").exists(),
    "scoring": lambda line, root: line.startswith("plan: "),
}
"""What can be seen from outside when a run has come so far: a line that it prints, a folder that it makes."""


def start_watched(command: list[str], printed: int, *, new: bool) -> subprocess.Popen[str] | Forked:
    """Start a command that prints to a file and listens to interrupts, as a ``new`` Python or forked."""
    if not new:
        return Forked(command, out=printed, prepare=listen_to_interrupts)
    return subprocess.Popen(
        command, stdout=printed, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    )


@pytest.mark.long
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupt_leaves_nothing(
    lot: Path,
    commands: Path,
    wide_bundle: Path,
    tmp_path: Path,
    sent: signal.Signals,
    code: int,
    moment: str,
) -> None:
    command = [str(commands / "musc-edge"), "infer", str(lot), "-b", str(wide_bundle)]
    command += ["-o", str(tmp_path / "out")]
    with (
        (tmp_path / "printed").open("w+", encoding="utf-8") as printed,
        start_watched(command, printed.fileno(), new=moment == "imports") as process,
    ):
        reached = MOMENTS[moment]
        while process.poll() is None:
            lines = (tmp_path / "printed").read_text(encoding="utf-8").splitlines() or [""]
            if any(reached(line, tmp_path) for line in lines):
                break
            time.sleep(0.001)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
    (tmp_path / "printed").unlink()
    if process.returncode == 0:  # a fast machine was done before the signal
        assert len(rows(tmp_path / "out")) == 12
        return
    # Before there is anything to clean up, a signal ends Python by itself; a shell calls that the same.
    assert process.returncode in (code, -sent), stderr
    assert "Traceback" not in stderr or process.returncode == -sent  # while Python imports, it prints one
    assert list(tmp_path.iterdir()) == []


def test_progress_on_a_terminal(lot: Path, commands: Path, wide_bundle: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [
        str(commands / "musc-edge"),
        "infer",
        str(lot),
        "-b",
        str(wide_bundle),
        "-o",
        str(tmp_path / "out"),
    ]
    with Path(os.devnull).open("wb") as nothing:
        process = start_forked(command, nothing.fileno(), theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the terminal is closed when the process ends
        pass
    os.close(ours)
    process.join()
    assert process.exitcode == 0
    text = shown.decode()
    assert "ViT" in text
    assert "12/12 images" in text
    assert "mutual scoring" in text
    assert "264/264 pairs" in text  # 66 pairs, 4 layers
    assert " left" in text


def test_plan_says_what_a_lot_would_take(commands: Path, wide_bundle: Path) -> None:
    command = [
        str(commands / "musc-edge"),
        "plan",
        "-b",
        str(wide_bundle),
        "--threads",
        "2",
        "--method",
        "paper",
    ]
    few = [*command, "1000", "--group-size", "20", "--memory-budget", "1G", "--resume", "--json"]
    data = json.loads(run_forked(few).stdout)
    assert (data["images"], data["judges"], data["pairs"], data["layers"]) == (1000, 20, 10_000, 4)
    assert data["total_seconds"] == pytest.approx(data["seconds"] + data["vit_seconds"])
    assert min(data["seconds"], data["vit_seconds"]) > 0
    assert data["write_seconds"] is None  # of no image that is known
    plan = data["plan"]
    assert plan["disk_bytes"] == 4 * 1000 * 256 * 384 * 4 + 1000 * 20 * 3 * 256 * 4
    assert plan["memory_bytes"] <= plan["budget"] == 10**9
    text = run_forked([*command, "1000"]).stdout
    assert "1000 images scored by all others: 499,500 pairs in 4 layers, 2 threads, numba\n" in text
    assert re.search(r"time about .*, besides reading and writing the images: the ViT .*, comparing ", text)
    refused = [
        (["4"], 6, "too few"),
        (["1000", "--memory-budget", "1M"], 6, "that works is"),
        (["100", "--group-size", "7", "--interval", "0.3,0.4"], 6, "choose a group size of 8"),
        (["99999999999999999999"], 2, "at most"),
    ]
    for options, code, message in refused:
        run = run_here([*command, *options])
        assert (run.returncode, message in run.stderr) == (code, True), run.stderr


@pytest.mark.long
def test_inspect_says_what_a_bundle_is(commands: Path, real_bundle: Path, tmp_path: Path) -> None:
    command = [str(commands / "musc-edge"), "inspect", str(real_bundle)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    for part in ("DINOv2-S/14", "224x224", "16x16 patches of 14 pixels", "2, 5, 8, 11", "hash ok"):
        assert part in run.stdout
    data = json.loads(run_here([*command, "--json"]).stdout)
    assert data["grid"] == [16, 16]
    damaged = tmp_path / "damaged"
    shutil.copytree(real_bundle, damaged)
    probe = bytearray((damaged / "probe.npz").read_bytes())
    probe[1000] ^= 1
    (damaged / "probe.npz").write_bytes(probe)
    run = run_here([*command[:-1], str(damaged)])
    assert run.returncode == 4
    assert "probe.npz was changed" in run.stderr


@pytest.mark.long
def test_closed_or_narrow_streams_do_not_change_the_result(
    lot: Path, commands: Path, quick_bundle: Path, tmp_path: Path
) -> None:
    quick = runner(commands, quick_bundle, "--scorer", "numpy")
    folder = tmp_path / "cells"
    shutil.copytree(lot, folder)
    next(folder.glob("*.png")).rename(folder / "größe.png")
    narrow = quick(folder, tmp_path / "ascii", env={"PYTHONIOENCODING": "ascii"})
    assert narrow.returncode == 0
    for name, redirect in [("head", "| true"), ("full", ">/dev/full"), ("silent", "2>&-")]:
        command = " ".join(f"'{part}'" for part in [*narrow.args[:-1], str(tmp_path / name)])
        shell = ["bash", "-c", f"set -o pipefail; {command} {redirect}"]
        run = subprocess.run(shell, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert "Traceback" not in run.stderr
        assert len(rows(tmp_path / name)) == 12


def test_copies_of_one_image_look_even(solar_cells: Path, quick: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    image = next((solar_cells / "elpv_dataset/data/images").iterdir())
    for k in range(6):
        shutil.copy(image, folder / f"{k}.png")
    assert quick(folder, tmp_path / "out").returncode == 0
    about = json.loads((tmp_path / "out/lot.json").read_text(encoding="ascii"))
    scale = about["heatmap_scale"]
    assert scale["high"] - scale["low"] >= 0.05
    assert all(float(row["raw_score"]) < 0.005 for row in rows(tmp_path / "out"))


def test_what_judges_and_why_is_said(lot: Path, quick: Any, tmp_path: Path) -> None:
    options = ["--rescore", "salient", "--position-median", "auto", "--judge-by", "raw_score", "--report"]
    run = quick(lot, tmp_path / "out", *options)
    assert run.returncode == 0, run.stderr
    about = json.loads((tmp_path / "out/lot.json").read_text(encoding="utf-8"))
    settings, share = about["settings"], about["chosen"][-1]
    assert (settings["rescore"], settings["judge_by"]) == ("salient", "raw_score")
    assert (share["option"], share["value"]) == ("position_median", settings["position_median"])
    assert (tmp_path / "out/position.npy").exists() == (share["value"] > 0)
    table = rows(tmp_path / "out")
    worst = max(table, key=lambda row: float(row["raw_score"]))["image"]
    assert run.stdout.split("   1 ")[1].startswith(worst)
    assert share["why"] in " ".join(run.stdout.split())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--position-median", "1.5"], "a share from 0 to 1 such as 0.5, or auto"),
        (["--rescore", "mean"], "expected cls, salient or none"),
        (["--method", "best"], "expected paper, default or fast"),
    ],
)
def test_choices_that_are_none(
    lot: Path, quick: Any, tmp_path: Path, options: list[str], expected: str
) -> None:
    run = quick(lot, tmp_path / "out", *options)
    assert run.returncode == 2
    assert expected in run.stderr
