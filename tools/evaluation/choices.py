"""What the options of ``musc-edge eval`` offer; imports nothing, so that its help needs no library."""

from __future__ import annotations

LAYOUTS = ("folder", "mvtec", "mvtec2", "visa", "btad", "csv")
"""How a truth may be laid out (truth.py)."""

RESAMPLES = 1000
"""Draws of the bootstrap by default."""
