"""What the kernels compare patches in."""

from __future__ import annotations

HALF, INT8 = PRECISIONS = "half", "int8"
"""Rows of halves (pool.cuh), or of int8 with a scale for each (pool_int8.cuh)."""
