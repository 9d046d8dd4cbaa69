"""The progress line: what was done by an earlier run counts as done, and not for the rate."""

from __future__ import annotations

import io

import pytest

from musc_edge.tools.progress import ProgressLine, duration, progress_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands still until a test lets seconds pass."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that a progress line reads."""
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 120 columns."""
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def test_rate_is_that_of_the_whole_stage() -> None:
    text = progress_text("ViT", 30, 120, "images", 15.0)
    assert text == "  ViT              [###.........]  25%  30/120 images  2.0/s  45.0 s left"
    assert progress_text("ViT", 120, 120, "images", 60.0).endswith("120/120 images  2.0/s  in 1 min 0 s")


def test_what_was_kept_counts_as_done_but_not_for_the_rate() -> None:
    text = progress_text("ViT", 90, 120, "images", 15.0, kept=60)
    assert text == "  ViT              [#########...]  75%  90/120 images  2.0/s  15.0 s left"
    assert progress_text("ViT", 120, 120, "images", 15.0, kept=120).endswith("0.0/s  in 15.0 s")


def test_no_rate_and_no_guess_before_anything_is_done() -> None:
    assert progress_text("ViT", 60, 120, "images", 0.0, kept=60).rstrip().endswith("0.0/s")
    assert progress_text("ViT", 60, 120, "images", 5.0, kept=60).rstrip().endswith("0.0/s")
    assert "100%" in progress_text("ViT", 0, 0, "images", 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8.44, "8.4 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (0, "0.0 s"),
        (59.96, "1 min 0 s"),
        (179.7, "3 min 0 s"),
        (3599.8, "1 h 00 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_stages_first_report_says_what_was_kept(clock: Clock, terminal: Terminal) -> None:
    show = ProgressLine(terminal, {"score": "mutual scoring"})
    show("score", 600, 1000, "pairs")
    clock.wait(10)
    show("score", 700, 1000, "pairs")
    clock.wait(20)
    show("score", 1000, 1000, "pairs")
    clock.wait(5)
    show("extract", 0, 10, "images")  # another stage begins anew
    clock.wait(5)
    show("extract", 5, 10, "images")
    show.close()
    lines = terminal.getvalue().replace("\r\x1b[K", "\n").splitlines()
    assert [line.partition("]")[2].rstrip() for line in lines if line] == [
        "  60%  600/1,000 pairs  0.0/s",
        "  70%  700/1,000 pairs  10.0/s  30.0 s left",
        " 100%  1,000/1,000 pairs  13.3/s  in 30.0 s",
        "   0%  0/10 images  0.0/s",
        "  50%  5/10 images  1.0/s  5.0 s left",
    ]


def test_work_that_turns_out_damaged_shows_less_done(clock: Clock, terminal: Terminal) -> None:
    show = ProgressLine(terminal, {})
    show("score", 600, 1000, "pairs")
    clock.wait(10)
    show("score", 500, 1000, "pairs")
    shown = terminal.getvalue()
    assert "500/1,000 pairs" in shown
    assert "-" not in shown.partition("500/1,000")[2]  # neither a rate nor a time below zero


def test_silent_where_nobody_watches() -> None:
    stream = io.StringIO()
    for show in (ProgressLine(stream, {}), ProgressLine(None, {})):
        show("score", 1, 2, "pairs")
        show.close()
    assert stream.getvalue() == ""


def test_a_line_also_says_what_all_stages_take(clock: Clock, terminal: Terminal) -> None:
    show = ProgressLine(terminal, {})
    show.expect({"extract": 100.0, "score": 60.0})
    show("extract", 0, 100, "images")
    clock.wait(40)
    show("extract", 20, 100, "images")
    assert terminal.getvalue().rstrip().endswith("2 min 40 s left, 3 min 40 s for all")


def test_elsewhere_a_new_time_is_told_where_it_is_another(clock: Clock) -> None:
    told: list[str] = []
    show = ProgressLine(io.StringIO(), {}, told.append)
    show.expect({"extract": 100.0, "score": 60.0})
    show("extract", 0, 100, "images")
    clock.wait(20)
    show("extract", 10, 100, "images")  # 200 s, not 100
    assert told == ["      time about 4 min 20 s from the plan on, by what is done; 4 min 0 s left"]
    clock.wait(180)
    show("extract", 100, 100, "images")
    show("score", 0, 1000, "pairs")
    clock.wait(6)
    show("score", 100, 1000, "pairs")  # as was forecast
    assert len(told) == 1
