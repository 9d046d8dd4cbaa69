"""A watch of a folder that dies at a given step of recording an image; for a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from musc_edge.runtime.line import appended, pictures, seen_files
from musc_edge.runtime.line.result_log import ResultLog
from support.quick_station import watched
from support.watching import SPOT, png

DEAD = 9
STEPS = (
    "picture",
    "overlay",
    "all pictures",
    "row",
    "csv",
    "torn csv",
    "jsonl",
    "torn jsonl",
    "added",
    "noted",
)


def die_at(step: str, work: Path) -> None:
    """Watch ``work``/in, to which a rejected image comes, and die at a step of recording it."""
    pwrite = os.pwrite

    def end_after(function: Callable[..., Any]) -> Callable[..., Any]:
        def last(*given: Any, **more: Any) -> None:
            function(*given, **more)
            os._exit(DEAD)

        return last

    def torn(kind: bytes) -> Callable[[int, bytes, int], int]:
        def part_of(file: int, content: bytes, at: int) -> int:
            if not content.startswith(kind) or b"reject" not in content:
                return pwrite(file, content, at)
            pwrite(file, content[: len(content) // 2 if step.startswith("torn") else len(content)], at)
            os._exit(DEAD)

        return part_of

    if step == "picture":
        pictures._write_picture = end_after(pictures._write_picture)
    elif step == "overlay":
        pictures.Pictures._draw = end_after(pictures.Pictures._draw)  # type: ignore[method-assign]
    elif step == "all pictures":
        pictures.Pictures.see = end_after(pictures.Pictures.see)  # type: ignore[method-assign]
    elif step == "row":
        appended.AppendedFiles.append = lambda *_: os._exit(DEAD)  # type: ignore[method-assign]
    elif step.endswith(("csv", "jsonl")):
        os.pwrite = torn(b"1," if step.endswith("csv") else b"{")  # type: ignore[assignment]
    elif step == "added":
        ResultLog.add = end_after(ResultLog.add)  # type: ignore[method-assign]
    else:
        seen_files.SeenFiles.flush = end_after(seen_files.SeenFiles.flush)  # type: ignore[method-assign]
    with watched(work / "in", work / "out") as line:
        (work / "in" / "a.png").write_bytes(png(1, SPOT))
        while True:
            line.watch.turn()
