"""Verdicts as lines of text: how many, from which limit on, and what that means."""

from __future__ import annotations

import textwrap

from ..._numbers import counted
from ..verdict.judge import Judgement

_WIDTH = 110


def verdict_lines(judgement: Judgement) -> list[str]:
    """Format the counts, the limits and what the rule promises."""
    limits = judgement.limits
    head = f"verdicts by {judgement.rule}"
    if limits.refused and not any(judgement.counts.values()):
        return _wrapped(f"no verdicts: {limits.refused}")
    if judgement.marks:
        head += f" and {counted(len(judgement.marks), 'mark')} of a person"
    counts = ", ".join(f"{count} {word}" for word, count in judgement.counts.items())
    lines = _wrapped(f"{head}: {counts}; {_limits(judgement)}")
    lines += _wrapped(limits.promise)
    return lines + [line for note in limits.notes for line in _wrapped(f"note: {note}")]


def _limits(judgement: Judgement) -> str:
    limits = judgement.limits
    parts = [
        f"{word} from {limit:.6g}" if limit is not None else f"no limit to {word}"
        for word, limit in (("reject", limits.reject_from), ("review", limits.review_from))
        if limit is not None or word == "reject"
    ]
    return f"{', '.join(parts)} ({judgement.judged_by})"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="      ", break_long_words=False)
