"""Change image files at random and read them the whole way, in child processes: for ``fuzz.py decoders``."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

TOGETHER = 250
"""Files that one child reads."""
_SECONDS, _ADDRESSES = 20, 3 << 30
_RAISED = 2
_HEARD = 64
"""Bytes of a line from a child: the number of a file and what came of it."""


def fuzz_decoders(runs: int, seed: int, keep: Path, work: Path) -> int:
    """Read ``runs`` changed files, and print what came of them; 1 if a child died or took too long."""
    from musc_edge.runtime.images import reading
    from support.fuzz_mutators import mutate_bytes
    from support.fuzz_targets import images

    begin, chance = images(work), random.Random(seed)
    for content in begin:  # every decoder is imported before a child is made
        (work / "x").write_bytes(content)
        _outcome(reading, work / "x")
    told: Counter[str] = Counter()
    findings, start, done = 0, time.monotonic(), 0
    while done < runs:
        data = [mutate_bytes(chance.choice(begin), chance) for _ in range(min(TOGETHER, runs - done))]
        heard, status = _read_in_child(reading, data, work)
        told.update(heard)
        done += len(heard)
        if status:
            name = (
                f"signal-{os.WTERMSIG(status)}-{done}" if os.WIFSIGNALED(status) else f"exit-{status}-{done}"
            )
            (keep / name).write_bytes(data[len(heard)])
            findings, done = findings + 1, done + 1
            print(f"FINDING {name}: kept in {keep}", flush=True)
        if done % (20 * TOGETHER) == 0:
            print(f"{done:>8} files in {time.monotonic() - start:.0f} s: {dict(told)}", flush=True)
    print(f"decoders: {done} files, {dict(told)}; {findings} findings")
    return bool(findings)


def _read_in_child(reading: object, data: list[bytes], work: Path) -> tuple[list[str], int]:
    """Return what came of each file up to the one at which the child died, and its status."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            _read_all(reading, data, work / "x", theirs)
        except BaseException:  # must not go on as a second parent, which would remove the folder of the first
            traceback.print_exc()
            os._exit(_RAISED)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        heard = pipe.read()
    _, status = os.waitpid(child, 0)
    return [heard[at : at + _HEARD].decode().strip() for at in range(0, len(heard), _HEARD)], status


def _read_all(reading: object, data: list[bytes], path: Path, pipe: int) -> None:
    """Read files one after the other, within limits, and write to ``pipe`` what came of each."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    for content in data:
        path.write_bytes(content)
        signal.alarm(_SECONDS)
        os.write(pipe, _outcome(reading, path).ljust(_HEARD).encode())


def _outcome(reading: object, path: Path) -> str:
    """Read a file as a lot's images are; the status of a refusal, or 'read'."""
    try:
        reading.read_image(path, max_pixels=1 << 20)  # type: ignore[attr-defined]
    except reading.ImageError as error:  # type: ignore[attr-defined]
        return str(error.status)
    return "read"
