"""What too few files, threads, memory or processors do to a run: said as what they are, exit code 5.

Real limits of real processes.  Limits of cgroups are in tests/runtime/test_cgroups.py.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from musc_edge.runtime import limits
from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.images.reading import read_header
from musc_edge.runtime.limits import address_room, limit_reached, require_files, require_threads
from musc_edge.runtime.parallel import in_order
from musc_edge.runtime.results.image_files import optional
from support.bad_input import Place
from support.forks import run_forked
from support.lots import write_png

NOBODY = 65534


def infer(place: Place, commands: Path) -> list[str]:
    command = [str(commands / "musc-edge"), "infer", str(place.lot), "-b", str(place.bundle)]
    return [*command, "--scorer", "numpy", "-o", "out"]


def few_files(soft: int, hard: int | None = None) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if hard is None else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


@pytest.mark.parametrize("most", [24, 40])
def test_too_few_files(place: Place, commands: Path, most: int) -> None:
    limit = partial(few_files, most, most)
    run = run_forked(infer(place, commands), cwd=place.root, prepare=limit, timeout=120)
    assert run.returncode == 5, run.stdout + run.stderr
    assert f"which is {most} (hard limit {most})" in run.stderr
    assert "ulimit -n" in run.stderr
    assert not (place.root / "out").exists()


def test_a_low_soft_limit_is_raised(place: Place, commands: Path) -> None:
    limit = partial(few_files, 24)
    assert run_forked(infer(place, commands), cwd=place.root, prepare=limit, timeout=120).returncode == 0


NO_THREADS = """
import sys
from unittest import mock
from threading import Thread
with mock.patch.object(Thread, "start", side_effect=RuntimeError("can't start new thread")):
    from musc_edge.tools.edge import main
    code = main(sys.argv[1:])
assert "numpy" not in sys.modules  # whose OpenBLAS would answer with an interrupt
sys.exit(code)
"""


def test_too_few_threads_are_found_before_any_library(place: Place) -> None:
    """In whatever way they are limited."""
    command = [
        sys.executable,
        "-c",
        NO_THREADS,
        "infer",
        str(place.lot),
        "-b",
        str(place.bundle),
        "-o",
        "out",
    ]
    run = subprocess.run(command, cwd=place.root, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 5, run.stderr
    assert "could not be started (can't start new thread)" in run.stderr
    assert "interrupted" not in run.stderr


def test_too_few_processes_of_a_user() -> None:
    """RLIMIT_NPROC does not bind root, who becomes another user for that."""
    become = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n" if os.geteuid() == 0 else ""
    code = (
        "import os, resource\n"
        "from musc_edge.runtime.limits import require_threads\n"
        f"{become}"
        "resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))\n"
        "require_threads(4)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 1
    assert "this user may have 1 (ulimit -u)" in run.stderr
    assert "DeviceError" in run.stderr


def test_little_address_space(place: Place, commands: Path) -> None:
    """Too little even for the libraries."""
    run = subprocess.run(
        infer(place, commands), cwd=place.root, capture_output=True, text=True, check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (300_000_000, 300_000_000)),
    )  # fmt: skip
    assert run.returncode == 5, run.stdout + run.stderr
    assert "ulimit -v" in run.stderr
    assert not (place.root / "out").exists()


@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_address_space_and_data_bound_the_budget(kind: int) -> None:
    code = (
        "import resource, sys\n"
        "from musc_edge.runtime.memory import available_memory\n"
        "from musc_edge.runtime.limits import address_room\n"
        "assert address_room() is None\n"
        f"resource.setrlimit({kind}, (500_000_000, 500_000_000))\n"
        "print(available_memory())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert 200_000_000 < int(run.stdout) < 500_000_000


def test_this_process_has_no_such_limit_or_room() -> None:
    room = address_room()
    assert room is None or room > 0


# ---- in the midst of the work ----------------------------------------------------------------


def out_of_files(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_an_image_is_not_unreadable_for_want_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_png(tmp_path / "a.png")
    monkeypatch.setattr("os.open", out_of_files)
    with pytest.raises(DeviceError, match="more files are needed at once"):
        read_header(path)


def test_a_map_is_not_left_out_for_want_of_files(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="more files are needed"), optional("map", tmp_path / "a", []):
        out_of_files()


def test_work_that_gets_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(DeviceError, match="could not be started"):
        list(in_order([1, 2], str, threads=2, ahead=2))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "more files are needed"),
        (OSError(errno.ENFILE, "Too many open files in system"), "the whole machine"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "could not be started"),
        (ImportError("libfoo.so.1: failed to map segment from shared object"), "not enough memory"),
        (ImportError("libfoo.so.1: cannot open shared object file: Too many open files"), "more files"),
    ],
)
def test_errors_by_limits(error: Exception, says: str) -> None:
    found = limit_reached(error)
    assert found is not None
    assert says in str(found)
    assert found.exit_code == 5


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOENT, "No such file"), ImportError("No module named 'x'"), ValueError("Too many")],
)
def test_other_errors_are_none_of_the_machine(error: Exception) -> None:
    assert limit_reached(error) is None


def test_what_is_at_hand_is_enough() -> None:
    require_files()
    require_threads(8)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft >= min(limits.FILES, hard)


# ---- nothing is written elsewhere ------------------------------------------------------------

PLACES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
# Nothing else: where CI or GITHUB_ACTIONS is set, ONNX Runtime writes nothing, told or not.
KEPT = ("PATH", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "LANG")
PLAIN = {name: os.environ[name] for name in KEPT if name in os.environ}


@pytest.mark.long
def test_nothing_is_written_outside_of_the_output(place: Place, commands: Path) -> None:
    """Case 15: ONNX Runtime's number of the device and its database; and whatever comes next."""
    homes = {name: place.root / "elsewhere" / name.lower() for name in PLACES}
    for folder in homes.values():
        folder.mkdir(parents=True)
    env = PLAIN | {name: str(folder) for name, folder in homes.items()} | {"PYTHONDONTWRITEBYTECODE": "1"}
    work = place.root / "work"
    work.mkdir()
    tool, bundle = str(commands / "musc-edge"), str(place.bundle)
    # The plain scorer: numba's cache, which README names, is the one thing that may be written elsewhere.
    commands_of = [
        ["infer", str(place.lot), "-b", bundle, "-o", "out", "--scorer", "numpy", "--overlays"],
        ["doctor"],
        ["plan", "100", "-b", bundle, "--scorer", "numpy"],
        ["inspect", bundle],
    ]
    runs = [
        subprocess.Popen([tool, *command], cwd=work, env=env, stdout=subprocess.DEVNULL)
        for command in commands_of
    ]
    assert [run.wait(timeout=120) for run in runs] == [0, 0, 0, 0]
    assert [path.name for path in work.iterdir()] == ["out"]
    assert [str(path) for folder in homes.values() for path in folder.rglob("*")] == []


def test_telemetry_would_be_found(tmp_path: Path) -> None:
    """That the test above can fail: this ONNX Runtime writes where it is not told otherwise."""
    code = "import onnxruntime; print(onnxruntime.__version__)"
    env = PLAIN | {"HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    version = tuple(map(int, run.stdout.split(".")[:2]))
    assert any(tmp_path.rglob("deviceid")) == (version >= (1, 32))
    shutil.rmtree(tmp_path)
