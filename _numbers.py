"""Arithmetic that every part needs; imports nothing."""

from __future__ import annotations


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up: how many blocks of b it takes to hold a."""
    return -(-a // b)
