"""The scripts of docs/examples and the README's Python run, and do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.bad_input import Place
from support.forks import run_forked
from support.places import ROOT
from support.references import BUNDLE, reference, write_lot
from support.served import serving

EXAMPLES = ROOT / "docs" / "examples"


def run(script: str, *arguments: object) -> list[str]:
    """Lines that an example prints."""
    done = run_forked([sys.executable, str(EXAMPLES / script), *map(str, arguments)])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_tried_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in here for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 45
    assert lines[0].startswith('"""')


@pytest.mark.slow
def test_a_folder_is_scored_and_its_results_are_read(place: Place) -> None:
    out = place.root / "out"
    lines = run("score_folder.py", place.lot, place.bundle, out)
    assert lines[0].startswith("8 images scored, 0 skipped")
    assert len(list((out / "overlays").iterdir())) == 8
    (place.lot / "broken.png").write_bytes(b"not a PNG")
    run("score_folder.py", place.lot, place.bundle, out)
    read = run("read_results.py", out)
    worst = [line.split()[1] for line in lines[2:7]]
    assert [line.split()[1] for line in read[:5]] == worst
    assert read[5].startswith("not scored: broken.png, unreadable: ")


@pytest.mark.slow
def test_parts_are_checked_against_a_reference(place: Place) -> None:
    (place.root / "broken.png").write_bytes(b"not a PNG")
    good = min(place.lot.iterdir())
    lines = run(
        "check_parts.py", place.lot, place.bundle, place.root / "ref", good, place.root / "broken.png"
    )
    assert lines[0].startswith("no image can be rejected at a false-alarm rate of 5 %: with 2 images")
    assert lines[1].startswith(f"{good}: not flagged, raw score ")
    assert lines[-1] == f"{place.root / 'broken.png'}: unreadable, not an image file"
    assert (place.root / "ref/manifest.json").is_file()


@pytest.mark.slow
def test_a_part_is_checked_by_a_server(tmp_path: Path) -> None:
    write_lot(tmp_path / "lot", 12)
    reference(tmp_path / "lot", tmp_path / "ref", hold_out=0.5)
    with serving("--reference", tmp_path / "ref", "-b", BUNDLE, new=True) as server:
        (line,) = run("ask_server.py", server.address, tmp_path / "lot/3.png")
    assert line.startswith("3.png: not flagged, raw score ")


@pytest.mark.slow
def test_an_error_is_one_message(place: Place) -> None:
    command = [sys.executable, str(EXAMPLES / "score_folder.py"), "nowhere", str(place.bundle), "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no folder nowhere")


@pytest.mark.slow
def test_arrays_alone_find_the_odd_patch() -> None:
    (line,) = run("arrays_only.py")
    assert line.startswith("image 5, patch (2, 7): ")


@pytest.mark.slow
def test_a_vit_of_ones_own_ranks_all_images(place: Place) -> None:
    lines = run("own_vit.py", place.lot)
    assert {line.split()[1] for line in lines} == {path.name for path in place.lot.iterdir()}
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_the_gpu_scores_or_the_example_says_why_not(place: Place) -> None:
    lines = run("on_gpu.py", place.lot, place.bundle)
    says_why = lines[0].startswith("no GPU can be used: ") and "musc-edge doctor" in lines[-1]
    assert says_why or lines[-1].endswith("compared by cuda")


@pytest.mark.slow
def test_the_readmes_python_runs(place: Place) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("### From Python")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    code = found[1].replace('"lot/"', repr(str(place.lot))).replace('"dinov2-small"', repr(str(place.bundle)))
    done = run_forked([sys.executable, "-c", code], cwd=place.root)
    assert done.returncode == 0, done.stderr
    assert "8 images scored" in done.stdout
    assert (place.root / "results/scores.csv").is_file()
