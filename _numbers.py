"""Arithmetic, and numbers in words, that every part needs; imports nothing."""

from __future__ import annotations

from collections.abc import Iterator


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up: how many blocks of b it takes to hold a."""
    return -(-a // b)


def runs(numbers: range, most: int) -> list[range]:
    """Cut consecutive numbers into runs of at most so many."""
    return [range(i, min(i + most, numbers.stop)) for i in range(numbers.start, numbers.stop, most)]


def row_blocks(rows: int, width: int, most: int) -> Iterator[slice]:
    """Cut an image into blocks of rows of at most ``most`` items, or of one row: to take little memory."""
    step = max(1, most // max(1, width))
    return (slice(top, min(top + step, rows)) for top in range(0, rows, step))


def size_text(count: float) -> str:
    """Format a number of bytes: '340 MB', '2.1 GB'."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if name == "GB" else f"{count / unit:.0f} {name}"
    return counted(round(count), "byte")


def counted(count: int, noun: str, form: str = "") -> str:
    """Return a number with its noun: '1 image', '20 images'."""
    return f"{count:{form}} {noun}" if count == 1 else f"{count:{form}} {noun}s"


def too_few(count: int, noun: str) -> str:
    """Return '1 image is too few' or '4 images are too few'."""
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'} too few"
