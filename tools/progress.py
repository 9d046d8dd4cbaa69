"""Show progress on the terminal: a line per stage with the work done, its rate and the time left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from ..runtime.forecast import Schedule

_BAR = 12
_REDRAW_S = 0.1
_WORTH_TELLING = 0.1


class ProgressLine:
    """A ``Progress`` that draws on a terminal and stays silent elsewhere.

    The rate is that of the whole stage so far, in units of work, so it does not depend on how the work is
    cut into steps.  Work that the first call of a stage reports as done was done by an earlier run.

    Once it is told what to ``expect`` it also shows the time left for all stages.  Elsewhere than on a
    terminal it calls ``tell`` with a line when the first tenth of a stage shows another time than was told.
    """

    def __init__(
        self, stream: TextIO | None, names: dict[str, str], tell: Callable[[str], None] | None = None
    ) -> None:
        self._stream, self._tell = stream, tell
        self._schedule, self._told = Schedule({}), 0.0
        self._names = names
        self._stage = self._finished = ""
        self._started = self._drawn = self._kept = 0.0

    def __call__(self, stage: str, done: float, total: float, unit: str) -> None:
        """Show that ``done`` of ``total`` units of a stage's work are finished."""
        timed = self._schedule.progress(stage, done, total)
        if self._stream is None or not self._stream.isatty():
            if timed:
                self._correct()
            return
        if stage == self._finished and done >= total:
            return
        now = time.monotonic()
        if stage != self._stage:
            self.close()
            self._stage, self._started, self._drawn, self._finished = stage, now, 0.0, ""
            self._kept = done
        self._kept = min(self._kept, done)  # less, if what an earlier run did turns out damaged
        finished = done >= total
        if now - self._drawn < _REDRAW_S and not finished:
            return
        self._drawn = now
        name, seconds = self._names.get(stage, stage), now - self._started
        text = progress_text(name, done, total, unit, seconds, self._kept, self._schedule.left)
        width = shutil.get_terminal_size().columns
        self._stream.write("\r\x1b[K" + text[: width - 1])
        if finished:
            self._stage, self._finished = "", stage
            self._stream.write("\n")
        self._stream.flush()

    def expect(self, stages: Mapping[str, float]) -> None:
        """Take the seconds that were forecast for the stages to come."""
        self._schedule = Schedule(stages, time.monotonic)
        self._told = self._schedule.total

    def _correct(self) -> None:
        """Tell the time again if it is another by more than a tenth, and by a second."""
        total = self._schedule.total
        if self._tell and abs(total - self._told) > max(1.0, _WORTH_TELLING * self._told):
            self._told = total
            left = duration(self._schedule.left)
            self._tell(f"      time about {duration(total)} from the plan on, by what is done; {left} left")

    def close(self) -> None:
        """End a line that was left unfinished."""
        if self._stage and self._stream is not None:
            self._stage = ""
            self._stream.write("\n")


def progress_text(
    name: str, done: float, total: float, unit: str, seconds: float, kept: float = 0.0, left: float = 0.0
) -> str:
    """Format one line: name, bar, share, rate, and the time left or, at the end, the time taken.

    ``kept`` of the work that is done was not done in these ``seconds``.  All stages take ``left`` more.
    """
    share = done / total if total else 1.0
    filled = int(share * _BAR)
    rate = (done - kept) / seconds if seconds > 0 else 0.0
    if share >= 1:
        clock = f"in {duration(seconds)}"
    else:
        clock = f"{duration((total - done) / rate)} left" if rate else ""
        clock += f"{', ' if clock else ''}{duration(left)} for all" if left else ""
    bar = "#" * filled + "." * (_BAR - filled)
    return f"  {name:<16} [{bar}] {share:4.0%}  {done:,.0f}/{total:,.0f} {unit}  {rate:,.1f}/s  {clock}"


def duration(seconds: float) -> str:
    """Format seconds: '8.4 s', '3 min 20 s', '2 h 05 min'."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
