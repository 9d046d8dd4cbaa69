"""Arithmetic, and numbers in words, that every part needs; imports nothing."""

from __future__ import annotations


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up: how many blocks of b it takes to hold a."""
    return -(-a // b)


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
