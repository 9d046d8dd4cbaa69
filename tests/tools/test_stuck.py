"""A decoder that does not come back keeps no signal from ending the run, nor a run from cleaning up."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from musc_edge.runtime.parallel import has_abandoned, in_order
from support.bad_input import Place
from support.forks import Forked
from support.places import listen_to_interrupts

STUCK = 120  # seconds that the decoder takes; a run that waits for it fails its test
SOON = 40  # seconds in which even a slow machine has ended
PROGRAM = f"""
import sys, time
from pathlib import Path
from musc_edge.runtime.images import survey
from musc_edge.tools.edge import main
read = survey.read_image
reads = 0
def stuck(path, *options):
    global reads
    if path.name == Path(sys.argv[2]).name and options:
        reads += 1
        if reads == READS:
            Path("stuck").touch()
            time.sleep({STUCK})
    return read(path, *options)
survey.read_image = stuck
sys.exit(main())
"""


def start(place: Place, image: Path, reads: int = 1) -> Forked:
    """``musc-edge infer`` as its console script runs it, with a decoder that gets stuck on one image.

    It does so when the image is read for the ``reads``-th time: for the ViT, then for its overlay.
    """
    program = PROGRAM.replace("sys.argv[2]", repr(str(image))).replace("READS", str(reads))
    (place.root / "program.py").write_text(program, encoding="utf-8")
    arguments = [
        "infer",
        str(place.lot),
        "-b",
        str(place.bundle),
        "--scorer",
        "numpy",
        "-o",
        "out",
        "--overlays",
    ]
    command = [sys.executable, str(place.root / "program.py"), *arguments]
    return Forked(command, cwd=place.root, prepare=listen_to_interrupts)


def wait_for(path: Path, process: Forked) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("which", "reads"), [(0, 1), (-1, 1), (0, 2)], ids=["first image", "last image", "first overlay"]
)
@pytest.mark.slow
def test_signal_ends_a_run_whose_decoder_is_stuck(
    place: Place, number: signal.Signals, code: int, which: int, reads: int
) -> None:
    with start(place, sorted(place.lot.glob("*.png"))[which], reads) as process:
        wait_for(place.root / "stuck", process)
        assert (place.root / ".out.partial").is_dir()
        process.send_signal(number)
        began = time.monotonic()
        _, stderr = process.communicate(timeout=STUCK)
        assert time.monotonic() - began < SOON
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert sorted(p.name for p in place.root.iterdir()) == ["lot", "program.py", "stuck"]


@pytest.mark.slow
def test_second_signal_does_not_keep_the_run_from_ending(place: Place) -> None:
    with start(place, sorted(place.lot.glob("*.png"))[0]) as process:
        wait_for(place.root / "stuck", process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # while the stuck thread is given its two seconds
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=STUCK)
    assert process.returncode == 130, stderr
    assert sorted(p.name for p in place.root.iterdir()) == ["lot", "program.py", "stuck"]


def test_work_that_is_not_wanted_is_left_after_a_while_and_ends_by_itself() -> None:
    started, release = threading.Event(), threading.Event()

    def work(number: int) -> int:
        if number:
            started.set()
            release.wait(STUCK)
        return number

    stream = in_order(range(9), work, threads=1, ahead=3, name="stuck", patience=0.1)
    try:
        assert next(stream) == (0, 0)
        assert started.wait(SOON)
        stream.close()
        assert has_abandoned()
    finally:
        release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("stuck"):
            thread.join(SOON)
    assert not has_abandoned()


def test_work_that_has_an_effect_is_waited_for() -> None:
    started, done = threading.Event(), []

    def work(number: int) -> None:
        if number:
            started.set()
            time.sleep(0.3)
            done.append(number)

    stream = in_order(range(2), work, threads=1, ahead=1)
    next(stream)
    assert started.wait(SOON)
    stream.close()
    assert done == [1]
    assert not has_abandoned()


def test_command_line_that_is_called_from_python_leaves_the_process_alive(tmp_path: Path) -> None:
    from musc_edge.tools.edge import main

    started, release = threading.Event(), threading.Event()

    def work(number: int) -> None:
        if number:
            started.set()
            release.wait(STUCK)

    stream = in_order(range(2), work, threads=1, ahead=1, patience=0.0)
    try:
        next(stream)
        assert started.wait(SOON)
        stream.close()
        assert has_abandoned()
        assert main(["inspect", str(tmp_path / "nowhere")]) == 4
    finally:
        release.set()
